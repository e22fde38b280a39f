package mover_test

import (
	"math/bits"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// TestHostileRefine has a source that asks for pieces as it must not, and sends
// pieces that nobody told it of.
func TestHostileRefine(t *testing.T) {
	content := image(rand.New(rand.NewPCG(1, 1)), hostileSize)
	data, zero := wire.Mask(0), wire.Mask(0) // grains of batch 1
	for g := range int64(cbt.BatchGrains) {
		if e := cbt.Grain(cbt.BatchGrains+g, hostileSize); cbt.IsZero(content[e.Off:e.End()]) {
			zero |= 1 << g
		} else {
			data |= 1 << g
		}
	}
	one := data & -data
	other := data &^ one & -(data &^ one)
	// with opens both streams; ask writes to one of them, told reads an answer.
	with := func(f func(e *evil, ask func(wire.Frame), told func())) func(e *evil) {
		return func(e *evil) {
			o := openFrame(hostileSize)
			o.Refine = true
			e.begin(o)
			if !e.open.Refine {
				e.t.Error("the target does not tell pieces")
			}
			st, err := e.link.OpenSend(e.ctx, wire.StreamID{Kind: wire.StreamRefine})
			if err != nil {
				e.t.Fatal(err)
			}
			in, err := e.link.OpenReceive(e.ctx, wire.StreamID{Kind: wire.StreamParts})
			if err != nil {
				e.t.Fatal(err)
			}
			r := wire.NewReader(in, wire.MaxControlBody)
			f(e, func(q wire.Frame) { _, _ = st.Write(wire.AppendFrame(nil, q)) }, func() {
				if err := r.Expect(new(wire.Parts)); err != nil {
					e.t.Error(err)
				}
			})
		}
	}
	// pieces is a frame with one piece of one grain of batch 1.
	pieces := func(e *evil, g wire.Mask, redo bool) []byte {
		at := cbt.BatchSize + int64(bits.TrailingZeros16(uint16(g)))*cbt.GrainSize
		var d cbt.Digest
		e.dw.Reset(1, redo)
		e.dw.AddParts(at, grain(), 2, &d, true)
		return e.dw.Frame()
	}
	for name, c := range map[string]struct {
		do   func(e *evil)
		code wire.Code
	}{
		"twice": {with(func(_ *evil, ask func(wire.Frame), told func()) {
			ask(&wire.Refine{Batch: 1, Mask: one})
			told()
			ask(&wire.Refine{Batch: 1, Mask: other})
		}), wire.CodeFrame},
		"outside the disk": {with(func(_ *evil, ask func(wire.Frame), _ func()) { ask(&wire.Refine{Batch: 99, Mask: 1}) }), wire.CodeFrame},
		"beyond the end":   {with(func(_ *evil, ask func(wire.Frame), _ func()) { ask(&wire.Refine{Batch: 4, Mask: 2}) }), wire.CodeFrame},
		"of zeros":         {with(func(_ *evil, ask func(wire.Frame), _ func()) { ask(&wire.Refine{Batch: 1, Mask: zero}) }), wire.CodeFrame},
		"of zeros and data": {
			with(func(_ *evil, ask func(wire.Frame), _ func()) { ask(&wire.Refine{Batch: 1, Mask: 0xffff}) }), wire.CodeFrame,
		},
		"after the verdict": {with(func(e *evil, ask func(wire.Frame), _ func()) {
			e.send(&wire.Same{Runs: []wire.Run{{First: 1, Count: 1}}})
			synctest.Wait()
			ask(&wire.Refine{Batch: 1, Mask: one})
		}), wire.CodeFrame},
		"another frame": {with(func(_ *evil, ask func(wire.Frame), _ func()) { ask(&wire.Redo{Batch: 1, Mask: 1, Round: 1}) }), wire.CodeFrame},
		"a large frame": {with(func(_ *evil, ask func(wire.Frame), _ func()) {
			ask(&wire.Parts{Batch: 1, Mask: 0xffff})
		}), wire.CodeFrame},
		"pieces, and never asked": {with(func(e *evil, _ func(wire.Frame), _ func()) { e.sendData(pieces(e, one, false)) }), wire.CodeFrame},
		"pieces of another grain": {with(func(e *evil, ask func(wire.Frame), told func()) {
			ask(&wire.Refine{Batch: 1, Mask: one})
			told()
			e.sendData(pieces(e, other, false))
		}), wire.CodeFrame},
		"pieces in a redo": {with(func(e *evil, ask func(wire.Frame), told func()) {
			ask(&wire.Refine{Batch: 1, Mask: one})
			told()
			e.sendData(pieces(e, one, true))
		}), wire.CodeFrame},
		"damaged pieces": {with(func(e *evil, ask func(wire.Frame), told func()) {
			ask(&wire.Refine{Batch: 1, Mask: one})
			told()
			b := pieces(e, one, false)
			b[len(b)-1] ^= 1
			e.sendData(b)
		}), wire.CodeDigest},
		"asks, and no verdict": {with(func(_ *evil, ask func(wire.Frame), told func()) {
			ask(&wire.Refine{Batch: 1, Mask: one})
			told()
			time.Sleep(5 * time.Minute)
		}), wire.CodeTimeout},
	} {
		t.Run(name, func(t *testing.T) { hostileSource(t, c.do, c.code) })
	}
}

// TestHostileParts has a target that answers what was not asked, or believes that
// a question is a verdict.
func TestHostileParts(t *testing.T) {
	with := func(f func(e *evil, asked *wire.Refine, tell func(wire.Frame))) func(e *evil) {
		return func(e *evil) {
			e.send(&wire.Opened{Epoch: 5, Size: hostileSize, Identity: "evil", Cold: "direct", Refine: true})
			st, err := e.link.OpenSend(e.ctx, wire.StreamID{Kind: wire.StreamManifest})
			if err != nil {
				e.t.Fatal(err)
			}
			_, _ = st.Write(wire.AppendFrame(nil, &wire.Manifest{Grains: 16}))
			in, err := e.link.OpenReceive(e.ctx, wire.StreamID{Kind: wire.StreamRefine})
			if err != nil {
				e.t.Fatal(err)
			}
			out, err := e.link.OpenSend(e.ctx, wire.StreamID{Kind: wire.StreamParts})
			if err != nil {
				e.t.Fatal(err)
			}
			q := new(wire.Refine)
			if err := wire.NewReader(in, 64).Expect(q); err != nil || q.Batch != 0 {
				e.t.Errorf("asked for %+v, %v", q, err)
			}
			f(e, q, func(p wire.Frame) { _, _ = out.Write(wire.AppendFrame(nil, p)) })
		}
	}
	for name, do := range map[string]func(e *evil, asked *wire.Refine, tell func(wire.Frame)){
		"of another batch": func(_ *evil, _ *wire.Refine, tell func(wire.Frame)) { tell(&wire.Parts{Batch: 3, Mask: 1}) },
		"of more grains":   func(_ *evil, q *wire.Refine, tell func(wire.Frame)) { tell(&wire.Parts{Mask: 0xffff}) },
		"twice": func(_ *evil, q *wire.Refine, tell func(wire.Frame)) {
			tell(&wire.Parts{})
			tell(&wire.Parts{Mask: q.Mask})
		},
		"another frame":   func(_ *evil, _ *wire.Refine, tell func(wire.Frame)) { tell(&wire.Ack{}) },
		"settled before":  func(e *evil, _ *wire.Refine, _ func(wire.Frame)) { e.send(&wire.Ack{Settled: 1}) },
		"redo before":     func(e *evil, q *wire.Refine, _ func(wire.Frame)) { e.send(&wire.Redo{Mask: q.Mask, Round: 1}) },
		"verified before": func(e *evil, _ *wire.Refine, _ func(wire.Frame)) { e.send(&wire.Verified{State: wire.StateVerified}) },
		"more than was there": func(e *evil, _ *wire.Refine, _ func(wire.Frame)) {
			e.send(&wire.Ack{Received: 1 << 20, Durable: 1 << 20})
		},
	} {
		t.Run(name, func(t *testing.T) { hostileTarget(t, with(do), wire.CodeFrame, false) })
	}
	t.Run("never", func(t *testing.T) {
		hostileTarget(t, with(func(*evil, *wire.Refine, func(wire.Frame)) { time.Sleep(5 * time.Minute) }), wire.CodeTimeout, false)
	})
}
