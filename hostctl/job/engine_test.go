package job

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/store/bolt"
)

// rig is an engine on a file, with a transfer that a test scripts.
type rig struct {
	t    testing.TB
	path string
	db   *bolt.DB
	e    *Engine
	conf Config

	ran  chan error
	quit context.CancelFunc
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// newRig opens an engine that does not run yet.
func newRig(t testing.TB, c Config) *rig {
	t.Helper()
	r := &rig{t: t, path: filepath.Join(scratch(t), "jobs.db"), conf: c}
	r.open()
	t.Cleanup(func() { r.close() })
	return r
}

// scratch is a directory, in memory where that is: a thousand synced writes
// are no test of the disk.
func scratch(t testing.TB) string {
	if os.Getenv("HAULBACK_TEST_DISK") == "" {
		if dir, err := os.MkdirTemp("/dev/shm", "haulback-job-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	if r.db, err = bolt.Open(bolt.Config{Path: r.path}); err != nil {
		r.t.Fatal(err)
	}
	c := r.conf
	c.Store, c.Queue, c.Lease = r.db, r.db, r.db
	if c.Log == nil {
		c.Log = quiet
	}
	if c.Transfer == nil {
		c.Transfer = verified
	}
	if c.Persist == 0 {
		c.Persist = 20 * time.Millisecond
	}
	if c.Telemetry == 0 {
		c.Telemetry = 10 * time.Millisecond
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 50 * time.Millisecond
	}
	if r.e, err = Open(context.Background(), c); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) run() *rig {
	ctx, cancel := context.WithCancel(context.Background())
	ran, e := make(chan error, 1), r.e
	go func() { ran <- e.Run(ctx) }()
	r.quit, r.ran = cancel, ran
	return r
}

// halt ends Run and answers what it returned.
func (r *rig) halt() (err error) {
	if r.quit != nil {
		r.quit()
		err = <-r.ran
		r.quit = nil
	}
	return err
}

func (r *rig) close() {
	_ = r.halt()
	_ = r.e.Close()
	if err := r.db.Close(); err != nil {
		r.t.Error(err)
	}
}

// restart ends the engine as SIGTERM does and opens it again.
func (r *rig) restart() {
	r.t.Helper()
	r.close()
	r.open()
}

func (r *rig) submit(id string, s Spec) Job {
	r.t.Helper()
	j, _, err := r.e.Submit(context.Background(), id, "uid 0", s, nil)
	if err != nil {
		r.t.Fatalf("submit %s: %v", id, err)
	}
	return j
}

// await waits for a phase; a job that ends in another fails the test.
func (r *rig) await(id string, want Phase) Job {
	r.t.Helper()
	return r.until(id, want.String(), func(j Job) bool {
		if j.Phase.Ended() && j.Phase != want {
			r.t.Fatalf("job %s ended %v (%v), not %v", id, j.Phase, j.Failure, want)
		}
		return j.Phase == want
	})
}

func (r *rig) until(id, what string, ok func(Job) bool) Job {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var last Job
	for ev, err := range r.e.Watch(ctx, 0, Filter{ID: id}) {
		if err != nil {
			r.t.Fatalf("job %s is %v (%v), awaited %s: %v", id, last.Phase, last.Failure, what, err)
		}
		if ev.Kind == Changed {
			if last = ev.Job; ok(ev.Job) {
				return ev.Job
			}
		}
	}
	panic("a watch ends with an error")
}

func verified(context.Context, *Task) (Outcome, error) {
	return Outcome{State: "Verified", Verified: true, Equal: true}, nil
}

// blocked is a transfer that moves and then waits to be told to stop.
func blocked(ctx context.Context, t *Task) (Outcome, error) {
	t.Moving()
	<-ctx.Done()
	return Outcome{State: "Inconsistent"}, ctx.Err()
}

func one(target string) Spec {
	return Spec{Mode: Copy, Disks: []Disk{{Source: "/src", Target: target}}}
}

func two() Spec {
	return Spec{Mode: Copy, Disks: []Disk{{Source: "/src/a", Target: "/dst/a"}, {Source: "/src/b", Target: "/dst/b"}}}
}

// reason is that of a *Failure; "" for nil.
func reason(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	f, ok := errors.AsType[*Failure](err)
	if !ok {
		t.Fatalf("%v is not a *Failure", err)
	}
	if f.Text == "" || f.Retry == 0 || f.Exit == 0 {
		t.Errorf("the failure %+v is not complete", f)
	}
	return f.Reason
}

func TestJobCompletes(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tasks := map[string]*Task{}
	r := newRig(t, Config{Transfer: func(_ context.Context, k *Task) (Outcome, error) {
		mu.Lock()
		tasks[k.Disk.Name] = k
		mu.Unlock()
		k.Moving()
		k.Progress(Counters{Total: 7, Scanned: 7})
		return Outcome{State: "Verified", Verified: true}, nil
	}}).run()
	r.submit("j", two())
	j := r.await("j", Completed)
	for _, d := range j.Disks {
		if d.Phase != Completed || d.Starts != 1 || d.Outcome.Counters.Scanned != 7 || d.Run == "" || d.Started.IsZero() || d.Ended.IsZero() {
			t.Errorf("disk %+v", d)
		}
		if k := tasks[d.Name]; k == nil || k.Run != d.Run || k.Job != "j" {
			t.Errorf("task of %s is %+v", d.Name, k)
		}
	}
	if j.Disks[0].Run == j.Disks[1].Run {
		t.Error("two disks have one run")
	}
}
