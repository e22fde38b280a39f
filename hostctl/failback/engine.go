package failback

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
)

// Times of the engine.
const (
	heartbeat = 5 * time.Second
	leaseTTL  = 30 * time.Second
	telemetry = 500 * time.Millisecond
)

// Engine runs failbacks. All methods are safe for concurrent use. Every refusal
// is a *job.Failure (errors.AsType).
type Engine struct {
	c     Config
	epoch uint64 // of the lease
	fence uint64
	vms   *slots     // failbacks in passes
	syncs *slots     // disks in passes while their replicas serve
	last  *slots     // disks in final passes: those must not wait for the others
	group groups     // failbacks in passes, of groups that have a bound
	cut   []measured // plans that were cut off, as Open found them
	bugs  bugs

	// mu is held over writes of the store. view guards what readers see; it is
	// taken after mu and never held over a call of the store.
	mu   sync.Mutex
	view sync.RWMutex
	runs map[string]*run // that have not ended

	ctx  context.Context // of Run, for drivers; nil: Run was not called
	stop context.CancelCauseFunc
	dead error // why the engine may not go on
	wg   sync.WaitGroup

	renewed time.Time // the lease; under mu
}

// bugs are deliberate ones. The crash matrix finds each of them, or it is worth
// nothing (TestFailbackBugsAreFound). All are false outside of that test.
type bugs struct {
	none          bool
	noIntent      bool // acts before the journal says so
	blind         bool // acts without looking first
	lateTerminal  bool // begins to undo before the journal says so
	ungated       bool // powers on whatever the disks are
	noMark        bool // overwrites before the target is marked
	trustPass     bool // calls a pass done whose disks are not
	keepReplicaOn bool // does not look at the replica's power before the final pass
}

// Open takes the controller's lease, reads the failbacks of the store and
// finishes what the end of the last controller cut off in it. Failbacks go on
// when Run is called.
func Open(ctx context.Context, c Config) (*Engine, error) {
	if c.Store == nil || c.Lease == nil || c.Mover == nil {
		return nil, errors.New("failback: Store, Lease and Mover are needed")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	c.Controller = cmp.Or(c.Controller, "controller")
	c.MaxVMs, c.MaxDisks = cmp.Or(max(c.MaxVMs, 0), 4), cmp.Or(max(c.MaxDisks, 0), 8)
	e := &Engine{c: c, runs: map[string]*run{}, vms: newSlots(c.MaxVMs), syncs: newSlots(c.MaxDisks), last: newSlots(c.MaxDisks)}
	var err error
	if e.epoch, err = c.Lease.Acquire(ctx, leaseName, c.Controller, leaseTTL); err != nil {
		return nil, fromStore(fmt.Errorf("the lease of the controller: %w", err))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renewed = e.now()
	if err := e.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read the failbacks: %w", err), e.Close())
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

// fenced is the value of fenceKey.
type fenced struct {
	Format     int
	Fence      uint64
	Controller string
}

// load makes the new fence durable, then reads everything; with mu held. What
// is damaged stops it: a failback that is not seen is one that is lost.
func (e *Engine) load(ctx context.Context) error {
	if err := e.newFence(ctx); err != nil {
		return err
	}
	entries, _, err := e.c.Store.List(ctx, runKey)
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for _, x := range entries {
		c, err := decodeRecord(x.Key, x.Value)
		if err != nil {
			return err
		}
		r := newRun(e, c, x.Revision)
		switch {
		case c.Draft:
			if err := e.dropDraft(ctx, r); err != nil {
				return err
			}
		case !c.Status.Activity.Ended() || !c.Facts.Recorded:
			e.runs[c.Status.ID] = r
			live[c.Status.ID] = !c.Status.Activity.Ended()
		}
	}
	if err := e.loadMeasured(ctx); err != nil {
		return err
	}
	return e.dropClaims(ctx, func(id string) bool { return live[id] })
}

func (e *Engine) newFence(ctx context.Context) error {
	old, err := e.c.Store.Get(ctx, fenceKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	next, missing := fenced{Format: recordFormat, Controller: e.c.Controller}, err != nil
	if !missing {
		if err := json.Unmarshal(old.Value, &next); err != nil {
			return fmt.Errorf("record %s: %w", fenceKey, err)
		}
	}
	next.Fence, next.Controller = max(next.Fence+1, uint64(max(e.now().Unix(), 1))), e.c.Controller
	value, err := encode(next)
	if err != nil {
		return err
	}
	if missing {
		_, err = e.c.Store.Create(ctx, fenceKey, value)
	} else {
		_, err = e.c.Store.Update(ctx, fenceKey, value, old.Revision)
	}
	e.fence = next.Fence
	return err
}

// Run drives what is open until ctx is done or the engine may not go on; then it
// stops at the next place where nothing is lost, so that the next start goes on,
// and waits for that. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	e.mu.Lock()
	if e.ctx != nil {
		e.mu.Unlock()
		return errors.New("failback: Run was called before")
	}
	e.ctx, e.stop = ctx, stop
	if e.dead != nil {
		stop(e.dead)
	}
	for _, r := range e.runs {
		e.drive(r)
	}
	e.wg.Go(func() { e.dropMeasured(ctx) })
	e.mu.Unlock()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for ctx.Err() == nil {
		select {
		case <-beat.C:
			e.renew(ctx)
		case <-ctx.Done():
		}
	}
	e.wg.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dead
}

// drive starts the driver of a run; with mu held.
func (e *Engine) drive(r *run) {
	if e.ctx == nil || e.ctx.Err() != nil || r.driven {
		return
	}
	r.driven = true
	e.wg.Go(func() { r.drive(e.ctx) })
}

// renew keeps the lease. One that has expired and that nobody has held since is
// taken again.
func (e *Engine) renew(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	began := e.now()
	err := e.c.Lease.Renew(ctx, leaseName, e.epoch, leaseTTL)
	switch {
	case err == nil:
		e.renewed = began
		return
	case !errors.Is(err, store.ErrFenced):
		if ctx.Err() == nil {
			e.c.Log.Warn("the controller's lease is not renewed", "err", err)
		}
		return
	}
	epoch, err := e.c.Lease.Acquire(ctx, leaseName, e.c.Controller, leaseTTL)
	switch {
	case err == nil && epoch == e.epoch+1:
		e.epoch, e.renewed = epoch, began
	case err == nil:
		e.halt(fromStore(errors.Join(store.ErrFenced, e.c.Lease.Release(ctx, leaseName, epoch))))
	case errors.Is(err, store.ErrHeld):
		e.halt(fromStore(err))
	}
}

// mine refuses to act without a lease that was renewed just now. Who was stopped
// for a while, or is cut off from the store, finds out here that another
// controller may be at work: not after the next action.
func (e *Engine) mine(ctx context.Context) error {
	fresh := func() (bool, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		since := e.now().Sub(e.renewed)
		return 0 <= since && since <= 2*heartbeat, e.dead
	}
	if ok, err := fresh(); ok || err != nil {
		return err
	}
	e.renew(ctx)
	ok, err := fresh()
	if !ok && err == nil {
		err = &again{"the controller's lease is not renewed: another one may be at work"}
	}
	return err
}

// halt ends the engine; with mu held.
func (e *Engine) halt(why error) {
	e.dead = cmp.Or(e.dead, why)
	if e.stop != nil {
		e.stop(e.dead)
	}
}

// ends are the only activities that follow those that a verb has begun.
var ends = map[Activity]Activity{Committing: Committed, Undoing: Undone, Canceling: Canceled}

// change makes a new state of a run durable, and only then the state. With mu
// held. An error of compare-and-swap means that another controller works on this
// store: this one may not go on.
func (e *Engine) change(r *run, f func(*record)) error {
	if e.dead != nil {
		return e.dead
	}
	next := r.rec.clone()
	f(next)
	if end := ends[r.rec.Status.Activity]; end != "" && next.Status.Activity != r.rec.Status.Activity && next.Status.Activity != end {
		return errTurn // a verb came between the look and this: it only goes forward
	}
	next.Epoch = e.fence
	next.Status.Next = next.outlook()
	trim(next)
	value, err := encode(next)
	if e.bugs.lateTerminal && next.Status.Activity == Undoing {
		late := next.clone()
		late.Status.Activity = Deciding
		value, err = encode(late)
	}
	if err != nil {
		return &job.Failure{Reason: job.ReasonInternal, Text: err.Error(), Retry: job.RetryAfterReconcile, Exit: 1}
	}
	revision, err := e.c.Store.Update(context.Background(), runKey+next.Status.ID, value, r.revision)
	if err != nil {
		return e.storeErr(err)
	}
	before := &r.rec.Status
	if before.Activity != next.Status.Activity {
		e.c.Log.Info("failback", "job", next.Status.ID, "vm", next.Status.Spec.VM, "state", string(next.Status.State), "activity", string(next.Status.Activity))
	}
	turned := before.Activity != next.Status.Activity || before.State != next.Status.State || (before.Halted == nil) != (next.Status.Halted == nil)
	e.view.Lock()
	r.rec, r.revision = next, revision
	e.view.Unlock()
	if turned {
		e.kickAll() // a group may have waited for it
	}
	return nil
}

// trim keeps the record of a VM with many disks and passes below what a store
// takes.
func trim(c *record) {
	const few, many = 16, 4
	most := few
	if len(c.Status.Disks) > few {
		most = many
	}
	for i := range c.Status.Disks {
		if d := &c.Status.Disks[i]; len(d.Passes) > most {
			d.Passes = d.Passes[len(d.Passes)-most:]
		}
	}
}

func (e *Engine) storeErr(err error) error {
	f := fromStore(err)
	if f.Reason == ReasonFenced || errors.Is(err, store.ErrBroken) || errors.Is(err, store.ErrNotFound) {
		e.halt(f)
	}
	return f
}

// kickAll lets all drivers look again; with mu held.
func (e *Engine) kickAll() {
	for _, r := range e.runs {
		r.kick()
	}
}

func (e *Engine) now() time.Time { return e.c.Clock().UTC().Round(0) }

// host answers the host of a VM, and what it is missing.
func (e *Engine) host(name string) (*hostctl.Host, error) {
	h := e.c.Hosts[name]
	if h == nil {
		names := slices.Sorted(maps.Keys(e.c.Hosts))
		return nil, halting(ReasonHostUnknown, "add a [[host]] of that name to the controller's configuration", "host %q is not in the configuration, which has %s", name, listed(names))
	}
	return h, nil
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
