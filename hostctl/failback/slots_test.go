package failback

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestSlotsResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(2)
		for i, want := range []bool{true, true, false} {
			if got := s.try(); got != want {
				t.Fatalf("turn %d: %v, want %v", i+1, got, want)
			}
		}
		s.resize(1)
		var order []int
		for i := range 3 {
			go func() {
				if err := s.take(t.Context(), i); err == nil {
					order = append(order, i) // one at a time: each is woken by us
				}
			}()
			synctest.Wait()
		}
		s.give() // there is one too many
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("%v got a turn that there is not any more", order)
		}
		s.give()
		synctest.Wait()
		s.resize(2)
		synctest.Wait()
		s.resize(3)
		synctest.Wait()
		if len(order) != 3 || order[0] != 2 || order[1] != 1 || order[2] != 0 {
			t.Errorf("turns in order %v, want the most urgent first", order)
		}
		if s.try() {
			t.Error("a fourth of three turns")
		}
	})
}

// TestGroupIsBounded: no more of a group than it may have, and others do not wait
// for it.
func TestGroupIsBounded(t *testing.T) {
	bound := 1
	e := &Engine{c: Config{Parallel: func(string) int { return bound }}, vms: newSlots(3), dead: errors.New("nothing is stored")}
	of := func(group string) (*run, *record) {
		c := &record{}
		c.Status.Spec.Group = group
		return newRun(e, c, 1), c
	}
	a, ca := of("shop")
	b, cb := of("shop")
	other, co := of("")
	for _, x := range []struct {
		r *run
		c *record
	}{{a, ca}, {other, co}} {
		if err := x.r.takeSlot(t.Context(), x.c); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.takeSlot(ctx, cb); !errors.Is(err, context.Canceled) || b.slot {
		t.Errorf("the second of a group of one: %v", err)
	}
	bound = 2
	if err := b.takeSlot(t.Context(), cb); err != nil {
		t.Error(err)
	}
	a.giveSlot()
	a.giveSlot()
	b.giveSlot()
	other.giveSlot()
	if g := e.groupSlots("shop"); g.free != 2 || e.vms.free != 3 {
		t.Errorf("%d and %d turns are free, want 2 and 3", g.free, e.vms.free)
	}
}
