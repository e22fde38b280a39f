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
	size    int
	free    int // below 0 when there are more turns than there may be by now
	waiting []*waiter
}

type waiter struct {
	urgency int
	turn    chan struct{} // closed when it is ours
}

func newSlots(n int) *slots { return &slots{size: n, free: n} }

// resize makes another number of turns. What is taken is not taken away.
func (s *slots) resize(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free += n - s.size
	for s.size = n; s.free > 0 && len(s.waiting) > 0; s.free-- {
		close(s.waiting[0].turn)
		s.waiting = s.waiting[1:]
	}
}

// groups have turns of their own where they have a bound.
type groups struct {
	mu sync.Mutex
	of map[string]*slots
}

// groupSlots are the turns of a group, as many as it may have now; nil: it has no
// bound.
func (e *Engine) groupSlots(name string) *slots {
	n := 0
	if name != "" && e.c.Parallel != nil {
		n = e.c.Parallel(name)
	}
	if n <= 0 {
		return nil
	}
	g := &e.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.of == nil {
		g.of = map[string]*slots{}
	}
	if g.of[name] == nil {
		g.of[name] = newSlots(n)
	}
	g.of[name].resize(n)
	return g.of[name]
}

// try takes a turn that is free.
func (s *slots) try() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free <= 0 || len(s.waiting) > 0 {
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
	if len(s.waiting) > 0 && s.free >= 0 {
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
	part := r.e.groupSlots(c.Status.Spec.Group)
	if part != nil && !part.try() {
		r.waitFor("waits for its turn: as many failbacks of group " + c.Status.Spec.Group + " as may run at once do")
		if err := part.take(ctx, urgency); err != nil {
			return err
		}
	}
	if !r.e.vms.try() {
		r.waitFor("waits for its turn: as many failbacks as may run at once do")
		if err := r.e.vms.take(ctx, urgency); err != nil {
			if part != nil {
				part.give()
			}
			return err
		}
	}
	r.slot, r.part = true, part
	return nil
}

func (r *run) giveSlot() {
	if !r.slot {
		return
	}
	r.slot = false
	r.e.vms.give()
	if r.part != nil {
		r.part.give()
	}
}
