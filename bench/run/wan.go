package run

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/haulback/haulback/bench/result"
	"github.com/haulback/haulback/bench/wan"
)

// wanLosses are those of target P9, and one between.
var wanLosses = []float64{0, 0.0001, 0.001}

// wan copies over an emulated long link: one round of each loss and transport,
// which takes half a minute each. A copy that fails makes the benchmark fail.
func (b *bench) wan(ctx context.Context) error {
	m := wan.Default(b.Bin, b.scratch)
	m.Losses, m.Most, m.Seed = wanLosses, 30*time.Second, b.Seed
	m.Window = 15 * time.Second
	m.Transports = slices.DeleteFunc(m.Transports, func(t string) bool { return !b.wanted(t) })
	if len(m.Transports) == 0 {
		return nil
	}
	b.tell("\ncase wan: %s", m.Setup())
	err := m.Run(ctx, func(l result.Line) error {
		if r := l.Run; r != nil {
			if !r.OK() {
				b.failed++
			}
			b.Tell(Line(r, m.Runs))
		}
		return b.line(l)
	})
	if errors.Is(err, wan.ErrRoot) {
		b.tell("LEFT OUT: the emulated link: %v", err)
		return b.line(result.Line{LeftOut: &result.LeftOut{Name: "haulback", Case: result.WAN, Why: err.Error()}})
	}
	return err
}

// wanted tells whether haulback with a transport is among the peers and can run.
func (b *bench) wanted(transport string) bool {
	for i := range b.peers {
		if p := &b.peers[i]; p.ID() == "haulback/"+transport && b.kit.Why(p) == "" {
			return true
		}
	}
	return false
}
