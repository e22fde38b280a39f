package job

import (
	"context"
	"errors"

	"github.com/haulback/haulback/hostctl/store"
)

// Cancel asks a job to stop for good; the job may be Canceling until calls to
// its disks have returned. Of a Canceled or Canceling job: no change.
func (e *Engine) Cancel(ctx context.Context, id string) (Job, error) {
	return e.want(ctx, id, (*state).cancel, errCancel)
}

// Pause asks a job to stop and release its disks until Resume. Of a Paused job,
// or one on its way there: no change.
func (e *Engine) Pause(ctx context.Context, id string) (Job, error) {
	return e.want(ctx, id, (*state).pause, errPause)
}

// want stores what is wanted, and then tells the disks that run.
func (e *Engine) want(ctx context.Context, id string, ask func(*state, string) (bool, *Failure), why error) (Job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(ctx, id)
	if err != nil {
		return Job{}, err
	}
	a := x.act
	if a == nil {
		s := state{Phase: x.phase}
		if _, f := ask(&s, id); f != nil {
			return Job{}, f
		}
		return e.get(ctx, x)
	}
	trial := a.state.clone()
	changes, f := ask(&trial, id)
	if f != nil {
		return Job{}, f
	}
	if changes {
		if err := e.change(a, func(s *state) { _, _ = ask(s, id) }); err != nil {
			return Job{}, err
		}
		for _, r := range a.run {
			if r != nil {
				r.cancel(why)
			}
		}
		e.look()
	}
	return e.snapshot(a), nil
}

// find looks up a job with mu or view held.
func (e *Engine) find(ctx context.Context, id string) (*entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x := e.jobs[id]
	if x == nil {
		return nil, notFound(id)
	}
	return x, nil
}

// Resume lets a Paused job go on, and runs the disks of a Failed one again
// whose own failures may pass, each with its old run. Of a job that goes on
// already: no change.
func (e *Engine) Resume(ctx context.Context, id string) (Job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(ctx, id)
	if err != nil {
		return Job{}, err
	}
	a := x.act
	if a == nil && x.phase == Failed {
		h, s, revision, err := e.readParts(ctx, id)
		if err != nil {
			return Job{}, err
		}
		a = &active{header: h, state: s, revision: revision}
	} else if a == nil {
		return Job{}, conflict("job %s is %v: it has ended", id, x.phase)
	}
	trial := a.state.clone()
	changes, f := trial.resume(id)
	if f != nil {
		return Job{}, f
	}
	if !changes {
		return e.snapshot(a), nil
	}
	if x.act == nil {
		if err := e.activate(ctx, a, e.now()); err != nil {
			return Job{}, e.refused(err)
		}
	}
	a.since = e.now()
	if err := e.change(a, func(s *state) { _, _ = s.resume(id) }); err != nil {
		if a.state.Phase.Ended() { // as it was
			e.show(func() { e.jobs[id] = x })
			e.nactive--
		}
		return Job{}, err
	}
	if err := e.accept(context.WithoutCancel(ctx), a); err != nil {
		e.c.Log.Warn("job is not in the queue yet", "job", id, "err", err) // tick tries again
	}
	e.look()
	return e.snapshot(a), nil
}

// SetLimits changes the limits of a job that has not ended.
func (e *Engine) SetLimits(ctx context.Context, id string, l Limits) (Job, error) {
	if f := checkLimits(l); f != nil {
		return Job{}, f
	}
	l.Windows = append([]Window{}, l.Windows...)
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(ctx, id)
	if err != nil {
		return Job{}, err
	}
	if x.act == nil {
		return Job{}, conflict("job %s is %v: it has ended", id, x.phase)
	}
	if err := e.change(x.act, func(s *state) { s.Limits = l }); err != nil {
		return Job{}, err
	}
	x.act.limits.set(l)
	return e.snapshot(x.act), nil
}

// SetTickets hands in newer tickets by the names of disks; those of other disks
// stay. A Failed job takes them too, before Resume.
func (e *Engine) SetTickets(ctx context.Context, id string, tickets map[string][]byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	a := x.act
	switch {
	case a == nil && x.phase != Failed:
		return conflict("job %s is %v: it has ended", id, x.phase)
	case a == nil:
		h, _, _, err := e.readParts(ctx, id)
		if err != nil {
			return err
		}
		held, err := e.loadTickets(ctx, id)
		if err != nil {
			return unavailable(err)
		}
		a = &active{header: h, tickets: held}
	}
	return e.setTickets(ctx, a, tickets)
}

// Remove forgets a job that has ended.
func (e *Engine) Remove(ctx context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	if x.act != nil {
		return conflict("job %s is %v: cancel it first", id, x.phase)
	}
	return e.remove(x)
}

// remove first says so in the state, for those who watch, and then deletes; the
// next start goes on with it.
func (e *Engine) remove(x *entry) error {
	bg := context.Background()
	old, err := e.c.Store.Get(bg, jobKey+x.id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return unavailable(err)
	}
	if err == nil {
		s, err := decodeState(old.Key, old.Value)
		if err != nil {
			return unavailable(err)
		}
		value, err := encode(state{Format: recordFormat, Epoch: e.epoch, Owner: s.Owner, Removed: true, Phase: s.Phase})
		if err != nil {
			return internal(err)
		}
		if _, err := e.c.Store.Update(bg, old.Key, value, old.Revision); err != nil {
			return e.refused(err)
		}
	}
	e.show(func() { delete(e.jobs, x.id) })
	if err := e.forget(x.id); err != nil {
		e.c.Log.Warn("the rest of a removed job stays until the next start", "job", x.id, "err", err)
	}
	return nil
}
