package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// errLost is what a driver says whose server went away.
type errLost struct{}

func (errLost) Error() string   { return "server went away" }
func (errLost) Retryable() bool { return true }

// flaky gives m a plan of faults for each open, and counts the opens.
type flaky struct {
	m     *movertest.Memory
	plans [][]movertest.Fault
	opens int
}

func (f *flaky) open(_ context.Context, a mover.Access) (mover.Disk, error) {
	mode := movertest.ReadOnly
	if a == mover.ReadWrite {
		mode = movertest.ReadWrite
	}
	m, err := f.m.Reopen(mode)
	if err != nil {
		return nil, err
	}
	var plan []movertest.Fault
	if f.opens < len(f.plans) {
		plan = f.plans[f.opens]
	}
	f.opens++
	return movertest.NewFaulty(m, plan...), nil
}

// A disk whose server goes away is opened anew, on either side, and the copy
// ends as if nothing had been; a moment's trouble is sat out without that. It
// is no medium that is going bad: no grain counts as unreadable, no disk as
// poisoned.
func TestLostDisk(t *testing.T) {
	gone := func(op string, nth int) []movertest.Fault {
		return []movertest.Fault{{Op: op, Nth: nth, Count: -1, Err: errLost{}}}
	}
	moment := func(op string) []movertest.Fault {
		return []movertest.Fault{{Op: op, Nth: 5, Count: 2, Err: errLost{}}}
	}
	for name, tt := range map[string]struct {
		source, target [][]movertest.Fault
		opens          [2]int // of source and target
	}{
		"source read, for a moment":  {source: [][]movertest.Fault{moment("ReadAt")}, opens: [2]int{1, 1}},
		"target read, for a moment":  {target: [][]movertest.Fault{moment("ReadCold")}, opens: [2]int{1, 1}},
		"target write, for a moment": {target: [][]movertest.Fault{moment("WriteAt")}, opens: [2]int{1, 1}},
		"source read":                {source: [][]movertest.Fault{gone("ReadAt", 20)}, opens: [2]int{2, 1}},
		"source read, twice":         {source: [][]movertest.Fault{gone("ReadAt", 20), gone("ReadAt", 1)}, opens: [2]int{3, 1}},
		"target read":                {target: [][]movertest.Fault{gone("ReadCold", 9)}, opens: [2]int{1, 2}},
		"target write":               {target: [][]movertest.Fault{gone("WriteAt", 7)}, opens: [2]int{1, 2}},
		"target zero":                {target: [][]movertest.Fault{gone("Zero", 2)}, opens: [2]int{1, 2}},
		"target flush, four times": {
			target: [][]movertest.Fault{gone("Flush", 3), gone("Flush", 2), gone("Flush", 2), gone("Flush", 2)}, opens: [2]int{1, 5},
		},
		"target read back": {target: [][]movertest.Fault{gone("ReadCold", 140)}, opens: [2]int{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			err := bubble(t, func(ctx context.Context) error {
				rng := rand.New(rand.NewPCG(1, 2))
				want := image(rng, 24<<20)
				src := &flaky{m: disk(want), plans: tt.source}
				dst := &flaky{m: disk(image(rng, len(want))), plans: tt.target}
				state := movertest.NewCrashableState(movertest.NewPower()).Mount()
				cfg := mover.Config{Workers: 1, Checkpoint: 1 << 20, CheckpointEvery: time.Millisecond}
				s, err := newSite(ctx, cfg, state, mover.Export{Name: "disk", Role: mover.RoleTarget, Open: dst.open})
				if err != nil {
					return err
				}
				e, err := mover.NewEngine(cfg, nil)
				if err != nil {
					return err
				}
				defer e.Close()
				var said []string
				p := &mover.Progress{Event: func(text string) { said = append(said, text) }}
				rep, err := e.Run(ctx, mover.Job{
					Run: wire.RunID{1}, Mode: wire.ModeCopy, Retry: 10 * time.Minute,
					Source: mover.Endpoint{Name: "source", Open: src.open}, Target: s.remote("disk"),
				}, p)
				s.server.Drain()
				if err := errors.Join(err, s.engine.Close()); err != nil {
					return err
				}
				if got := [2]int{src.opens, dst.opens}; got != tt.opens {
					return fmt.Errorf("opened %v times, want %v; said %q", got, tt.opens, said)
				}
				if rep.State != wire.StateVerified || rep.Counters.Bad != 0 || !bytes.Equal(dst.m.Bytes(), want) {
					return fmt.Errorf("report %+v", rep)
				}
				if tt.opens != [2]int{1, 1} && !strings.Contains(strings.Join(said, "\n"), "server went away") {
					return fmt.Errorf("the operator does not hear of it: %q", said)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// A source that comes back as another disk is not gone on with.
func TestLostSourceComesBackAsAnother(t *testing.T) {
	err := bubble(t, func(ctx context.Context) error {
		rng := rand.New(rand.NewPCG(1, 3))
		src := &flaky{m: disk(image(rng, 24<<20)), plans: [][]movertest.Fault{{{Op: "ReadAt", Nth: 20, Count: -1, Err: errLost{}}}}}
		other := disk(image(rng, 24<<20))
		dst := disk(make([]byte, 24<<20))
		e, err := mover.NewEngine(mover.Config{}, movertest.NewCrashableState(movertest.NewPower()).Mount())
		if err != nil {
			return err
		}
		defer e.Close()
		_, err = e.Run(ctx, mover.Job{
			Run: wire.RunID{1}, Mode: wire.ModeCopy, Retry: time.Minute, Target: endpoint("target", dst),
			Source: mover.Endpoint{Name: "source", Open: func(ctx context.Context, a mover.Access) (mover.Disk, error) {
				if src.opens == 1 {
					return other.Reopen(movertest.ReadOnly)
				}
				return src.open(ctx, a)
			}},
		}, new(mover.Progress))
		if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.CodeDiskChanged {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
