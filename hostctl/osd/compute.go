package osd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/haulback/haulback/hostctl"
)

// VMPower powers a workload that is a VM of another host: its disks are volumes,
// its power is the VM's.
type VMPower struct {
	Compute hostctl.Compute
	VM      hostctl.Query
}

// State implements Power.
func (p VMPower) State(ctx context.Context) (hostctl.Power, error) {
	vm, err := p.Compute.Find(ctx, p.VM)
	return vm.Power, err
}

// Set implements Power.
func (p VMPower) Set(ctx context.Context, op *hostctl.Op, want hostctl.Power, grace time.Duration) error {
	vm, err := p.Compute.Find(ctx, p.VM)
	if err != nil {
		return err
	}
	return p.Compute.SetPower(ctx, op, vm.Ref, want, grace)
}

// power is whether a workload runs.
func (h *Host) power(ctx context.Context, f *found) (hostctl.Power, error) {
	if f.Power == nil {
		return h.attached(ctx, f)
	}
	p, err := f.Power.State(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return p, ctx.Err()
	case err != nil: // a program that fails once, a vCenter that restarts
		return p, &later{fmt.Errorf("host %s: whether workload %s runs: %w", h.cfg.Name, f.Name(), err)}
	case p == hostctl.PowerUnknown:
		return p, &later{h.refuse("nobody knows whether workload %s runs", f.Name())}
	}
	return p, nil
}

// attached is the power of a workload that nothing here can ask: on while a volume
// of it is attached, but for our own passes. A pass of before a restart is none of
// this process's, and its mover holds the target for a while: of a target that is
// half overwritten nobody knows then.
func (h *Host) attached(ctx context.Context, f *found) (hostctl.Power, error) {
	v := h.used(f.live)
	switch {
	case v == nil:
		return hostctl.Off, nil
	case time.Since(h.began) > h.times.restart:
		return hostctl.On, nil
	}
	half, err := h.markers(ctx, f.UUID, hostctl.MarkInconsistent)
	if err != nil || len(half) == 0 {
		return hostctl.On, err
	}
	return hostctl.PowerUnknown, &later{h.refuse("%s: whether workload %s was started, or a pass of before this controller's start still holds it, shows within %v", where(v), f.Name(), h.times.restart)}
}

// used is a volume that somebody else has attached.
func (h *Host) used(live []Volume) *Volume {
	for i := range live {
		if live[i].Attached && !h.cfg.Mine(live[i].ID) {
			return &live[i]
		}
	}
	return nil
}

// where says where a volume is attached, as far as the server does.
func where(v *Volume) string {
	if v.AttachedOn == "" {
		return fmt.Sprintf("volume %s is attached", v.Name)
	}
	return fmt.Sprintf("volume %s is attached on node %s", v.Name, v.AttachedOn)
}

// pace is when to look again: soon at first, as somebody may be without service.
type pace struct{ next, most time.Duration }

func (h *Host) pace() *pace { return &pace{min(50*time.Millisecond, h.times.poll), h.times.poll} }

func (p *pace) wait(ctx context.Context) error {
	d := p.next
	p.next = min(2*p.next, p.most)
	return sleep(ctx, d)
}

// detached waits until nobody has the volumes attached any more: what is written to
// one that is may be in no snapshot.
func (h *Host) detached(ctx context.Context, f *found, within time.Duration) error {
	ok, err := h.until(ctx, f, within, func() bool { return h.used(f.live) == nil })
	if err == nil && !ok {
		err = h.refuse("%s, and workload %s is off: stop what uses it there, or detach it, then continue; haulback detaches what it has attached itself and nothing else", where(h.used(f.live)), f.Name())
	}
	return err
}

// until looks at the volumes again and again until done, and reports whether that
// came within the time.
func (h *Host) until(ctx context.Context, f *found, within time.Duration, done func() bool) (bool, error) {
	p := h.pace()
	for late := time.Now().Add(within); !done(); {
		if time.Now().After(late) {
			return false, nil
		}
		if err := p.wait(ctx); err != nil {
			return false, err
		}
		now, err := h.look(ctx, f.Workload)
		if err != nil {
			return false, err
		}
		f.live = now.live
	}
	return true, nil
}

// SetPower implements hostctl.Compute. Off is when the workload is off and its
// volumes are detached: only then all that it wrote is on them.
func (h *Host) SetPower(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, want hostctl.Power, grace time.Duration) error {
	if want != hostctl.On && want != hostctl.Off {
		return h.refuse("workload %s: it is powered on or off, not %v", ref.Name, want)
	}
	f, is, err := h.seen(ctx, ref)
	switch {
	case err != nil:
		return err
	case is == want && want == hostctl.On:
		return nil
	case is != want && f.Power == nil:
		return h.byHand(ctx, op, f, want, grace)
	case is != want:
		if want == hostctl.On { // by a node that has to attach them
			if err := h.released(ctx, f); err != nil {
				return err
			}
		}
		if err := h.change(ctx, op, f, want, grace); err != nil {
			return err
		}
	}
	if want == hostctl.Off {
		return h.detached(ctx, f, h.times.detach)
	}
	return nil
}

// change asks for the power and waits until it is so.
func (h *Host) change(ctx context.Context, op *hostctl.Op, f *found, want hostctl.Power, grace time.Duration) error {
	if err := op.Started("power-" + want.String()); err != nil {
		return err
	}
	nested := *op // a VM's host has references of its own, which are not this op's
	nested.Task, nested.Started = "", func(string) error { return nil }
	if err := f.Power.Set(ctx, &nested, want, grace); err != nil {
		return fmt.Errorf("host %s: power %v workload %s: %w", h.cfg.Name, want, f.Name(), err)
	}
	p := h.pace()
	for late := time.Now().Add(h.times.power + grace); ; {
		is, err := h.power(ctx, f)
		if err == nil && is == want {
			return nil
		}
		if err == nil && time.Now().After(late) {
			return h.refuse("workload %s was asked to be %v and is %v", f.Name(), want, is)
		} else if err != nil && (ctx.Err() != nil || time.Now().After(late)) {
			return err
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
}

// byHand waits for somebody to stop a workload that nothing here can power.
func (h *Host) byHand(ctx context.Context, op *hostctl.Op, f *found, want hostctl.Power, grace time.Duration) error {
	if want == hostctl.On {
		return h.refuse("workload %s has no power commands: start it yourself, then continue; it counts as on when one of its volumes is attached", f.Name())
	}
	if err := op.Started("power-off by hand"); err != nil {
		return err
	}
	h.cfg.Log.Warn("waiting for a workload to be stopped by hand", "host", h.cfg.Name, "vm", f.Name(), "within", grace)
	ok, err := h.until(ctx, f, grace, func() bool { return h.used(f.live) == nil })
	if err == nil && !ok {
		err = h.refuse("workload %s has no power commands and is in use, %s: stop it yourself, then continue", f.Name(), where(h.used(f.live)))
	}
	return err
}

// released waits until the controller's own mover has let the volumes go. Where it
// does not, whoever starts the workload says what is wrong.
func (h *Host) released(ctx context.Context, f *found) error {
	_, err := h.until(ctx, f, h.times.detach, func() bool {
		return !slices.ContainsFunc(f.live, func(v Volume) bool { return v.Attached && h.cfg.Mine(v.ID) })
	})
	return err
}

// Watch implements hostctl.Compute: the API tells of nothing by itself, so it looks
// every so often. What begins and ends between two looks is not seen.
func (h *Host) Watch(ctx context.Context, vms []hostctl.Ref) iter.Seq2[hostctl.Event, error] {
	return func(yield func(hostctl.Event, error) bool) {
		last := make([]*hostctl.VM, len(vms))
		gone := make([]bool, len(vms))
		for {
			for i, ref := range vms {
				ev, err := h.event(ctx, ref, &last[i], &gone[i])
				switch {
				case ctx.Err() != nil:
					yield(hostctl.Event{}, ctx.Err())
					return
				case final(err):
					yield(hostctl.Event{}, err)
					return
				case err != nil:
					h.cfg.Log.Warn("a workload cannot be looked at now", "host", h.cfg.Name, "vm", ref.Name, "err", err)
				case ev != nil && !yield(*ev, nil):
					return
				}
			}
			if err := sleep(ctx, h.times.poll); err != nil {
				yield(hostctl.Event{}, err)
				return
			}
		}
	}
}

// final reports whether asking again is in vain.
func final(err error) bool {
	if err == nil {
		return false
	}
	r, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err)
	return !ok || !r.Retryable()
}

// event is what changed since the last look, or nil.
func (h *Host) event(ctx context.Context, ref hostctl.Ref, last **hostctl.VM, gone *bool) (*hostctl.Event, error) {
	ev := &hostctl.Event{VM: ref, At: time.Now()}
	f, err := h.of(ctx, ref)
	if errors.Is(err, hostctl.ErrNotFound) {
		if *gone {
			return nil, nil
		}
		*gone, *last, ev.Gone = true, nil, true
		return ev, nil
	}
	if err != nil {
		return nil, err
	}
	now := hostctl.VM{Disks: h.disks(f)}
	if now.Power, err = h.power(ctx, f); err != nil {
		return nil, err
	}
	was := *last
	*last, *gone = &now, false
	if was != nil {
		ev.Disks = !slices.Equal(was.Disks, now.Disks)
		if was.Power == now.Power && !ev.Disks {
			return nil, nil
		}
	}
	ev.Power = now.Power
	return ev, nil
}
