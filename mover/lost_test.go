package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
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
	m      *movertest.Memory
	plans  [][]movertest.Fault
	always []movertest.Fault // for the opens after these
	opens  int
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
	plan := f.always
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
		"target read back": {target: [][]movertest.Fault{gone("ReadCold", 30)}, opens: [2]int{1, 2}},
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

// retried runs job, of run 1, in a bubble with an engine of its own.
func retried(t *testing.T, cfg mover.Config, job mover.Job) (rep mover.Report, err error) {
	bug := bubble(t, func(ctx context.Context) error {
		e, err2 := mover.NewEngine(cfg, memState{})
		if err2 != nil {
			return err2
		}
		job.Run, job.Mode = wire.RunID{1}, wire.ModeCopy
		rep, err = e.Run(ctx, job, new(mover.Progress))
		return e.Close()
	})
	if bug != nil {
		t.Fatal(bug)
	}
	return rep, err
}

// grainsOf is n grains of batch 2 from grain g on.
func grainsOf(g, n int64) cbt.Extent {
	return cbt.Extent{Off: 2*cbt.BatchSize + g*cbt.GrainSize, Len: n * cbt.GrainSize}
}

// A disk that is lost and a bad sector right after it, in one batch: what was
// not read in between is of another time, and counts for nothing. All batches
// hold the same, so that what is left in a buffer looks right.
func TestLostDiskAndBadSectorInOneBatch(t *testing.T) {
	const size = 4 * cbt.BatchSize
	want, other := bytes.Repeat([]byte{7}, size), bytes.Repeat([]byte{9}, size)
	spoiled := bytes.Clone(want) // batch 2 differs, what is read before it does not
	copy(spoiled[2*cbt.BatchSize:], other[:cbt.BatchSize])
	// lost for the first piece of batch 2 and all its tries, then a bad sector
	faults := func(op string, nth int) []movertest.Fault {
		return []movertest.Fault{
			{Op: op, Extent: grainsOf(0, 1), Nth: nth, Count: 5, Err: errLost{}},
			{Op: op, Extent: grainsOf(4, 1), Nth: nth, Count: 4, Err: syscall.EIO},
		}
	}
	for name, tt := range map[string]struct {
		before         []byte
		source, target [][]movertest.Fault
		opens          [2]int
		code           wire.Code
	}{
		"target read": {before: spoiled, target: [][]movertest.Fault{faults("ReadCold", 1)}, opens: [2]int{1, 2}},
		"target read back, of lost writes": {
			before: other, opens: [2]int{1, 2},
			target: [][]movertest.Fault{append(faults("ReadCold", 2), movertest.Fault{Op: "WriteAt", Extent: grainsOf(1, 3), Silent: true})},
		},
		"source read": {before: other, source: [][]movertest.Fault{faults("ReadAt", 1)}, opens: [2]int{2, 1}},
		"source read, a lasting bad sector": {
			before: other, opens: [2]int{2, 1}, code: wire.CodeUnreadable,
			source: [][]movertest.Fault{faults("ReadAt", 1), {{Op: "ReadAt", Extent: grainsOf(4, 1), Count: -1, Err: syscall.EIO}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			content := bytes.Clone(want)
			if tt.source != nil { // what is left in its buffer must not look right
				for i := range content {
					content[i] = byte(1 + i/cbt.BatchSize)
				}
			}
			src, dst := &flaky{m: disk(content), plans: tt.source}, &flaky{m: disk(tt.before), plans: tt.target}
			rep, err := retried(t, mover.Config{Workers: 1}, mover.Job{
				Retry: 10 * time.Minute, Source: mover.Endpoint{Name: "source", Open: src.open}, Target: mover.Endpoint{Name: "target", Open: dst.open},
			})
			if codeOf(err) != tt.code || (rep.State == wire.StateVerified) != (tt.code == wire.CodeOK) {
				t.Errorf("ended with %v, %v", err, rep.State)
			}
			if got := [2]int{src.opens, dst.opens}; got != tt.opens {
				t.Errorf("opened %v times, want %v", got, tt.opens)
			}
			wrong := differing(dst.m.Bytes(), content)
			if tt.code == wire.CodeUnreadable {
				wrong.Remove(grainsOf(4, 1))
			}
			if !wrong.Empty() {
				e, _ := wrong.Next(0)
				t.Errorf("%v: %d bytes differ, the first at %v", rep.State, wrong.Len(), e)
			}
		})
	}
}

// A disk that is lost at the same place after each open ends the run when its
// time for retries is over, however much each open reads again before that.
func TestAlwaysLostDiskEndsTheRun(t *testing.T) {
	const size, retry = 8 << 20, time.Minute
	at := cbt.Extent{Off: 6 << 20, Len: 1 << 20} // the only place that differs
	for name, tt := range map[string]struct{ source, target []movertest.Fault }{
		"source read":   {source: []movertest.Fault{{Op: "ReadAt", Extent: at, Count: -1, Err: errLost{}}}},
		"target read":   {target: []movertest.Fault{{Op: "ReadCold", Extent: at, Count: -1, Err: errLost{}}}},
		"target write":  {target: []movertest.Fault{{Op: "WriteAt", Count: -1, Err: errLost{}}}},
		"target flush":  {target: []movertest.Fault{{Op: "Flush", Nth: 2, Count: -1, Err: errLost{}}}},
		"target opened": {target: []movertest.Fault{{Op: "Flush", Count: -1, Err: errLost{}}}},
	} {
		for _, pull := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/pull=%t", name, pull), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(1, 2))
				want := image(rng, size)
				before := bytes.Clone(want)
				for i := at.Off; i < at.End(); i++ {
					want[i], before[i] = 1, 2
				}
				src, dst := &flaky{m: disk(want), always: tt.source}, &flaky{m: disk(before), always: tt.target}
				err := bubble(t, func(ctx context.Context) error {
					cfg := mover.Config{Workers: 1, Checkpoint: 1 << 20, CheckpointEvery: time.Millisecond}
					s, err := newSite(ctx, cfg, memState{}, mover.Export{Name: "disk", Role: mover.RoleTarget, Open: dst.open},
						mover.Export{Name: "source", Role: mover.RoleSource, Open: src.open})
					if err != nil {
						return err
					}
					e, err := mover.NewEngine(cfg, memState{})
					if err != nil {
						return err
					}
					job := mover.Job{
						Run: wire.RunID{1}, Mode: wire.ModeCopy, Retry: retry,
						Source: mover.Endpoint{Name: "source", Open: src.open}, Target: s.remote("disk"),
					}
					if pull {
						job.Source, job.Target = s.remote("source"), mover.Endpoint{Name: "target", Open: dst.open}
					}
					ctx, cancel := context.WithTimeout(ctx, 5*retry)
					defer cancel()
					began := time.Now()
					rep, err := e.Run(ctx, job, new(mover.Progress))
					took := time.Since(began)
					s.server.Drain()
					_ = errors.Join(e.Close(), s.engine.Close()) // of a disk that is gone
					if codeOf(err) != wire.CodeDiskLost || rep.State == wire.StateVerified {
						return fmt.Errorf("ended with %w (%+v)", err, rep)
					}
					if took < retry || took > retry+30*time.Second || src.opens+dst.opens < 8 {
						return fmt.Errorf("ended after %v and %d opens", took, src.opens+dst.opens)
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

// named is a disk whose identity is no more than a name.
type named struct{ *movertest.Faulty }

func (named) Identity() string { return "a name" }

// A lost source that comes back under its name with other contents: the target
// gets what it holds now, also of what was settled before. A tracker is asked
// again, and what it said before counts for nothing.
func TestLostSourceComesBackWithOtherContents(t *testing.T) {
	const size = 64 << 20
	rng := rand.New(rand.NewPCG(1, 2))
	before := image(rng, size)
	first := bytes.Clone(before)
	scribble(rng, first, 60)
	clear(first[5<<20 : 5<<20+512]) // a place that the hint has
	first[5<<20]++
	within, outside := bytes.Clone(first), bytes.Clone(first)
	within[5<<20] ^= 0x40
	outside[12<<20] ^= 1 // and one that it has not
	if hint := differing(before, first); hint.Covers(cbt.Extent{Off: 12 << 20, Len: 1}) {
		t.Fatal("choose another seed")
	}
	for name, tt := range map[string]struct {
		second []byte
		track  wire.Tracking
		again  error // of the tracker
		hinted bool
		code   wire.Code
	}{
		"no tracking":          {second: outside},
		"in the hint":          {second: within, track: wire.TrackingUse, hinted: true},
		"in the hint, strict":  {second: within, track: wire.TrackingStrict, hinted: true},
		"elsewhere":            {second: outside, track: wire.TrackingUse},
		"elsewhere, strict":    {second: outside, track: wire.TrackingStrict, code: wire.CodeHint},
		"tracker gone":         {second: outside, track: wire.TrackingUse, again: errLost{}},
		"tracker gone, strict": {second: outside, track: wire.TrackingStrict, again: errLost{}, code: wire.CodeHint},
	} {
		for _, pull := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/pull=%t", name, pull), func(t *testing.T) {
				dst, opens, asked := disk(before), 0, 0
				src := mover.Endpoint{Name: "source"}
				src.Open = func(context.Context, mover.Access) (mover.Disk, error) {
					content, plan := tt.second, movertest.Fault{Op: "Flush"}
					if opens++; opens == 1 { // lost when all before it is settled
						content = first
						plan = movertest.Fault{Op: "ReadAt", Extent: cbt.Extent{Off: 48 << 20, Len: 16 << 20}, Count: -1, Err: errLost{}, Hook: func() { time.Sleep(time.Second) }}
					}
					m, err := disk(content).Reopen(movertest.ReadOnly)
					if err != nil {
						return nil, err
					}
					return named{movertest.NewFaulty(m, plan)}, nil
				}
				src.Hint = func(context.Context, mover.Disk) (cbt.Hint, error) {
					h, now := cbt.Hint{Provider: "test", Size: size, Trust: cbt.Exact}, first
					if asked++; asked > 1 {
						if now = tt.second; tt.again != nil {
							return h, tt.again
						}
					}
					for e := range differing(before, now).All() {
						h.Areas = append(h.Areas, e)
					}
					return h, nil
				}
				rep, err := toFro(t, mover.Config{Workers: 1, Batches: 64, Checkpoint: 1 << 20, CheckpointEvery: time.Millisecond, Sampling: cbt.Sampling{Every: 1 << 20, Least: 1}},
					mover.Job{Retry: time.Minute, Track: tt.track, Source: src, Target: endpoint("target", dst)}, pull)
				if codeOf(err) != tt.code || rep.Hinted != tt.hinted && err == nil || opens != 2 || tt.track != wire.TrackingOff && asked != 2 {
					t.Errorf("%d opens, asked %d times: %v (%+v)", opens, asked, err, rep)
				}
				if equal := bytes.Equal(dst.Bytes(), tt.second); (err == nil || rep.State == wire.StateVerified) && !equal {
					t.Errorf("%v, and the target differs at %d", rep.State, firstDiff(dst.Bytes(), tt.second))
				}
			})
		}
	}
}

// toFro runs job, whose two disks are here, over a link: pushed or pulled.
func toFro(t *testing.T, cfg mover.Config, job mover.Job, pull bool) (rep mover.Report, err error) {
	bug := bubble(t, func(ctx context.Context) error {
		s, err2 := newSite(ctx, cfg, memState{}, mover.Export{Name: "target", Role: mover.RoleTarget, Open: job.Target.Open},
			mover.Export{Name: "source", Role: mover.RoleSource, Open: job.Source.Open, Hint: job.Source.Hint})
		if err2 != nil {
			return err2
		}
		e, err2 := mover.NewEngine(cfg, memState{})
		if err2 != nil {
			return err2
		}
		job.Run, job.Mode = wire.RunID{1}, wire.ModeCopy
		if pull {
			job.Source = s.remote("source")
		} else {
			job.Target = s.remote("target")
		}
		rep, err = e.Run(ctx, job, new(mover.Progress))
		s.server.Drain()
		return errors.Join(e.Close(), s.engine.Close())
	})
	if bug != nil {
		t.Fatal(bug)
	}
	return rep, err
}
