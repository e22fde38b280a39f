package failback

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
)

// Start begins a failback, or answers the one that was begun under this ID with
// an equal spec. confirmed is the digest of the plan that an operator has seen,
// or zero. Nothing is done to a host before it returns.
func (e *Engine) Start(ctx context.Context, id, owner string, s Spec, confirmed cbt.Digest) (st Status, created bool, err error) {
	if id == "" || len(id) > job.MaxID || store.CheckKey(id) != nil {
		return Status{}, false, invalid("id: %q is not 1 to %d letters, digits, _, - and single dots inside", id, job.MaxID)
	}
	if st, found, err := e.again(ctx, id, s); found || err != nil {
		return st, false, err
	}
	c, p, err := e.prepare(ctx, id, s)
	if err != nil {
		return Status{}, false, err
	}
	if len(p.Problems) > 0 {
		return Status{}, false, refused(p)
	}
	if confirmed != (cbt.Digest{}) && confirmed != p.Digest {
		return Status{}, false, refuse(ReasonPlanChanged, 10, "the plan is not the one that was confirmed: VMs or disks have changed since", "look at the plan again")
	}
	c.Status.Owner, c.Status.Run, c.Status.Created = plain(owner), uuid.NewString(), e.now()
	c.decided(e, "start", owner, "")
	if confirmed != (cbt.Digest{}) {
		c.decided(e, "confirm", owner, "plan "+confirmed.String())
	}
	if s.PowerOnUnproved {
		c.decided(e, "override", owner, "power on although a disk is not verified")
	}
	c.Draft = true
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.begin(ctx, c)
}

// refused makes one error of a plan's problems.
func refused(p *Plan) *job.Failure {
	var text []string
	for _, x := range p.Problems {
		text = append(text, strings.TrimSuffix(x.Text+"; "+x.Remedy, "; "))
	}
	return refuse(p.Problems[0].Reason, exitOf(p.Problems[0].Reason), strings.Join(text, ". "), "")
}

// again answers a failback that is there under this ID.
func (e *Engine) again(ctx context.Context, id string, s Spec) (Status, bool, error) {
	s, err := filled(s)
	if err != nil {
		return Status{}, false, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.runs[id]
	if r == nil {
		var f *job.Failure
		if r, err = e.read(ctx, id); errors.As(err, &f) && f.Reason == ReasonUnknown {
			return Status{}, false, nil
		} else if err != nil {
			return Status{}, false, err
		}
	}
	if r.rec.Digest != digestOf("failback spec v1", s) {
		return Status{}, true, refuse(ReasonExists, 10, "failback "+id+" was started with another spec", "choose another ID")
	}
	if at := r.rec.place(); at.Activity == Standing && !at.Halted && at.State == ReadyToSwitch {
		if err := e.proceed(ctx, r, decide(at, doStart)); err != nil { // the table: resync again
			return Status{}, true, err
		}
	}
	return r.status(), true, nil
}

// begin stores a failback. A crash in between leaves a draft that the next start
// takes back. With mu held.
func (e *Engine) begin(ctx context.Context, c *record) (Status, bool, error) {
	if e.dead != nil {
		return Status{}, false, e.dead
	}
	bg := context.WithoutCancel(ctx)
	if err := e.dropOldDraft(bg, c.Status.ID); err != nil {
		return Status{}, false, err
	}
	// What was looked at without the lock may have changed.
	p, err := e.pair(ctx, c.Status.Spec.VM)
	if err != nil {
		return Status{}, false, err
	}
	if d := decide(e.placeOf(p), doStart); d.refused() || d.Activity != Waiting {
		return Status{}, false, refuse(name(d.Reason, ReasonOpen), 11, "VM "+p.Name+": "+name(d.Text, "a failback is open"), d.Remedy)
	}
	c.Epoch = e.fence
	value, err := encode(c)
	if err != nil {
		return Status{}, false, fromStore(err)
	}
	revision, err := e.c.Store.Create(bg, runKey+c.Status.ID, value)
	if errors.Is(err, store.ErrExists) {
		return Status{}, false, refuse(ReasonExists, 10, "failback "+c.Status.ID+" exists", "choose another ID")
	} else if err != nil {
		return Status{}, false, e.storeErr(err)
	}
	r := newRun(e, c, revision)
	if err := e.own(bg, r, p); err != nil {
		undo := errors.Join(e.dropClaims(bg, func(of string) bool { return of != c.Status.ID }), e.dropDraft(bg, r))
		if undo != nil {
			e.c.Log.Warn("a failback that was not begun stays in the store for a while", "job", c.Status.ID, "err", undo)
		}
		return Status{}, false, err
	}
	e.view.Lock()
	e.runs[c.Status.ID] = r
	e.view.Unlock()
	e.drive(r)
	return r.status(), true, nil
}

// own takes the VM and its disks.
func (e *Engine) own(ctx context.Context, r *run, p Pair) error {
	if err := e.claim(ctx, r.rec.Status.ID, &r.rec.Facts.ReplicaVM); err != nil {
		return err
	}
	if t := &r.rec.Facts.TargetVM; t.UUID != "" || t.ID != "" {
		if err := e.claim(ctx, r.rec.Status.ID, t); err != nil {
			return err
		}
	}
	p.Failback = r.rec.Status.ID
	if _, err := e.putPair(p, p.Revision); err != nil {
		return err
	}
	return e.change(r, func(c *record) { c.Draft = false })
}

// Get answers a failback, with what runs now.
func (e *Engine) Get(ctx context.Context, id string) (Status, error) {
	e.view.RLock()
	r := e.runs[id]
	e.view.RUnlock()
	if r == nil {
		var err error
		if r, err = e.read(ctx, id); err != nil {
			return Status{}, err
		}
	}
	return r.status(), nil
}

// Filter chooses failbacks; the zero value all.
type Filter struct {
	VM, Group string
	Open      bool // that have not ended
}

func (f *Filter) match(s *Status) bool {
	return (f.VM == "" || f.VM == s.Spec.VM) && (f.Group == "" || f.Group == s.Spec.Group) && (!f.Open || !s.Activity.Ended())
}

// List answers failbacks, the oldest first, and the revision of the store at that
// moment: a watch from there has no gap.
func (e *Engine) List(ctx context.Context, f Filter) ([]Status, uint64, error) {
	entries, at, err := e.c.Store.List(ctx, runKey)
	if err != nil {
		return nil, 0, fromStore(err)
	}
	var list []Status
	for _, x := range entries {
		c, err := decodeRecord(x.Key, x.Value)
		if err != nil {
			return nil, 0, fromStore(err)
		}
		if c.Draft || !f.match(&c.Status) {
			continue
		}
		s := c.Status
		s.Revision = x.Revision
		e.view.RLock()
		r := e.runs[s.ID]
		e.view.RUnlock()
		if r != nil {
			s = r.status()
		}
		list = append(list, s)
	}
	slices.SortStableFunc(list, func(a, b Status) int { return a.Created.Compare(b.Created) })
	return list, at, nil
}

// Watch tells what happens to a failback, or to all where id is empty. With after
// 0: as they are, then changes; else the changes later than after, and an error
// that is store.ErrCompacted where those are not known any more. No change is
// lost, however slow the reader is. Telemetry has the revision of the change
// before it; it is told twice a second at most, and lost for a slow reader. The
// sequence ends with an error, ctx's at last.
func (e *Engine) Watch(ctx context.Context, id string, after uint64) iter.Seq2[Status, error] {
	return func(yield func(Status, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		if after == 0 {
			list, at, err := e.List(ctx, Filter{})
			if err != nil {
				yield(Status{}, err)
				return
			}
			for _, s := range list {
				if (id == "" || s.ID == id) && !yield(s, nil) {
					return
				}
			}
			after = at
		}
		changes, failed := make(chan Status), make(chan error, 1)
		wg.Go(func() { failed <- e.changes(ctx, id, after, changes) })
		tick := time.NewTicker(telemetry)
		defer tick.Stop()
		told := map[string][]job.Counters{}
		for {
			select {
			case s := <-changes:
				if !yield(s, nil) {
					return
				}
			case err := <-failed:
				yield(Status{}, err)
				return
			case <-tick.C:
				for _, s := range e.news(id, told) {
					if !yield(s, nil) {
						return
					}
				}
			}
		}
	}
}

// changes sends the durable changes of failbacks.
func (e *Engine) changes(ctx context.Context, id string, after uint64, to chan<- Status) error {
	for x, err := range e.c.Store.Watch(ctx, runKey, after) {
		if err != nil {
			return err
		}
		if x.Deleted || id != "" && x.Key != runKey+id {
			continue
		}
		c, err := decodeRecord(x.Key, x.Value)
		if err != nil {
			return fromStore(err)
		}
		if c.Draft {
			continue
		}
		c.Status.Revision = x.Revision
		select {
		case to <- c.Status:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// news are the failbacks whose counters have changed since they were told.
func (e *Engine) news(id string, told map[string][]job.Counters) (list []Status) {
	e.view.RLock()
	runs := make([]*run, 0, len(e.runs))
	for of, r := range e.runs {
		if id == "" || of == id {
			runs = append(runs, r)
		}
	}
	e.view.RUnlock()
	for _, r := range runs {
		var now []job.Counters
		for i := range r.live {
			r.live[i].mu.Lock()
			if r.live[i].runs {
				now = append(now, r.live[i].count)
			}
			r.live[i].mu.Unlock()
		}
		s := r.status()
		if len(now) == 0 || slices.Equal(now, told[s.ID]) {
			continue
		}
		told[s.ID] = now
		list = append(list, s)
	}
	return list
}
