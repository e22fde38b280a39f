package selfcheck

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/site"
)

// TestWriters: whoever else may change the configuration or a program that it runs
// is told, with what takes it from them; a directory with the sticky bit is right.
func TestWriters(t *testing.T) {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		do    func(dir string) error
		where string // relative to the directory; empty: nothing is wrong
		want  string
	}{
		{"all right", func(string) error { return nil }, "", ""},
		{"a directory as /tmp is", func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, "", ""},
		{"the file", func(dir string) error { return os.Chmod(dir+"/f.toml", 0o646) }, "/f.toml", "everybody"},
		{"its directory", func(dir string) error { return os.Chmod(dir, 0o777) }, "", "everybody"},
		{"a drop-in", func(dir string) error { return os.Chmod(dir+"/f.toml.d/1.toml", 0o666) }, "/f.toml.d/1.toml", "everybody"},
		{"the drop-ins", func(dir string) error { return os.Chmod(dir+"/f.toml.d", 0o777) }, "/f.toml.d", "everybody"},
		{"a hook", func(dir string) error { return os.Chmod(dir+"/hook", 0o777) }, "/hook", "everybody"},
		{"what a link of a hook leads to", func(dir string) error { return os.Chmod(dir+"/real", 0o777) }, "/real", "everybody"},
		{"a script of a shell", func(dir string) error { return os.Chmod(dir+"/script", 0o777) }, "/script", "everybody"},
		{"a link between", func(dir string) error { return os.Chmod(dir+"/between", 0o777) }, "/between", "everybody"},
		{"drop-ins that anybody may make", func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/f.toml.d"), os.Chmod(dir, 0o777|os.ModeSticky))
		}, "", "everybody, who may make"},
		{"a workload's program", func(dir string) error { return os.Chmod(dir+"/power", 0o777) }, "/power", "everybody"},
	} {
		dir := t.TempDir()
		check(os.Mkdir(dir+"/f.toml.d", 0o755))
		for _, name := range []string{"f.toml", "f.toml.d/1.toml", "hook", "real", "power", "script"} {
			check(os.WriteFile(filepath.Join(dir, name), nil, 0o755))
		}
		check(os.Mkdir(dir+"/between", 0o755))
		check(os.Symlink("between/link", dir+"/link"))
		check(os.Symlink("../real", dir+"/between/link"))
		s, err := site.At(dir, "")
		check(err)
		cfg := &config.Config{
			File: dir + "/f.toml", DropIns: []string{dir + "/f.toml.d/1.toml"},
			Hooks:       []config.Hook{{Call: config.Call{Command: []string{dir + "/hook", "x"}}}, {Call: config.Call{URL: "https://h"}}, {Call: config.Call{Command: []string{"/bin/sh", dir + "/script", "x"}}}},
			Replication: config.Replication{Hold: config.Call{Command: []string{dir + "/link"}}},
			Hosts:       []config.Host{{Workloads: []config.Workload{{PowerOff: []string{dir + "/power"}}}}},
		}
		check(c.do(dir))
		got := told(cfg, func(c *checks) { c.site = s; c.writers() })
		if c.want == "" {
			if got != "" {
				t.Errorf("%s: %s", c.name, got)
			}
			continue
		}
		want := "warn config: " + dir + c.where + " may be changed by " + c.want
		if !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 || !strings.Contains(got, "chmod go-w "+dir+c.where+", or") {
			t.Errorf("%s: %qwant one line: %s", c.name, got, want)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: the rest gives files to other users")
	}
	dir := t.TempDir()
	check(os.WriteFile(dir+"/f.toml", nil, 0o664))
	s, err := site.At(t.TempDir(), "")
	check(err)
	for _, c := range []struct {
		uid, gid, daemon int
		want             string
	}{
		{0, 0, 0, ""},
		{0, 4242, 0, "the group with number 4242"},
		{4242, 4242, 0, "4242, whose it is"},
		{4242, 4242, 4242, ""},
		{902, 902, 902, "the group with number 902"},
	} {
		check(os.Chmod(dir+"/f.toml", 0o664))
		check(os.Chown(dir+"/f.toml", c.uid, c.gid))
		check(os.Chown(s.Dir(), c.daemon, 0))
		if got := told(&config.Config{File: dir + "/f.toml"}, func(c *checks) { c.site = s; c.writers() }); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("of %d:%d: %q, want %q", c.uid, c.gid, got, c.want)
		}
	}
}
