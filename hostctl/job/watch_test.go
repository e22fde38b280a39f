package job

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/store"
	"github.com/haulback/haulback/hostctl/store/bolt"
)

// gather reads events until one satisfies done.
func gather(t *testing.T, e *Engine, after uint64, f Filter, done func(Event) bool) (list []Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ev, err := range e.Watch(ctx, after, f) {
		if err != nil {
			t.Fatalf("watch after %d: %v, with %d events", after, err, len(list))
		}
		if list = append(list, ev); done(ev) {
			break
		}
	}
	return list
}

func ended(id string) func(Event) bool {
	return func(ev Event) bool { return ev.Kind == Changed && ev.Job.ID == id && ev.Job.Phase.Ended() }
}

// trail is the phases of one job as they were told.
func trail(list []Event, id string) (phases []Phase) {
	for _, ev := range list {
		if ev.Kind == Changed && ev.Job.ID == id && (len(phases) == 0 || phases[len(phases)-1] != ev.Job.Phase) {
			phases = append(phases, ev.Job.Phase)
		}
	}
	return phases
}

func TestWatchTellsAll(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{Transfer: func(ctx context.Context, k *Task) (Outcome, error) {
		k.Moving()
		return Outcome{Verified: true}, nil
	}}).run()
	r.submit("j", one("/t"))
	want := []Phase{New, Accepted, Prepared, InProgress, Completed}
	// From each place, exactly what follows it.
	all := gather(t, r.e, 1, Filter{}, ended("j"))
	all = slices.DeleteFunc(all, func(ev Event) bool { return ev.Kind != Changed })
	if got := trail(all, "j"); !slices.Equal(got, want) {
		t.Errorf("after the first revision: %v, want %v", got, want)
	}
	for i, from := range all[:len(all)-1] {
		got := gather(t, r.e, from.Revision, Filter{}, ended("j"))
		got = slices.DeleteFunc(got, func(ev Event) bool { return ev.Kind != Changed })
		if len(got) != len(all)-i-1 || got[0].Revision != all[i+1].Revision || got[0].Job.Revision != got[0].Revision {
			t.Errorf("after %d: %d events, want %d", from.Revision, len(got), len(all)-i-1)
		}
	}
}

func TestWatchSnapshotAndRemoval(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{}).run()
	for i := range 3 {
		r.submit(fmt.Sprint(i), one("/t"))
		r.await(fmt.Sprint(i), Completed)
	}
	if _, _, err := r.e.Submit(t.Context(), "theirs", "uid 1", one("/u"), nil); err != nil {
		t.Fatal(err)
	}
	r.await("theirs", Completed)
	snap := gather(t, r.e, 0, Filter{Owner: "uid 0"}, func(ev Event) bool { return ev.Kind == Synced })
	if len(snap) != 4 || snap[0].Revision != 0 || snap[3].Revision == 0 {
		t.Errorf("snapshot of %d events: %+v", len(snap), snap)
	}
	for _, ev := range snap[:3] {
		if ev.Job.Owner != "uid 0" || ev.Job.Phase != Completed || len(ev.Job.Spec.Disks) != 1 {
			t.Errorf("snapshot has %+v", ev.Job)
		}
	}
	for _, id := range []string{"theirs", "1"} {
		if err := r.e.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	r.submit("1", one("/again"))
	rest := gather(t, r.e, snap[3].Revision, Filter{Owner: "uid 0"}, ended("1"))
	rest = slices.DeleteFunc(rest, func(ev Event) bool { return ev.Kind == Telemetry }) // of no order
	if rest[0].Kind != Removed || rest[0].Job.ID != "1" {
		t.Errorf("after the removal: %+v", rest[0])
	}
	for _, ev := range rest {
		if ev.Job.ID == "theirs" {
			t.Errorf("told of another owner's job: %+v", ev)
		}
	}
	if got := trail(rest, "1"); len(got) == 0 || got[0] != New {
		t.Errorf("the new job of the old ID: %v", got)
	}
}

func TestWatchTelemetry(t *testing.T) {
	t.Parallel()
	more := make(chan int64)
	r := newRig(t, Config{Transfer: func(ctx context.Context, k *Task) (Outcome, error) {
		k.Moving()
		k.Event("link lost")
		k.Warning("look")
		for {
			select {
			case n := <-more:
				k.Progress(Counters{Scanned: n})
				k.Event(fmt.Sprint("at ", n))
			case <-ctx.Done():
				return Outcome{}, ctx.Err()
			}
		}
	}}).run()
	r.submit("j", one("/t"))
	r.await("j", InProgress)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	synced, told, noted := false, false, false
	for ev, err := range r.e.Watch(ctx, 0, Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		switch ev.Kind {
		case Synced:
			synced = true
			go func() { more <- 7 }()
		case Telemetry:
			if ev.Revision == 0 || ev.Job.ID != "j" || len(ev.Counters) != 1 || ev.Counters[0].Disk != "disk0" {
				t.Errorf("telemetry %+v", ev)
			}
			told = told || ev.Counters[0].Scanned == 7
		case Note:
			noted = noted || ev.Text == "at 7" && ev.Disk == "disk0" && !ev.Warning
		}
		if synced && told && noted {
			break
		}
	}
	if j, err := r.e.Get(t.Context(), "j"); err != nil || j.Disks[0].Outcome.Counters.Scanned != 7 {
		t.Errorf("get: %+v (%v)", j.Disks[0].Outcome.Counters, err)
	}
}

// TestSlowReader does not hold the engine, and hears every change when it comes
// back, or that it cannot.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{Transfer: func(ctx context.Context, k *Task) (Outcome, error) {
		k.Moving()
		for i := range int64(1000) {
			k.Progress(Counters{Scanned: i})
			k.Event("again")
		}
		return Outcome{Verified: true}, nil
	}}).run()
	r.submit("first", one("/t"))
	r.await("first", Completed)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	last, seen, done := uint64(0), 0, 0
	for ev, err := range r.e.Watch(ctx, 1, Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind != Changed {
			continue
		}
		if seen++; seen == 1 { // the reader sleeps, the engine works
			for i := range 20 {
				r.submit(fmt.Sprint(i), one(fmt.Sprint("/t", i)))
			}
			for i := range 20 {
				r.await(fmt.Sprint(i), Completed)
			}
		}
		if ev.Revision <= last {
			t.Errorf("revision %d after %d", ev.Revision, last)
		}
		if last = ev.Revision; ev.Job.Phase == Completed { // the jobs run side by side: any may be the last
			if done++; done == 21 {
				break
			}
		}
	}
	if seen < 21*5-1 {
		t.Errorf("saw %d changes, want at least %d", seen, 21*5-1)
	}
}

func TestWatchTooOld(t *testing.T) {
	t.Parallel()
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(scratch(t), "db"), History: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	e, err := Open(t.Context(), Config{Store: db, Queue: db, Lease: db, Transfer: verified, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, _, err := e.Submit(t.Context(), fmt.Sprint(i), "o", one("/t"), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, after := range []uint64{1, 1 << 40} {
		for _, err := range e.Watch(t.Context(), after, Filter{}) {
			if !errors.Is(err, store.ErrCompacted) {
				t.Errorf("after %d: %v", after, err)
			}
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for ev, err := range e.Watch(ctx, 0, Filter{}) {
		if ev.Kind == Changed {
			n++
		}
		if ev.Kind == Synced {
			cancel()
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if n != 5 {
		t.Errorf("a snapshot of %d jobs, want 5", n)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// TestSnapshotIsNotUndone: what a job went through before the snapshot told it
// is not told after.
func TestSnapshotIsNotUndone(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	r.submit("j", one("/t"))
	var told []uint64
	w := &watch{e: r.e, newest: map[string]uint64{"j": 7}, yield: func(ev Event, err error) bool {
		told = append(told, ev.Revision)
		return err == nil
	}}
	x, err := r.db.Get(t.Context(), jobKey+"j")
	if err != nil {
		t.Fatal(err)
	}
	for x.Revision = 5; x.Revision < 10; x.Revision++ {
		w.change(t.Context(), store.Change{Entry: x})
	}
	if !slices.Equal(told, []uint64{8, 9}) {
		t.Errorf("told %v, want those after 7", told)
	}
}
