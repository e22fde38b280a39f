package mover_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// A hostile target can cost the source its time, and cannot make it believe
// that a copy succeeded.
func TestHostileTarget(t *testing.T) {
	opened := &wire.Opened{Epoch: 5, Size: hostileSize, Identity: "evil", Cold: "direct"}
	full := func(b int64) *wire.Manifest {
		return &wire.Manifest{Batch: b, Grains: 16}
	}
	manifests := func(e *evil, frames ...wire.Frame) {
		e.send(opened)
		st, err := e.link.OpenSend(e.ctx, wire.StreamID{Kind: wire.StreamManifest})
		if err != nil {
			e.t.Fatal(err)
		}
		for _, f := range frames {
			_, _ = st.Write(wire.AppendFrame(nil, f))
		}
	}
	for name, c := range map[string]struct {
		do   func(e *evil)
		code wire.Code
	}{
		"smaller than it said":       {func(e *evil) { o := *opened; o.Size--; e.send(&o) }, wire.CodeTooSmall},
		"manifest out of order":      {func(e *evil) { manifests(e, full(1)) }, wire.CodeFrame},
		"manifest of a wrong length": {func(e *evil) { manifests(e, &wire.Manifest{Batch: 0, Grains: 3}) }, wire.CodeFrame},
		"holes at the edge":          {func(e *evil) { manifests(e, &wire.Holes{Run: wire.Run{First: 0, Count: 2}}) }, wire.CodeFrame},
		"holes to the end":           {func(e *evil) { manifests(e, full(0), &wire.Holes{Run: wire.Run{First: 1, Count: 4}}) }, wire.CodeFrame},
		"data from a target":         {func(e *evil) { manifests(e, &wire.Same{Runs: []wire.Run{{Count: 1}}}) }, wire.CodeFrame},
		"settled before a verdict":   {func(e *evil) { manifests(e); e.send(&wire.Ack{Settled: 2}) }, wire.CodeFrame},
		"settled beyond the end":     {func(e *evil) { manifests(e); e.send(&wire.Ack{Settled: 99}) }, wire.CodeFrame},
		"durable without data":       {func(e *evil) { manifests(e); e.send(&wire.Ack{Received: 1 << 30, Durable: 1 << 30}) }, wire.CodeFrame},
		"takes an ack back": {func(e *evil) {
			manifests(e, full(0))
			time.Sleep(time.Second)
			e.send(&wire.Ack{Received: 1 << 20, Durable: 1 << 20})
			e.send(&wire.Ack{Received: 1 << 20, Durable: 1 << 10})
		}, wire.CodeFrame},
		"paces who dialed":          {func(e *evil) { manifests(e); e.send(&wire.Pace{Wire: 1 << 20}) }, wire.CodeFrame},
		"paces before it opens":     {func(e *evil) { e.send(&wire.Pace{Wire: 1 << 20}) }, wire.CodeFrame},
		"redo of what was not sent": {func(e *evil) { manifests(e); e.send(&wire.Redo{Batch: 3, Mask: 1, Round: 1}) }, wire.CodeFrame},
		"verified at once":          {func(e *evil) { manifests(e); e.send(&wire.Verified{State: wire.StateVerified}) }, wire.CodeFrame},
		"verified, another root": {func(e *evil) {
			zero := wire.FullMask(16)
			manifests(e, &wire.Manifest{Grains: 16, Zero: zero}, &wire.Manifest{Batch: 1, Grains: 16, Zero: zero}, &wire.Manifest{Batch: 2, Grains: 16, Zero: zero},
				&wire.Manifest{Batch: 3, Grains: 16, Zero: zero}, &wire.Manifest{Batch: 4, Grains: 1, Zero: 1})
			data, err := e.link.OpenReceive(e.ctx, wire.StreamID{Kind: wire.StreamData})
			if err != nil {
				e.t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, data) }()
			time.Sleep(time.Second)
			e.send(&wire.Ack{Settled: 5, Received: hostileSize, Durable: 0})
			time.Sleep(time.Second)
			e.send(&wire.Verified{State: wire.StateVerified, Compared: 65})
		}, wire.CodeVerify},
		"hinted: holes":                  {func(e *evil) { manifests(e, full(0), &wire.Holes{Run: wire.Run{First: 1, Count: 1}}) }, wire.CodeFrame},
		"hinted: reads what is left out": {func(e *evil) { manifests(e, full(0)) }, wire.CodeFrame},
		"hinted: leaves out more":        {func(e *evil) { manifests(e, &wire.Manifest{Grains: 16, Skip: 0xfff0}) }, wire.CodeFrame},
		"hinted: other counts": {func(e *evil) {
			hint, _ := noChanges(e.ctx, nil)
			plan := cbt.PlanHint(hostileSize, &hint, nil, cbt.Sampling{Every: 1 << 20, Least: 1, Seed: 7<<56 + 1})
			var told []wire.Frame
			root := cbt.NewRoot(hostileSize)
			for g := range int64(65) {
				if g%16 == 0 {
					told = append(told, &wire.Manifest{Batch: g / 16, Grains: int(min(16, 65-g))})
				}
				m := told[g/16].(*wire.Manifest)
				if plan.Read.Covers(cbt.Grain(g, hostileSize)) {
					m.Zero |= 1 << (g % 16)
					root.AddZeros(1)
				} else {
					m.Skip |= 1 << (g % 16)
					root.AddSkipped(1)
				}
			}
			told = slices.DeleteFunc(told, func(f wire.Frame) bool { return f.(*wire.Manifest).Skip == 0xffff })
			manifests(e, told...)
			data, err := e.link.OpenReceive(e.ctx, wire.StreamID{Kind: wire.StreamData})
			if err != nil {
				e.t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, data) }()
			sum, _ := root.Sum()
			time.Sleep(time.Second)
			e.send(&wire.Ack{Settled: 5})
			time.Sleep(time.Second)
			e.send(&wire.Verified{State: wire.StateVerified, Root: sum, Compared: 3, Sampled: 3})
		}, wire.CodeVerify},
		"takes the session and stalls": {func(e *evil) { manifests(e); time.Sleep(5 * time.Minute) }, wire.CodeTimeout},
	} {
		t.Run(name, func(t *testing.T) { hostileTarget(t, c.do, c.code, strings.HasPrefix(name, "hinted: ")) })
	}
}

func noChanges(context.Context, mover.Disk) (cbt.Hint, error) {
	return cbt.Hint{Provider: "test", Size: hostileSize, Trust: cbt.Exact}, nil
}

func hostileTarget(t *testing.T, do func(e *evil), want wire.Code, hinted bool) {
	content := image(rand.New(rand.NewPCG(1, 1)), hostileSize)
	source := endpoint("source", disk(content))
	track := wire.TrackingOff
	if hinted { // of nothing: the plan is the first and the last grain, which are zeros
		content = make([]byte, hostileSize)
		source, track = endpoint("source", disk(content)), wire.TrackingStrict
		source.Hint = noChanges
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		engine, err := mover.NewEngine(mover.Config{Memory: 64 << 20, Workers: 1, Refine: mover.On, Sampling: cbt.Sampling{Every: 1 << 20, Least: 1}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer engine.Close() // holds nothing
		var ended sync.WaitGroup
		rep, err := engine.Run(ctx, mover.Job{
			Run: wire.RunID{7}, Mode: wire.ModeCopy, Source: source, Track: track,
			Target: mover.Endpoint{Name: "evil", Remote: &mover.Remote{Name: "evil", Export: "disk", Dial: func(context.Context) (wire.Link, error) {
				a, b := wire.Pipe(wire.ID{1}, wire.ID{2})
				e := &evil{t: t, ctx: ctx, link: b, in: wire.NewReader(b.Control(), wire.MaxControlBody)}
				ended.Go(func() {
					e.expect(new(wire.Hello))
					e.send(&wire.Welcome{Agent: "evil"})
					e.expect(new(wire.Open))
					do(e)
					<-b.Done()
				})
				return a, nil
			}}},
		}, new(mover.Progress))
		ended.Wait()
		got, ok := errors.AsType[*wire.Error](err)
		if !ok || got.Code != want || got.Remote {
			t.Errorf("the run ended with %v, want code %v of our own", err, want)
		}
		if rep.Equal {
			t.Error("the report says that the disks are equal")
		}
	})
}
