package mover_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// What the journal of a target says, read by a program started anew, decides
// whether a hint may narrow a copy to it: only for a disk that nobody has left
// in pieces, or the very run, pass and plan that did.
func TestHintForWhatTheJournalSays(t *testing.T) {
	const size = 8 << 20
	d := newTracked(rand.New(rand.NewPCG(5, 5)), size)
	before, hint, sampling := d.dst.Bytes(), d.hint, few.Sampling
	sampling.Seed = 1<<56 + 1 // of wire.RunID{1}, pass 1
	plan := cbt.PlanHint(size, &hint, nil, sampling).Digest()
	root := cbt.Digest{9}
	open := func(run byte, pass uint32, plan cbt.Digest) func(j mover.Journal) error {
		return func(j mover.Journal) error {
			return j.Open(j.State().Epoch+1, wire.RunID{run}, pass, [16]byte{run}, plan, size)
		}
	}
	own := open(1, 1, plan)
	mark, verified := mover.Journal.Mark, func(j mover.Journal) error { return j.Verified(root) }
	copied := func(j mover.Journal) error { return j.Copied(root) }
	poison := func(j mover.Journal) error { return j.Poison("as a test") }
	compact := func(j mover.Journal) error {
		var m cbt.Map
		m.Add(cbt.Extent{Len: cbt.GrainSize})
		for end := int64(0); end < j.End(); { // a journal that was compacted is shorter
			end = j.End()
			if err := j.Durable(m); err != nil {
				return err
			}
		}
		return nil
	}
	for name, tt := range map[string]struct {
		steps  []func(j mover.Journal) error
		damage bool // to the last record but one
		hinted bool
		code   wire.Code
	}{
		"clean":                           {nil, false, true, 0},
		"clean, another has looked at it": {steps(open(2, 1, cbt.Digest{})), false, true, 0},
		"verified":                        {steps(open(2, 1, cbt.Digest{}), mark, verified), false, true, 0},
		"verified, compacted":             {steps(open(2, 1, cbt.Digest{}), mark, verified, compact), false, true, 0},
		"cut, same plan":                  {steps(own, mark), false, true, 0},
		"cut, same plan, compacted":       {steps(own, mark, compact), false, true, 0},
		"cut, other plan":                 {steps(open(1, 1, cbt.Digest{8}), mark), false, false, 0},
		"cut, other plan, compacted":      {steps(open(1, 1, cbt.Digest{8}), mark, compact), false, false, 0},
		"cut, then another plan":          {steps(own, mark, open(1, 1, cbt.Digest{8})), false, false, 0},
		"cut, then another run":           {steps(own, mark, open(2, 1, plan)), false, false, 0},
		"cut, then another pass":          {steps(own, mark, open(1, 2, plan)), false, false, 0},
		"cut, other pass":                 {steps(open(1, 2, plan), mark), false, false, 0},
		"cut, other run":                  {steps(open(2, 1, plan), mark), false, false, 0},
		"cut, other run, then same plan":  {steps(open(2, 1, plan), mark, own), false, false, 0},
		"cut, other run, compacted":       {steps(open(2, 1, plan), mark, compact), false, false, 0},
		"copied, same plan":               {steps(own, mark, copied), false, true, 0},
		"copied, same plan, compacted":    {steps(own, mark, copied, compact), false, true, 0},
		"copied, other plan":              {steps(open(1, 1, cbt.Digest{8}), mark, copied), false, false, 0},
		"copied, other run":               {steps(open(2, 1, plan), mark, copied), false, false, 0},
		"poisoned, other run":             {steps(open(2, 1, plan), mark, poison), false, false, 0},
		"poisoned, other pass":            {steps(open(1, 2, plan), mark, poison), false, false, wire.CodePoisoned},
		"poisoned":                        {steps(own, mark, poison), false, false, wire.CodePoisoned},
		"damaged, of this run":            {steps(own, mark, open(2, 1, plan), mark), true, false, 0},
		"damaged, verified before":        {steps(open(2, 1, plan), mark, verified, open(3, 1, plan), mark), true, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, track := range []wire.Tracking{wire.TrackingUse, wire.TrackingStrict} {
				d := &tracked{want: d.want, src: &watched{Memory: disk(d.want)}, dst: &watched{Memory: disk(before)}, hint: hint}
				state := memState{}
				said := write(t, state, d.dst.Identity(), tt.steps, tt.damage)
				e, err := mover.NewEngine(few, state)
				if err != nil {
					t.Fatal(err)
				}
				rep, err := run(t, e, d.job(track))
				want := tt.code
				if track == wire.TrackingStrict && !tt.hinted && want == wire.CodeOK {
					want = wire.CodeHint
				}
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				if codeOf(err) != want || err == nil && (rep.Hinted != tt.hinted || !bytes.Equal(d.dst.Bytes(), d.want)) {
					t.Errorf("%v, after %v of run %v: %v (%+v)", track, said.State, said.Run, err, rep)
				}
				if err != nil && !d.dst.wrote.Empty() {
					t.Errorf("%v: refused, and written to", track)
				}
			}
		})
	}
}

func steps(list ...func(j mover.Journal) error) []func(j mover.Journal) error { return list }

// write makes a journal of steps, turns over a bit before the last record if
// damage is asked for, and returns what it says to who reads it next.
func write(t *testing.T, state memState, identity string, steps []func(j mover.Journal) error, damage bool) mover.JournalState {
	t.Helper()
	if len(steps) > 0 {
		j, err := mover.OpenJournal(state, identity, mover.Bug(0))
		if err != nil {
			t.Fatal(err)
		}
		for i, step := range steps {
			if err := step(j); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
		if damage {
			state[mover.JournalName(identity)].b[j.End()-2*4096+60] ^= 1
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	st, err := mover.ReadJournal(state, identity)
	if err != nil || damage != (st.State == wire.StateInconsistent && st.Reason != "") {
		t.Fatalf("journal: %+v, %v", st, err)
	}
	return st
}
