package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/haulback/haulback/hostctl/store"
)

// Run works until ctx is done, Drain is called, or the engine may not go on
// (fenced); then it stops what runs, so that the next start goes on with it, and
// waits for it. It may be called once. It returns nil after ctx or Drain.
func (e *Engine) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	e.mu.Lock()
	if e.stop != nil {
		e.mu.Unlock()
		return errors.New("job: Run was called before")
	}
	e.stop = stop
	if e.stopping != nil { // drained before it ran
		stop(errDrain)
	}
	e.mu.Unlock()
	defer close(e.done)
	// What starts here ends when its own context says so, for errDrain.
	transfers, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)

	var wg sync.WaitGroup
	wg.Go(func() { e.take(ctx) })
	wg.Go(func() { e.tick(ctx) })
	wg.Go(func() {
		for {
			e.mu.Lock()
			e.schedule(transfers)
			e.mu.Unlock()
			select {
			case <-e.kick:
			case <-ctx.Done():
				return
			}
		}
	})
	<-ctx.Done()
	e.mu.Lock()
	e.halt(cmp.Or(e.stopping, errDrain))
	e.mu.Unlock()
	end(errDrain)
	wg.Wait()
	e.wg.Wait()
	return e.leave()
}

// leave gives back what the engine holds in the queue.
func (e *Engine) leave() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.saveCounters()
	for _, x := range e.jobs {
		if a := x.act; a != nil && a.delivery != nil {
			_ = a.delivery.Nak(context.Background(), 0) // else it comes back after the visibility timeout
			a.delivery = nil
		}
	}
	if errors.Is(e.stopping, errDrain) {
		return nil
	}
	return e.stopping
}

// Drain takes no more jobs and stops what runs, so that it goes on at the next
// start; the phases stay. It returns when nothing runs, or with ctx.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	e.halt(cmp.Or(e.stopping, errDrain))
	ran := e.stop != nil
	e.mu.Unlock()
	if !ran {
		return nil
	}
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		e.mu.Lock()
		defer e.mu.Unlock()
		return fmt.Errorf("%d disks have not stopped: %w", len(e.running), ctx.Err())
	}
}

// take moves jobs from the queue into the engine's hands, all that it gets: which
// one goes first is decided by schedule, that knows hosts and age.
func (e *Engine) take(ctx context.Context) {
	for ctx.Err() == nil {
		d, err := e.c.Queue.Take(ctx)
		if err != nil {
			if ctx.Err() == nil {
				e.c.Log.Warn("the queue gives no job, trying again", "err", err)
				pause(ctx, e.c.Heartbeat)
			}
			continue
		}
		e.mu.Lock()
		if x := e.jobs[d.ID()]; x == nil || x.act == nil || x.act.state.Phase == Paused {
			if err := d.Ack(ctx); err != nil && !errors.Is(err, store.ErrLost) {
				e.c.Log.Warn("a job that does not wait stays in the queue", "job", d.ID(), "err", err)
			}
		} else {
			x.act.delivery = d // also of one that was lost: what runs goes on, once
			e.look()
		}
		e.mu.Unlock()
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// tick does what is due from time to time.
func (e *Engine) tick(ctx context.Context) {
	beat, persist := time.NewTicker(e.c.Heartbeat), time.NewTicker(e.c.Persist)
	defer beat.Stop()
	defer persist.Stop()
	for {
		select {
		case <-beat.C:
			e.mu.Lock()
			e.beat(ctx)
			e.mu.Unlock()
		case <-persist.C:
			e.mu.Lock()
			e.retry(ctx)
			e.saveCounters()
			e.prune()
			e.mu.Unlock()
			e.look() // what waits grows older
		case <-ctx.Done():
			return
		}
	}
}

// beat keeps the lease and the deliveries.
func (e *Engine) beat(ctx context.Context) {
	if err := e.renew(ctx); err != nil {
		e.c.Log.Warn("the lease is not renewed", "err", err)
	}
	for _, x := range e.jobs {
		a := x.act
		if a == nil || a.delivery == nil {
			continue
		}
		if err := a.delivery.InProgress(ctx); errors.Is(err, store.ErrLost) {
			a.delivery = nil // it is delivered again; what runs goes on, once
		} else if err != nil && ctx.Err() == nil {
			e.c.Log.Warn("a job is not kept in the queue", "job", a.ID, "err", err)
		}
	}
	letters, err := e.c.Queue.Dead(ctx)
	if err != nil {
		return
	}
	for _, l := range letters {
		e.bury(l)
	}
}

// renew keeps the lease. One that has expired, on a host that slept or with a
// full disk, and that nobody has held since, is taken again.
func (e *Engine) renew(ctx context.Context) error {
	err := e.c.Lease.Renew(ctx, leaseName, e.epoch, e.c.LeaseTTL)
	switch {
	case errors.Is(err, store.ErrBroken):
		return e.refused(err)
	case !errors.Is(err, store.ErrFenced):
		return err
	}
	epoch, err := e.c.Lease.Acquire(ctx, leaseName, "again", e.c.LeaseTTL)
	switch {
	case err == nil && epoch == e.epoch+1:
		e.epoch = epoch
		return nil
	case err == nil:
		err = errors.Join(store.ErrFenced, e.c.Lease.Release(ctx, leaseName, epoch))
		return e.refused(err)
	case errors.Is(err, store.ErrHeld):
		return e.refused(err)
	}
	return err
}

// bury ends a job that was begun too often without an end: something about it
// ends the daemon, or the queue loses it. One that was only delivered so often,
// and waited while others did that, goes into the queue as new.
func (e *Engine) bury(l store.Letter) {
	x := e.jobs[l.ID]
	if x != nil && x.act != nil && x.act.starts() >= l.Deliveries {
		for _, r := range x.act.run {
			if r != nil {
				return // it runs: look again when it has ended
			}
		}
		f := &Failure{Reason: ReasonIncomplete, Text: fmt.Sprintf("begun %d times without an end: see the log of the daemon, then resume it", l.Deliveries), Retry: RetryAfterReconcile, Exit: 3}
		err := e.change(x.act, func(s *state) {
			for i := range s.Disks {
				if d := &s.Disks[i]; !d.Phase.Ended() {
					d.Phase, d.Failure, d.Ended = Failed, f, e.now()
				}
			}
		})
		if err != nil {
			return // the next beat tries again
		}
	}
	if err := e.c.Queue.Forget(context.Background(), l.ID); err != nil {
		e.c.Log.Warn("a dead letter stays", "job", l.ID, "err", err)
		return
	}
	if x != nil && x.act != nil {
		if err := e.accept(context.Background(), x.act); err != nil {
			e.c.Log.Warn("job is not in the queue yet", "job", l.ID, "err", err) // tick tries again
		}
	}
}

// starts is how often the disk that was begun most often was.
func (a *active) starts() (most int) {
	for i := range a.state.Disks {
		most = max(most, a.state.Disks[i].Starts)
	}
	return most
}

// retry does again what the store did not take.
func (e *Engine) retry(ctx context.Context) {
	for _, r := range slices.Collect(maps.Keys(e.running)) {
		e.move(r)
		e.record(r)
	}
	for _, x := range e.jobs {
		if a := x.act; a != nil && a.delivery == nil && a.state.Phase != Paused {
			if err := e.accept(ctx, a); err != nil && ctx.Err() == nil {
				e.c.Log.Warn("job is not in the queue yet", "job", a.ID, "err", err)
			}
		}
	}
}

// prune removes ended jobs beyond the bounds of number and age, the oldest
// first; with mu held.
func (e *Engine) prune() {
	var ended []*entry
	for _, x := range e.jobs {
		if x.act == nil && x.phase.Ended() { // while Open reads, others are not active yet
			ended = append(ended, x)
		}
	}
	slices.SortFunc(ended, func(a, b *entry) int { return a.ended.Compare(b.ended) })
	for i, x := range ended {
		if len(ended)-i <= e.c.MaxEnded && e.now().Sub(x.ended) < e.c.KeepEnded {
			return
		}
		if err := e.remove(x); err != nil {
			e.c.Log.Warn("an old job is not removed", "job", x.id, "err", err)
			return
		}
	}
}
