package failback

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
)

// claim says which failback has a VM or a disk to itself.
type claim struct {
	Format   int
	Failback string
	What     string
}

// claimed finds a claim of another failback; with mu held.
func (e *Engine) claimed(ctx context.Context, id string, vms ...*hostctl.VM) (*hostctl.Problem, error) {
	for _, vm := range vms {
		for key, what := range claimsOfVM(vm) {
			x, err := e.c.Store.Get(ctx, key)
			if errors.Is(err, store.ErrNotFound) {
				continue
			} else if err != nil {
				return nil, fromStore(err)
			}
			var c claim
			if err := json.Unmarshal(x.Value, &c); err != nil {
				return nil, fromStore(fmt.Errorf("record %s: %w", key, err))
			}
			if c.Failback != id && !e.over(c.Failback) {
				return &hostctl.Problem{Reason: ReasonDiskClaimed, Text: fmt.Sprintf("%s is used by failback %s", what, c.Failback), Remedy: "wait for the end of that one, or undo or cancel it"}, nil
			}
		}
	}
	return nil, nil
}

// claim takes a VM with its disks for a failback; with mu held. What it has
// already stays.
func (e *Engine) claim(ctx context.Context, id string, vm *hostctl.VM) error {
	if p, err := e.claimed(ctx, id, vm); err != nil {
		return err
	} else if p != nil {
		return refuse(p.Reason, 11, p.Text, p.Remedy)
	}
	keys := claimsOfVM(vm)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		value, err := encode(claim{recordFormat, id, keys[key]})
		if err != nil {
			return fromStore(err)
		}
		_, err = e.c.Store.Create(context.Background(), key, value)
		if errors.Is(err, store.ErrExists) { // its own, or one that nobody has any more
			var x store.Entry
			if x, err = e.c.Store.Get(context.Background(), key); err == nil {
				_, err = e.c.Store.Update(context.Background(), key, value, x.Revision)
			}
		}
		if err != nil {
			return e.storeErr(err)
		}
	}
	return nil
}

// over reports whether a failback needs its claims no more: it has ended, or was
// a start that was cut off. The store may not have taken the end of its claims.
func (e *Engine) over(id string) bool {
	e.view.RLock()
	defer e.view.RUnlock()
	r := e.runs[id]
	return r == nil || r.rec.Status.Activity.Ended()
}

// dropClaims deletes claims of failbacks that are not live.
func (e *Engine) dropClaims(ctx context.Context, live func(id string) bool) error {
	entries, _, err := e.c.Store.List(ctx, claimKey)
	if err != nil {
		return err
	}
	for _, x := range entries {
		var c claim
		if err := json.Unmarshal(x.Value, &c); err != nil {
			return fmt.Errorf("record %s: %w", x.Key, err)
		}
		if live(c.Failback) {
			continue
		}
		if err := e.c.Store.Delete(context.WithoutCancel(ctx), x.Key, x.Revision); err != nil {
			return err
		}
	}
	return nil
}

// dropDraft takes back a Start that was cut off before it answered: nothing was
// done for it.
func (e *Engine) dropDraft(ctx context.Context, r *run) error {
	s := &r.rec.Status
	p, err := e.pair(ctx, s.Spec.VM)
	if err == nil && p.Failback == s.ID {
		p.Failback = ""
		_, err = e.putPair(p, p.Revision)
	}
	if f, ok := errors.AsType[*job.Failure](err); err != nil && (!ok || f.Reason != ReasonUnknownVM) {
		return err
	}
	return e.c.Store.Delete(context.WithoutCancel(ctx), runKey+s.ID, r.revision)
}

// dropOldDraft takes back what an earlier start under this ID has left, because
// the store took nothing any more.
func (e *Engine) dropOldDraft(ctx context.Context, id string) error {
	x, err := e.c.Store.Get(ctx, runKey+id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	} else if err != nil {
		return fromStore(err)
	}
	c, err := decodeRecord(x.Key, x.Value)
	if err != nil {
		return fromStore(err)
	}
	if !c.Draft {
		return nil // who creates it is told
	}
	if err := e.dropDraft(ctx, newRun(e, c, x.Revision)); err != nil {
		return e.storeErr(err)
	}
	return nil
}

// foreign says whether a VM carries the mark of a run that is not this one's.
func (e *Engine) foreign(run string, vm *hostctl.VM) *hostctl.Problem {
	mark, ok := vm.Marks[hostctl.MarkRun]
	if !ok || mark == "" || strings.HasPrefix(mark, run+"@") && run != "" {
		return nil
	}
	of, controller, _ := strings.Cut(mark, "@")
	if controller != e.c.Controller {
		return &hostctl.Problem{
			Reason: ReasonForeignRun, Text: fmt.Sprintf("VM %s is used by run %s of controller %q", vm.Name, of, controller),
			Remedy: "end it there; if that controller is gone, take the mark haulback." + hostctl.MarkRun + " off the VM",
		}
	}
	return &hostctl.Problem{
		Reason: ReasonForeignRun, Text: fmt.Sprintf("VM %s carries the mark of run %s", vm.Name, of),
		Remedy: "if no failback of that run is open, \"haulback failback gc\" lists what is left of it, and removes it where this controller knows the run; else take the mark haulback." + hostctl.MarkRun + " off the VM on its host",
	}
}

func sameVM(a, b hostctl.Ref) bool {
	if a.Host != b.Host {
		return false
	}
	if a.UUID != "" && b.UUID != "" {
		return a.UUID == b.UUID
	}
	return a.ID != "" && a.ID == b.ID
}
