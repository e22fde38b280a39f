package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/haulback/haulback/hostctl/store"
)

// counterRecord is what runs, in one small value: what is stored between two
// changes of state.
type counterRecord struct {
	Format   int
	Epoch    uint64
	Jobs     map[string]map[string]Counters // by ID and disk
	revision uint64
}

func (e *Engine) loadCounters(ctx context.Context) error {
	x, err := e.c.Store.Get(ctx, countersKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if err := decode(x.Key, x.Value, &e.stored, &e.stored.Format); err != nil {
		return err
	}
	e.stored.revision = x.Revision
	return nil
}

// saveCounters stores the counters of what runs, when any has changed; with mu
// held. Losing them costs a number on a screen.
func (e *Engine) saveCounters() {
	next, dirty := counterRecord{Format: recordFormat, Epoch: e.epoch, Jobs: map[string]map[string]Counters{}, revision: e.stored.revision}, false
	for r := range e.running {
		of := next.Jobs[r.a.ID]
		if of == nil {
			of = map[string]Counters{}
			next.Jobs[r.a.ID] = of
		}
		r.mu.Lock()
		of[r.a.state.Disks[r.disk].Name], dirty, r.dirty = r.count, dirty || r.dirty, false
		r.mu.Unlock()
	}
	if !dirty {
		return
	}
	value, err := json.Marshal(next)
	if err == nil && next.revision == 0 {
		next.revision, err = e.c.Store.Create(context.Background(), countersKey, value)
	} else if err == nil {
		next.revision, err = e.c.Store.Update(context.Background(), countersKey, value, next.revision)
	}
	if err != nil {
		if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) {
			err = e.refused(fmt.Errorf("%w: %w", store.ErrConflict, err))
		}
		e.c.Log.Warn("counters are not stored", "err", err)
		return
	}
	e.stored = next
}
