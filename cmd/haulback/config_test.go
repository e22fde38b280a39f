package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	good := s.Configure(cmdtest.Export("x", s.Disk("a", mib, 1), "source", s))
	if r := s.Run("config", "check", good); r.Code != 0 || !strings.Contains(r.Out, "OK: "+good) || !strings.Contains(r.Out, "1 exports") || !strings.Contains(r.Out, "warning: ") {
		t.Errorf("exit code %d: %s%s", r.Code, r.Out, r.Stderr)
	}
	check(t, os.Mkdir(good+".d", 0o700))
	write(t, good+".d/10.toml", "[limits]\nworkers = 3\n")
	if r := s.Run("config", "check", good); !strings.Contains(r.Out, "OK: "+good+" and 1 drop-in: ") {
		t.Errorf("a drop-in: %s%s", r.Out, r.Stderr)
	}
	if r := lines(t, s.OK("config", "check", good, "--json").Out); r[len(r)-1]["files"] != 2.0 {
		t.Errorf("a drop-in: %v", r)
	}
	if r := s.OK("config", "show", good); !strings.Contains(r.Out, "# "+good+".d/10.toml:2") {
		t.Errorf("a drop-in is shown without its place: %s", r.Out)
	}
	if r := s.Run("selfcheck", "--config", good); !strings.Contains(r.Out, "OK    config: "+good+" and 1 drop-in: ") {
		t.Errorf("selfcheck: %s%s", r.Out, r.Stderr)
	}
	write(t, good+".d/20.toml", "[limits]\nworkers = 33\n")
	if r := s.Run("config", "check", good); r.Code != 10 || !strings.Contains(r.Stderr, good+".d/20.toml:2:1: limits.workers = 33: ") {
		t.Errorf("a mistake in a drop-in: exit code %d: %s", r.Code, r.Stderr)
	}
	check(t, os.Remove(good+".d/20.toml"))
	bad := filepath.Join(s.Dir, "bad.toml")
	write(t, bad, "[limits]\nworkerz = 2\n\n[log]\nlevle = \"x\"\n")
	r := s.Run("config", "check", bad)
	daemon := programs.Run(t, "haulbackd", "config", "check", "--config", bad)
	for _, want := range []string{bad + ":2:1: unknown key limits.workerz", "2| workerz = 2\n | ~~~~~~~", bad + ":5:1: unknown key log.levle", "~~~~~"} {
		if r.Code != 10 || !strings.Contains(r.Stderr, want) {
			t.Errorf("exit code %d, want 10 and %q: %s", r.Code, want, r.Stderr)
		}
		if daemon.Code != 10 || !strings.Contains(daemon.Stderr, want) {
			t.Errorf("haulbackd: exit code %d, want 10 and %q: %s", daemon.Code, want, daemon.Stderr)
		}
	}
	r = s.Run("config", "check", bad, "--json")
	list := lines(t, r.Out)
	if len(list) != 2 || list[1]["line"] != 5.0 || list[1]["column"] != 1.0 || list[1]["key"] != "log.levle" || list[1]["file"] != bad || !strings.Contains(list[1]["place"].(string), "~~~~~") {
		t.Errorf("JSON: %v", list)
	}
	if err := os.Chmod(s.State+"/identity.key", 0o644); err != nil {
		t.Fatal(err)
	}
	if r := s.Run("config", "check", good); r.Code != 10 || !strings.Contains(r.Stderr, "may be read by others") {
		t.Errorf("a key for all to see: exit code %d: %s", r.Code, r.Stderr)
	}
}

// TestConfigSchema: both programs print the same schema, and the tables are the
// manual.
func TestConfigSchema(t *testing.T) {
	t.Parallel()
	schema := programs.Run(t, "haulback", "config", "schema")
	var doc map[string]any
	if err := json.Unmarshal([]byte(schema.Out), &doc); err != nil || doc["additionalProperties"] != false {
		t.Errorf("%v: %s", err, schema.Out)
	}
	if r := programs.Run(t, "haulbackd", "config", "schema"); r.Code != 0 || r.Out != schema.Out {
		t.Errorf("haulbackd: exit code %d: %s", r.Code, r.Out)
	}
	if r := programs.Run(t, "haulback", "config", "schema", "--markdown"); r.Out != readAll(t, "../../docs/configuration.md") {
		t.Errorf("exit code %d: %s", r.Code, r.Out)
	}
}

func TestConfigShow(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	file := filepath.Join(s.Dir, "d.toml")
	write(t, file, fmt.Sprintf("# a comment\nstate_dir = %q\n\n[limits]\nworkers = 3\n\n[[export]]\nname = \"x\"\nuri = \"nbd://127.0.0.1/x\"\nrole = \"source\"\ncbt = \"bitmap:b\"\n\n[[export]]\nname = \"y\"\nuri = \"/dev/null\"\nrole = \"target\"\n", s.State))
	short, long := s.OK("config", "show", file).Out, s.OK("config", "show", file, "--effective").Out
	for _, want := range []string{"workers = 3", file + ":5", "[[export]]", file + ":14", "cbt = 'bitmap:b'"} {
		if !strings.Contains(short, want) || !strings.Contains(long, want) {
			t.Errorf("no %q in\n%s\nand\n%s", want, short, long)
		}
	}
	for _, want := range []string{"memory = '1GiB'", "sessions = 256", "format = 'auto'", "# default"} {
		if strings.Contains(short, want) || !strings.Contains(long, want) {
			t.Errorf("%q belongs into the effective one only:\n%s\nand\n%s", want, short, long)
		}
	}
	// What was shown is a configuration that means the same.
	again := filepath.Join(s.Dir, "again.toml")
	write(t, again, long)
	values := func(text string) (list []string) {
		for line := range strings.Lines(text) {
			value, _, _ := strings.Cut(line, " # ")
			if value = strings.TrimSpace(value); value != "" && value[0] != '#' {
				list = append(list, value)
			}
		}
		return list
	}
	if got := s.OK("config", "show", again).Out; strings.Join(values(got), "\n") != strings.Join(values(long), "\n") {
		t.Errorf("read back:\n%s\nwas\n%s", got, long)
	}
	seen := map[string]any{}
	for _, l := range lines(t, s.OK("config", "show", file, "--effective", "--json").Out) {
		if l["message_type"] == "setting" {
			seen[l["key"].(string)] = l["origin"]
		}
	}
	if seen["limits.workers"] != file+":5" || seen["limits.memory"] != "default" || seen["export[1].uri"] != file+":15" {
		t.Errorf("JSON: %v", seen)
	}
}

func TestSelfcheck(t *testing.T) {
	t.Parallel()
	s, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	s.Pair(home)
	a := s.Disk("a", mib, 1)
	d := home.Daemon(cmdtest.Export("q", home.Disk("q", mib, 4), "source", s))
	s.OK("peer", "add", home.ID, "--name", "home", "--address", d.Listen)
	good := s.Configure(cmdtest.Export("x", a, "source", home))
	r := s.Run("selfcheck", "--config", good)
	for _, want := range []string{
		"OK    config: ", "OK    peers: 1 paired", "OK    state: ", "OK    space: ", "OK    key: ", "OK    export x: file, 1.0 MiB (1048576 bytes)",
		"OK    peer home: " + d.Listen + ": quic answers in ", "tls answers in ", ", 0 failed",
	} {
		if r.Code != 0 || !strings.Contains(r.Out, want) {
			t.Errorf("exit code %d, want 0 and %q:\n%s%s", r.Code, want, r.Out, r.Stderr)
		}
	}
	for want, file := range map[string]string{"OK    control: ": filepath.Join(home.Dir, "haulbackd.toml"), "WARN  control: ": good} {
		if r := home.Run("selfcheck", "--config", file); r.Code != 0 || !strings.Contains(r.Out, want) {
			t.Errorf("exit code %d, want 0 and %q:\n%s%s", r.Code, want, r.Out, r.Stderr)
		}
	}
	before := snapshot(t, s.Dir)
	for _, c := range []struct {
		name  string
		code  int
		want  string
		spoil func(t *testing.T)
	}{
		{"disk is gone", 1, "FAIL  export x: ", func(t *testing.T) { check(t, os.Rename(a, a+".away")) }},
		{"disk is a directory", 1, "FAIL  export x: ", func(t *testing.T) { check(t, os.Mkdir(a, 0o700)) }},
		{"disk is back", 0, ", 0 failed", func(t *testing.T) { check(t, os.Remove(a)); check(t, os.Rename(a+".away", a)) }},
		{"state for all to write", 1, "FAIL  state: ", func(t *testing.T) { check(t, os.Chmod(s.State, 0o777)) }},
		{"state for all to read", 0, "WARN  state: ", func(t *testing.T) { check(t, os.Chmod(s.State, 0o755)) }},
		{"key for all to read", 10, "FAIL  key: ", func(t *testing.T) {
			check(t, os.Chmod(s.State, 0o700))
			check(t, os.Chmod(s.State+"/identity.key", 0o644))
		}},
		{"not paired there", 1, "FAIL  peer home: ", func(t *testing.T) {
			check(t, os.Chmod(s.State+"/identity.key", 0o600))
			home.OK("peer", "remove", "desk")
			d.Signal(sighup)
			cmdtest.Await(t, "the reload", func() bool { return s.Run("probe", d.URI("q")).Code == 12 })
		}},
		{"nobody there", 1, "FAIL  peer home: ", func(*testing.T) { d.Signal(os.Interrupt); d.Wait() }},
		{"peers", 10, "FAIL  config: ", func(t *testing.T) { write(t, s.State+"/peers.toml", "[[peer]\n") }},
	} {
		c.spoil(t)
		r := s.Run("selfcheck", "--config", good)
		if r.Code != c.code || !strings.Contains(r.Out, c.want) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s%s", c.name, r.Code, c.code, c.want, r.Out, r.Stderr)
		}
		if c.code == 0 && snapshot(t, s.Dir) != before {
			t.Errorf("%s: selfcheck has changed something:\n%s\nwas\n%s", c.name, snapshot(t, s.Dir), before)
		}
	}
	empty := filepath.Join(t.TempDir(), "none")
	if r := programs.Run(t, "haulback", "--state-dir", empty, "selfcheck"); r.Code != 0 || !strings.Contains(r.Out, "is made at the first use") {
		t.Errorf("a new site: exit code %d:\n%s", r.Code, r.Out)
	}
	if _, err := os.Stat(empty); err == nil {
		t.Error("selfcheck has made the state directory")
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot is every file below dir, with size and time of the last change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	check(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
		}
		return err
	}))
	return b.String()
}
