package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// sockets are what a service manager would open.
type sockets struct {
	udp     *net.UDPConn
	tcp     *net.TCPListener
	control *net.UnixListener
}

func openSockets(t *testing.T, control string) *sockets {
	t.Helper()
	for try := 0; ; try++ { // until the port is free on both
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: udp.LocalAddr().(*net.UDPAddr).Port})
		if err != nil && try < 16 {
			udp.Close()
			continue
		}
		l, err2 := net.ListenUnix("unix", &net.UnixAddr{Name: control, Net: "unix"})
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		l.SetUnlinkOnClose(true)
		s := &sockets{udp: udp, tcp: tcp, control: l}
		t.Cleanup(s.close)
		return s
	}
}

func (s *sockets) close() {
	s.udp.Close()
	s.tcp.Close()
	s.control.Close()
}

// files are copies of the sockets called names.
func (s *sockets) files(t *testing.T, names string) (list []*os.File) {
	t.Helper()
	for name := range strings.SplitSeq(names, ":") {
		c := map[string]interface{ File() (*os.File, error) }{"quic": s.udp, "tls": s.tcp, "control": s.control}[name]
		if c == nil {
			c = s.tcp
		}
		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		list = append(list, f)
	}
	return list
}

// credential moves a file to where systemd has credentials. Its mode is what is
// seen of the list that lets the user of a service in.
func credential(t *testing.T, name, path string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	to := filepath.Join(dir, name)
	if err := os.Rename(path, to); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, 0o440); err != nil {
		t.Fatal(err)
	}
	return dir
}

// configuration writes one for the sockets.
func configuration(t *testing.T, s *cmdtest.Site, listen, more string) string {
	t.Helper()
	path := filepath.Join(s.Dir, "haulbackd.toml")
	if err := os.WriteFile(path, []byte("listen = \""+listen+"\"\n"+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPassedSockets copies over QUIC and over TLS, and asks the control API, on
// sockets that were open before the daemon was, as under systemd: with the
// directories and the key that it hands over too.
func TestPassedSockets(t *testing.T) {
	t.Parallel()
	desk, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	desk.Pair(home)
	local, disk := desk.Disk("local", 4<<20, 1), home.Disk("disk", 4<<20, 2)
	control := filepath.Join(home.Dir, "control.sock")
	s := openSockets(t, control)
	listen := s.udp.LocalAddr().String()
	file := configuration(t, home, listen, "key_file = \"haulback.key\"\n"+cmdtest.Export("one", disk, "target", desk))
	credentials := credential(t, "haulback.key", filepath.Join(home.State, "identity.key"))
	env := []string{"STATE_DIRECTORY=" + home.State + ":/nowhere", "RUNTIME_DIRECTORY=" + home.Dir, "CREDENTIALS_DIRECTORY=" + credentials}
	start := func() *cmdtest.Process {
		t.Helper()
		x := programs.StartPassed(t, env, s.files(t, "tls:control:quic"), "tls:control:quic", "haulbackd", "run", "--config", file)
		cmdtest.Await(t, "the daemon", func() bool { return strings.Contains(x.Stderr(), `"msg":"haulbackd ready"`) })
		if !strings.Contains(x.Stderr(), `"passed":"quic tls control"`) {
			t.Errorf("the log does not say what was handed over:\n%s", x.Stderr())
		}
		return x
	}
	stop := func(x *cmdtest.Process) {
		t.Helper()
		x.Signal(syscall.SIGTERM)
		if r := x.Wait(); r.Code != 0 {
			t.Errorf("exit code %d, want 0\n%s", r.Code, r.Stderr)
		}
	}
	x := start()
	uri := "haulback://" + listen + "/one?peer=home"
	desk.OK("copy", local, uri, "--transport", "quic")
	cmdtest.MustEqual(t, local, disk)
	desk.OK("verify", local, uri, "--transport", "tls")
	desk.OK("job", "list", "--socket", control)
	stop(x)
	if _, err := os.Stat(control); err != nil {
		t.Fatalf("the service manager's socket is gone: %v", err)
	}
	x = start() // the sockets stay for the next one
	desk.OK("job", "list", "--socket", control)
	desk.OK("verify", local, uri)
	stop(x)
}

// TestPassedSocketsDisagree: what is handed over and what is configured have to
// be the same, and the message says where to write what.
func TestPassedSocketsDisagree(t *testing.T) {
	t.Parallel()
	home := cmdtest.NewSite(t, &programs, "home")
	s := openSockets(t, filepath.Join(home.Dir, "control.sock"))
	listen := s.udp.LocalAddr().String()
	state := "state_dir = \"" + home.State + "\"\n"
	own := "[control]\nsocket = \"" + filepath.Join(home.Dir, "control.sock") + "\"\n"
	for _, c := range []struct {
		name, listen, more, names string
		want                      string
	}{
		{"another port", "127.0.0.1:1", state, "quic", `udp ` + regexp.QuoteMeta(listen) + `.*listen = "127.0.0.1:1".*haulbackd.socket`},
		{"another address", strings.Replace(listen, "127.0.0.1", "127.0.0.2", 1), state, "tls", "haulbackd-tls.socket"},
		{"all addresses", strings.Replace(listen, "127.0.0.1", "0.0.0.0", 1), state, "tls", "haulbackd-tls.socket"},
		{"no such transport", listen, "transports = [\"tls\"]\n" + state, "quic", `transports has no "quic"`},
		{"another path", listen, state, "control", "ListenStream="},
		{"no control socket", listen, state + "[control]\nsocket = \"none\"\n", "control", `socket = "none"`},
		{"another group", "127.0.0.1:0", state + own + "group = \"54321\"\n", "control", "SocketGroup="},
		{"a name that nobody knows", listen, state, "http", `"http".*FileDescriptorName=`},
		{"twice", listen, state, "tls:tls", "twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := refused(t, s.files(t, c.names), c.names, configuration(t, home, c.listen, c.more))
			if r.Code != 10 || !regexp.MustCompile(c.want).MatchString(r.Stderr) {
				t.Errorf("exit code %d, want 10 and %q\n%s", r.Code, c.want, r.Stderr)
			}
		})
	}
	t.Run("not what the name says", func(t *testing.T) {
		r := refused(t, s.files(t, "tls"), "quic", configuration(t, home, listen, state))
		if r.Code != 10 || !strings.Contains(r.Stderr, "ListenDatagram=") {
			t.Errorf("exit code %d, want 10 and ListenDatagram=\n%s", r.Code, r.Stderr)
		}
	})
}

// refused is how a daemon ends that must not start; one that does is stopped.
func refused(t *testing.T, files []*os.File, names, config string) cmdtest.Result {
	t.Helper()
	return ends(t, programs.StartPassed(t, nil, files, names, "haulbackd", "run", "--config", config))
}

func ends(t *testing.T, x *cmdtest.Process) cmdtest.Result {
	t.Helper()
	stop := time.AfterFunc(cmdtest.Deadline/2, func() { _ = x.Cmd.Process.Kill() }) // it may have ended just now
	defer stop.Stop()
	return x.Wait()
}

// TestKeyCredential: a key that was not handed over is not made, and the check of
// an operator, who is no service, warns.
func TestKeyCredential(t *testing.T) {
	t.Parallel()
	home := cmdtest.NewSite(t, &programs, "home")
	file := configuration(t, home, "127.0.0.1:0", "key_file = \"haulback.key\"\nstate_dir = \""+home.State+"\"\n")
	empty := t.TempDir()
	for _, env := range [][]string{nil, {"CREDENTIALS_DIRECTORY=" + empty}} {
		if r := ends(t, programs.StartEnv(t, env, "haulbackd", "run", "--config", file)); r.Code == 0 || !strings.Contains(r.Stderr, "/etc/credstore/haulback.key") {
			t.Errorf("%q: exit code %d, want a failure with the remedy\n%s", env, r.Code, r.Stderr)
		}
	}
	if list, err := os.ReadDir(empty); err != nil || len(list) > 0 {
		t.Errorf("a key was made: %v, %v", list, err)
	}
	if r := programs.Run(t, "haulbackd", "config", "check", "--config", file); r.Code != 0 || !strings.Contains(r.Out, "/etc/credstore/haulback.key") {
		t.Errorf("config check: exit code %d, want 0 and a warning\n%s%s", r.Code, r.Out, r.Stderr)
	}
}
