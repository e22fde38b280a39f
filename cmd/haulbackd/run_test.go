package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// TestNotify reads what systemd would: READY after the listeners are up,
// WATCHDOG in time, STOPPING before the end.
func TestNotify(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "home")
	socket := filepath.Join(s.Dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	env := []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=200000"}
	x := programs.StartEnv(t, env, "haulbackd", "run", "--config", s.Configure())
	expect(t, conn, "READY=1")
	cmdtest.Await(t, "the line that says the same", func() bool { return strings.Contains(x.Stderr(), `"msg":"haulbackd ready"`) })
	expect(t, conn, "WATCHDOG=1")
	x.Signal(syscall.SIGHUP)
	if got := expect(t, conn, "RELOADING=1"); !strings.Contains(got, "MONOTONIC_USEC=") {
		t.Errorf("RELOADING=1 without its time: %q", got)
	}
	expect(t, conn, "READY=1")
	x.Signal(syscall.SIGTERM)
	if got := expect(t, conn, "STOPPING=1"); !strings.Contains(got, "EXTEND_TIMEOUT_USEC=") {
		t.Errorf("STOPPING=1 without asking for time: %q", got)
	}
	if r := x.Wait(); r.Code != 0 {
		t.Errorf("exit code %d, want 0\n%s", r.Code, r.Stderr)
	}
}

// expect reads datagrams until one has the word.
func expect(t *testing.T, conn *net.UnixConn, word string) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(cmdtest.Deadline / 2)); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); ; {
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("waiting for %s: %v", word, err)
		}
		if strings.Contains(string(b[:n]), word) {
			return string(b[:n])
		}
	}
}

// TestRefusesToStart: the exit code is 10 (nothing to restart for), the text
// names thing and remedy.
func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "home")
	running := s.Daemon()
	_, port, err := net.SplitHostPort(running.Listen)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(s.Dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	exposed := write("exposed.key", "")
	if err := os.Chmod(exposed, 0o644); err != nil {
		t.Fatal(err)
	}
	state := "state_dir = \"" + s.State + "\"\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"udp port in use", "listen = \"" + running.Listen + "\"\n" + state, []string{"udp " + running.Listen, "in use", "ss -lunp", ":" + port}},
		{"tcp port in use", "listen = \"" + running.Listen + "\"\ntransports = [\"tls\"]\n" + state, []string{"tcp " + running.Listen, "in use"}},
		{"address that may come", "listen = \"192.0.2.1:7420\"\n" + state, []string{"192.0.2.1:7420", "cannot assign requested address"}},
		{"exposed key", "listen = \"127.0.0.1:0\"\nkey_file = \"" + exposed + "\"\n" + state, []string{exposed, "chmod 600"}},
		{"unknown key", "lisen = \"x\"\n", []string{"bad.toml:1:1", "lisen"}},
		{"no state", "listen = \"127.0.0.1:0\"\nstate_dir = \"/dev/null/x\"\n", []string{"/dev/null"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := programs.Run(t, "haulbackd", "run", "--config", write("bad.toml", c.text))
			want := 10
			switch c.name {
			case "no state":
				want = r.Code
			case "address that may come":
				want = 13 // which a service manager tries again
			}
			if r.Code != want || r.Code == 0 {
				t.Errorf("exit code %d, want %d", r.Code, want)
			}
			for _, w := range c.want {
				if !strings.Contains(r.Stderr, w) {
					t.Errorf("%q is not in\n%s", w, r.Stderr)
				}
			}
		})
	}
	if r := programs.Run(t, "haulbackd", "run", "--config", filepath.Join(s.Dir, "nope.toml")); r.Code != 10 || !strings.Contains(r.Stderr, "nope.toml") {
		t.Errorf("no configuration: exit code %d, want 10: %s", r.Code, r.Stderr)
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "home")
	r := programs.Run(t, "haulbackd", "config", "check", "--config", s.Configure(cmdtest.Export("x", "/nowhere/x", "source")))
	if r.Code != 0 || !strings.Contains(r.Out, "OK: ") || !strings.Contains(r.Out, "warning: ") {
		t.Errorf("exit code %d, want 0, OK and a warning:\n%s%s", r.Code, r.Out, r.Stderr)
	}
	key := filepath.Join(s.State, "identity.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := programs.Run(t, "haulbackd", "config", "check", "--config", s.Configure()); r.Code != 10 || !strings.Contains(r.Stderr, "chmod 600") {
		t.Errorf("exposed key: exit code %d, want 10 and the remedy:\n%s", r.Code, r.Stderr)
	}
	if err := errors.Join(os.Chmod(key, 0o600), os.Chmod(s.State, 0o777)); err != nil {
		t.Fatal(err)
	}
	if r := programs.Run(t, "haulbackd", "config", "check", "--config", s.Configure()); r.Code != 10 || !strings.Contains(r.Stderr, "chmod 700") {
		t.Errorf("everybody's state directory: exit code %d, want 10 and the remedy:\n%s", r.Code, r.Stderr)
	}
	if err := os.Chmod(s.State, 0o700); err != nil {
		t.Fatal(err)
	}
	r = programs.Run(t, "haulbackd", "config", "check", "--config", s.Configure("[[export]]\nname = \"x\"\n"))
	if r.Code != 10 || strings.Count(r.Stderr, `export "x"`) != 2 {
		t.Errorf("exit code %d, want 10 and two mistakes:\n%s", r.Code, r.Stderr)
	}
}

// TestReload: a mistake changes nothing, a good file does.
func TestReload(t *testing.T) {
	t.Parallel()
	desk, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	desk.Pair(home)
	disk := home.Disk("disk", 1<<20, 1)
	d := home.Daemon(cmdtest.Export("one", disk, "source", desk))
	reload := func(line string) {
		t.Helper()
		n := strings.Count(d.Stderr(), line)
		d.Signal(syscall.SIGHUP)
		cmdtest.Await(t, line, func() bool { return strings.Count(d.Stderr(), line) > n })
	}
	home.Configure("[[export]]\nname = \"two\"\n")
	reload("the old one stays in use")
	desk.OK("probe", d.URI("one"))
	home.Configure(cmdtest.Export("two", disk, "source", desk))
	reload("configuration reloaded")
	desk.OK("probe", d.URI("two"))
	if r := desk.Run("probe", d.URI("one")); r.Code != 12 {
		t.Errorf("probe of an export that is gone: exit code %d, want 12\n%s", r.Code, r.Stderr)
	}
}

// TestReloadPeers: with a mistake elsewhere a reload still shuts out whom the
// configuration does not name any more, and for good.
func TestReloadPeers(t *testing.T) {
	t.Parallel()
	desk, laptop, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "laptop"), cmdtest.NewSite(t, &programs, "home")
	for _, s := range []*cmdtest.Site{desk, laptop} {
		s.OK("peer", "add", home.ID, "--name", "home")
	}
	table := "[[peer]]\nname = \"laptop\"\nid = \"" + laptop.ID + "\"\n"
	export := cmdtest.Export("one", home.Disk("disk", 1<<20, 1), "source", desk, laptop)
	d := home.Daemon(table, export)
	reload := func() {
		t.Helper()
		n := strings.Count(d.Stderr(), "who was removed is out")
		d.Signal(syscall.SIGHUP)
		cmdtest.Await(t, "the reload", func() bool { return strings.Count(d.Stderr(), "who was removed is out") > n })
	}
	laptop.OK("probe", d.URI("one"))
	home.Configure(table, export, "[limits]\nworker = 4\n")
	home.OK("peer", "add", desk.ID, "--name", "desk")
	reload() // before the daemon has looked at its peers by itself, or after
	desk.OK("probe", d.URI("one"))
	laptop.OK("probe", d.URI("one"))
	home.Configure("[[peer]]\nname = \"other\"\nid = \"mistyped\"\n", export, "[limits]\nworker = 4\n")
	reload()
	for range 4 { // the daemon looks at its peers by itself meanwhile
		if r := laptop.Run("probe", d.URI("one")); r.Code != 12 {
			t.Fatalf("who was removed: exit code %d, want 12\n%s%s", r.Code, r.Stderr, d.Stderr())
		}
		time.Sleep(150 * time.Millisecond)
	}
	desk.OK("probe", d.URI("one"))
	home.Configure("[[[[\n")
	d.Signal(syscall.SIGHUP)
	cmdtest.Await(t, "the reload", func() bool { return strings.Contains(d.Stderr(), "neither peers nor exports reloaded") })
	desk.OK("probe", d.URI("one"))
}

// TestReloadRates sets a copy free that would take most of an hour.
func TestReloadRates(t *testing.T) {
	t.Parallel()
	desk, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	desk.Pair(home)
	const size = 128 << 20
	local, disk := desk.Disk("local", size, 1), home.Disk("disk", size, 2)
	export := cmdtest.Export("one", disk, "target", desk)
	d := home.Daemon(export, "[limits]\nwindows = [\"00:00-24:00 read 64KiB\"]\n")
	c := desk.Start("copy", local, d.URI("one"))
	cmdtest.Await(t, "the session", func() bool { return strings.Contains(d.Stderr(), "session begins") })
	home.Configure(export, "[limits]\nrate = \"10GiB\"\n")
	d.Signal(syscall.SIGHUP)
	if r := c.Wait(); r.Code != 0 {
		t.Fatalf("exit code %d, want 0\n%s%s", r.Code, r.Out, r.Stderr)
	}
	cmdtest.MustEqual(t, local, disk)
	if s := d.Stderr(); !strings.Contains(s, "configuration reloaded") || strings.Contains(s, "needs a restart") {
		t.Errorf("the log does not say that rates were reloaded:\n%s", s)
	}
}
