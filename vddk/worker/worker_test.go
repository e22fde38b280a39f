package worker_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/vddk/vix/vixtest"
	"github.com/haulback/haulback/vddk/worker"
)

// TestHang: a call of the library that does not return ends the worker within
// its limit, whatever the call; what waits for it fails, and the next open works.
func TestHang(t *testing.T) {
	call, io := worker.Limits{Call: time.Second}, worker.Limits{IO: 500 * time.Millisecond}
	for _, c := range []struct {
		name, fault string
		limits      worker.Limits // of the worker that hangs
		use         func(*site, *testing.T) error
		want        string
	}{
		{"open", "Open 1 once:hang", call, func(s *site, t *testing.T) error {
			_, err := s.pool.Open(t.Context(), s.c, target())
			return err
		}, "killed itself: VixDiskLib_Open [ds] vm/vm.vmdk has not returned for 1s"},
		{"read", "ReadAsync 1 once:hang", io, func(s *site, t *testing.T) error {
			d, c := s.open(t)
			_, err := c.ReadAt(make([]byte, 512), 0)
			return errors.Join(err, d.Cause())
		}, "killed itself: VixDiskLib_ReadAsync [ds] vm/vm.vmdk has not returned for 500ms"},
		{"completion", "WriteAsync.done 1 once:hang", io, func(s *site, t *testing.T) error {
			d, c := s.open(t)
			_, err := c.WriteAt(make([]byte, 512), 0)
			return errors.Join(err, d.Cause())
		}, "killed itself: VixDiskLib_WriteAsync"},
		{"flush", "Flush 1 once:hang", io, func(s *site, t *testing.T) error {
			d, c := s.open(t)
			return errors.Join(c.Flush(), d.Cause())
		}, "killed itself: VixDiskLib_Flush"},
		{"map", "QueryAllocatedBlocks 1 once:hang", call, func(s *site, t *testing.T) error {
			d, c := s.open(t)
			_, err := c.NextData(0)
			return errors.Join(err, d.Cause())
		}, "killed itself: VixDiskLib_QueryAllocatedBlocks"},
		{"start", "InitEx 1 once:hang", worker.Limits{Start: 3 * time.Second}, func(s *site, t *testing.T) error {
			_, err := s.pool.Open(t.Context(), s.c, target())
			if err != nil && strings.Contains(err.Error(), "did not start within 3s") {
				return &worker.DiedError{Reason: err.Error()} // no worker was there to die
			}
			return err
		}, "did not start within 3s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.c.Limits = c.limits
			s.lib.Fault(c.fault)
			wantDied(t, c.use(s, t), c.want)
			s.c.Limits = worker.Limits{}
			_, client := s.open(t)
			if _, err := client.ReadAt(make([]byte, 512), 0); err != nil {
				t.Errorf("after the restart: %v", err)
			}
			if pids := s.pids(); len(pids) != 2 {
				t.Errorf("workers: %v", pids)
			}
		})
	}
}

// TestSilent: a worker that is stopped, not hung in the library, is killed too.
func TestSilent(t *testing.T) {
	s := newSite(t)
	s.c.Limits.Ping = 2 * time.Second // also of the second worker, on a loaded machine
	d, c := s.open(t)
	if err := syscall.Kill(s.pids()[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, err := c.ReadAt(make([]byte, 512), 0)
	if err == nil {
		t.Error("a stopped worker answered")
	}
	wantDied(t, d.Cause(), "did not answer for 2s and was killed")
	wantDied(t, d.Lost(), "did not answer")
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.open(t)
}

// TestSlowEnd: a worker that was told to end is not asked whether it lives, and
// what it hangs in is told by itself.
func TestSlowEnd(t *testing.T) {
	s := newSite(t)
	s.c.Limits = worker.Limits{Ping: 2 * time.Second, Call: 3 * time.Second}
	d, err := s.pool.Open(t.Context(), s.c, target())
	if err != nil {
		t.Fatal(err)
	}
	s.lib.Fault("EndAccess 1 hang") // a slow vCenter
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	wantDied(t, d.Lost(), "killed itself: VixDiskLib_EndAccess vm-42 has not returned for 3s")
}

// TestSlowMap: a write that waits for the map of its disk does not count as hung;
// the map has the longer limit, and is what is blamed.
func TestSlowMap(t *testing.T) {
	s := newSite(t)
	s.c.Limits = worker.Limits{IO: 200 * time.Millisecond, Call: 2 * time.Second}
	d, c := s.open(t)
	s.lib.Fault("QueryAllocatedBlocks 1 once:hang")
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = c.NextData(0) }) // it is lost with the worker
	for !slices.ContainsFunc(s.lib.Calls(), func(c vixtest.Call) bool { return c.Function == "QueryAllocatedBlocks" }) {
		runtime.Gosched()
	}
	if _, err := c.WriteAt(make([]byte, 4096), 0); err == nil {
		t.Error("a write went past a map that hangs")
	}
	wg.Wait()
	wantDied(t, d.Cause(), "killed itself: VixDiskLib_QueryAllocatedBlocks [ds] vm/vm.vmdk has not returned for 2s")
}

// TestSignals: what tells a service to stop is for the supervisor to hear, which
// still has to flush through the worker.
func TestSignals(t *testing.T) {
	s := newSite(t)
	d, c := s.open(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if err := syscall.Kill(s.pids()[0], sig); err != nil {
			t.Fatal(err)
		}
		for range 20 { // one that is killed by it answers some at most
			_, err := c.WriteAt(make([]byte, 4096), 0)
			if err := errors.Join(err, c.Flush(), d.Lost()); err != nil {
				t.Fatalf("%v: %v; %v", sig, err, d.Cause())
			}
		}
	}
	if err := errors.Join(c.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	if left := s.lib.Disabled(); len(left) != 0 {
		t.Errorf("guards left: %q", left)
	}
}

// TestCrashes: a worker that always crashes fails every open, later and later;
// another disk's does not wait for it.
func TestCrashes(t *testing.T) {
	s := newSite(t)
	s.lib.Fault("Open * crash")
	var took []time.Duration
	for range 4 {
		at := time.Now()
		_, err := s.pool.Open(t.Context(), s.c, target())
		wantDied(t, err, "SIGSEGV: segmentation violation")
		took = append(took, time.Since(at))
	}
	if took[3] < 500*time.Millisecond { // 0, 0, 250, 500 ms
		t.Errorf("the opens took %v: no pause", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.pool.Open(ctx, s.c, target()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an open that waits for its turn: %v", err)
	}
	s.lib.Fault()
	d, _ := s.open(t)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left := s.lib.Disabled(); len(left) != 0 {
		t.Errorf("guards left: %q", left)
	}
}

// TestShared: one worker for one VM and identity, another one for another.
func TestShared(t *testing.T) {
	s := newSite(t)
	s.open(t)
	s.open(t)
	if pids := s.pids(); len(pids) != 1 {
		t.Errorf("workers: %v", pids)
	}
	s.c.Password = "wrong"
	_, err := s.pool.Open(t.Context(), s.c, target())
	if err == nil || !strings.Contains(err.Error(), "ConnectEx") {
		t.Errorf("with a wrong password beside a right one: %v", err)
	}
	if pids := s.pids(); len(pids) != 2 {
		t.Errorf("workers: %v", pids)
	}
	var wg sync.WaitGroup
	for range 6 { // the last one out ends the worker, the next one in starts one
		wg.Go(func() {
			c := config(s.lib.Dir, s.c.Program)
			for range 3 {
				d, err := s.pool.Open(t.Context(), c, target())
				if err != nil {
					t.Error(err)
					return
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestCanceledOpen: a disk that was opened too late is closed again.
func TestCanceledOpen(t *testing.T) {
	s := newSite(t)
	s.open(t)
	s.lib.Set("latency_us=1000")
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if d, err := s.pool.Open(ctx, s.c, target()); err == nil {
		d.Close()
	} else if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestSupervisorDies: a worker whose supervisor is killed flushes, closes and
// frees its VM by itself.
func TestSupervisorDies(t *testing.T) {
	s := newSite(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), supervisorEnv+"="+s.lib.Dir+"\n"+s.c.Program+"\n"+s.c.StateDir)
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 5)
	if _, err := out.Read(line); err != nil || string(line) != "open\n" {
		t.Fatalf("%q, %v", line, err)
	}
	pid := s.pids()[0]
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	waitGone(t, pid)
	var last []string
	for _, c := range s.lib.Calls() {
		last = append(last, c.Function)
	}
	if got := strings.Join(last, " "); !strings.HasSuffix(got, "Wait Flush Wait Close Disconnect EndAccess Exit") {
		t.Errorf("calls: %s", got)
	}
	if left := s.lib.Disabled(); len(left) != 0 {
		t.Errorf("guards left: %q", left)
	}
}

// waitGone waits for a process that is not our child.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for t.Context().Err() == nil {
		state, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if errors.Is(err, fs.ErrNotExist) || strings.Contains(string(state), ") Z ") {
			return
		}
		runtime.Gosched()
	}
}

// TestGuard: what dead workers left is ended by the next one, also when several
// died; living ones are left alone.
func TestGuard(t *testing.T) {
	s := newSite(t)
	d, _ := s.open(t)
	other := s.c
	other.Port = 443 // another identity: another worker
	alive, err := s.pool.Open(t.Context(), other, target())
	if err != nil {
		t.Fatal(err)
	}
	if left := s.lib.Disabled(); len(left) != 2 {
		t.Fatalf("guards: %q", left)
	}
	if err := syscall.Kill(s.pids()[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = d.Close()
	d, _ = s.open(t)
	if left := s.lib.Disabled(); len(left) != 2 {
		t.Errorf("guards with two living workers: %q", left)
	}
	if records, _ := filepath.Glob(s.c.StateDir + "/guard-*.json"); len(records) != 2 {
		t.Errorf("records: %q", records)
	}
	if err := errors.Join(d.Close(), alive.Close()); err != nil {
		t.Error(err)
	}
	if left := s.lib.Disabled(); len(left) != 0 {
		t.Errorf("guards at the end: %q", left)
	}
	if left, _ := os.ReadDir(s.c.StateDir); len(left) != 0 {
		t.Errorf("records at the end: %v", left)
	}
}

// TestBareESXi: the guard is refused there, and that is no reason to stop.
func TestBareESXi(t *testing.T) {
	s := newSite(t)
	s.lib.Set("esxi=1")
	s.c.VM = "42"
	d, _ := s.open(t)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(s.c.StateDir); len(left) != 0 {
		t.Errorf("records: %v", left)
	}
}

// TestNoWorker: programs that are no worker, or one without the binding.
func TestNoWorker(t *testing.T) {
	s := newSite(t)
	plain := filepath.Join(t.TempDir(), "haulback-vddk")
	build := exec.Command("go", "build", "-o", plain, "github.com/haulback/haulback/cmd/haulback-vddk")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for program, want := range map[string]string{
		"/nonexistent": "no such file",
		"/bin/true":    "ended with status 0",
		"/bin/echo":    "did not keep to the protocol and was killed",
		plain:          "built without cgo",
	} {
		s.c.Program = program
		_, err := s.pool.Open(t.Context(), s.c, target())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", program, err, want)
		}
	}
	out, err := exec.Command(plain, "--version").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 10 || !strings.Contains(string(out), "CGO_ENABLED=1") {
		t.Errorf("--version of a program without cgo: %v\n%s", err, out)
	}
}

// TestNothingIsLeft: no goroutine, no descriptor, no child, no directory.
func TestNothingIsLeft(t *testing.T) {
	s := newSite(t)
	use := func() {
		d, c := s.open(t)
		if err := errors.Join(c.Close(), d.Close()); err != nil {
			t.Error(err)
		}
		d, c = s.open(t)
		if err := syscall.Kill(s.pids()[len(s.pids())-1], syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		wantDied(t, d.Cause(), "signal 9")
		c.Close()
		d.Close()
	}
	use()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for range 3 {
		use()
	}
	for runtime.NumGoroutine() > goroutines && t.Context().Err() == nil {
		runtime.Gosched() // those that have done everything but return
	}
	if n := descriptors(t); n > files {
		t.Errorf("%d descriptors, %d at the beginning", n, files)
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) != 0 {
		t.Errorf("left in the temporary directory: %v", left)
	}
	if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("children: %v", err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	runtime.GC()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
