package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/store"
)

func TestPauseResumeCancel(t *testing.T) {
	t.Parallel()
	var starts atomic.Int32
	r := newRig(t, Config{Transfer: func(ctx context.Context, k *Task) (Outcome, error) {
		starts.Add(1)
		return blocked(ctx, k)
	}}).run()
	r.submit("j", two())
	before := r.await("j", InProgress)
	if _, err := r.e.Pause(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	j := r.await("j", Paused)
	if n := r.e.Counts(); n[Paused] != 1 || len(n) != 1 {
		t.Errorf("counts of one paused job: %v", n)
	}
	if j.Wanted != 0 || j.Disks[0].Phase != Paused || j.Disks[1].Phase != Paused || j.Failure != nil {
		t.Errorf("paused: %+v", j)
	}
	r.restart() // stays paused
	r.run()
	if j, err := r.e.Get(t.Context(), "j"); err != nil || j.Phase != Paused {
		t.Errorf("after a restart: %v (%v)", j.Phase, err)
	}
	if j, err := r.e.Resume(t.Context(), "j"); err != nil || j.Phase != Accepted {
		t.Errorf("resume: %v (%v)", j.Phase, err)
	}
	j = r.until("j", "both run", func(j Job) bool { return j.Disks[0].Phase == InProgress && j.Disks[1].Phase == InProgress })
	if j.Disks[0].Run != before.Disks[0].Run || j.Disks[0].Starts != 2 {
		t.Errorf("resumed as %+v", j.Disks[0])
	}
	if _, err := r.e.Cancel(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	j = r.await("j", Canceled)
	if j.Failure == nil || j.Failure.Reason != ReasonCanceled || j.Failure.Exit != 130 || j.Disks[0].Outcome.State != "Inconsistent" {
		t.Errorf("canceled: %+v", j)
	}
	if starts.Load() != 4 {
		t.Errorf("%d starts, want 4", starts.Load())
	}
}

// TestWantedSurvives: kill -9 between the wish and its effect.
func TestWantedSurvives(t *testing.T) {
	t.Parallel()
	for wish, c := range map[string]struct {
		ask  func(*Engine) (Job, error)
		want Phase
	}{
		"pause":  {func(e *Engine) (Job, error) { return e.Pause(context.Background(), "j") }, Paused},
		"cancel": {func(e *Engine) (Job, error) { return e.Cancel(context.Background(), "j") }, Canceled},
	} {
		t.Run(wish, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			r := newRig(t, Config{Transfer: func(_ context.Context, k *Task) (Outcome, error) {
				k.Moving()
				<-release // deaf
				return Outcome{Verified: true}, nil
			}}).run()
			r.submit("j", one("/t"))
			r.await("j", InProgress)
			if j, err := c.ask(r.e); err != nil || j.Wanted != c.want {
				t.Fatalf("%+v (%v)", j, err)
			}
			crashed := crash(t, r, Config{})
			if j, err := crashed.e.Get(t.Context(), "j"); err != nil || j.Phase != c.want || j.Wanted != 0 || j.Disks[0].Starts != 1 {
				t.Errorf("after the crash: %+v (%v)", j, err)
			}
			close(release)
		})
	}
}

func TestRestartGoesOn(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	finish, runs := false, map[string][]string{}
	r := newRig(t, Config{Transfer: func(ctx context.Context, k *Task) (Outcome, error) {
		mu.Lock()
		runs[k.Disk.Name] = append(runs[k.Disk.Name], k.Run)
		end := finish || k.Disk.Name == "disk0"
		mu.Unlock()
		k.Moving()
		k.Progress(Counters{Scanned: 42})
		if end {
			return Outcome{Verified: true}, nil
		}
		<-ctx.Done()
		return Outcome{}, ctx.Err()
	}}).run()
	r.submit("j", two())
	r.until("j", "one of two done", func(j Job) bool {
		return j.Disks[0].Phase == Completed && j.Disks[1].Phase == InProgress
	})
	if err := r.e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-r.ran; err != nil {
		t.Errorf("Run after Drain: %v", err)
	}
	r.quit = nil
	if j, err := r.e.Get(t.Context(), "j"); err != nil || j.Phase != InProgress || j.Disks[1].Phase != InProgress {
		t.Errorf("drained: %v, disk %v (%v)", j.Phase, j.Disks[1].Phase, err)
	}
	mu.Lock()
	finish = true
	mu.Unlock()
	r.restart()
	if j, err := r.e.Get(t.Context(), "j"); err != nil || j.Disks[1].Outcome.Counters.Scanned != 42 {
		t.Errorf("the last counters are not shown: %+v (%v)", j.Disks[1].Outcome.Counters, err)
	}
	r.run()
	r.await("j", Completed)
	if len(runs["disk0"]) != 1 || len(runs["disk1"]) != 2 || runs["disk1"][0] != runs["disk1"][1] {
		t.Errorf("runs %v: a Verified disk ran again, or a run changed", runs)
	}
}

// TestCountersSurviveKill: they were stored while it ran.
func TestCountersSurviveKill(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{Transfer: func(ctx context.Context, k *Task) (Outcome, error) {
		k.Moving()
		k.Progress(Counters{Scanned: 42})
		<-ctx.Done()
		return Outcome{}, ctx.Err()
	}}).run()
	r.submit("j", one("/t"))
	r.await("j", InProgress)
	for _, err := range r.db.Watch(t.Context(), "", 0) {
		if x, getErr := r.db.Get(t.Context(), countersKey); err != nil || getErr == nil && strings.Contains(string(x.Value), "42") {
			break
		}
	}
	crashed := crash(t, r, Config{})
	for range 2 { // what was read is not lost by the next one's own record
		if j, err := crashed.e.Get(t.Context(), "j"); err != nil || j.Disks[0].Outcome.Counters.Scanned != 42 {
			t.Errorf("after the crash: %+v (%v)", j.Disks[0].Outcome.Counters, err)
		}
		crashed.restart()
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	good := false
	r := newRig(t, Config{Transfer: func(_ context.Context, k *Task) (Outcome, error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case good || k.Disk.Name == "disk3":
			return Outcome{Verified: true}, nil
		case k.Disk.Name == "disk0":
			panic("at the disco")
		case k.Disk.Name == "disk1":
			return Outcome{State: "Inconsistent", Bad: make([]Extent, 5000), TrackingReason: strings.Repeat("x", 1<<20)},
				&Failure{Reason: ReasonUnavailable, Text: strings.Repeat("y", 1<<20), Retry: RetryBackoff, Exit: 13}
		}
		return Outcome{}, nil // says success and is none
	}}).run()
	s := Spec{Mode: Copy}
	for i := range 4 {
		s.Disks = append(s.Disks, Disk{Source: "/s", Target: fmt.Sprint("/t", i)})
	}
	r.submit("j", s)
	j := r.await("j", Failed)
	for i, want := range []Phase{Failed, Failed, Failed, Completed} {
		if j.Disks[i].Phase != want {
			t.Errorf("disk %d is %v, want %v", i, j.Disks[i].Phase, want)
		}
	}
	if f := j.Disks[0].Failure; f.Reason != ReasonInternal || !strings.Contains(f.Text, "disco") {
		t.Errorf("panic: %+v", f)
	}
	if d := j.Disks[1]; len(d.Outcome.Bad) != 256 || len(d.Failure.Text) != maxText || len(d.Outcome.TrackingReason) != maxDetail {
		t.Errorf("not bounded: %d bad, %d bytes", len(d.Outcome.Bad), len(d.Failure.Text))
	}
	if j.Failure == nil {
		t.Error("the job has no failure")
	}
	r.restart()
	r.run()
	mu.Lock()
	good = true
	mu.Unlock()
	if _, err := r.e.Resume(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	again := r.await("j", Completed)
	if again.Disks[0].Run != j.Disks[0].Run || again.Disks[0].Starts != 2 || again.Disks[3].Starts != 1 || again.Failure != nil {
		t.Errorf("resumed: %+v", again)
	}
}

// TestStoreRefuses: what the store does not take is done later, and nothing is
// seen before.
func TestStoreRefuses(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	end := make(chan struct{})
	r := newRig(t, Config{Transfer: func(_ context.Context, k *Task) (Outcome, error) {
		k.Moving()
		<-end
		return Outcome{Verified: true}, nil
	}})
	f.Store, r.e.c.Store = r.e.c.Store, f
	r.run()
	r.submit("j", one("/t"))
	r.await("j", InProgress)
	f.broken.Store(true)
	for verb, ask := range map[string]func() (Job, error){
		"pause":  func() (Job, error) { return r.e.Pause(t.Context(), "j") },
		"cancel": func() (Job, error) { return r.e.Cancel(t.Context(), "j") },
		"limits": func() (Job, error) { return r.e.SetLimits(t.Context(), "j", Limits{Wire: 1 << 20}) },
		"submit": func() (Job, error) {
			j, _, err := r.e.Submit(t.Context(), "k", "o", one("/u"), nil)
			return j, err
		},
	} {
		if _, err := ask(); reason(t, err) != ReasonEngine {
			t.Errorf("%s: %v", verb, err)
		}
	}
	close(end)
	for f.refused.Load() < 20 { // it tries to tell the end
		time.Sleep(time.Millisecond)
	}
	if j, err := r.e.Get(t.Context(), "j"); err != nil || j.Phase != InProgress || j.Wanted != 0 || j.Limits.Wire != 0 {
		t.Errorf("seen before it was stored: %+v (%v)", j, err)
	}
	r.e.mu.Lock()
	if a := r.e.jobs["j"].act; !a.runs(0) || len(r.e.running) != 1 {
		t.Error("its place is free before its end was stored")
	}
	r.e.mu.Unlock()
	f.broken.Store(false)
	if j := r.await("j", Completed); j.Disks[0].Starts != 1 {
		t.Errorf("it was started %d times", j.Disks[0].Starts)
	}
	if j := r.submit("k", one("/u")); j.Phase != Accepted {
		t.Errorf("submitted again: %v", j.Phase)
	}
	r.await("k", Completed)
}

// faulty is a store that takes nothing for a while.
type faulty struct {
	store.Store
	broken  atomic.Bool
	refused atomic.Int32
}

var errFull = errors.New("no space left on device")

func (f *faulty) refuse() error {
	if f.broken.Load() {
		f.refused.Add(1)
		return errFull
	}
	return nil
}

func (f *faulty) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := f.refuse(); err != nil {
		return 0, err
	}
	return f.Store.Create(ctx, key, value)
}

func (f *faulty) Update(ctx context.Context, key string, value []byte, at uint64) (uint64, error) {
	if err := f.refuse(); err != nil {
		return 0, err
	}
	return f.Store.Update(ctx, key, value, at)
}

// TestFenced: a state that somebody else changed ends the engine, and what runs
// is stopped.
func TestFenced(t *testing.T) {
	t.Parallel()
	stopped := make(chan struct{})
	r := newRig(t, Config{Transfer: func(ctx context.Context, k *Task) (Outcome, error) {
		defer close(stopped)
		return blocked(ctx, k)
	}}).run()
	r.submit("j", one("/t"))
	r.await("j", InProgress)
	x, err := r.db.Get(t.Context(), jobKey+"j")
	if err == nil {
		_, err = r.db.Update(t.Context(), x.Key, x.Value, x.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Pause(t.Context(), "j"); reason(t, err) != ReasonFenced {
		t.Errorf("pause by a stale engine: %v", err)
	}
	<-stopped
	if err := <-r.ran; reason(t, err) != ReasonFenced {
		t.Errorf("Run: %v", err)
	}
	r.quit = nil
	if _, _, err := r.e.Submit(t.Context(), "k", "o", one("/u"), nil); reason(t, err) != ReasonFenced {
		t.Errorf("submit to a stale engine: %v", err)
	}
	if j, err := r.e.read(t.Context(), "j"); err != nil || j.Wanted != 0 {
		t.Errorf("the stale engine wrote: %+v (%v)", j, err)
	}
}

// TestStoreBreaks: a store that has to be opened again ends the engine, which
// would else run what it can never record. Nobody has to call for that.
func TestStoreBreaks(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{Transfer: blocked}).run()
	for i := range 8 { // more pages than the file keeps
		s := one(fmt.Sprint("/t", i))
		s.Labels = map[string]string{"long": strings.Repeat("x", 200)}
		r.submit(fmt.Sprint(i), s)
	}
	if err := os.Truncate(r.path, 8192); err != nil {
		t.Fatal(err)
	}
	if err := <-r.ran; reason(t, err) != ReasonEngine || !strings.Contains(err.Error(), "opened again") {
		t.Errorf("Run: %v", err)
	}
	r.quit = nil
}

func TestLeaseHeld(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	c := r.conf
	c.Store, c.Queue, c.Lease, c.Transfer = r.db, r.db, r.db, verified
	if _, err := Open(t.Context(), c); !errors.Is(err, store.ErrHeld) {
		t.Errorf("a second engine: %v", err)
	}
}

// TestLeaseTaken: another holder since then means that this engine is stale; an
// end that nobody used does not.
func TestLeaseTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	if err := r.db.Release(t.Context(), leaseName, r.e.epoch); err != nil {
		t.Fatal(err)
	}
	if err := r.e.renew(t.Context()); err != nil || r.e.stopping != nil {
		t.Fatalf("a lease that nobody took: %v", err)
	}
	if err := r.db.Release(t.Context(), leaseName, r.e.epoch); err != nil {
		t.Fatal(err)
	}
	other, err := r.db.Acquire(t.Context(), leaseName, "other", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.db.Release(t.Context(), leaseName, other); err != nil {
		t.Fatal(err)
	}
	if err := r.e.renew(t.Context()); reason(t, err) != ReasonFenced || r.e.stopping == nil {
		t.Errorf("a lease that another had: %v", err)
	}
}

func TestDeadLetter(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	r.submit("j", one("/t"))
	x, err := r.db.Get(t.Context(), jobKey+"j")
	if err != nil {
		t.Fatal(err)
	}
	s, err := decodeState(x.Key, x.Value)
	if err != nil {
		t.Fatal(err)
	}
	s.Disks[0].Starts = 100
	value, err := encode(s)
	if err == nil {
		_, err = r.db.Update(t.Context(), x.Key, value, x.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.restart()
	deliver(t, r, 100)
	r.run()
	j := r.await("j", Failed)
	if j.Failure.Reason != ReasonIncomplete || j.Failure.Retry != RetryAfterReconcile {
		t.Errorf("%+v", j.Failure)
	}
	if _, err := r.e.Resume(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	r.await("j", Completed)
}

// TestDeadLetterThatWaited: a job that was delivered as often and never begun
// waited while others ended the daemon. It runs.
func TestDeadLetterThatWaited(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	r.submit("j", one("/t"))
	deliver(t, r, 100)
	r.run()
	if j := r.await("j", Completed); j.Disks[0].Starts != 1 {
		t.Errorf("%d starts", j.Disks[0].Starts)
	}
}

// deliver takes the only item of the queue and gives it back, n times; 100 is
// the most that the queue allows.
func deliver(t *testing.T, r *rig, n int) {
	t.Helper()
	for range n {
		d, err := r.db.Take(t.Context())
		if err == nil {
			err = d.Nak(t.Context(), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestOpenKeepsOthers: a job that ends while Open reads lets old jobs go, and
// those that Open has not reached yet are not old.
func TestOpenKeepsOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{Transfer: blocked, MaxDisks: 1}).run()
	for i := range 5 {
		r.submit(fmt.Sprint(i), one("/t"))
	}
	r.until("0", "it runs", func(j Job) bool { return j.Phase == InProgress || j.Phase == Accepted })
	if err := r.halt(); err != nil { // nothing runs: the wishes below are only stored
		t.Fatal(err)
	}
	x, err := r.db.Get(t.Context(), jobKey+"2")
	if err != nil {
		t.Fatal(err)
	}
	s, err := decodeState(x.Key, x.Value)
	if err != nil {
		t.Fatal(err)
	}
	s.Wanted = Canceled
	value, err := encode(s)
	if err == nil {
		_, err = r.db.Update(t.Context(), x.Key, value, x.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // what the first has done to the store
		r.restart()
		if jobs, _, err := r.e.List(t.Context(), Filter{}, Page{}); err != nil || len(jobs) != 5 {
			t.Fatalf("%d jobs of 5 (%v)", len(jobs), err)
		}
	}
}
