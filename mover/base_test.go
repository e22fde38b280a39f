package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// lineage is a disk at three moments, each with a tracked difference to the one
// before, and a target.
type lineage struct {
	at   [3][]byte
	hint [3]*cbt.Hint // from the moment before to this one
	dst  *watched
	rng  *rand.Rand
}

const lineageSize = 9 << 20

func newLineage() *lineage {
	l := &lineage{rng: rand.New(rand.NewPCG(21, 21))}
	l.at[0] = image(l.rng, lineageSize)
	for i := 1; i < len(l.at); i++ {
		l.at[i] = bytes.Clone(l.at[i-1])
		scribble(l.rng, l.at[i], 4)
		l.hint[i] = &cbt.Hint{Provider: "vsphere", Since: fmt.Sprintf("52 de/%d", i), Size: lineageSize, Granularity: cbt.GrainSize, Trust: cbt.Exact}
		for e := range differing(l.at[i-1], l.at[i]).All() {
			l.hint[i].Areas = append(l.hint[i].Areas, e)
		}
	}
	l.dst = &watched{Memory: disk(image(l.rng, lineageSize))}
	return l
}

// job is pass n of run, of the disk at moment i: each pass reads a disk with
// another identity, as snapshots are.
func (l *lineage) job(run wire.RunID, pass uint32, i int, hint *cbt.Hint, base uint32) mover.Job {
	return mover.Job{
		Run: run, Pass: pass, Mode: wire.ModeCopy, Track: wire.TrackingUse, Base: base,
		Source: mover.Endpoint{Name: "source", Open: (&watched{Memory: disk(l.at[i])}).open, Hint: func(context.Context, mover.Disk) (cbt.Hint, error) {
			if hint == nil {
				return cbt.Hint{}, errors.New("none")
			}
			return *hint, nil
		}},
		Target: mover.Endpoint{Name: "target", Open: l.dst.open},
	}
}

// unseen spoils a grain of the target that pass 2 with the hint to moment i does
// not read: a change that happened elsewhere, and that only the journal shows.
func (l *lineage) unseen(i int) []byte {
	sampling := few.Sampling
	sampling.Seed = 1<<56 + 2
	plan := cbt.PlanHint(lineageSize, l.hint[i], nil, sampling)
	for e := range plan.Skipped().All() {
		other := bytes.Clone(l.at[i-1])
		other[e.Off] ^= 1
		return other
	}
	panic("everything is read")
}

// hintWays are how a hint gets from who knows it to who uses it.
var hintWays = []string{"local", "push", "pull", "order"}

// moves runs one pass each way, with the same journals.
type moves struct {
	way    string
	state  mover.StateDir // of the target
	bug    mover.Bug
	events []string
}

func (m *moves) run(ctx context.Context, job mover.Job) (rep mover.Report, err error) {
	cfg := mover.WithBug(few, m.bug)
	e, err := mover.NewEngine(cfg, m.state)
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	p := &mover.Progress{Event: func(text string) { m.events = append(m.events, text) }}
	if m.way == "local" {
		return e.Run(ctx, job, p)
	}

	other, err := mover.NewEngine(cfg, memState{})
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	target := &site{server: mover.NewServer(e, nil), listen: newPipeListener()}
	target.server.SetExports([]mover.Export{{Name: "t", Role: mover.RoleTarget, Open: job.Target.Open, Peers: []wire.ID{{1}}}})
	source := &site{server: mover.NewServer(other, func(ctx context.Context, _ *wire.Order) (wire.Link, error) { return target.dial(ctx) }), listen: newPipeListener()}
	source.server.SetExports([]mover.Export{{Name: "s", Role: mover.RoleSource, Open: job.Source.Open, Peers: []wire.ID{{1}}, Operators: []wire.ID{{1}}}})
	for _, s := range []*site{source, target} {
		go func() { _ = s.server.Serve(ctx, s.listen) }()
		defer s.server.Drain()
	}
	if m.way == "push" {
		job.Target = target.remote("t")
		return other.Run(ctx, job, p)
	}
	hint, herr := job.Source.Hint(ctx, nil)
	job.Source = source.remote("s")
	if herr == nil {
		job.Source.Remote.Hint = &hint
	}
	if m.way == "pull" {
		return e.Run(ctx, job, p)
	}
	return other.Order(ctx, job.Source.Remote, job, wire.Order{Address: "t:1", Export: "t"}, p)
}

// A hint that counts from a pass of the run narrows the next one only where the
// target is what that pass has left, however the hint gets to the source; and
// then the snapshot that is read may be another disk.
func TestHintCountsFromAPass(t *testing.T) {
	run, other := wire.RunID{1}, wire.RunID{9}
	for name, tt := range map[string]struct {
		before func(ctx context.Context, l *lineage, m *moves) error
		base   uint32
		reason string // of a full pass; empty: hinted
	}{
		"the pass before": {func(ctx context.Context, l *lineage, m *moves) error {
			_, err := m.run(ctx, l.job(run, 1, 0, nil, 0))
			return err
		}, 1, ""},
		"no pass": {func(context.Context, *lineage, *moves) error { return nil }, 1, "knows of no pass"},
		"another run since": {func(ctx context.Context, l *lineage, m *moves) error {
			_, err := m.run(ctx, l.job(run, 1, 0, nil, 0))
			if err == nil {
				l.at[2] = l.unseen(1)
				_, err = m.run(ctx, l.job(other, 1, 2, nil, 0))
			}
			return err
		}, 1, "Verified by pass 1 of run 09"},
		"that pass was of another run": {func(ctx context.Context, l *lineage, m *moves) error {
			l.at[2] = l.unseen(1)
			_, err := m.run(ctx, l.job(other, 1, 2, nil, 0))
			return err
		}, 1, "Verified by pass 1 of run 09"},
		"another run was cut": {func(ctx context.Context, l *lineage, m *moves) error {
			_, err := m.run(ctx, l.job(run, 1, 0, nil, 0))
			return errors.Join(err, halfWritten(m.state, l.dst))
		}, 1, "Inconsistent by pass 1 of run 09"},
		"a later pass than the base": {func(ctx context.Context, l *lineage, m *moves) error {
			_, err := m.run(ctx, l.job(run, 1, 0, nil, 0))
			return err
		}, 7, "Verified by pass 1"},
	} {
		for _, way := range hintWays {
			t.Run(name+"/"+way, func(t *testing.T) {
				err := bubble(t, func(ctx context.Context) error {
					l, m := newLineage(), &moves{way: way, state: memState{}}
					if err := tt.before(ctx, l, m); err != nil {
						return fmt.Errorf("before: %w", err)
					}
					rep, err := m.run(ctx, l.job(run, 2, 1, l.hint[1], tt.base))
					if err != nil || rep.State != wire.StateVerified || !bytes.Equal(l.dst.Bytes(), l.at[1]) {
						return fmt.Errorf("pass 2: %w (%+v)", err, rep)
					}
					if rep.Hinted != (tt.reason == "") || !strings.Contains(rep.Reason, tt.reason) || !strings.Contains(rep.Reason, "vsphere 52 de/1, exact") {
						return fmt.Errorf("hinted %t, reason %q, want %q and the tracker", rep.Hinted, rep.Reason, tt.reason)
					}
					if hinted := rep.Counters.Skipped > 0; hinted != rep.Hinted {
						return fmt.Errorf("%+v", rep)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Pass 3 counts from pass 2, which was hinted itself, and the plan of a pass that
// was cut goes on where its base is the same and nowhere else.
func TestHintsInARow(t *testing.T) {
	for _, way := range hintWays {
		err := bubble(t, func(ctx context.Context) error {
			l, m := newLineage(), &moves{way: way, state: memState{}}
			for pass, i := range []int{0, 1, 2} {
				rep, err := m.run(ctx, l.job(wire.RunID{1}, uint32(pass+1), i, l.hint[i], uint32(pass)))
				if err != nil || !bytes.Equal(l.dst.Bytes(), l.at[i]) || pass > 0 && !rep.Hinted {
					return fmt.Errorf("pass %d: %w (%+v)", pass+1, err, rep)
				}
			}
			// Said again, as by one who has lost the answer.
			rep, err := m.run(ctx, l.job(wire.RunID{1}, 3, 2, l.hint[2], 2))
			if err != nil || !rep.Hinted || rep.Counters.Sent != 0 {
				return fmt.Errorf("pass 3 again: %w (%+v)", err, rep)
			}
			if rep, err = m.run(ctx, l.job(wire.RunID{1}, 3, 2, l.hint[2], 1)); err != nil || rep.Hinted {
				return fmt.Errorf("pass 3 on another base: %w (%+v)", err, rep)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// anyBase: a hint that counts from a pass that is not what the target holds must
// not end in Verified over a grain that nobody looked at.
func anyBase(t *testing.T, bug mover.Bug) error {
	return bubble(t, func(ctx context.Context) error {
		l, m := newLineage(), &moves{way: "local", state: memState{}, bug: bug}
		if _, err := m.run(ctx, l.job(wire.RunID{1}, 1, 0, nil, 0)); err != nil {
			return err
		}
		l.at[2] = l.unseen(1)
		if _, err := m.run(ctx, l.job(wire.RunID{9}, 1, 2, nil, 0)); err != nil {
			return err
		}
		rep, err := m.run(ctx, l.job(wire.RunID{1}, 2, 1, l.hint[1], 1))
		if err != nil {
			return err
		}
		if rep.State == wire.StateVerified && !bytes.Equal(l.dst.Bytes(), l.at[1]) {
			return fmt.Errorf("%v though another run wrote since the base", rep.State)
		}
		return nil
	})
}
