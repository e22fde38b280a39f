package mover

import (
	"bufio"
	"context"
	"io"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// hintedPlan is stage 1 of a session whose source leaves grains out: the batches
// come from the source, in disk order, as fast as they are worked on.
func (ts *targetSession) hintedPlan(ctx context.Context) error {
	st, err := ts.l.link.OpenReceive(ctx, wire.StreamID{Kind: wire.StreamPlan})
	if err != nil {
		return onLink(err)
	}
	r := wire.NewReader(bufio.NewReaderSize(st, 8<<10), wire.MaxControlBody)
	at := ts.start
	for {
		t, body, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return onLink(err)
		}
		if t != wire.TypePlan {
			return wire.Errorf(wire.CodeFrame, "frame of type %d on the plan stream", t)
		}
		ts.pulse.beat()
		if at, err = ts.steps(ctx, body, at); err != nil {
			return err
		}
	}
	ts.skipTo(at, ts.batches())
	close(ts.order)
	close(ts.jobs)
	return nil
}

func (ts *targetSession) steps(ctx context.Context, body []byte, at int64) (int64, error) {
	if err := wire.Parse(&ts.planned, body); err != nil {
		return at, err
	}
	for _, s := range ts.planned.Steps {
		if s.Run.First < at || s.Run.End() > ts.batches() {
			return at, wire.Errorf(wire.CodeExtent, "the plan reads batches %d to %d, at %d of %d", s.Run.First, s.Run.End(), at, ts.batches())
		}
		ts.skipTo(at, s.Run.First)
		for at = s.Run.First; at < s.Run.End(); at++ {
			if s.Read&^wire.FullMask(ts.grains(at)) != 0 {
				return at, wire.Errorf(wire.CodeExtent, "the plan reads grains %b of batch %d, which has %d", s.Read, at, ts.grains(at))
			}
			if err := ts.enqueue(ctx, at, s.Read, s.Sampled); err != nil {
				return at, err
			}
		}
	}
	return at, nil
}

// skipTo settles the batches from at to end, of which nothing is read.
func (ts *targetSession) skipTo(at, end int64) {
	if at == end {
		return
	}
	ts.skip(wire.Run{First: at, Count: end - at})
	ts.moved()
}

// skip takes over that the source leaves a run of batches out.
func (t *target) skip(r wire.Run) {
	e := t.extent(r)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.skipped.Add(e)
	t.ready.Add(e)
	t.toldTo = r.End()
	t.answered += r.Count
}

// skipRunLocked folds the run of skipped batches at settled, up to end, and
// says whether there is one.
func (t *target) skipRunLocked(end int64) bool {
	e, ok := t.skipped.At(t.settled * cbt.BatchSize)
	if !ok {
		return false
	}
	r := wire.Run{First: t.settled, Count: min((e.End()+cbt.BatchSize-1)/cbt.BatchSize, end) - t.settled}
	e = t.extent(r)
	n := cbt.Grains(e.Len)
	t.root.AddSkipped(n)
	t.skippedN += n
	t.prog.skipped.Add(e.Len)
	t.skipped.Remove(e)
	t.settled += r.Count
	return true
}

// mayHint refuses a plan with gaps for a disk that is in pieces: what a cut run
// has written, no tracker of the source knows of. Only the very plan of that
// run goes on with it. A hint that counts from an earlier pass of its run is for
// the disk that this pass has left, and for no other, whatever is proved of it.
func (t *target) mayHint(o *wire.Open, base uint32) error {
	st := &t.journal.state
	switch {
	case !o.Hinted || t.began(o) && st.State != wire.StatePoisoned:
		return nil
	case base > 0:
		return t.mayCountFrom(base)
	case st.State == wire.StateClean || st.State == wire.StateVerified:
		return nil
	case st.State == wire.StatePoisoned || st.Run != t.passSpec.run || st.Pass != t.pass:
		return wire.Errorf(wire.CodeDistrust, "the target is %v by pass %d of run %v: no hint knows what it holds", st.State, st.Pass, st.Run)
	}
	return wire.Errorf(wire.CodeDistrust, "the target is %v, and the plan of this run is another than when it was cut: the hint or the sample has changed", st.State)
}

// began reports whether the very pass and plan of o was the last to write to the
// disk, and nobody else has opened it since.
func (t *target) began(o *wire.Open) bool {
	st := &t.journal.state
	return st.State != wire.StateClean && st.Run == t.passSpec.run && st.Pass == t.pass &&
		st.Session == st.Run && st.SessionPass == st.Pass && st.Plan == o.Plan
}

// mayCountFrom refuses a hint that counts from pass base of this run for a disk
// that is not what this pass has left and proved.
func (t *target) mayCountFrom(base uint32) error {
	st := &t.journal.state
	switch {
	case t.cfg.bug == bugAnyBase, st.State == wire.StateVerified && st.Run == t.passSpec.run && st.Pass == base:
		return nil
	case st.State == wire.StateClean:
		return wire.Errorf(wire.CodeDistrust, "the hint counts from pass %d of this run, and the journal knows of no pass to this target", base)
	}
	return wire.Errorf(wire.CodeDistrust, "the hint counts from pass %d of this run, and the target is %v by pass %d of run %v", base, st.State, st.Pass, st.Run)
}
