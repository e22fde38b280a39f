package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// A run that is cut and continued brings its hint again: the same one goes on,
// another one makes the copy a full one, and so does none.
func TestLingeringSourceHearsTheHint(t *testing.T) {
	for name, tt := range map[string]struct {
		second func(h *cbt.Hint) *cbt.Hint
		retry  bool // within one run
		hinted bool
		reason string
	}{
		"in one run": {nil, true, true, "test t0"},
		"the same":   {func(h *cbt.Hint) *cbt.Hint { return h }, false, true, "test t0"},
		"another":    {func(h *cbt.Hint) *cbt.Hint { o := *h; o.Since = "t1"; return &o }, false, false, "another than on the link before"},
		"narrower":   {func(h *cbt.Hint) *cbt.Hint { o := *h; o.Areas = o.Areas[1:]; return &o }, false, false, "another than on the link before"},
	} {
		t.Run(name, func(t *testing.T) {
			err := bubble(t, func(ctx context.Context) error {
				d := newTracked(rand.New(rand.NewPCG(6, 6)), 16<<20)
				p, err := newPulled(ctx, d, few)
				if err != nil {
					return err
				}
				first := p.job(wire.TrackingUse, 0)
				first.Source.Remote.Hint = &d.hint
				p.wrap = func(l wire.Link) wire.Link { p.wrap = nil; return &dying{Link: l} }
				if tt.retry {
					first.Retry = time.Minute
				}
				rep, err := p.run(ctx, first)
				if !tt.retry {
					if err == nil {
						return errors.New("the first link was not cut")
					}
					synctest.Wait()
					second := p.job(wire.TrackingUse, 0)
					second.Source.Remote.Hint = tt.second(&d.hint)
					rep, err = p.run(ctx, second)
				}
				if cerr := p.close(); cerr != nil {
					return cerr
				}
				if err != nil || rep.Hinted != tt.hinted || !strings.Contains(rep.Reason, tt.reason) || !bytes.Equal(d.dst.Bytes(), d.want) {
					return fmt.Errorf("%w (%+v)", err, rep)
				}
				if n := p.asked.Load(); n != 0 {
					return fmt.Errorf("the source asked its own tracker %d times", n)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// A hint from afar that cannot be used, or that lies, makes a full pass with the
// reason, or with strict the end of it, as one of the source's own tracker does.
func TestHintFromAfarFallsBack(t *testing.T) {
	for name, tt := range map[string]struct {
		edit   func(h *cbt.Hint)
		reason string
	}{
		"distrusted": {func(h *cbt.Hint) { h.Trust, h.Remark = cbt.Distrusted, "counter reset" }, "counter reset"},
		"outside":    {func(h *cbt.Hint) { h.Areas[0].Off = h.Size }, "outside"},
		"another":    {func(h *cbt.Hint) { h.Size += cbt.GrainSize }, "tracked a disk of"},
	} {
		for _, order := range []bool{false, true} {
			for _, track := range []wire.Tracking{wire.TrackingUse, wire.TrackingStrict} {
				err := bubble(t, func(ctx context.Context) error {
					d := newTracked(rand.New(rand.NewPCG(6, 6)), 8<<20)
					p, err := newPulled(ctx, d, few)
					if err != nil {
						return err
					}
					h := d.hint
					tt.edit(&h)
					job, run := p.job(track, 0), p.run
					job.Source.Remote.Hint = &h
					if order {
						run = p.order
					}
					rep, err := run(ctx, job)
					if cerr := p.close(); cerr != nil {
						return cerr
					}
					if track == wire.TrackingStrict {
						if codeOf(err) != wire.CodeHint || !d.dst.wrote.Empty() {
							return fmt.Errorf("strict: %w (%+v)", err, rep)
						}
						return nil
					}
					if err != nil || rep.Hinted || !strings.Contains(rep.Reason, tt.reason) || !bytes.Equal(d.dst.Bytes(), d.want) {
						return fmt.Errorf("%w (%+v)", err, rep)
					}
					return nil
				})
				if err != nil {
					t.Errorf("%s, order %t, %v: %v", name, order, track, err)
				}
			}
		}
	}
}

// TestHostileHint: a peer that breaks the rules of a hint hears so at once, and
// one that does not say what it announced is not waited for.
func TestHostileHint(t *testing.T) {
	const size = 4 << 20
	head := func(n uint32) *wire.Hint { return &wire.Hint{Size: size, Areas: n, Trust: cbt.Exact, Provider: "evil"} }
	areas := func(at ...int64) *wire.Areas {
		a := new(wire.Areas)
		for _, off := range at {
			a.Areas = append(a.Areas, cbt.Extent{Off: off << 16, Len: cbt.GrainSize})
		}
		return a
	}
	for name, tt := range map[string]struct {
		op     wire.Op
		mode   wire.Mode
		frames []wire.Frame
		want   wire.Code
	}{
		"areas first":            {wire.OpPull, wire.ModeCopy, []wire.Frame{areas(1)}, wire.CodeFrame},
		"nothing":                {wire.OpPull, wire.ModeCopy, nil, wire.CodeTimeout},
		"fewer than announced":   {wire.OpPull, wire.ModeCopy, []wire.Frame{head(2), areas(1)}, wire.CodeTimeout},
		"more than announced":    {wire.OpPull, wire.ModeCopy, []wire.Frame{head(2), areas(1, 3, 5)}, wire.CodeExtent},
		"out of order":           {wire.OpPull, wire.ModeCopy, []wire.Frame{head(2), areas(5), areas(1)}, wire.CodeExtent},
		"touching":               {wire.OpPull, wire.ModeCopy, []wire.Frame{head(2), areas(5), areas(6)}, wire.CodeExtent},
		"beyond the disk":        {wire.OpPull, wire.ModeCopy, []wire.Frame{head(1), areas(64)}, wire.CodeExtent},
		"something else":         {wire.OpPull, wire.ModeCopy, []wire.Frame{head(1), new(wire.Ping)}, wire.CodeFrame},
		"of a push":              {wire.OpPush, wire.ModeCopy, []wire.Frame{head(0)}, wire.CodeRole},
		"of a comparison by us":  {wire.OpPush, wire.ModeVerify, []wire.Frame{head(0)}, wire.CodeFrame},
		"areas of a comparison":  {wire.OpPull, wire.ModeVerify, []wire.Frame{head(1), areas(1)}, wire.CodeFrame},
		"out of order, an order": {wire.OpOrder, wire.ModeCopy, []wire.Frame{head(2), areas(5), areas(1)}, wire.CodeExtent},
	} {
		err := bubble(t, func(ctx context.Context) error {
			s, err := newSite(ctx, few, memState{})
			if err != nil {
				return err
			}
			s.server.SetExports([]mover.Export{{
				Name: "disk", Role: mover.RoleSource, Open: endpoint("disk", disk(image(rand.New(rand.NewPCG(1, 1)), size))).Open, Peers: []wire.ID{{1}}, Operators: []wire.ID{{1}},
			}})
			link, err := s.dial(ctx)
			if err != nil {
				return err
			}
			e := &evil{t: t, ctx: ctx, link: link, in: wire.NewReader(link.Control(), wire.MaxControlBody)}
			h := hello(tt.op, tt.mode, "disk")
			h.Track = wire.TrackingTold
			e.send(h)
			for _, f := range tt.frames {
				e.send(f)
			}
			<-link.Done()
			got := codeOf(link.Err())
			s.server.Drain()
			if cerr := s.engine.Close(); cerr != nil {
				return cerr
			}
			if got != tt.want {
				return fmt.Errorf("ended with %w, want code %v", link.Err(), tt.want)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The largest hint arrives whole or wider, and costs either end a few times what
// it says; one that is only announced costs nothing.
func TestHintIsBounded(t *testing.T) {
	const size = 64 << 30
	for _, n := range []int64{wire.MaxHintAreas, wire.MaxHintAreas + 1} {
		tellAreas(t, size, n)
	}
	a, b := wire.Pipe(wire.ID{1}, wire.ID{2})
	e := &evil{t: t, link: a}
	e.send(&wire.Hint{Size: size, Areas: wire.MaxHintAreas, Trust: cbt.Exact})
	time.AfterFunc(50*time.Millisecond, func() { a.CloseWithError(wire.CodeOK, "") })
	if cost := allocatedBy(func() {
		if _, err := mover.ListenHint(b); err == nil {
			t.Error("half a hint was taken")
		}
	}); cost > 256<<10 {
		t.Errorf("%d bytes allocated for an announcement", cost)
	}
}

func tellAreas(t *testing.T, size, n int64) {
	h := &cbt.Hint{Provider: "test", Size: size, Trust: cbt.Exact}
	for i := range n {
		h.Areas = append(h.Areas, cbt.Extent{Off: i * (size / n) / cbt.GrainSize * cbt.GrainSize, Len: 512})
	}
	a, b := wire.Pipe(wire.ID{1}, wire.ID{2})
	sent := make(chan error, 1)
	var got cbt.Hint
	cost := allocatedBy(func() {
		go func() { sent <- mover.SendHint(a, h) }()
		var err error
		if got, err = mover.ListenHint(b); err != nil {
			t.Error(err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
	m, _, err := got.Changed(size)
	if wider := strings.Contains(got.Remark, "widened"); err != nil || len(got.Areas) > wire.MaxHintAreas || wider != (n > wire.MaxHintAreas) || !wider && int64(len(got.Areas)) != n {
		t.Fatalf("%d areas of %d, %v, %q", len(got.Areas), n, err, got.Remark)
	}
	for _, e := range h.Areas {
		if !m.Covers(e) {
			t.Fatalf("%v is lost", e)
		}
	}
	t.Logf("%d areas were told as %d, for %d KiB", n, len(got.Areas), cost>>10)
	if most := uint64(64 << 20); cost > most { // both ends together; widening takes a copy each time
		t.Errorf("%d bytes allocated", cost)
	}
	b.CloseWithError(wire.CodeOK, "")
}

func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
