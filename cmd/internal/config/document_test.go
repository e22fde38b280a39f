package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// dropIn writes a drop-in of the configuration.
func dropIn(t *testing.T, file, name, text string) string {
	t.Helper()
	path := filepath.Join(file+".d", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDropIns: tables are merged key by key and the last value counts, lists are
// replaced, tables of an array are added, and each value is known by its own file.
func TestDropIns(t *testing.T) {
	dr, desk := newID(t), newID(t)
	file, dir := write(t, fmt.Sprintf("state_dir = \"STATE\"\ntransports = [\"quic\"]\n[limits]\nworkers = 2\nsessions = 9\n[[peer]]\nname = \"dr\"\nid = %q\n"+
		"[[export]]\nname = \"a\"\nuri = \"/dev/null\"\nrole = \"source\"\npeers = [\"dr\"]\n", dr))
	alone, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	first := dropIn(t, file, "10-limits.toml", "transports = [\"tls\"]\n[limits]\nworkers = 3\nmemory = \"128MiB\"\n[controller]\nvms = 2\n")
	second := dropIn(t, file, "20-disks.toml", fmt.Sprintf("limits.workers = 4\n[[peer]]\nname = \"desk\"\nid = %q\n[[export]]\nname = \"b\"\nuri = \"/dev/null\"\nrole = \"source\"\npeers = [\"desk\"]\n[controller]\ndisks = 3\n", desk))
	group := dropIn(t, file, "30-group.toml", "[[group]]\nname = \"g\"\n[[group.members]]\nvm = \"x\"\n")
	dropIn(t, file, "9-late.toml", "group = [{name = \"h\", members = [{vm = \"y\", order = 7}]}]\n") // after 30: by their names, as everywhere
	for _, name := range []string{"x.toml~", ".hidden.toml", "#x.toml", "README", "x.toml.rpmsave"} {
		dropIn(t, file, name, "nonsense")
	}
	cfg, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.QUIC || !cfg.TLS || cfg.Limits.Workers != 4 || cfg.Limits.Sessions != 9 || cfg.Limits.Memory != 128<<20 || cfg.Controller.VMs != 2 || cfg.Controller.Disks != 3 {
		t.Errorf("%+v %+v", cfg, cfg.Controller)
	}
	if len(cfg.Exports) != 2 || cfg.Exports[1].Peers[0].String() != desk || len(cfg.Groups) != 2 || cfg.Groups[1].Members[0].Order != 7 {
		t.Errorf("%+v, %+v", cfg.Exports, cfg.Groups)
	}
	if want := file + " and 4 drop-ins: "; len(cfg.DropIns) != 4 || cfg.DropIns[3] != filepath.Join(file+".d", "9-late.toml") || !strings.HasPrefix(cfg.Summary(), want) {
		t.Errorf("%q, %s", cfg.DropIns, cfg.Summary())
	}
	stays, err := StillPeers(file)
	if err != nil || len(cfg.Own) != 2 || !stays(cfg.Own[0]) || !stays(cfg.Own[1]) {
		t.Errorf("peers %v stay: %v", cfg.Own, err)
	}
	list, err := Settings(file, true)
	if err != nil {
		t.Fatal(err)
	}
	origins := map[string]string{}
	for _, s := range list {
		origins[s.Path] = s.Origin
	}
	for path, want := range map[string]string{
		"transports": first + ":1", "limits.workers": second + ":1", "limits.memory": first + ":4", "limits.sessions": file + ":5", "limits.window": "default",
		"peer[1].name": second + ":3", "export[0].name": file + ":10", "export[1].uri": second + ":7", "controller.vms": first + ":6",
		"controller.disks": second + ":11", "group[0].members[0].vm": group + ":4", "group[1].name": filepath.Join(file+".d", "9-late.toml") + ":1",
	} {
		if origins[path] != want {
			t.Errorf("%s comes from %q, want %q", path, origins[path], want)
		}
	}
	// What is shown of all of them is one file that means the same.
	text, err := Text(list)
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(dir, "again.toml")
	if err := os.WriteFile(again, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if back, err := Load(again); err != nil || !reflect.DeepEqual(back.Exports, cfg.Exports) || !reflect.DeepEqual(back.Groups, cfg.Groups) || back.Limits.Workers != 4 {
		t.Errorf("shown, and read back: %v\n%s", err, text)
	}
	if err := os.RemoveAll(file + ".d"); err != nil {
		t.Fatal(err)
	}
	if cfg, err := Load(file); err != nil || !reflect.DeepEqual(cfg, alone) {
		t.Errorf("without the directory it is %+v, was %+v", cfg, alone)
	}
}

// TestDropInMistakes: each names the file that it stands in, and of the same name
// in two files both.
func TestDropInMistakes(t *testing.T) {
	id := newID(t)
	peer := fmt.Sprintf("[[peer]]\nname = \"dr\"\nid = %q\n", id)
	main := "state_dir = \"STATE\"\n[controller]\n" + peer + "[[export]]\nname = \"x\"\nuri = \"/dev/null\"\nrole = \"source\"\npeers = [\"dr\"]\n" + hostText + hookText +
		"command = [\"/bin/true\"]\n" + profileText + "[[group]]\nname = \"g\"\nmembers = [{vm = \"a\"}]\n"
	for _, c := range []struct{ name, text, at, want string }{
		{"unknown key", "[limits]\nworkerz = 1\n", ":2:1: ", "did you mean workers?"},
		{"syntax", "a = \n", ":1:", "not TOML"},
		{"range", "[[host]]\nname = \"b\"\n[limits]\nworkers = 99\n", ":4:1: ", "1 to 8"},
		{"a table of an array", "[[export]]\nname = \"y\"\nrole = \"none\"\n", ":3:1: ", "role \"none\""},
		{"peer", peer, ":2:1: ", "first in FILE:4"},
		{"ID", strings.Replace(peer, "dr", "dr2", 1), ":2:1: ", "same ID is paired under the name \"dr\" (FILE:4)"},
		{"export", "[[export]]\nname = \"x\"\nuri = \"/dev/null\"\nrole = \"source\"\n", ":2:1: ", "first in FILE:7"},
		{"host", hostText, ":2:1: ", "first in FILE:12"},
		{"hook", hookText + "command = [\"/bin/true\"]\n", ":2:1: ", "first in FILE:17"},
		{"openstorage", profileText, ":2:1: ", "first in FILE:22"},
		{"group", "[[group]]\nname = \"g\"\nmembers = [{vm = \"b\"}]\n", ":2:1: ", "first in FILE:26"},
	} {
		file, _ := write(t, main)
		if _, err := Load(file); err != nil {
			t.Fatal(err)
		}
		bad := dropIn(t, file, "10.toml", c.text)
		dropIn(t, file, "00.toml", "# nothing\n")
		_, err := Load(file)
		if err == nil || !strings.Contains(err.Error(), bad+c.at) || !strings.Contains(err.Error(), strings.ReplaceAll(c.want, "FILE", file)) {
			t.Errorf("%s: %v, want %s%s and %s", c.name, err, bad, c.at, c.want)
		}
	}
	file, _ := write(t, "state_dir = \"STATE\"\n")
	warned := dropIn(t, file, "w.toml", "[[export]]\nname = \"x\"\nuri = \"/nowhere\"\nrole = \"source\"\n")
	if cfg, err := Load(file); err != nil || len(cfg.Warnings) != 2 || !strings.HasPrefix(cfg.Warnings[0], warned+":3:1: ") {
		t.Errorf("warnings %q, %v", cfg.Warnings, err)
	}
}

// TestDropInFiles: what is no file is told, and waits for nobody.
func TestDropInFiles(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, file, path string)
		want  string
	}{
		"directory": {func(t *testing.T, _, path string) { must(t, os.Mkdir(path, 0o755)) }, "no file"},
		"pipe":      {func(t *testing.T, _, path string) { must(t, unix.Mkfifo(path, 0o600)) }, "no file"},
		"link":      {func(t *testing.T, file, path string) { must(t, os.Symlink(file, path)) }, "a link; put the file itself there"},
		"log":       {func(t *testing.T, _, path string) { must(t, os.WriteFile(path, make([]byte, maxFile+1), 0o600)) }, "more than 4 MiB"},
		"gone link": {func(t *testing.T, _, path string) { must(t, os.Symlink("/nowhere", path)) }, "a link"},
		"unreadable": {func(t *testing.T, file, path string) {
			must(t, os.WriteFile(path, nil, 0))
			if os.Geteuid() == 0 { // who reads everything
				must(t, os.RemoveAll(file+".d"))
				must(t, os.WriteFile(file+".d", nil, 0o600))
			}
		}, ".d"},
	} {
		file, _ := write(t, "state_dir = \"STATE\"\n")
		dropIn(t, file, "10.toml", "[limits]\nworkers = 2\n")
		path := filepath.Join(file+".d", "20.toml")
		c.spoil(t, file, path)
		for _, load := range []func() error{
			func() error { _, err := Load(file); return err },
			func() error { _, err := StillPeers(file); return err },
			func() error { _, err := Profiles(file); return err },
		} {
			if err := load(); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file+".d") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestNoConfiguration: FILE itself may be a link, as admins keep it, and is a file.
func TestNoConfiguration(t *testing.T) {
	file, dir := write(t, "state_dir = \"STATE\"\n")
	link, pipe, long := filepath.Join(dir, "link"), filepath.Join(dir, "pipe"), filepath.Join(dir, "long")
	must(t, os.Symlink(file, link))
	must(t, unix.Mkfifo(pipe, 0o600))
	must(t, os.WriteFile(long, bytes.Repeat([]byte("#\n"), maxFile/2+1), 0o600))
	if _, err := Load(link); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{pipe: "no file; name another", long: "more than 4 MiB", dir: "no file; name another"} {
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
