package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/haulback/haulback/hostctl/store"
)

// limits are those in force of one job; a transfer asks without the engine's
// lock.
type limits struct {
	mu      sync.Mutex
	now     Limits
	changed chan struct{}
}

func newLimits(l Limits) *limits { return &limits{now: l, changed: make(chan struct{})} }

func (l *limits) get() (Limits, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

func (l *limits) set(now Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = now
	close(l.changed)
	l.changed = make(chan struct{})
}

// tickets are the newest of one job by disk. They are in the store while the job
// has not ended, so that a restarted daemon may go on by itself; a ticket is
// bound to a peer and of no use without that peer's key.
type tickets struct {
	mu  sync.Mutex
	now map[string][]byte
}

func (t *tickets) get(disk string) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now[disk]
}

// with is a new map with the newer tickets in it.
func (t *tickets) with(newer map[string][]byte) map[string][]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := maps.Clone(t.now)
	if all == nil {
		all = map[string][]byte{}
	}
	maps.Copy(all, newer)
	return all
}

func (t *tickets) set(all map[string][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = all
}

func (e *Engine) loadTickets(ctx context.Context, id string) (*tickets, error) {
	x, err := e.c.Store.Get(ctx, ticketKey+id)
	if errors.Is(err, store.ErrNotFound) {
		return &tickets{}, nil
	} else if err != nil {
		return nil, err
	}
	t := &tickets{}
	if err := json.Unmarshal(x.Value, &t.now); err != nil {
		return nil, fmt.Errorf("record %s: %w", x.Key, err)
	}
	return t, nil
}

func (e *Engine) setTickets(ctx context.Context, a *active, newer map[string][]byte) error {
	all := a.tickets.with(newer)
	if f := checkTickets(a.Spec, all); f != nil {
		return f
	}
	if err := e.saveTickets(ctx, a.ID, all); err != nil {
		return err
	}
	a.tickets.set(all)
	return nil
}

func (e *Engine) saveTickets(ctx context.Context, id string, all map[string][]byte) error {
	if len(all) == 0 {
		return nil
	}
	value, err := encode(all)
	if err != nil {
		return internal(err)
	}
	old, err := e.c.Store.Get(ctx, ticketKey+id)
	switch {
	case err == nil:
		_, err = e.c.Store.Update(ctx, ticketKey+id, value, old.Revision)
	case errors.Is(err, store.ErrNotFound):
		_, err = e.c.Store.Create(ctx, ticketKey+id, value)
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}
