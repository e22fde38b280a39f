package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// watched notes what of a disk was read and written.
type watched struct {
	*movertest.Memory
	mu          sync.Mutex
	read, wrote cbt.Map
}

func (w *watched) note(m *cbt.Map, off, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.Add(cbt.Extent{Off: off, Len: n})
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	w.note(&w.read, off, int64(len(p)))
	return w.Memory.ReadAt(p, off)
}

func (w *watched) ReadCold(p []byte, off int64) (int, error) {
	w.note(&w.read, off, int64(len(p)))
	return w.Memory.ReadCold(p, off)
}

func (w *watched) WriteAt(p []byte, off int64) (int, error) {
	w.note(&w.wrote, off, int64(len(p)))
	return w.Memory.WriteAt(p, off)
}

func (w *watched) Zero(e cbt.Extent, how cbt.Allocation) error {
	w.note(&w.wrote, e.Off, e.Len)
	return w.Memory.Zero(e, how)
}

func (w *watched) open(_ context.Context, a mover.Access) (mover.Disk, error) {
	mode := movertest.ReadOnly
	if a == mover.ReadWrite {
		mode = movertest.ReadWrite
	}
	m, err := w.Reopen(mode)
	if err != nil {
		return nil, err
	}
	w.Memory = m
	return w, nil
}

// tracked is a pair of disks, and what a tracker says of the source.
type tracked struct {
	want     []byte
	src, dst *watched
	diff     cbt.Map // grains in which the two differ
	hint     cbt.Hint
	err      error // of the tracker
}

// newTracked makes a pair in which about one grain in ten differs, and a hint
// of all of these.
func newTracked(rng *rand.Rand, size int) *tracked {
	before := image(rng, size)
	want := bytes.Clone(before)
	scribble(rng, want, 1+size/(640<<10))
	d := &tracked{want: want, src: &watched{Memory: disk(want)}, dst: &watched{Memory: disk(before)}}
	d.diff = differing(before, want)
	d.hint = cbt.Hint{Provider: "test", Since: "t0", Size: int64(size), Granularity: cbt.GrainSize, Trust: cbt.Exact}
	for e := range d.diff.All() {
		d.hint.Areas = append(d.hint.Areas, e)
	}
	return d
}

func differing(a, b []byte) (m cbt.Map) {
	for g := range cbt.Grains(int64(len(a))) {
		if e := cbt.Grain(g, int64(len(a))); !bytes.Equal(a[e.Off:e.End()], b[e.Off:e.End()]) {
			m.Add(e)
		}
	}
	return m
}

// lose makes the tracker forget e.
func (d *tracked) lose(e cbt.Extent) {
	var m cbt.Map
	for _, a := range d.hint.Areas {
		m.Add(a)
	}
	m.Remove(e)
	d.hint.Areas = nil
	for a := range m.All() {
		d.hint.Areas = append(d.hint.Areas, a)
	}
}

func (d *tracked) changed(context.Context, mover.Disk) (cbt.Hint, error) { return d.hint, d.err }

func (d *tracked) job(track wire.Tracking) mover.Job {
	return mover.Job{
		Track:  track,
		Source: mover.Endpoint{Name: "source", Open: d.src.open, Hint: d.changed},
		Target: mover.Endpoint{Name: "target", Open: d.dst.open},
	}
}

// few is a sampling that leaves most of a small disk out.
var few = mover.Config{Sampling: cbt.Sampling{Every: 16, Least: 1}}

// within fails when m has grains that others has not.
func within(t *testing.T, what string, m, others cbt.Map, size int) {
	t.Helper()
	if extra := m.AlignGrains(int64(size)).Subtract(others); !extra.Empty() {
		e, _ := extra.Next(0)
		t.Errorf("%s %d bytes outside the plan, the first at %d", what, extra.Len(), e.Off)
	}
}

// A hint narrows what is read to its grains and the sample, on both sides, and
// what is written to what differs; the report says all of it.
func TestHintNarrows(t *testing.T) {
	for _, size := range []int{64 << 20, 40<<20 + 777, 9<<20 + 65536, 65536, 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(size), 7))
			d := newTracked(rng, size)
			e := newEngine(t, few)
			rep, err := run(t, e, d.job(wire.TrackingStrict))
			if err != nil || rep.State != wire.StateVerified || rep.Equal != (rep.Counters.Skipped == 0) {
				t.Fatalf("copy: %v (%+v)", err, rep)
			}
			if !bytes.Equal(d.dst.Bytes(), d.want) {
				t.Fatal("the target differs from the source")
			}
			hint := d.hint
			sampling := few.Sampling
			sampling.Seed = 1<<56 + 1 // of wire.RunID{1}, pass 1
			plan := cbt.PlanHint(int64(size), &hint, nil, sampling)
			within(t, "source read", d.src.read, plan.Read, size)
			within(t, "target read", d.dst.read, plan.Read, size)
			within(t, "target wrote", d.dst.wrote, d.diff, size)
			c := rep.Counters
			if skipped := plan.Skipped(); !rep.Hinted || rep.Reason != plan.Reason || c.Skipped != skipped.Len() || c.Sampled != plan.Sampled.Len() ||
				c.Scanned+c.Skipped != int64(size) || c.Verified != plan.Read.Len() {
				t.Errorf("%d bytes: plan reads %d, skips %d, samples %d; report %+v", size, plan.Read.Len(), skipped.Len(), plan.Sampled.Len(), rep)
			}
		})
	}
}

// The same over a link, in both directions, with the counts in the journal of
// the target.
func TestHintOverLink(t *testing.T) {
	const size = 40<<20 + 777
	for _, pull := range []bool{false, true} {
		t.Run(fmt.Sprintf("pull=%t", pull), func(t *testing.T) {
			d := newTracked(rand.New(rand.NewPCG(3, 3)), size)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			here, there := movertest.NewCrashableState(movertest.NewPower()).Mount(), movertest.NewCrashableState(movertest.NewPower()).Mount()
			s, err := newSite(ctx, few, there,
				mover.Export{Name: "disk", Role: mover.RoleTarget, Open: d.dst.open},
				mover.Export{Name: "source", Role: mover.RoleSource, Open: d.src.open, Hint: d.changed})
			if err != nil {
				t.Fatal(err)
			}
			e, err := mover.NewEngine(few, here)
			if err != nil {
				t.Fatal(err)
			}
			job := d.job(wire.TrackingUse)
			job.Run, job.Mode = wire.RunID{1}, wire.ModeCopy
			journal := there
			if pull {
				job.Source, journal = s.remote("source"), here
			} else {
				job.Target = s.remote("disk")
			}
			rep, err := e.Run(ctx, job, new(mover.Progress))
			s.server.Drain()
			if err := errors.Join(err, e.Close(), s.engine.Close()); err != nil {
				t.Fatalf("copy: %v (%+v)", err, rep)
			}
			if !bytes.Equal(d.dst.Bytes(), d.want) {
				t.Fatal("the target differs from the source")
			}
			st, err := mover.ReadJournal(journal, d.dst.Identity())
			c := rep.Counters
			if err != nil || st.State != wire.StateVerified || st.Skipped == 0 || st.Skipped != (c.Skipped+cbt.GrainSize-1)/cbt.GrainSize ||
				st.Sampled != (c.Sampled+cbt.GrainSize-1)/cbt.GrainSize || !rep.Hinted {
				t.Errorf("journal %v, skipped %d, sampled %d (%v); report %+v", st.State, st.Skipped, st.Sampled, err, rep)
			}
		})
	}
}

// A tracker that loses a run of changes as long as two strides is always found
// out. Then all is compared; with Strict nothing is.
func TestLyingHint(t *testing.T) {
	const size = 64 << 20
	seeds := uint64(30)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 9))
		d := newTracked(rng, size)
		lie := cbt.Extent{Off: rng.Int64N(size/cbt.GrainSize-40) * cbt.GrainSize, Len: 32 * cbt.GrainSize}
		for off := lie.Off; off < lie.End(); off += cbt.GrainSize {
			d.want[off] ^= 1
		}
		d.src.Memory = disk(d.want)
		d.lose(lie)

		var said string
		p := &mover.Progress{Event: func(text string) { said += text + "\n" }}
		job := d.job(wire.TrackingUse)
		job.Run, job.Mode = wire.RunID{1}, wire.ModeCopy
		if seed%2 == 0 {
			job.Track = wire.TrackingStrict
		}
		rep, err := newEngine(t, few).Run(t.Context(), job, p)
		if job.Track == wire.TrackingStrict {
			if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.CodeHint || rep.State == wire.StateVerified {
				t.Fatalf("seed %d: a lie under strict: %v (%+v)", seed, err, rep)
			}
			continue
		}
		if err != nil || rep.State != wire.StateVerified || !bytes.Equal(d.dst.Bytes(), d.want) {
			t.Fatalf("seed %d: copy: %v (%+v)", seed, err, rep)
		}
		if rep.Hinted || rep.Counters.Skipped != 0 || rep.Counters.Sampled != 0 || rep.Counters.Scanned != size ||
			!strings.Contains(rep.Reason, "distrusted") || !strings.Contains(said, "distrusted") {
			t.Fatalf("seed %d: report %+v, said %q", seed, rep, said)
		}
	}
}

// What the sample cannot see is never called proved: the report says that
// grains were left out.
func TestUnseenLie(t *testing.T) {
	const size = 64 << 20
	for seed := uint64(1); ; seed++ {
		d := newTracked(rand.New(rand.NewPCG(seed, 10)), size)
		d.want[33<<20] ^= 1
		d.src.Memory = disk(d.want)
		d.lose(cbt.Extent{Off: 33 << 20, Len: cbt.GrainSize})
		rep, err := run(t, newEngine(t, few), d.job(wire.TrackingUse))
		if err != nil {
			t.Fatal(err)
		}
		if !rep.Hinted {
			continue // this seed samples that grain
		}
		if bytes.Equal(d.dst.Bytes(), d.want) || rep.Counters.Skipped == 0 {
			t.Errorf("seed %d: %+v", seed, rep)
		}
		return
	}
}

// Without a hint to use, or with nonsense, all is compared and the reason said.
func TestHintFallsBack(t *testing.T) {
	const size = 9 << 20
	for name, tt := range map[string]struct {
		change func(d *tracked, j *mover.Job)
		reason string
	}{
		"error":       {func(d *tracked, _ *mover.Job) { d.err = errors.New("no bitmap b0") }, "no bitmap b0"},
		"distrusted":  {func(d *tracked, _ *mover.Job) { d.hint.Trust = cbt.Distrusted }, "not to be trusted"},
		"outside":     {func(d *tracked, _ *mover.Job) { d.hint.Areas[0].Off = size }, "bad hint"},
		"another":     {func(d *tracked, _ *mover.Job) { d.hint.Size-- }, "tracked a disk of"},
		"no tracker":  {func(_ *tracked, j *mover.Job) { j.Source.Hint = nil }, "nothing tracks"},
		"not wanted":  {func(_ *tracked, j *mover.Job) { j.Track = wire.TrackingOff }, "asked for"},
		"full verify": {func(_ *tracked, j *mover.Job) { j.Full = true }, "asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, strict := range []bool{false, true} {
				d := newTracked(rand.New(rand.NewPCG(4, 4)), size)
				job := d.job(wire.TrackingUse)
				if strict {
					job.Track = wire.TrackingStrict
				}
				tt.change(d, &job)
				rep, err := run(t, newEngine(t, few), job)
				if strict && tt.reason != "asked for" {
					if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.CodeHint || !strings.Contains(err.Error(), tt.reason) {
						t.Errorf("strict: %v", err)
					}
					continue
				}
				if err != nil || rep.State != wire.StateVerified || rep.Hinted || !strings.Contains(rep.Reason, tt.reason) || rep.Counters.Skipped != 0 {
					t.Errorf("%v (%+v)", err, rep)
				}
				if !bytes.Equal(d.dst.Bytes(), d.want) {
					t.Error("the target differs from the source")
				}
			}
		})
	}
}

// A target that a cut run left in pieces takes no hint but that run's own: no
// tracker of the source knows what was written to it.
func TestHintForHalfWrittenTarget(t *testing.T) {
	const size = 40 << 20
	for name, tt := range map[string]struct {
		run    wire.RunID
		change func(d *tracked)
		hinted bool
	}{
		"same run, same hint":    {wire.RunID{1}, func(*tracked) {}, true},
		"same run, another hint": {wire.RunID{1}, func(d *tracked) { d.lose(d.hint.Areas[0]) }, false},
		"another run":            {wire.RunID{2}, func(*tracked) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTracked(rand.New(rand.NewPCG(5, 5)), size)
			e := newEngine(t, mover.Config{Sampling: few.Sampling, Checkpoint: 1 << 20, CheckpointEvery: time.Millisecond})
			cut := movertest.NewFaulty(nil)
			job := d.job(wire.TrackingUse)
			open := job.Target.Open
			job.Target.Open = func(ctx context.Context, a mover.Access) (mover.Disk, error) {
				m, err := open(ctx, a)
				if err != nil {
					return nil, err
				}
				return cut.On(m.(mover.WritableDisk)), nil
			}
			cut.Plan(movertest.Fault{Op: "WriteAt", Nth: 8, Count: -1, Err: syscall.EIO})
			if _, err := run(t, e, job); err == nil {
				t.Fatal("a copy to a disk that fails")
			}
			if d.dst.wrote.Empty() {
				t.Fatal("nothing was written before the fault: the test shows nothing")
			}
			tt.change(d)
			again := d.job(wire.TrackingUse)
			again.Run = tt.run
			rep, err := run(t, e, again)
			if err != nil || rep.State != wire.StateVerified || rep.Hinted != tt.hinted {
				t.Fatalf("%v (%+v)", err, rep)
			}
			if !bytes.Equal(d.dst.Bytes(), d.want) {
				t.Error("the target differs from the source")
			}
		})
	}
}

// A link that is cut does not begin a hinted pass anew, nor widen it.
func TestHintAcrossLinks(t *testing.T) {
	err := bubble(t, func(ctx context.Context) error {
		const size = 64 << 20
		d := newTracked(rand.New(rand.NewPCG(6, 6)), size)
		cfg := few
		cfg.Batches, cfg.Checkpoint, cfg.Workers = 64, 1<<20, 1
		s, err := newSite(ctx, cfg, movertest.NewCrashableState(movertest.NewPower()).Mount(), mover.Export{Name: "disk", Role: mover.RoleTarget, Open: d.dst.open})
		if err != nil {
			return err
		}
		links := 0
		s.wrap = func(l wire.Link) wire.Link {
			if links++; links <= 3 {
				time.AfterFunc(time.Duration(links)*30*time.Millisecond, func() { l.CloseWithError(wire.CodeTimeout, "cut by the test") })
			}
			return slowWrites{l, 5 * time.Millisecond}
		}
		e, err := mover.NewEngine(cfg, nil)
		if err != nil {
			return err
		}
		defer e.Close()
		job := d.job(wire.TrackingUse)
		job.Run, job.Mode, job.Target, job.Retry = wire.RunID{1}, wire.ModeCopy, s.remote("disk"), time.Hour
		rep, err := e.Run(ctx, job, new(mover.Progress))
		s.server.Drain()
		if err := errors.Join(err, s.engine.Close()); err != nil {
			return err
		}
		c := rep.Counters
		if !rep.Hinted || c.Reconnects == 0 || c.Scanned+c.Skipped != size || !bytes.Equal(d.dst.Bytes(), d.want) {
			return fmt.Errorf("report %+v", rep)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// lying is a pair whose tracker forgets a run of changes that no sample misses.
func lying() *tracked {
	d := newTracked(rand.New(rand.NewPCG(8, 8)), 64<<20)
	lie := cbt.Extent{Off: 20 << 20, Len: 64 * cbt.GrainSize}
	for off := lie.Off; off < lie.End(); off += cbt.GrainSize {
		d.want[off] ^= 1
	}
	d.src.Memory = disk(d.want)
	d.lose(lie)
	return d
}

// believedLie: a lie that the sample saw must not end in Verified.
func believedLie(t *testing.T, bug mover.Bug) error {
	d := lying()
	rep, err := run(t, newEngine(t, mover.WithBug(few, bug)), d.job(wire.TrackingUse))
	if err != nil {
		return err
	}
	if rep.State == wire.StateVerified && !bytes.Equal(d.dst.Bytes(), d.want) {
		return fmt.Errorf("%v though the sample saw differences", rep.State)
	}
	return nil
}

// A source that believes its hint whatever it reads does not get its way: the
// target takes no data for a grain that it was told is unchanged.
func TestTargetDoubtsTheHint(t *testing.T) {
	for _, track := range []wire.Tracking{wire.TrackingUse, wire.TrackingStrict} {
		err := bubble(t, func(ctx context.Context) error {
			d := lying()
			s, err := newSite(ctx, few, memState{}, mover.Export{Name: "disk", Role: mover.RoleTarget, Open: d.dst.open})
			if err != nil {
				return err
			}
			e, err := mover.NewEngine(mover.WithBug(few, mover.Bugs["hint believed"]), nil)
			if err != nil {
				return err
			}
			job := d.job(track)
			job.Run, job.Mode, job.Target = wire.RunID{1}, wire.ModeCopy, s.remote("disk")
			rep, err := e.Run(ctx, job, new(mover.Progress))
			s.server.Drain()
			if cerr := errors.Join(e.Close(), s.engine.Close()); cerr != nil {
				return cerr
			}
			if track == wire.TrackingStrict {
				if codeOf(err) != wire.CodeHint || rep.State == wire.StateVerified || !strings.Contains(err.Error(), "sampled grains") {
					return fmt.Errorf("strict: %w (%+v)", err, rep)
				}
				return nil
			}
			if err != nil || rep.State != wire.StateVerified || rep.Hinted || !bytes.Equal(d.dst.Bytes(), d.want) {
				return fmt.Errorf("%w (%+v)", err, rep)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%v: %v", track, err)
		}
	}
}
