package failback

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
)

// run is one failback that has not ended, with the goroutine that drives it.
type run struct {
	e        *Engine
	rec      *record // under the engine's mu and view
	revision uint64
	driven   bool // a driver was started; under the engine's mu

	wake chan struct{} // look again; capacity 1: one look sees all
	slot bool          // the driver holds one of the engine's vms
	part *slots        // and one of its group, where that has a bound

	mu      sync.Mutex
	live    []liveDisk // by disk
	stop    context.CancelCauseFunc
	limited chan struct{} // closed when limits change
}

func newRun(e *Engine, c *record, revision uint64) *run {
	return &run{
		e: e, rec: c, revision: revision, wake: make(chan struct{}, 1),
		live: make([]liveDisk, len(c.Status.Disks)), limited: make(chan struct{}),
	}
}

// Why a driver stops what it does.
var (
	errTurn  = errors.New("failback: another way was asked for") // cancel, undo: look at the record
	errSleep = errors.New("failback: waits for an operator")
)

func (r *run) kick() {
	select {
	case r.wake <- struct{}{}:
	default: // one is due already
	}
}

// turn stops passes and waiting, for the driver to look at the record; a host
// action that was begun ends first.
func (r *run) turn() {
	r.mu.Lock()
	if r.stop != nil {
		r.stop(errTurn)
	}
	r.mu.Unlock()
	r.kick()
}

// get is the record as it is now. It does not change.
func (r *run) get() *record {
	r.e.view.RLock()
	defer r.e.view.RUnlock()
	return r.rec
}

func (r *run) change(f func(*record)) error {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	return r.e.change(r, f)
}

// drive does one step after the other until the failback has ended or ctx is
// done.
func (r *run) drive(ctx context.Context) {
	defer r.giveSlot()
	var s sentry
	defer s.leave()
	for ctx.Err() == nil {
		c := r.get()
		s.post(ctx, r, c.haveToBeOff())
		if c.Status.Activity.Ended() {
			if r.close(ctx) {
				return
			}
			continue
		}
		// What a verb stops is this; what the controller's end stops is ctx.
		turn, stop := context.WithCancelCause(ctx)
		r.mu.Lock()
		r.stop = stop
		r.mu.Unlock()
		err := errSleep
		if c = r.get(); c.Status.Halted == nil {
			if err = r.takeOver(); err == nil {
				err = r.advance(turn)
			}
		}
		cause := context.Cause(turn)
		stop(nil)
		switch {
		case err == nil || ctx.Err() != nil || errors.Is(cause, errTurn) || errors.Is(err, errTurn):
		case errors.Is(err, errSleep):
			r.giveSlot()
			r.sleep(ctx, 0)
		default:
			r.halt(err)
		}
	}
}

// sleep waits for a kick, or for d if that is not 0.
func (r *run) sleep(ctx context.Context, d time.Duration) {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-r.wake:
	case <-after:
	case <-ctx.Done():
	}
}

// halt stands still with a reason, until an operator says how to go on.
func (r *run) halt(err error) {
	reason, text, remedy := explain(err)
	c := r.get()
	h := &Halt{Reason: reason, Text: text, Remedy: remedy, At: r.e.now()}
	if s := current(c); s != nil {
		h.Step, h.Number = s.Name, s.Number
	}
	if h.withoutTarget(c.Status.Activity) {
		h.Remedy = "if it was moved away, bring it back and continue; if it was deleted, and runs nowhere else, continue goes on without it"
	}
	r.e.c.Log.Error("failback is halted", "job", c.Status.ID, "vm", c.Status.Spec.VM, "step", h.Step, "reason", reason, "err", text)
	if err := r.change(func(c *record) { c.Status.Halted, c.Status.Wait = h, "" }); err != nil {
		r.e.c.Log.Warn("the halt is not stored", "job", c.Status.ID, "err", err)
		r.sleep(context.Background(), time.Second) // the store may take the next one
	}
}

// withoutTarget reports whether a way back stands still because the target is not
// on its host any more.
func (h *Halt) withoutTarget(a Activity) bool {
	return h.Reason == ReasonVMGone && (a == Undoing || a == Canceling) && strings.HasSuffix(h.Step, "-target")
}

// current is the row of the step that was begun last and has not ended.
func current(c *record) *Step {
	for i := len(c.Status.Steps) - 1; i >= 0; i-- {
		if s := &c.Status.Steps[i]; s.State == Intent || s.State == Compensating {
			return s
		}
	}
	return nil
}

// advance does the next step, or decides what comes after the last.
func (r *run) advance(ctx context.Context) error {
	c := r.get()
	for _, s := range script(c) {
		if c.ended(s.name) {
			continue
		}
		if s.slot {
			if err := r.takeSlot(ctx, c); err != nil {
				return err
			}
			if r.get() != c {
				return nil // look again
			}
		}
		return r.do(ctx, &s)
	}
	return r.decideNext(ctx, c)
}

// close ends what has ended: the record is written, claims go.
func (r *run) close(ctx context.Context) bool {
	r.giveSlot()
	c := r.get()
	if !c.Facts.Recorded {
		if r.e.c.Record != nil {
			if err := r.e.c.Record.Write(context.WithoutCancel(ctx), &c.Status); err != nil {
				r.e.c.Log.Warn("the record of a failback is not written, trying again", "job", c.Status.ID, "err", err)
				r.sleep(ctx, heartbeat)
				return false
			}
		}
		if err := r.change(func(c *record) { c.Facts.Recorded = true }); err != nil {
			r.sleep(ctx, heartbeat)
			return false
		}
	}
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	id := c.Status.ID
	if err := r.e.dropClaims(context.WithoutCancel(ctx), func(of string) bool { return of != id }); err != nil {
		r.e.c.Log.Warn("the claims of an ended failback are not taken away, trying again", "job", id, "err", err)
		r.e.mu.Unlock()
		r.sleep(ctx, heartbeat)
		r.e.mu.Lock()
		return false
	}
	r.e.view.Lock()
	delete(r.e.runs, id)
	r.e.view.Unlock()
	return true
}

// ref, find and look are how steps see VMs.

// replica, target and original are the VMs of the record.
func (c *record) replica() hostctl.Ref { return c.Status.Replica }
func (c *record) target() hostctl.Ref  { return c.Status.Target }

// find answers a VM as it is now, by its stable identity.
func (r *run) find(ctx context.Context, ref hostctl.Ref) (hostctl.VM, error) {
	return r.e.find(ctx, ref)
}

func (e *Engine) find(ctx context.Context, ref hostctl.Ref) (hostctl.VM, error) {
	h, err := e.host(ref.Host)
	if err != nil {
		return hostctl.VM{}, err
	}
	q := hostctl.Query{UUID: ref.UUID}
	if q.UUID == "" {
		q.ID = ref.ID
	}
	vm, err := h.Compute.Find(ctx, q)
	if err != nil {
		return hostctl.VM{}, fmt.Errorf("VM %s on host %s: %w", name(ref.Name, name(ref.UUID, ref.ID)), ref.Host, err)
	}
	vm.Host = ref.Host
	return vm, nil
}

// check says that a VM has the disks that the failback began with, and is in
// nobody's hands.
func check(vm *hostctl.VM, was []hostctl.Disk, run string) error {
	if err := inHands(vm); err != nil {
		return err
	}
	if text := drift(vm, was); text != "" {
		return halting(ReasonDrift, "put the VM back as it was and continue, or cancel and start again with the new disks", "VM %s was changed in the failback: %s", vm.Name, text)
	}
	return nil
}

// inHands says that a host is at something with a VM. A task that waits for an
// answer does not end by itself.
func inHands(vm *hostctl.VM) error {
	if vm.Question != "" {
		return halting(ReasonQuestion, "answer it on the host, then continue", "VM %s waits for an answer: %s", vm.Name, vm.Question)
	}
	if vm.Busy != "" {
		return &again{fmt.Sprintf("VM %s: the host is at %q with it", vm.Name, plain(vm.Busy))}
	}
	return nil
}

// drift says how disks differ from what they were.
func drift(vm *hostctl.VM, was []hostctl.Disk) string {
	now := map[string]hostctl.Disk{}
	for _, d := range vm.Disks {
		now[diskID(&d)] = d
	}
	for _, old := range was {
		d, ok := now[diskID(&old)]
		switch {
		case !ok:
			return fmt.Sprintf("disk %s (%s) is gone or has another backing", old.Label, diskID(&old))
		case d.Size != old.Size:
			return fmt.Sprintf("disk %s has %s, not %s", old.Label, exactly(d.Size), exactly(old.Size))
		}
		delete(now, diskID(&old))
	}
	for _, d := range now {
		return fmt.Sprintf("disk %s (%s) was added", d.Label, diskID(&d))
	}
	return ""
}

func diskID(d *hostctl.Disk) string {
	if d.UUID != "" {
		return d.UUID
	}
	return fmt.Sprintf("key %d", d.Key)
}

// both answers replica and target as they are now, both checked.
func (r *run) both(ctx context.Context, c *record) (replica, target hostctl.VM, err error) {
	if replica, err = r.find(ctx, c.replica()); err != nil {
		return replica, target, err
	}
	if err = check(&replica, c.Facts.ReplicaVM.Disks, c.Status.Run); err != nil {
		return replica, target, err
	}
	if c.Facts.Unlisted {
		target = c.Facts.TargetVM
		target.Power = hostctl.Off // nobody can start it
		return replica, target, nil
	}
	if target, err = r.find(ctx, c.target()); err != nil {
		return replica, target, err
	}
	return replica, target, check(&target, c.Facts.TargetVM.Disks, c.Status.Run)
}

// hook runs what a site wants run at a step.
func (r *run) hook(ctx context.Context, c *record, s *step, after bool) error {
	if r.e.c.Hooks == nil {
		return nil
	}
	err := r.e.c.Hooks.Run(ctx, Hook{
		Failback: c.Status.ID, Run: c.Status.Run, VM: c.Status.Spec.VM, Step: s.name, Number: s.number, After: after,
		State: c.Status.State, Original: c.Status.Original, Replica: c.Status.Replica, Target: c.Status.Target,
	})
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*job.Failure](err); ok || retryable(err) {
		return err
	}
	return halting(ReasonHook, "look at the hook's own output, then continue", "hook of step %s: %v", s.name, err)
}
