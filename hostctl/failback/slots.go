package failback

import (
	"context"
	"slices"
	"sync"
)

// slots are turns: a bounded number at a time, the most urgent first, and of
// these the oldest.
type slots struct {
	mu      sync.Mutex
	free    int
	waiting []*waiter
}

type waiter struct {
	urgency int
	turn    chan struct{} // closed when it is ours
}

func newSlots(n int) *slots { return &slots{free: n} }

// try takes a turn that is free.
func (s *slots) try() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 || len(s.waiting) > 0 {
		return false
	}
	s.free--
	return true
}

// take waits for a turn.
func (s *slots) take(ctx context.Context, urgency int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.try() {
		return nil
	}
	s.mu.Lock()
	if s.free > 0 { // since
		s.free--
		s.mu.Unlock()
		return nil
	}
	w := &waiter{urgency: urgency, turn: make(chan struct{})}
	i := slices.IndexFunc(s.waiting, func(o *waiter) bool { return o.urgency < urgency })
	if i < 0 {
		i = len(s.waiting)
	}
	s.waiting = slices.Insert(s.waiting, i, w)
	s.mu.Unlock()
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, w); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	} else { // it became ours meanwhile
		s.giveLocked()
	}
	return ctx.Err()
}

func (s *slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveLocked()
}

func (s *slots) giveLocked() {
	if len(s.waiting) > 0 {
		close(s.waiting[0].turn)
		s.waiting = s.waiting[1:]
		return
	}
	s.free++
}

// takeSlot waits until the failback is one of those in passes. One whose replica
// is off goes before all others.
func (r *run) takeSlot(ctx context.Context, c *record) error {
	if r.slot {
		return nil
	}
	urgency := int(c.Status.Spec.Priority)
	if c.Facts.Finals > 0 {
		urgency += 100
	}
	if r.e.vms.try() {
		r.slot = true
		return nil
	}
	r.waitFor("waits for its turn: as many failbacks as may run at once do")
	if err := r.e.vms.take(ctx, urgency); err != nil {
		return err
	}
	r.slot = true
	return nil
}

func (r *run) giveSlot() {
	if r.slot {
		r.slot = false
		r.e.vms.give()
	}
}
