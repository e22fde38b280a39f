package cmdtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// Site is an installation of its own: a state directory, and perhaps a daemon.
type Site struct {
	t        *testing.T
	programs *Programs
	Name     string
	Dir      string // for disks and the configuration
	State    string
	ID       string
	AnyPort  string // where a daemon of the site listens
}

// NewSite makes a site and its key. The address is its own, with a port that the
// kernel chooses: while the daemon is down, no other one is given its place.
func NewSite(t *testing.T, p *Programs, name string) *Site {
	t.Helper()
	dir := t.TempDir()
	s := &Site{t: t, programs: p, Name: name, Dir: dir, State: filepath.Join(dir, "state")}
	s.AnyPort = fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	s.ID = strings.TrimSpace(s.OK("peer", "id").Out)
	return s
}

// Start starts haulback with the site's state. It tells its status often enough for
// a test to see where a copy is.
func (s *Site) Start(args ...string) *Process {
	s.t.Helper()
	return s.programs.StartEnv(s.t, []string{"HAULBACK_PROGRESS_FPS=20"}, "haulback", append([]string{"--state-dir", s.State}, args...)...)
}

// StartIO is Start with standard input from one file and standard output to
// another; nil is none.
func (s *Site) StartIO(in, out *os.File, args ...string) *Process {
	s.t.Helper()
	return s.programs.start(s.t, []string{"HAULBACK_PROGRESS_FPS=60"}, in, out, "haulback", append([]string{"--state-dir", s.State}, args...))
}

// Run runs haulback with the site's state.
func (s *Site) Run(args ...string) Result {
	s.t.Helper()
	return s.Start(args...).Wait()
}

// OK is Run that has to succeed.
func (s *Site) OK(args ...string) Result {
	s.t.Helper()
	r := s.Run(args...)
	if r.Code != 0 {
		s.t.Fatalf("haulback %q: exit code %d, want 0\n%s%s", args, r.Code, r.Out, r.Stderr)
	}
	return r
}

// Pair makes s and others trust each other.
func (s *Site) Pair(others ...*Site) {
	s.t.Helper()
	for _, o := range others {
		s.OK("peer", "add", o.ID, "--name", o.Name)
		o.OK("peer", "add", s.ID, "--name", s.Name)
	}
}

// Disk makes a file of size bytes, random from seed, or all hole for seed 0.
func (s *Site) Disk(name string, size int, seed uint64) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	f, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if seed != 0 {
		b := make([]byte, size)
		var key [32]byte
		key[0], key[1] = byte(seed), byte(seed>>8)
		rand.NewChaCha8(key).Read(b)
		_, err = f.Write(b)
	}
	if err == nil {
		err = f.Truncate(int64(size))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Export is an [[export]] of a configuration.
func Export(name, uri, role string, peers ...*Site) string {
	names := []string{}
	for _, p := range peers {
		names = append(names, fmt.Sprintf("%q", p.Name))
	}
	list := strings.Join(names, ", ")
	text := fmt.Sprintf("[[export]]\nname = %q\nuri = %q\nrole = %q\npeers = [%s]\n", name, uri, role, list)
	if role == "source" {
		text += fmt.Sprintf("operators = [%s]\n", list)
	}
	return text
}

// Configure writes the site's configuration and returns its path.
func (s *Site) Configure(exports ...string) string {
	s.t.Helper()
	return s.configureAt(s.AnyPort, exports...)
}

func (s *Site) configureAt(listen string, exports ...string) string {
	s.t.Helper()
	text := fmt.Sprintf("listen = %q\nstate_dir = %q\n%s", listen, s.State, strings.Join(exports, ""))
	path := filepath.Join(s.Dir, "haulbackd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Daemon is a running haulbackd.
type Daemon struct {
	*Process
	Site   *Site
	Listen string
}

var readyLine = regexp.MustCompile(`"msg":"haulbackd ready".*"listen":"([^"]+)"`)

// Daemon runs haulbackd with the exports until the test ends.
func (s *Site) Daemon(exports ...string) *Daemon {
	s.t.Helper()
	return s.DaemonAt(s.AnyPort, exports...)
}

// DaemonAt is Daemon at an address that was in use before. It tries again while
// somebody else has the port.
func (s *Site) DaemonAt(listen string, exports ...string) *Daemon {
	s.t.Helper()
	file := s.configureAt(listen, exports...)
	start := func() *Process { return s.programs.Start(s.t, "haulbackd", "run", "--config", file) }
	d := &Daemon{Process: start(), Site: s}
	s.t.Cleanup(func() { d.end() })
	Await(s.t, "the daemon "+s.Name+" to be ready", func() bool {
		if m := readyLine.FindStringSubmatch(d.Stderr()); m != nil {
			d.Listen = m[1]
		} else if d.Refused() {
			if r := d.Wait(); !strings.Contains(r.Stderr, "in use") {
				s.t.Fatalf("the daemon %s at %s: exit code %d\n%s", s.Name, listen, r.Code, r.Stderr)
			}
			d.Process = start()
		}
		return d.Listen != ""
	})
	return d
}

// end stops what a test has not stopped, and shows the log of a test that
// failed.
func (d *Daemon) end() {
	if d.Cmd.ProcessState == nil {
		d.Signal(syscall.SIGTERM)
		d.Wait()
	}
	if d.t.Failed() {
		d.t.Logf("log of %s:\n%s", d.Site.Name, d.Stderr())
	}
}

// URI names an export of the daemon.
func (d *Daemon) URI(export string) string {
	return "haulback://" + d.Listen + "/" + export + "?peer=" + d.Site.Name
}

// MustEqual compares two files byte by byte, as cmp does.
func MustEqual(t *testing.T, a, b string) {
	t.Helper()
	x, err1 := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if !bytes.Equal(x, y) {
		t.Fatalf("cmp %s %s: they differ (%d and %d bytes)", a, b, len(x), len(y))
	}
}
