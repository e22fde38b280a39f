package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// pieced is a target and a source of n bytes that differ in single pieces, in
// several of one grain, in whole grains and in the last bytes.
func pieced(rng *rand.Rand, n int) (before, want []byte) {
	before = make([]byte, n)
	for i := range before {
		before[i] = byte(rng.Uint32())
	}
	want = bytes.Clone(before)
	for at := 0; at+cbt.GrainSize < n; at += 3 * cbt.GrainSize {
		for range 1 + rng.IntN(4) {
			want[at+rng.IntN(cbt.GrainSize)] ^= 1
		}
	}
	for i := range want[:cbt.GrainSize] { // all pieces
		want[4*cbt.GrainSize+i] ^= 0x55
	}
	clear(want[7*cbt.GrainSize : 8*cbt.GrainSize]) // zeros now
	clear(before[9*cbt.GrainSize : 10*cbt.GrainSize])
	want[n-1] ^= 1
	return before, want
}

// refined copies want over before with refinement on, to a site of its own, and
// returns how it went. change, if not nil, is called with each grain of the source
// that is read the second time, before that.
func refined(t *testing.T, bug mover.Bug, before, want []byte, change func(p []byte, grain int64)) (rep mover.Report, have []byte, err error) {
	return refinedOver(t, bug, before, want, change, nil)
}

func refinedOver(t *testing.T, bug mover.Bug, before, want []byte, change func(p []byte, grain int64), wrap func(wire.Link) wire.Link) (rep mover.Report, have []byte, err error) {
	target := disk(before)
	err = bubble(t, func(ctx context.Context) error {
		cfg := mover.WithBug(mover.Config{Memory: 64 << 20, Workers: 2, Refine: mover.On}, bug)
		state := movertest.NewCrashableState(movertest.NewPower())
		s, err := newSite(ctx, cfg, state.Mount(), mover.Export{Name: "disk", Role: mover.RoleTarget, Open: endpoint("disk", target).Open})
		if err != nil {
			return err
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		s.wrap = wrap
		source, err := mover.NewEngine(cfg, nil)
		if err != nil {
			return err
		}
		defer source.Close() // holds nothing
		live := &liveDisk{flat: flat{want}, change: change, reads: make(map[int64]int)}
		rep, err = source.Run(ctx, mover.Job{
			Run: wire.RunID{1}, Mode: wire.ModeCopy, Retry: 20 * time.Minute, Target: s.remote("disk"),
			Source: mover.Endpoint{Open: func(context.Context, mover.Access) (mover.Disk, error) { return live, nil }},
		}, new(mover.Progress))
		return err
	})
	return rep, target.Bytes(), err
}

// liveDisk is a source that changes between reads of it.
type liveDisk struct {
	flat
	mu     sync.Mutex
	reads  map[int64]int // of each grain
	change func(p []byte, grain int64)
}

func (d *liveDisk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for g := off / cbt.GrainSize; g*cbt.GrainSize < off+int64(len(p)); g++ {
		if d.reads[g]++; d.reads[g] == 2 && d.change != nil {
			e := cbt.Grain(g, d.Size())
			d.change(d.b[e.Off:e.End()], g)
		}
	}
	return d.flat.ReadAt(p, off)
}

// Only the pieces that differ go over, the counters say so, and what is on the
// target is what the source has.
func TestRefine(t *testing.T) {
	for _, tail := range []int{0, 1, wire.PartSize, wire.PartSize + 1, 3*wire.PartSize - 5, cbt.GrainSize - 1} {
		t.Run(fmt.Sprint(tail), func(t *testing.T) {
			before, want := pieced(rand.New(rand.NewPCG(1, uint64(tail))), 3<<20+tail)
			rep, have, err := refined(t, 0, before, want, nil)
			c := rep.Counters
			if err != nil || !rep.Equal || !bytes.Equal(have, want) {
				t.Fatalf("%+v, %v", rep, err)
			}
			if c.Refined == 0 || c.Sent+c.Refined != c.Differing || c.Sent > c.Differing/2 || c.Redone != 0 || c.Durable != c.Sent {
				t.Errorf("sent %d, refined %d, differing %d, durable %d, redone %d", c.Sent, c.Refined, c.Differing, c.Durable, c.Redone)
			}
		})
	}
}

// staleAnswers changes the source between the two reads of a grain that is
// refined: what it held at the second counts, at both ends.
func staleAnswers(t *testing.T, bug mover.Bug) error {
	for seed := range uint64(3) {
		before, want := pieced(rand.New(rand.NewPCG(seed, 2)), 3<<20)
		clean := bytes.Clone(before)
		rep, have, err := refined(t, bug, before, want, func(p []byte, grain int64) {
			switch (uint64(grain) + seed) % 3 {
			case 0: // as the target has it, again
				copy(p, clean[grain*cbt.GrainSize:])
			case 1: // zeros by now
				clear(p)
			default:
				p[7] ^= 0x80
				p[len(p)-1] ^= 0x80
			}
		})
		switch {
		case err != nil:
			return fmt.Errorf("seed %d: %w", seed, err)
		case rep.Counters.Redone > 0:
			return fmt.Errorf("seed %d: %d grains had to be sent again", seed, rep.Counters.Redone)
		case !bytes.Equal(have, want):
			return fmt.Errorf("seed %d: the target differs at %d", seed, firstDiff(have, want))
		}
	}
	return nil
}

// piecesInPlace looks for grains that were wrong before they were right: the
// read-back mends what is written to the wrong place.
func piecesInPlace(t *testing.T, bug mover.Bug) error {
	before, want := pieced(rand.New(rand.NewPCG(5, 5)), 3<<20)
	rep, have, err := refined(t, bug, before, want, nil)
	if err == nil && rep.Counters.Redone > 0 {
		err = fmt.Errorf("%d grains had to be sent again", rep.Counters.Redone)
	}
	if err == nil && !bytes.Equal(have, want) {
		err = fmt.Errorf("the target differs at %d", firstDiff(have, want))
	}
	return err
}

// flippedPieces turns over bits of payloads of pieces: none may be written.
func flippedPieces(t *testing.T, bug mover.Bug) error {
	rng := rand.New(rand.NewPCG(8, 8))
	before := bytes.Repeat([]byte{7}, 1<<20)
	want := bytes.Clone(before)
	for i := range want[:wire.PartSize] {
		want[2*cbt.GrainSize+3*wire.PartSize+i] = byte(rng.Uint32())
	}
	clean := bytes.Clone(before)
	for range 20 {
		at := 8 + 24 + 68 + rng.IntN(16+wire.PartSize)
		rep, have, err := refinedOver(t, bug, bytes.Clone(before), want, nil, func(l wire.Link) wire.Link { return flipping{l, at, byte(1) << rng.IntN(8)} })
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeDigest {
			return fmt.Errorf("bit at %d: %+v, %w", at, rep.Counters, err)
		}
		if !bytes.Equal(have, clean) {
			return errors.New("a damaged piece was written")
		}
	}
	return nil
}

// TestRefineAuto asks only where the wire is what the copy waits for, and the
// processors are not.
func TestRefineAuto(t *testing.T) {
	before, want := pieced(rand.New(rand.NewPCG(3, 3)), 24<<20)
	for name, c := range map[string]struct {
		slow     time.Duration
		idle     float64
		compress mover.Choice
		refined  bool
	}{
		"slow wire":                 {200 * time.Millisecond, 0.5, mover.Auto, true},
		"slow wire, not compressed": {200 * time.Millisecond, 0.5, mover.Off, true},
		"fast wire":                 {0, 0.5, mover.Auto, false},
		"slow other end, which has all processors": {200 * time.Millisecond, 0.05, mover.Auto, false},
	} {
		t.Run(name, func(t *testing.T) {
			target := disk(bytes.Clone(before))
			var rep mover.Report
			err := bubble(t, func(ctx context.Context) error {
				cfg := mover.WithIdle(mover.Config{Memory: 64 << 20, Workers: 2, Compress: c.compress}, c.idle)
				s, err := newSite(ctx, cfg, movertest.NewCrashableState(movertest.NewPower()).Mount(),
					mover.Export{Name: "disk", Role: mover.RoleTarget, Open: endpoint("disk", target).Open})
				if err != nil {
					return err
				}
				defer func() { s.server.Drain(); _ = s.engine.Close() }()
				s.wrap = func(l wire.Link) wire.Link { return quicName{slowWrites{l, c.slow}} }
				rep, err = s.push(ctx, cfg, wire.RunID{1}, want, new(mover.Progress))
				return err
			})
			if err != nil || !bytes.Equal(target.Bytes(), want) {
				t.Fatalf("%+v, %v", rep, err)
			}
			if got := rep.Counters.Refined > 0; got != c.refined {
				t.Errorf("%d bytes refined", rep.Counters.Refined)
			}
		})
	}
}

// quicName is a link that says it is no pipe.
type quicName struct{ wire.Link }

func (quicName) Transport() string { return "quic" }

// TestRefineCut loses the link again and again in the middle of a copy, with
// questions open.
func TestRefineCut(t *testing.T) {
	before, want := pieced(rand.New(rand.NewPCG(4, 4)), 8<<20)
	cuts := 5
	rep, have, err := refinedOver(t, 0, before, want, nil, func(l wire.Link) wire.Link {
		if cuts--; cuts >= 0 {
			time.AfterFunc(time.Duration(5-cuts)*3*time.Millisecond, func() { l.CloseWithError(wire.CodeTimeout, "cut by the test") })
		}
		return slowWrites{l, time.Millisecond}
	})
	if err != nil || !rep.Equal || !bytes.Equal(have, want) || rep.Counters.Reconnects == 0 || rep.Counters.Refined == 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if c := rep.Counters; c.Scanned != c.Total || c.Same+c.Differing+c.Holes != c.Total {
		t.Errorf("the counters do not come to the disk: %+v", c)
	}
}

// TestRefinePull has the target in the process that asks: the setting is that of
// the daemon that reads the source.
func TestRefinePull(t *testing.T) {
	for _, refine := range []mover.Choice{mover.On, mover.Off} {
		before, want := pieced(rand.New(rand.NewPCG(6, 6)), 3<<20+777)
		target := disk(before)
		var rep mover.Report
		err := bubble(t, func(ctx context.Context) error {
			s, err := newSite(ctx, mover.Config{Memory: 64 << 20, Refine: refine}, memState{},
				mover.Export{Name: "disk", Role: mover.RoleSource, Open: endpoint("disk", disk(want)).Open})
			if err != nil {
				return err
			}
			defer func() { s.server.Drain(); _ = s.engine.Close() }()
			here, err := mover.NewEngine(mover.Config{Memory: 64 << 20}, movertest.NewCrashableState(movertest.NewPower()).Mount())
			if err != nil {
				return err
			}
			defer here.Close() // holds nothing
			rep, err = here.Run(ctx, mover.Job{Run: wire.RunID{1}, Mode: wire.ModeCopy, Source: s.remote("disk"), Target: endpoint("target", target)}, new(mover.Progress))
			return err
		})
		c := rep.Counters
		if err != nil || !bytes.Equal(target.Bytes(), want) || c.Refined > 0 != (refine == mover.On) || c.Sent+c.Refined != c.Differing {
			t.Errorf("refine %v: %+v, %v", refine, rep, err)
		}
	}
}

// Pieces are compressed where grains are, and not where that is switched off.
func TestRefineCompress(t *testing.T) {
	for _, compress := range []mover.Choice{mover.On, mover.Off} {
		before := bytes.Repeat([]byte("all the same "), (1<<20)/13+1)[:1<<20]
		want := bytes.Clone(before)
		for at := 100; at < len(want); at += cbt.GrainSize {
			want[at] ^= 1
		}
		target := disk(before)
		rep, err := run(t, newEngine(t, mover.Config{Refine: mover.On, Compress: compress}), mover.Job{Source: endpoint("source", disk(want)), Target: endpoint("target", target)})
		c := rep.Counters
		if err != nil || !bytes.Equal(target.Bytes(), want) || c.Sent != int64(len(want))/wire.GrainParts {
			t.Fatalf("%+v, %v", rep, err)
		}
		if on := compress == mover.On; c.Wire < c.Sent != on || rep.Compression.Packed == rep.Compression.Grains != on || rep.Compression.Grains != cbt.BatchGrains {
			t.Errorf("compress %v: %d bytes for %d, %+v", compress, c.Wire, c.Sent, rep.Compression)
		}
	}
}

// A target that writes in larger units than a piece gets whole grains.
func TestRefineSectors(t *testing.T) {
	for sector, pieces := range map[int64]bool{512: true, wire.PartSize: true, 16 << 10: false} {
		before, want := pieced(rand.New(rand.NewPCG(7, 7)), 2<<20)
		target := disk(before)
		e := newEngine(t, mover.Config{Refine: mover.On})
		open := func(ctx context.Context, a mover.Access) (mover.Disk, error) {
			d, err := endpoint("target", target).Open(ctx, a)
			if err != nil {
				return nil, err
			}
			return sectored{d.(*movertest.Memory), sector}, nil
		}
		rep, err := run(t, e, mover.Job{Source: endpoint("source", disk(want)), Target: mover.Endpoint{Name: "target", Open: open}})
		if err != nil || !bytes.Equal(target.Bytes(), want) || rep.Counters.Refined > 0 != pieces {
			t.Errorf("sectors of %d: %+v, %v", sector, rep, err)
		}
	}
}

type sectored struct {
	*movertest.Memory
	sector int64
}

func (d sectored) Sector() int64 { return d.sector }

func TestParseChoice(t *testing.T) {
	for _, r := range []mover.Choice{mover.Auto, mover.On, mover.Off} {
		if got, err := mover.ParseChoice("refine", r.String()); got != r || err != nil {
			t.Errorf("%v comes back as %v, %v", r, got, err)
		}
	}
	if r, err := mover.ParseChoice("refine", ""); r != mover.Auto || err != nil {
		t.Errorf("empty is %v, %v", r, err)
	}
	if _, err := mover.ParseChoice("refine", "sometimes"); err == nil {
		t.Error("sometimes is a choice")
	}
	for _, cfg := range []mover.Config{{Refine: 9}, {Compress: 9}} {
		if err := cfg.Validate(); err == nil {
			t.Errorf("refine %v and compress %v are choices", cfg.Refine, cfg.Compress)
		}
	}
}
