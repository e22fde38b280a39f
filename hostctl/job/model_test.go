package job

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// world is what transfers of all engines of one model did.
type world struct {
	t    *testing.T
	seed uint64

	mu       sync.Mutex
	rng      *rand.Rand
	calm     bool            // from now on all succeed
	verified map[string]bool // runs that were Verified
	sealed   map[string]bool // runs whose disk a caller has seen Completed
	engines  int             // that were made; only the last one has not crashed
}

// transfer of one engine; the map is its own, because an engine that crashed is
// only forgotten: its transfers still return, and it starts others, of disks that
// the next one may have done.
func (w *world) transfer() Transfer {
	running := map[string]bool{}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.engines++
	engine := w.engines
	return func(ctx context.Context, k *Task) (Outcome, error) {
		w.mu.Lock()
		if running[k.Run] {
			w.t.Errorf("seed %d: run %s of %s runs twice at once", w.seed, k.Run, k.Job)
		}
		if w.sealed[k.Run] && engine == w.engines {
			w.t.Errorf("seed %d: %s/%s runs again after it was Completed", w.seed, k.Job, k.Disk.Name)
		}
		running[k.Run] = true
		script, calm := w.rng.IntN(12), w.calm
		w.mu.Unlock()
		defer func() {
			w.mu.Lock()
			delete(running, k.Run)
			w.mu.Unlock()
		}()
		if script%2 == 0 {
			k.Moving()
		}
		k.Progress(Counters{Scanned: int64(script)})
		switch {
		case calm || script >= 6:
			w.mu.Lock()
			w.verified[k.Run] = true
			w.mu.Unlock()
			return Outcome{Verified: true}, nil
		case script == 0:
			return Outcome{}, nil // a lie
		case script == 1:
			panic("scripted")
		case script == 2:
			return Outcome{}, &Failure{Reason: ReasonChecksum, Text: "differs", Retry: RetryNever, Exit: 4}
		case script == 3:
			return Outcome{}, &Failure{Reason: ReasonUnavailable, Text: "away", Retry: RetryBackoff, Exit: 13}
		}
		<-ctx.Done()
		return Outcome{}, ctx.Err()
	}
}

// TestModel does random things to an engine that crashes at random, and holds
// what it answered against how it ends.
func TestModel(t *testing.T) {
	t.Parallel()
	seeds := 40
	if testing.Short() {
		seeds = 8
	}
	base := rand.Uint64()
	for i := range seeds {
		t.Run("", func(t *testing.T) { model(t, base+uint64(i)) })
	}
}

func model(t *testing.T, seed uint64) {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), verified: map[string]bool{}, sealed: map[string]bool{}}
	rng := rand.New(rand.NewPCG(seed, 2))
	conf := func() Config { return Config{Transfer: w.transfer(), MaxDisks: 3, Persist: 2 * time.Millisecond} }
	r := newRig(t, conf()).run()
	acked, canceled := map[string]Job{}, map[string]bool{}
	ctx := context.Background()
	for range 60 {
		id := fmt.Sprint("j", rng.IntN(8))
		switch rng.IntN(8) {
		case 0, 1:
			j, existed, err := r.e.Submit(ctx, id, "uid 0", two(), nil)
			old, known := acked[id]
			if err != nil || existed != known || known && old.Disks[0].Run != j.Disks[0].Run {
				t.Errorf("seed %d: submit %s: existed %t, known %t (%v)", seed, id, existed, known, err)
			}
			acked[id] = j
		case 2:
			if _, err := r.e.Cancel(ctx, id); err == nil {
				canceled[id] = true
			}
		case 3:
			_, _ = r.e.Pause(ctx, id)
		case 4:
			_, _ = r.e.Resume(ctx, id)
		case 5:
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond) // lets things happen, asserts nothing
		case 6:
			if j, err := r.e.Get(ctx, id); err == nil {
				w.mu.Lock()
				for _, d := range j.Disks {
					w.sealed[d.Run] = w.sealed[d.Run] || d.Phase == Completed
				}
				w.mu.Unlock()
			}
		case 7:
			if rng.IntN(2) == 0 {
				r = crash(t, r, conf()).run()
			} else {
				r.conf = conf()
				r.restart()
				r.run()
			}
		}
	}
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	r.conf = conf()
	r.restart()
	r.run()
	for id := range acked {
		j := r.until(id, "the end", func(j Job) bool {
			if j.Phase == Paused && j.Wanted == 0 {
				_, _ = r.e.Resume(ctx, id)
			}
			return j.Phase.Ended()
		})
		all := true
		for _, d := range j.Disks {
			w.mu.Lock()
			all = all && w.verified[d.Run] && d.Phase == Completed
			w.mu.Unlock()
			if d.Phase == Completed && !d.Outcome.Verified {
				t.Errorf("seed %d: disk of %s is Completed and not Verified", seed, id)
			}
		}
		if all != (j.Phase == Completed) {
			t.Errorf("seed %d: job %s is %v, all verified: %t", seed, id, j.Phase, all)
		}
		if !canceled[id] && j.Phase == Canceled {
			t.Errorf("seed %d: job %s is Canceled, and nobody asked for it", seed, id)
		}
	}
	jobs, _, err := r.e.List(ctx, Filter{}, Page{Size: 1000})
	if err != nil || len(jobs) != len(acked) {
		t.Errorf("seed %d: %d jobs of %d (%v)", seed, len(jobs), len(acked), err)
	}
}
