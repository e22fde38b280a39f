package mover_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestEveryCrashPoint cuts the power in each durable action of a small copy in
// turn (write, zero, flush of the disk; create, write, sync, rename of the
// journal), with all, some and none of what was volatile surviving, and resumes.
func TestEveryCrashPoint(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, survive := range []int{0, 50, 100} {
		points := 0
		for n := 1; ; n++ {
			var cut bool
			var violation error
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				w := newWorld(11, 0)
				w.cfg.Checkpoint = 1 << 20
				w.rng = rand.New(rand.NewPCG(uint64(n), uint64(survive)))
				w.power.CutAt(n)
				cut, violation = w.crashAt(ctx, survive)
			})
			if violation != nil {
				t.Fatalf("power cut in action %d, %d %% survive: %v", n, survive, violation)
			}
			if !cut {
				break
			}
			points++
		}
		if points < 20 {
			t.Errorf("only %d crash points: the copy is too small to prove anything", points)
		}
		t.Logf("figure: %d crash points with %d %% surviving", points, survive)
	}
}

// crashAt runs a copy into a planned power cut, checks what is left, and
// resumes. It reports whether the cut came at all.
func (w *world) crashAt(ctx context.Context, survive int) (cut bool, violation error) {
	w.survive = []int{survive}
	ok, _, bad := w.life(ctx, nil)
	if bad != nil {
		return false, bad
	}
	if ok {
		return false, nil
	}
	ok, err, bad := w.life(ctx, nil)
	if bad == nil && !ok {
		bad = fmt.Errorf("the run was not resumed: %w", err)
	}
	return true, bad
}
