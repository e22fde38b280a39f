package job

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/store"
)

// Submit stores a job. The same ID and an equal spec of the same owner give
// the job that is there, whatever its phase, and existed; the tickets are taken
// if it has not ended. Another spec is an *ExistsError. An ID of another owner
// is refused without a word about that job: that it exists cannot be hidden from
// somebody who may not have it, its spec and its state are.
func (e *Engine) Submit(ctx context.Context, id, owner string, s Spec, tickets map[string][]byte) (j Job, existed bool, err error) {
	s = s.filled()
	for _, f := range []*Failure{checkID(id), check(s), checkTickets(s, tickets)} {
		if f != nil {
			return Job{}, false, f
		}
	}
	if owner == "" {
		return Job{}, false, invalid("owner: is empty")
	}
	digest := Digest(s)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return Job{}, false, err
	}
	if x := e.jobs[id]; x != nil {
		j, err := e.existing(ctx, x, owner, digest, tickets)
		return j, err == nil, err
	}
	switch {
	case errors.Is(e.stopping, errDrain):
		return Job{}, false, &Failure{Reason: ReasonDraining, Text: "the daemon is about to stop: submit again when it is back", Retry: RetryBackoff, Exit: 13}
	case e.stopping != nil:
		return Job{}, false, e.stopping
	case e.nactive >= e.c.MaxActive:
		return Job{}, false, &Failure{Reason: ReasonQuota, Text: fmt.Sprintf("%d jobs have not ended, more are not taken (jobs.max_active): submit again when some have", e.nactive), Retry: RetryBackoff, Exit: 13}
	}
	a, err := e.newJob(id, owner, s, digest)
	if err != nil {
		return Job{}, false, err
	}
	if err := e.create(ctx, a, tickets); err != nil {
		return Job{}, false, err
	}
	e.look()
	return e.snapshot(a), false, nil
}

func (e *Engine) newJob(id, owner string, s Spec, digest cbt.Digest) (*active, error) {
	now := e.now()
	st := state{Format: recordFormat, Owner: owner, Phase: New, Limits: s.Limits, Created: now, Epoch: e.epoch}
	for _, d := range s.Disks {
		run, err := uuid.NewV7()
		if err != nil {
			return nil, internal(err)
		}
		st.Disks = append(st.Disks, DiskStatus{Name: d.Name, Run: run.String(), Phase: Accepted})
	}
	return &active{header: &header{Format: recordFormat, ID: id, Owner: owner, Digest: digest, Created: now, Spec: s}, state: st}, nil
}

// create writes spec, tickets, state, in this order: a crash leaves nothing
// that counts before the state is there, and then the whole job.
func (e *Engine) create(ctx context.Context, a *active, tickets map[string][]byte) error {
	spec, err := encode(a.header)
	if err != nil {
		return internal(err)
	}
	if len(spec) > maxSpec {
		return &Failure{Reason: ReasonQuota, Text: fmt.Sprintf("the spec has %d bytes when stored; %d are allowed: submit fewer disks in one job", len(spec), maxSpec), Retry: RetryNever, Exit: 10}
	}
	first, err := encode(a.state)
	if err != nil {
		return internal(err)
	}
	if err := e.forget(a.ID); err != nil { // of a submit that was cut off; there is no state
		return e.refused(err)
	}
	if _, err := e.c.Store.Create(ctx, specKey+a.ID, spec); err != nil {
		return e.refused(err)
	}
	if err := e.saveTickets(ctx, a.ID, tickets); err != nil {
		return err
	}
	if a.revision, err = e.c.Store.Create(ctx, jobKey+a.ID, first); err != nil {
		return e.refused(err)
	}
	if err := e.activate(context.WithoutCancel(ctx), a, a.state.Created); err != nil {
		return e.refused(err)
	}
	e.c.Log.Info("job submitted", "job", a.ID, "owner", a.Owner, "disks", len(a.Spec.Disks))
	if err := e.accept(context.WithoutCancel(ctx), a); err != nil {
		// It is stored and New: it is accepted as soon as the store takes it.
		e.c.Log.Warn("job is not in the queue yet", "job", a.ID, "err", err)
	}
	return nil
}

// existing answers a repeated submit.
func (e *Engine) existing(ctx context.Context, x *entry, owner string, digest cbt.Digest, tickets map[string][]byte) (Job, error) {
	if x.owner != owner {
		return Job{}, &Failure{Reason: ReasonExists, Text: "the ID " + x.id + " is taken: choose another", Retry: RetryNever, Exit: 10}
	}
	j, err := e.get(ctx, x)
	switch {
	case err != nil:
		return Job{}, err
	case j.Digest != digest:
		return Job{}, &ExistsError{ID: x.id, Have: j.Digest, Asked: digest}
	}
	if x.act != nil && len(tickets) > 0 {
		if err := e.setTickets(ctx, x.act, tickets); err != nil {
			return Job{}, err
		}
	}
	return j, nil
}

// get reads one job with mu held.
func (e *Engine) get(ctx context.Context, x *entry) (Job, error) {
	if x.act != nil {
		return e.snapshot(x.act), nil
	}
	return e.read(ctx, x.id)
}

// read reads one job from the store; an ended one is nowhere else.
func (e *Engine) read(ctx context.Context, id string) (Job, error) {
	h, s, revision, err := e.readParts(ctx, id)
	if err != nil {
		return Job{}, err
	}
	return join(h, &s, revision), nil
}

func (e *Engine) readParts(ctx context.Context, id string) (*header, state, uint64, error) {
	x, err := e.c.Store.Get(ctx, jobKey+id)
	if err == nil {
		var s state
		if s, err = decodeState(x.Key, x.Value); err == nil && !s.Removed {
			var spec store.Entry
			if spec, err = e.c.Store.Get(ctx, specKey+id); err == nil {
				var h header
				h, err = decodeHeader(spec.Key, spec.Value)
				return &h, s, x.Revision, err
			}
		} else if err == nil {
			err = store.ErrNotFound
		}
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, state{}, 0, notFound(id)
	case ctx.Err() != nil:
		return nil, state{}, 0, ctx.Err()
	}
	return nil, state{}, 0, unavailable(err)
}

// snapshot is an active job with the newest counters, with mu or view held.
func (e *Engine) snapshot(a *active) Job {
	j := join(a.header, &a.state, a.revision)
	for i, r := range a.run {
		if r != nil && !j.Disks[i].Phase.Ended() { // the end is shown before its place is free
			j.Disks[i].Outcome.Counters = r.counters()
		}
	}
	return j
}
