package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// TestBadInput: an error names the thing and the remedy, in one line, with the
// exit code of the table, and nothing is written.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b, small := s.Disk("a", mib, 1), s.Disk("b", mib, 2), s.Disk("small", mib/2, 3)
	before, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	s.Pair(cmdtest.NewSite(t, &programs, "home"))
	link, hard, up := filepath.Join(s.Dir, "link"), filepath.Join(s.Dir, "hard"), filepath.Join(s.Dir, "gone")
	if err := os.Symlink(b, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(b, hard); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string // in the error
	}{
		{"one argument", []string{"copy", a}, 10, []string{"accepts 2 arg"}},
		{"unknown flag", []string{"copy", a, b, "--fast"}, 10, []string{"--fast"}},
		{"unknown command", []string{"cpoy", a, b}, 10, []string{"cpoy"}},
		{"unknown subcommand", []string{"peer", "bogus"}, 10, []string{"bogus"}},
		{"unknown help", []string{"help", "bogus"}, 10, []string{"bogus"}},
		{"no flags", []string{"ticket", "issue"}, 10, []string{"required flag", "export"}},
		{"no record", []string{"audit", "show", up}, 10, []string{up, "there is no record", "--state-dir"}},
		{"no record, verify", []string{"audit", "verify", up}, 10, []string{up, "there is no record"}},
		{"no record of a failback", []string{"record", "verify", up}, 10, []string{up, "records/ID.json"}},
		{"a disk as a record", []string{"record", "show", a}, 4, []string{a, "not a whole record"}},
		{"no name", []string{"peer", "add", s.ID}, 10, []string{"--name"}},
		{"no directory", []string{"copy", a, up + "/x", "--create"}, 10, []string{up, "make the directory"}},
		{"sizes", []string{"verify", small, b}, 4, []string{"524288", "1048576", "differ in size"}},
		{"sizes, other order", []string{"verify", b, small}, 4, []string{"524288", "1048576", "differ in size"}},
		{"slow rate", []string{"copy", a, b, "--rate", "1KiB"}, 10, []string{"64KiB"}},
		{"one export", []string{"copy", "haulback://h:1/x", "haulback://h:1/x"}, 10, []string{"same disk"}},
		{"wrong path", []string{"copy", up, b}, 10, []string{up, "check the path"}},
		{"no target", []string{"copy", a, up}, 10, []string{up, "--create"}},
		{"same path", []string{"copy", b, b}, 10, []string{b, "same disk"}},
		{"symlink", []string{"copy", b, link}, 10, []string{b, link, "same disk"}},
		{"hard link", []string{"copy", hard, b}, 10, []string{hard, "same disk"}},
		{"same, verify", []string{"verify", b, "file://" + link}, 10, []string{"same disk"}},
		{"directory", []string{"copy", a, s.Dir}, 10, []string{s.Dir, "directory"}},
		{"character device", []string{"copy", "/dev/null", b}, 10, []string{"/dev/null", "character device"}},
		{"too small", []string{"copy", b, small}, 10, []string{small, "524288 bytes", "at least as large"}},
		{"change tracking", []string{"copy", a, b, "--cbt", "magic"}, 10, []string{"magic", "bitmap:NAME", "fiemap:PATH", "export"}},
		{"change tracking without a name", []string{"copy", a, b, "--cbt", "bitmap:"}, 10, []string{"bitmap:NAME"}},
		{"change tracking of an export", []string{"copy", "haulback://h:1/x", b, "--cbt", "bitmap:b0"}, 10, []string{`cbt = "bitmap:b0"`, "--cbt export"}},
		{"change tracking of no export", []string{"copy", a, b, "--cbt", "export"}, 10, []string{a, "no export"}},
		{"strict about nothing", []string{"copy", a, b, "--strict"}, 10, []string{"--strict", "--cbt"}},
		{"sample of nothing", []string{"copy", a, b, "--sample", "9"}, 10, []string{"--sample", "--cbt"}},
		{"sample of an export", []string{"copy", "haulback://h:1/x", b, "--cbt", "export", "--sample", "9"}, 10, []string{"--sample", "daemon"}},
		{"negative sample", []string{"copy", a, b, "--cbt", "fiemap:" + a, "--sample", "-1"}, 10, []string{"--sample -1"}},
		{"verify by change tracking", []string{"verify", a, b, "--cbt", "fiemap:" + a}, 10, []string{"--cbt"}},
		{"change tracking of a new file", []string{"copy", a, up, "--create", "--cbt", "fiemap:" + a}, 10, []string{up, "fiemap:" + a, "leave out --cbt"}},
		{"change tracking of an export, new file", []string{"copy", "haulback://h:1/x?peer=home", up, "--create", "--cbt", "export", "--strict"}, 10, []string{up, "leave out --cbt"}},
		{"scheme", []string{"copy", a, "s3://host/x"}, 10, []string{"s3", "supported"}},
		{"parameter of a path", []string{"copy", a, "vmdk:///x?chain=1"}, 10, []string{"chain", "takes createType"}},
		{"create a device", []string{"copy", a, "block://" + up, "--create"}, 10, []string{"--create", "block://" + up}},
		{"parameter", []string{"copy", a, "haulback://h:1/x?per=y"}, 10, []string{"per", "peer="}},
		{"export name", []string{"copy", a, "haulback://h:1/../../etc/passwd"}, 10, []string{"export name"}},
		{"port", []string{"copy", a, "haulback://h:70000/x"}, 10, []string{"70000"}},
		{"no peer there", []string{"copy", a, "haulback://h:1/x"}, 10, []string{"h:1", "haulback peer add ID --name NAME --address h:1"}},
		{"peer unknown", []string{"copy", a, "haulback://h:1/x?peer=zz"}, 10, []string{`"zz"`, "haulback peer list"}},
		{"itself", []string{"copy", a, "haulback://h:1/x?peer=" + s.ID}, 10, []string{"this site itself"}},
		{"rate", []string{"copy", a, b, "--rate", "50MB"}, 10, []string{"--rate", "50MB", "MiB"}},
		{"read rate", []string{"copy", a, b, "--read-rate", "50"}, 10, []string{"--read-rate", "50", "MiB"}},
		{"slow read rate", []string{"verify", a, b, "--read-rate", "1KiB"}, 10, []string{"--read-rate", "64KiB"}},
		{"latency", []string{"copy", a, b, "--latency", "20"}, 10, []string{"--latency", "20ms"}},
		{"transport", []string{"copy", a, b, "--transport", "tcp"}, 10, []string{"tcp", "auto, quic or tls"}},
		{"compress", []string{"copy", a, b, "--compress", "zstd"}, 10, []string{"--compress", "zstd", "auto, on or off"}},
		{"compress there", []string{"copy", "haulback://h:1/x", b, "--compress", "on"}, 10, []string{"--compress", "configuration"}},
		{"verify how", []string{"copy", a, b, "--verify", "half"}, 10, []string{"half", "pass or full"}},
		{"run", []string{"copy", a, b, "--run", "xyz"}, 10, []string{"--run", "xyz"}},
		{"create there", []string{"copy", a, "haulback://h:1/x", "--create"}, 10, []string{"--create"}},
		{"peer ID", []string{"peer", "add", "ABC", "--name", "x"}, 10, []string{"ABC", "haulback peer id"}},
		{"own ID", []string{"peer", "add", s.ID, "--name", "x"}, 10, []string{"this site itself"}},
		{"peer name", []string{"peer", "add", s.ID, "--name", "../x"}, 10, []string{"../x"}},
		{"peer gone", []string{"peer", "remove", "x"}, 10, []string{`"x"`, "haulback peer list"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.Run(c.args...)
			if r.Code != c.code {
				t.Errorf("haulback %q: exit code %d, want %d", c.args, r.Code, c.code)
			}
			text := strings.TrimSuffix(r.Stderr, "\n")
			if i := strings.Index(text, "\n"); i > 0 && strings.HasPrefix(text, "copying ") { // it began
				text = text[i+1:]
			}
			if !strings.HasPrefix(text, "haulback: ") || strings.Contains(text, "\n") {
				t.Errorf("haulback %q: not one line that begins with haulback:\n%s", c.args, r.Stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("haulback %q: %q is not in %q", c.args, want, text)
				}
			}
		})
	}
	if after, err := os.ReadFile(b); err != nil || string(after) != string(before) {
		t.Errorf("a refused command changed %s (%v)", b, err)
	}
	if _, err := os.Stat(up); err == nil {
		t.Errorf("a refused command made %s", up)
	}
}

// TestIDTypo: the message leads to the group with the wrong letter.
func TestIDTypo(t *testing.T) {
	t.Parallel()
	s, o := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	typo := []byte(o.ID)
	typo[len(typo)-3] = 'A' + (typo[len(typo)-3]-'A'+1)%26
	r := s.Run("peer", "add", string(typo), "--name", "home")
	if r.Code != 10 || !strings.Contains(r.Stderr, "group 7 or 8") {
		t.Errorf("exit code %d, want 10 and the groups 7 or 8: %s", r.Code, r.Stderr)
	}
	s.OK("peer", "add", o.ID, "--name", "home", "--address", "home:7420")
	s.OK("peer", "add", strings.ToLower(o.ID), "--name", "home", "--address", "home") // the same once more
	if r := s.Run("peer", "add", o.ID, "--name", "other"); r.Code != 10 || !strings.Contains(r.Stderr, `"home"`) {
		t.Errorf("same ID under two names: exit code %d, %s", r.Code, r.Stderr)
	}
	if out := s.OK("peer", "list").Out; strings.Count(out, o.ID) != 1 || !strings.Contains(out, "home:7420") {
		t.Errorf("peer list:\n%s", out)
	}
}

// TestRefusals are those that a daemon makes.
func TestRefusals(t *testing.T) {
	t.Parallel()
	p := newPair(t, mib)
	other := cmdtest.NewSite(t, &programs, "other")
	other.OK("peer", "add", p.home.ID, "--name", "home")
	p.desk.OK("peer", "add", other.ID, "--name", "other")
	large := p.desk.Disk("large", 2*mib, 5)
	wrong := strings.Replace(p.daemon.URI("target"), "peer=home", "peer=other", 1)
	nobody := strings.Replace(p.daemon.URI("target"), p.daemon.Listen, "127.0.0.1:9", 1)
	for _, c := range []struct {
		name string
		site *cmdtest.Site
		args []string
		code int
		want string
	}{
		{"unknown export", p.desk, []string{"copy", p.local, p.daemon.URI("nope")}, 12, `"nope"`},
		{"source overwritten", p.desk, []string{"copy", p.local, p.daemon.URI("source")}, 10, "is a source"},
		{"target read", p.desk, []string{"copy", p.daemon.URI("target"), p.local}, 10, "is a target"},
		{"too small", p.desk, []string{"copy", large, p.daemon.URI("target")}, 10, "at least as large"},
		{"not paired there", other, []string{"probe", p.daemon.URI("target")}, 12, "haulback peer add " + other.ID},
		{"another daemon than expected", p.desk, []string{"copy", p.local, wrong}, 12, p.home.ID},
		{"nobody there, tls", p.desk, []string{"copy", p.local, nobody, "--transport", "tls"}, 13, "is haulbackd running there"},
		{"nobody there, quic", p.desk, []string{"copy", p.local, nobody}, 13, "is haulbackd running there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.site.Run(c.args...)
			if r.Code != c.code || !strings.Contains(r.Stderr, c.want) {
				t.Errorf("haulback %q: exit code %d, want %d, and %q in:\n%s", c.args, r.Code, c.code, c.want, r.Stderr)
			}
		})
	}
}

func TestKeyExposed(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	if err := os.Chmod(filepath.Join(s.State, "identity.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := s.Run("peer", "id"); r.Code != 10 || !strings.Contains(r.Stderr, "chmod 600") {
		t.Errorf("exit code %d, want 10 and the remedy: %s", r.Code, r.Stderr)
	}
}

// TestLocked: a target that another program holds is 11 and left alone.
func TestLocked(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := s.Disk("a", mib, 1), s.Disk("b", mib, 2)
	f, err := os.OpenFile(b, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if r := s.Run("copy", a, b); r.Code != 11 || !strings.Contains(r.Stderr, "lsof") {
		t.Errorf("exit code %d, want 11 and the remedy: %s", r.Code, r.Stderr)
	}
	lock.Type = unix.F_RDLCK // a reader lets the preflight pass, not the run
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if r := s.Run("copy", a, b); r.Code != 11 || strings.Contains(r.Stderr, "peer") {
		t.Errorf("exit code %d, want 11 without a word of a peer: %s", r.Code, r.Stderr)
	}
}

// TestNoCommand: an empty variable in a script is no success, and the help is no
// output.
func TestNoCommand(t *testing.T) {
	t.Parallel()
	for name, words := range map[string][]string{"": {"name one of its commands", "Available Commands"}, "peer": {"haulback peer: name one", "invite"}, "completion": {"name one", "bash"}} {
		r := programs.Run(t, "haulback", append(strings.Fields(name), "--json")...)
		for _, w := range append(words, `"code":10`) {
			if !strings.Contains(r.Stderr, w) {
				t.Errorf("%q: %q is not in:\n%s", name, w, r.Stderr)
			}
		}
		if r.Code != 10 || r.Out != "" {
			t.Errorf("%q: exit code %d, output:\n%s", name, r.Code, r.Out)
		}
	}
	if r := programs.Run(t, "haulbackd"); r.Code != 10 {
		t.Errorf("haulbackd: exit code %d", r.Code)
	}
	for _, args := range [][]string{{"--help"}, {"help"}, {"peer", "--help"}} {
		if r := programs.Run(t, "haulback", args...); r.Code != 0 || !strings.Contains(r.Out, "Usage:") {
			t.Errorf("%q: exit code %d: %s", args, r.Code, r.Out)
		}
	}
}
