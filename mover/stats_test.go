package mover_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// TestStats: what an engine says it has done is what the report of its copy
// says, at both ends, and what is at work goes when it is over.
func TestStats(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	want := image(rng, 9<<20+777)
	before := bytes.Clone(want)
	scribble(rng, before, 30)
	dir, err := mover.DirState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e, err := mover.NewEngine(mover.Config{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	rep, err := run(t, e, mover.Job{Mode: wire.ModeCopy, Source: endpoint("source", disk(want)), Target: endpoint("target", disk(before))})
	if err != nil {
		t.Fatal(err)
	}
	s := e.Stats()
	for _, w := range s.Work {
		if w.Active != 0 {
			t.Errorf("%+v: %d are at work after the end", w.Half, w.Active)
		}
		c := rep.Counters
		c.Total = 0
		var reads, writes, flushes uint64
		for i := range w.Times[0].Counts {
			reads, writes, flushes = reads+w.Times[mover.TimeRead].Counts[i], writes+w.Times[mover.TimeWrite].Counts[i], flushes+w.Times[mover.TimeFlush].Counts[i]
		}
		switch {
		case w.Verify:
			if w.Counters != (wire.Counters{}) || s.Ended[mover.Ending{Half: w.Half}] != 0 {
				t.Errorf("nothing was verified, Stats says %+v", w)
			}
			continue
		case w.Target: // it does not know all that its source does
			if w.Counters.Scanned != c.Scanned || w.Counters.Differing != c.Differing || w.Counters.Durable != c.Durable || w.Counters.ReadBack != c.ReadBack || writes == 0 || flushes == 0 {
				t.Errorf("the target has done %+v, the report says %+v; %d writes, %d flushes", w.Counters, c, writes, flushes)
			}
		default:
			if w.Counters != c || writes+flushes != 0 {
				t.Errorf("the source has done %+v, the report says %+v", w.Counters, c)
			}
		}
		if least := uint64(len(want)/cbt.BatchSize) / 2; reads < least {
			t.Errorf("%+v: %d reads were timed, want %d at least", w.Half, reads, least)
		}
		if got := s.Ended[mover.Ending{Half: w.Half}]; got != 1 {
			t.Errorf("%+v: %d have ended well, want 1: %v", w.Half, got, s.Ended)
		}
	}
	if s.MemoryLimit != 1<<30 || s.Memory != 0 || len(s.Links) != 0 {
		t.Errorf("after the end: memory %d of %d, links %v", s.Memory, s.MemoryLimit, s.Links)
	}
	journals := mover.Journals{Dir: dir}
	for range 2 { // the second time it is not read
		if n, err := journals.States(); err != nil || n[wire.StateVerified] != 1 || len(n) != 1 {
			t.Errorf("journals: %v, %v; one target is Verified", n, err)
		}
	}
	if _, err := run(t, e, mover.Job{Mode: wire.ModeVerify, Source: endpoint("source", disk(want)), Target: endpoint("target", disk(before))}); err == nil {
		t.Fatal("a verify of disks that differ")
	}
	if got := e.Stats().Ended[mover.Ending{Half: mover.Half{Verify: true}, Code: wire.CodeVerify}]; got != 1 {
		t.Errorf("a verify that found a difference: %v", e.Stats().Ended)
	}
}
