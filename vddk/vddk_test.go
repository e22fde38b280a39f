package vddk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/vix/vixtest"
)

// vm is a simulated VM: the test library with its disks, and how to reach it.
type vm struct {
	lib   *vixtest.Library
	dir   string
	state string
	log   *bytes.Buffer
	mu    sync.Mutex
}

// vddkKit is removed by TestMain.
var vddkKit vixtest.Kit

// workerPath puts the worker into PATH.
func workerPath(t *testing.T) {
	t.Helper()
	t.Setenv("PATH", filepath.Dir(vddkKit.Worker(t, raceEnabled))+":"+os.Getenv("PATH"))
	t.Setenv("TMPDIR", t.TempDir()) // for the sockets
}

func newVM(t testing.TB, version int) *vm {
	t.Helper()
	v := &vm{lib: vddkKit.Library(t, version), dir: t.TempDir(), state: t.TempDir(), log: &bytes.Buffer{}}
	if err := os.WriteFile(v.dir+"/password", []byte("secret-of-the-test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return v
}

// disk adds a disk with content and returns its file.
func (v *vm) disk(t testing.TB, n int, content []byte) string {
	t.Helper()
	path := filepath.Join(v.dir, fmt.Sprintf("disk%d.raw", n))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	v.lib.Disk(fmt.Sprintf("[ds 1] vm/vm_%d.vmdk", n), path)
	return path
}

func (v *vm) uri(n int, more string) string {
	return fmt.Sprintf("vddk://vc.example/vm-42?disk=[ds 1] vm/vm_%d.vmdk&user=root&password-file=%s/password&thumbprint=%s&libdir=%s&state=%s%s",
		n, v.dir, strings.ToLower(strings.ReplaceAll(vixtest.Thumbprint, ":", "")), v.lib.Dir, v.state, more)
}

// Write is the log.
func (v *vm) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.log.Write(p)
}

func (v *vm) logged() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.log.String()
}

func (v *vm) options(mode vddk.Mode) vddk.Options {
	return vddk.Options{Mode: mode, Log: slog.New(slog.NewTextHandler(v, &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

func (v *vm) open(t testing.TB, n int, mode vddk.Mode) vddk.Disk {
	t.Helper()
	d, err := vddk.Open(t.Context(), v.uri(n, ""), v.options(mode))
	if err != nil {
		t.Fatalf("%v\n%s", err, v.logged())
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// workers are the processes that the library was loaded in, by the log of calls.
func (v *vm) workers() (pids []int) {
	for _, c := range v.lib.Calls() {
		if c.Function == "InitEx" {
			pid, _ := strconv.Atoi(c.PID)
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestVDDKContract(t *testing.T) {
	workerPath(t)
	for _, version := range []int{65, 80} {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			v := newVM(t, version)
			disks := 0
			movertest.TestDisk(t, movertest.Driver{
				Granule: 512,
				Make: func(t testing.TB, content []byte) movertest.Opener {
					disks++
					n := disks
					v.disk(t, n, content)
					return func(mode movertest.Mode) (mover.Disk, error) {
						m := vddk.ReadOnly
						if mode == movertest.ReadWrite {
							m = vddk.ReadWrite
						}
						return vddk.Open(t.Context(), v.uri(n, ""), v.options(m))
					}
				},
			})
		})
	}
}

// TestVDDKWorker: two disks of one VM share a worker, which ends with the last of
// them; its VM is guarded all the while; no secret is where others can see it.
func TestVDDKWorker(t *testing.T) {
	workerPath(t)
	v := newVM(t, 80)
	v.lib.Record()
	content := bytes.Repeat([]byte("haulback"), 1<<18)
	v.disk(t, 1, content)
	v.disk(t, 2, content)
	a, b := v.open(t, 1, vddk.ReadWrite), v.open(t, 2, vddk.ReadOnly)
	pids := v.workers()
	if len(pids) != 1 {
		t.Fatalf("%d workers for two disks of one VM", len(pids))
	}
	if d := v.lib.Disabled(); len(d) != 1 || !strings.HasPrefix(d[0], "moref=vm-42 haulback-") {
		t.Errorf("guard: %q", d)
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pids[0])); err != nil || string(comm) != "haulback-vddk\n" {
		t.Errorf("the process is called %q (%v)", comm, err)
	}
	for _, file := range []string{"cmdline", "environ", "status"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pids[0], file))
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
		if bytes.Contains(text, []byte("secret-of-the-test")) {
			t.Errorf("the password is in %s", file)
		}
		if file == "environ" && bytes.Contains(text, []byte("VIX_")) {
			t.Errorf("environment: %q", text)
		}
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pids[0])); err != nil || !strings.Contains(string(text), "Max core file size        0                    0") {
		t.Errorf("core files: %v\n%s", err, text)
	}
	d := a.Describe()
	if d.Kind != "vddk" || d.Identity != "vddk:vc.example/vm-42/%5Bds%201%5D%20vm%2Fvm_1.vmdk" || d.Transport != "nbdssl, by libvixDiskLib 8" || d.Size != int64(len(content)) {
		t.Errorf("description: %+v", d)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
	p := make([]byte, 1000)
	if _, err := b.ReadAt(p, 777); err != nil || !bytes.Equal(p, content[777:1777]) {
		t.Errorf("read with the other disk closed: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pids[0], 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the worker is still there: %v", err)
	}
	if d := v.lib.Disabled(); len(d) != 0 {
		t.Errorf("guard after the end: %q", d)
	}
	if left, _ := filepath.Glob(v.state + "/*"); len(left) != 0 {
		t.Errorf("records after the end: %q", left)
	}
	text := v.logged()
	if strings.Contains(text, "secret-of-the-test") || !strings.Contains(text, "login of root with [secret]") {
		t.Errorf("log:\n%s", text)
	}
}

// TestVDDKKilled kills the worker in the midst of reads and writes: they fail at
// once and may be tried again, and the disk opens again and is whole.
func TestVDDKKilled(t *testing.T) {
	workerPath(t)
	v := newVM(t, 80)
	v.lib.Record()
	v.lib.Set("latency_us=20000")
	const size = 64 << 20
	file := v.disk(t, 1, make([]byte, size))
	d := v.open(t, 1, vddk.ReadWrite)
	want := bytes.Repeat([]byte{0xA5}, size)
	started := make(chan struct{}, 64)
	failures := make(chan error, 16)
	for w := range 8 {
		go func() {
			for off := w << 20; ; off = (off + 8<<20) % size {
				if _, err := d.WriteAt(want[off:off+1<<20], int64(off)); err != nil {
					failures <- err
					return
				}
				started <- struct{}{}
			}
		}()
	}
	for range 16 {
		<-started
	}
	go func() {
		for range started { // let the writers go on
		}
	}()
	first := v.workers()[0]
	at := time.Now()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		err := <-failures
		wantRetryable(t, err, "the VDDK worker of VM vm-42 of vc.example was killed (signal 9, killed); it is started again")
	}
	if took := time.Since(at); took > 10*time.Second {
		t.Errorf("the failures took %v", took)
	}
	if left := v.lib.Disabled(); len(left) != 1 {
		t.Errorf("guard of the dead: %q", left)
	}
	wantRetryable(t, d.Flush(), "was killed")
	wantRetryable(t, d.(mover.Checker).Check(), "was killed")
	if err := d.Close(); err != nil {
		t.Errorf("close of a lost disk: %v", err)
	}
	d = v.open(t, 1, vddk.ReadWrite)
	if pids := v.workers(); len(pids) != 2 || pids[1] == first {
		t.Errorf("workers: %v", pids)
	}
	if left := v.lib.Disabled(); len(left) != 1 {
		t.Errorf("guards after the next start: %q, want the new one", left)
	}
	if _, err := d.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Flush(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file differs (%v)", err)
	}
	if left := v.lib.Disabled(); len(left) != 0 {
		t.Errorf("guards at the end: %q", left)
	}
	said := 0
	for line := range strings.Lines(v.logged()) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "a warning with 2 lines") {
			said++
		}
	}
	if said != 1 {
		t.Errorf("the library's warning was passed on %d times by two workers, want once\n%s", said, v.logged())
	}
}

// TestVDDKCause: what the library said comes first, and neither the URI nor the
// worker's socket is in the way: a text that crosses the wire has 256 bytes.
func TestVDDKCause(t *testing.T) {
	workerPath(t)
	v := newVM(t, 80)
	v.disk(t, 1, make([]byte, 1<<20))
	v.lib.Fault("ReadAsync * 14011")
	d := v.open(t, 1, vddk.ReadOnly)
	_, err := d.ReadAt(make([]byte, 4096), 8192)
	wantRetryable(t, err, "read 4096 bytes at 8192: VixDiskLib_ReadAsync [ds 1] vm/vm_1.vmdk: error 14011")
	if strings.Index(err.Error(), "read 4096") != 0 || strings.Contains(err.Error(), "nbd") {
		t.Errorf("got %v", err)
	}
	desc := d.Describe()
	if !strings.Contains(desc.SourceWarning, "no snapshot") || strings.Contains(desc.Warning, "no snapshot") {
		t.Errorf("warnings: %q, of a source %q", desc.Warning, desc.SourceWarning)
	}
	for _, c := range []struct {
		opts vddk.Options
		more string
	}{
		{vddk.Options{Track: "bitmap:x"}, ""},
		{vddk.Options{Mode: vddk.ReadWrite}, "&transports=san"},
	} {
		_, err := vddk.Open(t.Context(), v.uri(2, c.more), c.opts)
		if err == nil || !strings.HasPrefix(err.Error(), "vm-42/[ds 1] vm/vm_2.vmdk: ") {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

func wantRetryable(t *testing.T, err error, text string) {
	t.Helper()
	r, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err)
	if !ok || !r.Retryable() || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want a retryable error with %q", err, text)
	}
}

// TestVDDKErrors: what the operator reads, and whether it may be tried again.
func TestVDDKErrors(t *testing.T) {
	workerPath(t)
	for _, c := range []struct {
		name, settings, more, fault string
		retry                       bool
		want                        string
	}{
		{"password", "password=other", "", "", false, "=VixDiskLib_ConnectEx vm-42 of vc.example: error 3014"},
		{"thumbprint", "thumbprint=other", "", "", false, "almost always the thumbprint"},
		{"snapshot", "snapshot=snapshot-7", "&snapshot=snapshot-8", "", true, "VixDiskLib_Open [ds 1] vm/vm_1.vmdk: error 13"},
		{"disk", "", "&snapshot=snapshot-8", "Open 1 4", false, "=VM vm-42 of vc.example: VixDiskLib_Open [ds 1] vm/vm_1.vmdk: error 4"},
		{"library", "", "&libdir=/nonexistent", "", false, "=VM vm-42 of vc.example: no usable libvixDiskLib in /nonexistent: neither lib64/libvixDiskLib.so.N"},
		{"init", "", "", "InitEx 1 7", false, "VixDiskLib_InitEx"},
		{"crash", "", "", "Open 1 crash", true, "=the VDDK worker of VM vm-42 of vc.example ended with status 2: "},
		{"crash at start", "", "", "InitEx 1 crash", true, "SIGSEGV: segmentation violation"},
		{"guard", "", "", "PrepareForAccess * 3", false, "VixDiskLib_PrepareForAccess vm-42: error 3"},
		{"san", "transport=san", "", "", false, "the library chose transport san"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVM(t, 80)
			v.disk(t, 1, make([]byte, 1<<20))
			v.lib.Set(c.settings)
			if c.fault != "" {
				v.lib.Fault(c.fault)
			}
			uri := v.uri(1, "")
			if strings.HasPrefix(c.more, "&libdir") {
				uri = strings.Replace(uri, "libdir="+v.lib.Dir, c.more[1:], 1)
			} else {
				uri += c.more
			}
			d, err := vddk.Open(t.Context(), uri, v.options(vddk.ReadWrite))
			if err == nil {
				d.Close()
				t.Fatal("it opened")
			}
			r, ok := errors.AsType[interface {
				error
				Retryable() bool
			}](err)
			want, begins := strings.CutPrefix(c.want, "=")
			if strings.Index(err.Error(), want) != 0 && begins {
				t.Errorf("%v does not begin with %q", err, want)
			}
			if !strings.Contains(err.Error(), want) || (ok && r.Retryable()) != c.retry || strings.Contains(err.Error(), "secret-of") {
				t.Errorf("got %v (retryable %v), want %v and %q", err, ok && r.Retryable(), c.retry, c.want)
			}
		})
	}
}

// TestVDDKCookie logs in with the cookie of a session.
func TestVDDKCookie(t *testing.T) {
	workerPath(t)
	v := newVM(t, 67)
	v.disk(t, 1, make([]byte, 1<<20))
	v.lib.Set("cookie=vmware_soap_session=\"52a-secret-of-the-test\"")
	if err := os.WriteFile(v.dir+"/password", []byte("vmware_soap_session=\"52a-secret-of-the-test\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := vddk.Open(t.Context(), strings.Replace(v.uri(1, ""), "user=root&password-file", "cookie-file", 1), v.options(vddk.ReadWrite))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if strings.Contains(v.logged(), "secret-of-the-test") {
		t.Errorf("log:\n%s", v.logged())
	}
}

// TestVDDKFailedRequest: the library's words about a request reach the caller,
// through a protocol that carries an errno.
func TestVDDKFailedRequest(t *testing.T) {
	workerPath(t)
	v := newVM(t, 80)
	v.disk(t, 1, make([]byte, 1<<20))
	d := v.open(t, 1, vddk.ReadWrite)
	p := make([]byte, 4096)
	v.lib.Fault("WriteAsync 1 14011", "ReadAsync.done 1 7", "Flush 1 8")
	_, err := d.WriteAt(p, 0)
	wantRetryable(t, err, "VixDiskLib_WriteAsync [ds 1] vm/vm_1.vmdk: error 14011")
	if _, err := d.WriteAt(p, 0); err != nil {
		t.Errorf("the write after it: %v", err)
	}
	_, err = d.ReadAt(p, 0)
	if err == nil || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "VixDiskLib_ReadAsync [ds 1] vm/vm_1.vmdk: error 7") {
		t.Errorf("read: %v", err)
	}
	if err := d.Flush(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "VixDiskLib_Flush") {
		t.Errorf("flush: %v", err)
	}
	if err := d.Flush(); err == nil {
		t.Error("a flush after a failed one succeeded")
	}
	if err := d.Close(); err == nil {
		t.Error("closing after a failed flush is no error")
	}
}

// TestVDDKCauseIsItsOwn: what the library said about one request is not said
// about another one, whatever went between.
func TestVDDKCauseIsItsOwn(t *testing.T) {
	workerPath(t)
	v := newVM(t, 80)
	v.disk(t, 1, make([]byte, 1<<20))
	d := v.open(t, 1, vddk.ReadWrite).(mover.WritableDisk)
	p := make([]byte, 4096)
	v.lib.Fault("WriteAsync 1 8", "ReadAsync 1 7")
	if _, err := d.WriteAt(p, 0); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "error 8 ") {
		t.Errorf("write: %v", err)
	}
	if _, err := d.WriteAt(p, 1<<20); err == nil || errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "VixDiskLib") {
		t.Errorf("a write beyond the end: %v", err)
	}
	if _, err := d.ReadAt(p, 0); !errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "error 7 ") {
		t.Errorf("a read of the same place: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.ReadAt(p, 0); !errors.Is(err, fs.ErrClosed) || strings.Contains(err.Error(), "VixDiskLib") {
		t.Errorf("after close: %v", err)
	}
}

// TestVDDKAgainstTools lets programs of others read what the worker serves.
func TestVDDKAgainstTools(t *testing.T) {
	workerPath(t)
	v := newVM(t, 80)
	const size = 8 << 20
	content := make([]byte, size)
	copy(content[3<<20:], bytes.Repeat([]byte("data"), 100_000))
	file := v.disk(t, 1, nil)
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.WriteAt(content[3<<20:4<<20], 3<<20)
	if err := errors.Join(err1, f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	v.open(t, 1, vddk.ReadOnly)
	sockets, _ := filepath.Glob(os.TempDir() + "/haulback-vddk-*/nbd.sock")
	if len(sockets) != 1 {
		t.Fatalf("sockets: %q", sockets)
	}
	if st, err := os.Stat(filepath.Dir(sockets[0])); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory of the socket: %v, %v", st.Mode(), err)
	}
	uri := "nbd+unix:///disk-1?socket=" + sockets[0]
	run := func(want string, args ...string) {
		t.Helper()
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Skipf("no %s", args[0])
		}
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v, want %q in\n%s", args, err, want, out)
		}
	}
	run("   3145728     1048576    0  data", "nbdinfo", "--map", uri)
	run("export-size: 8388608", "nbdinfo", uri)
	copied := filepath.Join(t.TempDir(), "copy.raw")
	run("", "nbdcopy", uri, copied)
	if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, content) {
		t.Errorf("nbdcopy: the copy differs (%v)", err)
	}
	run("Images are identical", "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, file)
}
