package mover

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/haulback/haulback/wire"
)

// TestTallyNeverFalls: counters are taken back, set and counted again, as
// distrust, lost disks and later links do, and it is looked at in between or
// not: what an engine has done only grows, and by what was done.
func TestTallyNeverFalls(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		ta, p := newTally(), new(Progress)
		p.scanned.Add(1000) // of a run before
		end := ta.begin(Half{}, p)
		var done, last int64
		look := func() {
			e := Engine{cfg: Config{tally: ta}, pool: newPool(1 << 30)}
			w := e.Stats().Work[0]
			if got := w.Counters.Scanned; got < last {
				t.Fatalf("fell from %d to %d", last, got)
			}
			last = w.Counters.Scanned
			if last != done {
				t.Fatalf("%d were done, Stats says %d", done, last)
			}
		}
		for range 20 {
			switch rng.IntN(4) {
			case 0:
				p.rewind()
			case 1:
				p.step(func() { p.set(&wire.Counters{Scanned: rng.Int64N(5000)}) })
			case 2:
				look()
			default:
				n := rng.Int64N(100)
				p.scanned.Add(n)
				done += n
			}
		}
		end(nil)
		p.scanned.Add(5) // nobody counts it any more
		look()
	}
}

// TestDurations: each duration is in the first bucket whose bound it does not
// exceed, and the longest in the last.
func TestDurations(t *testing.T) {
	for _, c := range []struct {
		took time.Duration
		in   int
	}{
		{0, 0},
		{64 * time.Microsecond, 0},
		{65 * time.Microsecond, 1},
		{time.Millisecond, 4},
		{DurationBound(timeBounds - 1), timeBounds - 1},
		{DurationBound(timeBounds-1) + 1, timeBounds},
		{time.Hour, timeBounds},
	} {
		var d durations
		d.add(c.took)
		if s := d.load(); s.Counts[c.in] != 1 || s.Sum != c.took {
			t.Errorf("%v is in %v, want bucket %d", c.took, s.Counts, c.in)
		}
	}
}
