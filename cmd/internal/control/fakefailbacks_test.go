package control

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
)

// fakeFailbacks is an engine that keeps in memory what it is told, and powers
// nothing.
type fakeFailbacks struct {
	mu       sync.Mutex
	revision uint64
	pairs    map[string]failback.Pair
	all      map[string]failback.Status
	changed  chan struct{}        // closed and made anew at each change
	live     chan failback.Status // telemetry
	lost     error                // of the store
	forgot   bool                 // what was before revision 100
}

func newFailbacks() *fakeFailbacks {
	return &fakeFailbacks{pairs: map[string]failback.Pair{}, all: map[string]failback.Status{}, changed: make(chan struct{}), live: make(chan failback.Status)}
}

func refused(reason string, exit int, text string) error {
	return &job.Failure{Reason: reason, Text: text, Exit: exit}
}

// next is the revision of a change; with mu held.
func (f *fakeFailbacks) next(expected, have uint64) (uint64, error) {
	if expected != 0 && expected != have {
		return 0, &job.Failure{Reason: job.ReasonConflict, Text: fmt.Sprintf("revision %d, not %d", have, expected), Retry: job.RetryAfterReconcile, Exit: 11}
	}
	f.revision++
	close(f.changed)
	f.changed = make(chan struct{})
	return f.revision, nil
}

func (f *fakeFailbacks) PutPair(_ context.Context, p failback.Pair, expected uint64) (failback.Pair, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.next(expected, f.pairs[p.Name].Revision)
	if err != nil {
		return p, err
	}
	p.Revision, p.State = r, failback.Ready
	f.pairs[p.Name] = p
	return p, nil
}

func (f *fakeFailbacks) Pair(_ context.Context, name string) (failback.Pair, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.pairs[name]
	if !ok {
		return p, refused("VM_UNKNOWN", 10, "no VM is known as "+name)
	}
	return p, nil
}

func (f *fakeFailbacks) Pairs(context.Context) (list []failback.Pair, revision uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pairs {
		list = append(list, p)
	}
	return list, f.revision, f.lost
}

func (f *fakeFailbacks) set(name string, expected uint64, state failback.State) (failback.Pair, error) {
	p, err := f.Pair(context.Background(), name)
	if err != nil {
		return p, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.Revision, err = f.next(expected, p.Revision); err != nil {
		return p, err
	}
	p.State = state
	f.pairs[name] = p
	return p, nil
}

func (f *fakeFailbacks) RemovePair(_ context.Context, name string, expected uint64) error {
	if _, err := f.set(name, expected, ""); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pairs, name)
	return nil
}

func (f *fakeFailbacks) Failover(_ context.Context, name string, expected uint64) (failback.Pair, error) {
	return f.set(name, expected, failback.Failover)
}

func (f *fakeFailbacks) UndoFailover(_ context.Context, name string, expected uint64) (failback.Pair, error) {
	return f.set(name, expected, failback.Ready)
}

func (f *fakeFailbacks) CheckReplication(ctx context.Context, name string) error {
	p, err := f.Pair(ctx, name)
	if err == nil && p.State != failback.Ready {
		err = refused("HELD_BY_FAILBACK", 11, name+" is held by failback fb-1; commit or undo it")
	}
	return err
}

func (f *fakeFailbacks) Plan(_ context.Context, s failback.Spec, measure bool) (failback.Plan, error) {
	p := failback.Plan{VM: s.VM, Destination: s.Destination, Digest: cbt.Digest{7}, Disks: []failback.PlanDisk{{Label: "scsi0:0", Differing: -1}}}
	if measure {
		p.Disks[0].Differing = 0
	}
	return p, nil
}

func (f *fakeFailbacks) Start(_ context.Context, id, owner string, s failback.Spec, confirmed cbt.Digest) (failback.Status, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have, ok := f.all[id]; ok {
		return have, false, nil
	}
	if confirmed != (cbt.Digest{}) && confirmed != (cbt.Digest{7}) {
		return failback.Status{}, false, refused("PLAN_CHANGED", 10, "the plan has changed since it was confirmed")
	}
	r, _ := f.next(0, 0)
	st := failback.Status{
		ID: id, Owner: owner, Spec: s, Revision: r, State: failback.Failover, Activity: failback.Preparing,
		Created: time.Unix(1000+int64(r), 0).UTC(), Target: hostctl.Ref{Host: "vc", ID: "vm-1"},
	}
	f.all[id] = st
	return st, true, nil
}

func (f *fakeFailbacks) Get(_ context.Context, id string) (failback.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.all[id]
	if !ok {
		return s, refused("FAILBACK_UNKNOWN", 10, "no failback "+id)
	}
	return s, nil
}

func (f *fakeFailbacks) List(_ context.Context, filter failback.Filter) (list []failback.Status, revision uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.all {
		if filter.VM == "" || filter.VM == s.Spec.VM {
			list = append(list, s)
		}
	}
	return list, f.revision, f.lost
}

func (f *fakeFailbacks) Watch(ctx context.Context, id string, after uint64) iter.Seq2[failback.Status, error] {
	return func(yield func(failback.Status, error) bool) {
		if f.forgot && after > 0 && after < 100 {
			yield(failback.Status{}, fmt.Errorf("revision %d: %w", after, store.ErrCompacted))
			return
		}
		for {
			f.mu.Lock()
			changed := f.changed
			var news []failback.Status
			for _, s := range f.all {
				if s.Revision > after && (id == "" || s.ID == id) {
					news = append(news, s)
				}
			}
			f.mu.Unlock()
			slices.SortFunc(news, func(a, b failback.Status) int { return int(a.Revision) - int(b.Revision) })
			for _, s := range news {
				after = s.Revision
				if !yield(s, nil) {
					return
				}
			}
			select {
			case <-changed:
			case s := <-f.live:
				if !yield(s, nil) {
					return
				}
			case <-ctx.Done():
				yield(failback.Status{}, ctx.Err())
				return
			}
		}
	}
}

// act changes a failback and remembers who wanted it.
func (f *fakeFailbacks) act(ctx context.Context, id string, expected uint64, change func(*failback.Status)) (failback.Status, error) {
	s, err := f.Get(ctx, id)
	if err != nil {
		return s, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.Revision, err = f.next(expected, s.Revision); err != nil {
		return s, err
	}
	change(&s)
	s.Decisions = append(slices.Clone(s.Decisions), failback.Decision{By: failback.Caller(ctx)})
	f.all[id] = s
	return s, nil
}

func (f *fakeFailbacks) Switch(ctx context.Context, id string, w failback.Switch, expected uint64) (failback.Status, error) {
	return f.act(ctx, id, expected, func(s *failback.Status) { s.Spec.Switch, s.Activity = w, failback.Switching })
}

func (f *fakeFailbacks) Commit(ctx context.Context, id string, o failback.CommitOptions, expected uint64) (failback.Status, error) {
	return f.act(ctx, id, expected, func(s *failback.Status) {
		s.Activity, s.Next = failback.Committing, fmt.Sprint("by ", o.By, ", delete ", o.DeleteProtective)
	})
}

func (f *fakeFailbacks) Undo(ctx context.Context, id string, o failback.UndoOptions, expected uint64) (failback.Status, error) {
	return f.act(ctx, id, expected, func(s *failback.Status) {
		s.Activity, s.Next = failback.Undoing, fmt.Sprint("by ", o.By, ", off ", o.KeepOff)
	})
}

func (f *fakeFailbacks) Cancel(ctx context.Context, id string, expected uint64) (failback.Status, error) {
	return f.act(ctx, id, expected, func(s *failback.Status) { s.Activity = failback.Canceled })
}

func (f *fakeFailbacks) Continue(ctx context.Context, id string, expected uint64) (failback.Status, error) {
	if s, err := f.Get(ctx, id); err == nil && s.Halted == nil {
		return s, refused("NOT_HALTED", 10, id+" is not halted")
	}
	return f.act(ctx, id, expected, func(s *failback.Status) { s.Halted = nil })
}

func (f *fakeFailbacks) SetLimits(ctx context.Context, id string, l job.Limits, p job.Priority) (failback.Status, error) {
	return f.act(ctx, id, 0, func(s *failback.Status) { s.Spec.Limits, s.Spec.Priority = l, p })
}

func (f *fakeFailbacks) Garbage(_ context.Context, remove bool) ([]failback.Leftover, error) {
	if remove {
		return nil, nil
	}
	return []failback.Leftover{{Host: "vc", Kind: "snapshot", Name: "haulback-x"}}, nil
}
