package mover_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// TestFenceOfKeptDisk loses the link of a run whose disk is kept for it. Its
// verdicts hold for the controller's epoch that found them and for no later one,
// and an earlier one does not get at the disk.
func TestFenceOfKeptDisk(t *testing.T) {
	d := newDesk(t)
	content := image(rand.New(rand.NewPCG(4, 4)), ticketSize)
	for _, c := range []struct {
		name          string
		first, second uint64
		opens         int
	}{{"the same epoch", 3, 3, 1}, {"a later epoch", 3, 4, 2}} {
		for _, mode := range []wire.Mode{wire.ModeCopy, wire.ModeVerify} {
			t.Run(fmt.Sprintf("%s/mode %d", c.name, mode), func(t *testing.T) {
				m := disk(content)
				inBubble(t, func(t *testing.T, ctx context.Context) {
					opens, tickets := 0, 0
					exp := d.export(mover.RoleTarget, m)
					open := exp.Open
					exp.Open = func(ctx context.Context, a mover.Access) (mover.Disk, error) { opens++; return open(ctx, a) }
					s, err := newSite(ctx, mover.Config{Memory: 64 << 20, Workers: 1}, memState{}, exp)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { s.server.Drain(); _ = s.engine.Close() }()
					links := 0
					s.wrap = func(l wire.Link) wire.Link {
						if links++; links == 1 {
							time.AfterFunc(time.Millisecond, func() { l.CloseWithError(wire.CodeTimeout, "cut by the test") })
						}
						return l
					}
					src := &metered{flat: flat{content}, name: "source", began: time.Now(), call: 10 * time.Millisecond}
					to := s.remote("disk")
					to.Remote.Ticket = func(context.Context) ([]byte, error) {
						k := d.good(m)
						if mode == wire.ModeVerify {
							k.Op = wire.TicketVerify
						}
						if tickets++; tickets > 1 {
							k.Epoch = c.second
						}
						return d.sign(t, k), nil
					}
					e, err := mover.NewEngine(mover.Config{Memory: 64 << 20, Workers: 1}, nil)
					if err != nil {
						t.Fatal(err)
					}
					defer e.Close() // holds nothing
					rep, err := e.Run(ctx, mover.Job{
						Run: wire.RunID{7}, Mode: mode, Retry: time.Minute,
						Source: mover.Endpoint{Name: "source", Open: src.open}, Target: to,
					}, new(mover.Progress))
					if err != nil || !rep.Equal || links != 2 {
						t.Errorf("%d links, %v", links, err)
					}
					if opens != c.opens {
						t.Errorf("the target was opened %d times, want %d", opens, c.opens)
					}
				})
			})
		}
	}
}

func TestEarlierEpochLeavesKeptDisk(t *testing.T) {
	d := newDesk(t)
	content := image(rand.New(rand.NewPCG(4, 4)), ticketSize)
	m := disk(make([]byte, ticketSize))
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s, err := newSite(ctx, mover.Config{Memory: 64 << 20, Workers: 1}, memState{}, d.export(mover.RoleTarget, m))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		s.wrap = func(l wire.Link) wire.Link {
			time.AfterFunc(1500*time.Millisecond, func() { l.CloseWithError(wire.CodeTimeout, "cut by the test") })
			return slowWrites{l, time.Second}
		}
		push := func(epoch uint64) error {
			_, err := pushWith(ctx, s, content, wire.RunID{7}, 0, func(context.Context) ([]byte, error) {
				k := d.good(m)
				k.Epoch = epoch
				return d.sign(t, k), nil
			})
			return err
		}
		if err := push(4); codeOf(err) != wire.CodeTimeout {
			t.Fatalf("the link that is cut: %v", err)
		}
		if err := push(3); codeOf(err) != wire.CodeFenced {
			t.Errorf("an earlier epoch: %v", err)
		}
		s.wrap = nil
		p, err := s.engine.Probe(ctx, s.remote("disk").Remote)
		if err != nil || !strings.HasPrefix(p.Use, "kept for run") {
			t.Errorf("the disk of the later epoch is %q, want kept: %v", p.Use, err)
		}
	})
}
