package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/haulback/haulback/hostctl/store"
)

// Open reads the jobs of the store and takes the engine's lease. Jobs that have
// not ended go on when Run is called.
func Open(ctx context.Context, c Config) (*Engine, error) {
	if c.Store == nil || c.Queue == nil || c.Lease == nil || c.Transfer == nil {
		return nil, errors.New("job: Store, Queue, Lease and Transfer are needed")
	}
	e := &Engine{
		c: c.filled(), kick: make(chan struct{}, 1), done: make(chan struct{}),
		jobs: map[string]*entry{}, running: map[*start]struct{}{}, hosts: map[string]int{},
	}
	host, _ := os.Hostname() // for people only
	holder := fmt.Sprintf("%s pid %d %s", host, os.Getpid(), uuid.NewString())
	var err error
	if e.epoch, err = e.c.Lease.Acquire(ctx, leaseName, holder, e.c.LeaseTTL); err != nil {
		return nil, fmt.Errorf("the lease of the job engine: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read the jobs: %w", err), e.Close())
	}
	return e, nil
}

// Close gives the lease back. Run must have returned.
func (e *Engine) Close() error {
	err := e.c.Lease.Release(context.Background(), leaseName, e.epoch)
	if errors.Is(err, store.ErrFenced) {
		return nil // expired
	}
	return err
}

// load reads all jobs, and finishes what the end of the last engine cut off.
// What is damaged stops it: a job that is not seen is a job that is lost.
func (e *Engine) load(ctx context.Context) error {
	if err := e.loadCounters(ctx); err != nil {
		return err
	}
	headers, _, err := e.c.Store.List(ctx, specKey)
	if err != nil {
		return err
	}
	entries, _, err := e.c.Store.List(ctx, jobKey)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var open []*active
	for _, x := range entries {
		id := strings.TrimPrefix(x.Key, jobKey)
		s, err := decodeState(x.Key, x.Value)
		if err != nil {
			return err
		}
		if s.Removed {
			if err := e.forget(id); err != nil {
				return err
			}
			continue
		}
		known[id] = true
		e.jobs[id] = &entry{id: id, owner: s.Owner, phase: s.Phase, created: s.Created, ended: s.Ended}
		if !s.Phase.Ended() {
			open = append(open, &active{state: s, revision: x.Revision, header: &header{ID: id}})
		}
	}
	specs := map[string]*header{}
	for _, x := range headers {
		id := strings.TrimPrefix(x.Key, specKey)
		if !known[id] { // its submit was cut off before it was answered
			if err := e.forget(id); err != nil {
				return err
			}
		} else if !e.jobs[id].phase.Ended() {
			h, err := decodeHeader(x.Key, x.Value)
			if err != nil {
				return err
			}
			specs[id] = &h
		}
	}
	for _, a := range open {
		if a.header = specs[a.ID]; a.header == nil {
			return fmt.Errorf("job %s has no spec in the store: something was lost; remove %s%s or restore the store", a.state.Owner, jobKey, a.ID)
		}
		if err := e.revive(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// revive makes a job of the store one that this engine runs: what the last
// engine may still believe to be its own is written once, so that its later
// writes fail, and what was wanted is done.
func (e *Engine) revive(ctx context.Context, a *active) error {
	if err := e.activate(ctx, a, a.state.Created); err != nil {
		return err
	}
	for i := range a.state.Disks {
		if d := &a.state.Disks[i]; !d.Phase.Ended() {
			if n, ok := e.stored.Jobs[a.ID][d.Name]; ok {
				d.Outcome.Counters = n
			}
		}
	}
	if s := &a.state; s.Wanted != 0 || s.Phase == Prepared || s.Phase == InProgress || s.Phase == Canceling {
		if err := e.change(a, func(*state) {}); err != nil {
			return err
		}
	}
	return e.accept(ctx, a)
}

// activate gives a job its place in memory.
func (e *Engine) activate(ctx context.Context, a *active, since time.Time) error {
	ticket, err := e.loadTickets(ctx, a.ID)
	if err != nil {
		return err
	}
	a.tickets, a.limits, a.since = ticket, newLimits(a.state.Limits), since
	a.run = make([]*start, len(a.state.Disks))
	a.hosts = make([][]string, len(a.Spec.Disks))
	for i, d := range a.Spec.Disks {
		a.hosts[i] = distinct(e.c.Hosts(d))
	}
	e.show(func() {
		e.jobs[a.ID] = &entry{id: a.ID, owner: a.Owner, phase: a.state.Phase, created: a.state.Created, act: a}
	})
	e.nactive++
	return nil
}

// accept puts a job into the queue, where it may be already, and a New one
// becomes Accepted.
func (e *Engine) accept(ctx context.Context, a *active) error {
	if a.state.Phase.Ended() || a.state.Phase == Paused {
		return nil
	}
	if err := e.c.Queue.Push(ctx, a.ID, int(a.Spec.Priority)); err != nil {
		return e.refused(err)
	}
	if a.state.Phase != New {
		return nil
	}
	return e.change(a, func(s *state) { s.Phase = Accepted })
}

// forget deletes all of a job, its state last: what is left of it is found by
// the next start.
func (e *Engine) forget(id string) error {
	if err := e.c.Queue.Forget(context.Background(), id); err != nil {
		return err
	}
	for _, key := range []string{ticketKey, specKey, jobKey} {
		if err := e.drop(key + id); err != nil {
			return err
		}
	}
	return nil
}

func distinct(names []string) (out []string) {
	seen := map[string]bool{"": true}
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}
