// Package nbdtest starts real NBD servers for tests: qemu-nbd and nbdkit.
//
// A server gets its listening socket from the test (systemd's socket
// activation, which both know), so that there is no port to race for and
// nothing to wait for. It is killed at the end of the test.
package nbdtest

import (
	"bytes"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Server is a running server.
type Server struct {
	URI string // of its default export, in plain: add what TLS needs
	Cmd *exec.Cmd

	end  sync.Once
	said bytes.Buffer
}

// Need skips the test without tool.
func Need(t testing.TB, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Skipf("%s is not installed", tool)
	}
	return path
}

// Unix starts tool on a unix socket.
func Unix(t testing.TB, tool string, args ...string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return start(t, l, "nbd+unix:///?socket="+socket, tool, args)
}

// TCP starts tool on a port of the loopback.
func TCP(t testing.TB, tool string, args ...string) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return start(t, l, (&url.URL{Scheme: "nbd", Host: l.Addr().String(), Path: "/"}).String(), tool, args)
}

func start(t testing.TB, l net.Listener, uri, tool string, args []string) *Server {
	t.Helper()
	defer l.Close()
	path := Need(t, tool)
	file, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// LISTEN_PID must be that of the server, which only its own shell knows.
	s := &Server{URI: uri, Cmd: exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`, path}, args...)...)}
	s.Cmd.ExtraFiles = []*os.File{file}
	s.Cmd.Stdout, s.Cmd.Stderr = &s.said, &s.said
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("%s %q said: %s", tool, args, s.said.Bytes())
		}
	})
	return s
}

// Kill ends the server as kill -9 does, and waits for it. Once is enough.
func (s *Server) Kill() {
	s.end.Do(func() {
		_ = s.Cmd.Process.Kill() // it may have ended by itself
		_ = s.Cmd.Wait()
	})
}

// Stop asks the server to end, and waits for it.
func (s *Server) Stop() {
	s.end.Do(func() {
		_ = s.Cmd.Process.Signal(os.Interrupt) // it may have ended by itself
		_ = s.Cmd.Wait()
	})
}

// Said is what the server printed; only after Kill or Stop.
func (s *Server) Said() string { return s.said.String() }

// Run runs a tool to its end and returns what it printed.
func Run(t testing.TB, tool string, args ...string) string {
	t.Helper()
	out, err := exec.Command(Need(t, tool), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", tool, args, err, out)
	}
	return string(out)
}
