package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// served is a running haulback nbd serve.
type served struct {
	*cmdtest.Process
	uri, socket string
}

var servingLine = regexp.MustCompile(`(?m)^serving \S+ (?:read-only|writable) at (\S+)$`)

// serveNBD waits until clients may come.
func serveNBD(t *testing.T, s *cmdtest.Site, args ...string) *served {
	t.Helper()
	v := &served{Process: s.Start(append([]string{"nbd", "serve"}, args...)...)}
	t.Cleanup(func() {
		if v.Cmd.ProcessState == nil {
			v.Signal(syscall.SIGKILL)
			v.Wait()
		}
	})
	cmdtest.Await(t, "the line with the URI", func() bool {
		if m := servingLine.FindStringSubmatch(v.Stdout()); m != nil {
			v.uri = m[1]
		}
		return v.uri != "" || v.Stderr() != "" && strings.Contains(v.Stderr(), "haulback: ") && !strings.Contains(v.Stderr(), "warning")
	})
	if v.uri == "" {
		t.Fatalf("nbd serve %q: %s", args, v.Stderr())
	}
	_, v.socket, _ = strings.Cut(v.uri, "socket=")
	return v
}

// end sends the signal and wants exit code 0 and no socket.
func (v *served) end(t *testing.T, s os.Signal) {
	t.Helper()
	v.Signal(s)
	if r := v.Wait(); r.Code != 0 {
		t.Errorf("exit code %d after %v, want 0\n%s", r.Code, s, r.Stderr)
	}
	if v.socket != "" {
		if _, err := os.Lstat(v.socket); err == nil {
			t.Errorf("the socket %s is still there", v.socket)
		}
	}
}

func tool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed: nobody to judge the server", name)
	}
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

func mustTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tool(t, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func TestNBDServe(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "a")
	a, b := s.Disk("a", 5*mib+512, 1), s.Disk("b", 5*mib+512, 2)
	out := filepath.Join(s.Dir, "out")
	v := serveNBD(t, s, a, "--name", "disk 1")
	info, err := os.Stat(v.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: mode %v, %v; want 0600", info.Mode(), err)
	}
	mustTool(t, "nbdcopy", v.uri, out)
	cmdtest.MustEqual(t, a, out)
	if text, err := tool(t, "nbdcopy", b, v.uri); err == nil {
		t.Errorf("a read-only export was overwritten:\n%s", text)
	}
	v.end(t, syscall.SIGTERM)
	if _, err := os.Stat(filepath.Dir(v.socket)); err == nil {
		t.Errorf("the directory of the socket is still there")
	}
	socket := filepath.Join(s.Dir, "s ø+")
	v = serveNBD(t, s, "file://"+a, "--writable", "--socket", socket)
	mustTool(t, "nbdcopy", b, v.uri)
	v.socket = socket
	v.end(t, syscall.SIGINT)
	cmdtest.MustEqual(t, a, b)
}

func TestNBDServeOnce(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "a")
	v := serveNBD(t, s, s.Disk("a", mib, 1), "--once")
	mustTool(t, "nbdinfo", "--list", v.uri) // only looks around
	mustTool(t, "nbdcopy", v.uri, filepath.Join(s.Dir, "out"))
	if r := v.Wait(); r.Code != 0 {
		t.Errorf("exit code %d, want 0\n%s", r.Code, r.Stderr)
	}
}

func TestNBDServeJSON(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "a")
	a := s.Disk("a", mib, 1)
	x := s.Start("--json", "nbd", "serve", a, "--name", "x")
	cmdtest.Await(t, "the line", func() bool { return strings.Contains(x.Stdout(), "\n") })
	var line nbdServing
	if err := json.Unmarshal([]byte(x.Stdout()), &line); err != nil {
		t.Errorf("%v: %s", err, x.Stdout())
	}
	if !strings.Contains(x.Stdout(), `"message_type":"serving"`) || line.Disk != a || line.Size != mib || !line.ReadOnly || line.Export != "x" || !strings.HasPrefix(line.URI, "nbd+unix:///x?socket=/") {
		t.Errorf("got %+v", line)
	}
	x.Signal(syscall.SIGTERM)
	x.Wait()
}

// TestNBDServeActivated has nbdinfo start the server and pass the socket.
func TestNBDServeActivated(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "a")
	a, out := s.Disk("a", 2*mib, 1), filepath.Join(s.Dir, "out")
	program := s.Start("version")
	program.Wait()
	mustTool(t, "nbdcopy", "--", "[", program.Cmd.Path, "--state-dir", s.State, "nbd", "serve", a, "]", out)
	cmdtest.MustEqual(t, a, out)
}

// TestNBDServeKilled kills the server while it is written to. What was flushed
// before is there, the next start takes the socket over, and the same copy ends.
func TestNBDServeKilled(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		s := cmdtest.NewSite(t, &programs, "a")
		const size = 96 * mib
		a, disk := s.Disk("a", size, 1), s.Disk("disk", size, 0)
		b := s.Disk("b", size, 2)
		socket := filepath.Join(s.Dir, "s")
		v := serveNBD(t, s, disk, "--writable", "--socket", socket)
		mustTool(t, "nbdcopy", "--flush", a, v.uri)
		copying := exec.CommandContext(t.Context(), "nbdcopy", "--flush", b, v.uri)
		if err := copying.Start(); err != nil {
			t.Fatal(err)
		}
		cmdtest.Await(t, "the first bytes", func() bool { return sameAt(t, disk, b, 0) || copying.ProcessState != nil })
		v.Signal(sig)
		r := v.Wait()
		if sig == syscall.SIGTERM && r.Code != 0 {
			t.Errorf("SIGTERM while a client writes: exit code %d\n%s", r.Code, r.Stderr)
		}
		_ = copying.Wait() // fails, or was faster
		_, err := os.Lstat(socket)
		if (sig == syscall.SIGKILL) != (err == nil) {
			t.Errorf("after %v: the socket: %v", sig, err)
		}
		for off := int64(0); off < size; off += 65536 {
			if !sameAt(t, disk, a, off) && !sameAt(t, disk, b, off) {
				t.Errorf("%v: the 64 KiB at %d are neither the old nor the new", sig, off)
			}
		}
		v = serveNBD(t, s, disk, "--writable", "--socket", socket)
		mustTool(t, "nbdcopy", "--flush", b, v.uri)
		v.Signal(syscall.SIGKILL)
		v.Wait()
		cmdtest.MustEqual(t, disk, b)
	}
}

func sameAt(t *testing.T, a, b string, off int64) bool {
	t.Helper()
	var p [2][65536]byte
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.ReadAt(p[i][:], off)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return p[0] == p[1]
}

// TestNBDServeRefuses is what an operator may get wrong, and what is said.
func TestNBDServeRefuses(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "a")
	a := s.Disk("a", mib, 1)
	live := filepath.Join(s.Dir, "live")
	ln, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	open := s.Disk("open.pem", 10, 1)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{s.Dir + "/none"}, 10, "no such file"},
		{[]string{"haulback://x:1/y"}, 10, "on its host"},
		{[]string{a, "--socket", live}, 11, "another server"},
		{[]string{a, "--socket", a}, 10, "something else than a socket"},
		{[]string{a, "--socket", s.Dir + "/none/s"}, 10, "no such file"},
		{[]string{a, "--socket", "/" + strings.Repeat("x", 108)}, 10, "107 at most"},
		{[]string{a, "--read-only", "--writable"}, 10, "one of them"},
		{[]string{a, "--socket", "/x", "--listen", "127.0.0.1:0"}, 10, "one of them"},
		{[]string{a, "--tls-ca", "/x", "--any-client"}, 10, "one of them"},
		{[]string{a, "--listen", "127.0.0.1:0"}, 10, "--insecure-loopback"},
		{[]string{a, "--listen", "0.0.0.0:0"}, 10, "needs TLS"},
		{[]string{a, "--listen", "192.0.2.1:10809", "--insecure-loopback"}, 10, "needs TLS"},
		{[]string{a, "--listen", ":10809", "--insecure-loopback"}, 10, "needs TLS"},
		{[]string{a, "--listen", "nowhere"}, 10, "HOST:PORT"},
		{[]string{a, "--insecure-loopback"}, 10, "for --listen"},
		{[]string{a, "--listen", "0.0.0.0:0", "--tls-cert", a}, 10, "belong together"},
		{[]string{a, "--listen", "0.0.0.0:0", "--tls-cert", open, "--tls-key", open}, 10, "--any-client"},
		{[]string{a, "--listen", "0.0.0.0:0", "--tls-cert", open, "--tls-key", open, "--any-client"}, 10, "chmod 600"},
		{[]string{a, "--tls-ca", open}, 10, "need --tls-cert"},
		{[]string{a, "--name", strings.Repeat("x", 5000)}, 10, "4096"},
	} {
		r := s.Run(append([]string{"nbd", "serve"}, c.args...)...)
		if r.Code != c.code || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("nbd serve %.100q: exit code %d, want %d, and %q in: %s", c.args, r.Code, c.code, c.says, r.Stderr)
		}
	}
	if _, err := net.Dial("unix", live); err != nil {
		t.Errorf("the live socket was harmed: %v", err)
	}
	v := serveNBD(t, s, a, "--writable")
	if r := s.Run("nbd", "serve", a); r.Code != 11 {
		t.Errorf("a disk that another serves for writing: exit code %d, want 11\n%s", r.Code, r.Stderr)
	}
	v.end(t, syscall.SIGTERM)
}

// TestNBDServeHalfWritten warns of a target that a killed run left.
func TestNBDServeHalfWritten(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "a")
	a, b := s.Disk("a", 64*mib, 1), s.Disk("b", 64*mib, 2)
	run := s.Start("copy", a, b, "--read-rate", "1MiB") // --rate holds no copy within one machine
	cmdtest.Await(t, "the run to write", func() bool { return sameAt(t, a, b, 0) })
	run.Signal(syscall.SIGKILL)
	run.Wait()
	v := serveNBD(t, s, b)
	says := func(what string) { // another pipe than the line that was waited for
		t.Helper()
		cmdtest.Await(t, "the warning "+what, func() bool { return strings.Contains(v.Stderr(), what) })
	}
	says("half-written target")
	mustTool(t, "nbdinfo", v.uri)
	v.end(t, syscall.SIGTERM)
	s.OK("copy", a, b)
	v = serveNBD(t, s, b)
	v.end(t, syscall.SIGTERM)
	if v.Stderr() != "" {
		t.Errorf("a warning of a verified disk: %q", v.Stderr())
	}
	v = serveNBD(t, s, b, "--writable")
	says("verify it again")
	v.end(t, syscall.SIGTERM)
}

// TestNBDServeLost: a server whose own disk is gone for good does not stay to say
// so to every client.
func TestNBDServeLost(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "a")
	behind := nbdtest.Unix(t, "nbdkit", "-f", "memory", "1M")
	v := serveNBD(t, s, behind.URI)
	mustTool(t, "nbdinfo", v.uri)
	behind.Kill()
	if r := v.Wait(); r.Code != 13 || !strings.Contains(r.Stderr, "the disk is lost") {
		t.Errorf("exit code %d, want 13: %s", r.Code, r.Stderr)
	}
	if _, err := os.Lstat(v.socket); err == nil {
		t.Errorf("the socket %s is still there", v.socket)
	}
}

// moody is a disk whose checks fail as planned: r may be tried again, x not.
type moody struct {
	vddk.Disk
	plan string
}

func (d *moody) Check() error {
	c := d.plan[0]
	d.plan = d.plan[1:]
	switch c {
	case 'r':
		return &nbd.LostError{Addr: "a", Cause: syscall.ECONNRESET}
	case 'x':
		return vddk.ErrChanged
	}
	return nil
}

// TestWatchDisk: five losses in a row, and no other error, end the serving.
func TestWatchDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &moody{plan: "rrrr.rrrrxrr.rrrrr"}
		began, said := time.Now(), 0
		watchDisk(t.Context(), watchEvery, d, func(error) { said++ })
		if took := time.Since(began); said != 1 || d.plan != "" || took != 18*watchEvery {
			t.Errorf("said %d times after %v, %q left", said, took, d.plan)
		}
	})
}

// lostDisk cannot be flushed.
type lostDisk struct {
	vddk.Disk
	closed bool
}

func (d *lostDisk) Flush() error { return &vddk.LockedError{Path: "x", By: "y"} } // an error with a code of its own
func (d *lostDisk) Check() error { return nil }
func (d *lostDisk) Close() error { d.closed = true; return nil }

// TestNBDServeCloseFails is exit code 1, whatever the disk said.
func TestNBDServeCloseFails(t *testing.T) {
	d := &lostDisk{}
	s := &nbdServe{flags: &nbdFlags{writable: true}}
	err := errors.Join(nil, s.close(d))
	if exitcode.Of(err) != exitcode.Failed || !strings.Contains(err.Error(), "may be lost") || !d.closed {
		t.Errorf("got %v, code %d, closed %v", err, exitcode.Of(err), d.closed)
	}
}
