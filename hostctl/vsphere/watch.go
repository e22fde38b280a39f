package vsphere

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// watched is what is known of a VM that is watched.
type watched struct {
	ref   hostctl.Ref
	power hostctl.Power
	disks []hostctl.Disk
	told  bool // its first event was yielded
	gone  bool
}

// Watch implements hostctl.Compute with the host's own notices. After a lost
// server or session it looks at everything again and tells what has changed
// meanwhile.
func (c *Client) Watch(ctx context.Context, vms []hostctl.Ref) iter.Seq2[hostctl.Event, error] {
	return func(yield func(hostctl.Event, error) bool) {
		all := make([]*watched, len(vms))
		for i, ref := range vms {
			all[i] = &watched{ref: ref}
		}
		w := watcher{c: c, all: all, yield: yield}
		pause := c.wait.least
		for !w.stopped {
			began := c.now()
			err := w.round(ctx)
			switch {
			case w.stopped:
				return
			case ctx.Err() != nil:
				yield(hostctl.Event{}, ctx.Err())
				return
			case err != nil && !retries(err) && !isLogout(err) && !isGone(err):
				yield(hostctl.Event{}, err)
				return
			case w.over():
				return
			}
			if c.now().Sub(began) > c.wait.most {
				pause = c.wait.least
			}
			if err != nil {
				c.log.Debug("watching again", "err", err, "dur", pause)
				sleep(ctx, pause)
				pause = min(2*pause, c.wait.most)
			}
		}
	}
}

// sleep waits for d or the context's end.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// watcher is one Watch.
type watcher struct {
	c       *Client
	all     []*watched
	yield   func(hostctl.Event, error) bool
	stopped bool
}

// over reports whether all VMs are gone: nothing more will happen to them.
func (w *watcher) over() bool {
	return !slices.ContainsFunc(w.all, func(v *watched) bool { return !v.gone })
}

// tell yields an event.
func (w *watcher) tell(v *watched, e hostctl.Event) {
	if w.stopped {
		return
	}
	e.VM, e.At, v.told = v.ref, w.c.now(), true
	w.stopped = !w.yield(e, nil)
}

// round finds the VMs, tells how they are, and waits for what happens to them.
// It ends with an error, or when a VM has gone.
func (w *watcher) round(ctx context.Context) error {
	filter := new(property.WaitFilter)
	byID := map[string]*watched{}
	for _, v := range w.all {
		if v.gone || w.stopped {
			continue
		}
		vm, _, err := w.c.resolve(ctx, v.ref)
		switch {
		case isGone(err):
			w.lost(v)
			continue
		case err != nil:
			return err
		}
		v.ref.ID, v.ref.UUID, v.ref.Name = vm.ID, vm.UUID, vm.Name
		v.ref.Host = w.c.cfg.Name
		w.state(v, vm.Power, vm.Disks)
		byID[vm.ID] = v
		filter.Add(vmRef(vm.ID), "VirtualMachine", []string{"runtime.powerState", "config.hardware.device"})
	}
	if w.stopped || len(byID) == 0 {
		return nil
	}
	filter.Spec.PropSet = filter.Spec.PropSet[:1] // one for all of them
	return w.c.observe(ctx, "watch VMs", func(l *link) error {
		return updates(ctx, l, filter.CreateFilter, func(all []types.ObjectUpdate) bool {
			again := false
			for i := range all {
				if v := byID[all[i].Obj.Value]; v != nil {
					again = w.change(v, &all[i]) || again
				}
			}
			return again || w.stopped
		})
	})
}

// lost tells once that a VM is gone.
func (w *watcher) lost(v *watched) {
	v.gone = true
	w.tell(v, hostctl.Event{Gone: true, Text: "it is not on the host any more"})
}

// change takes one notice of the host. It answers true when the VMs have to be
// found again.
func (w *watcher) change(v *watched, u *types.ObjectUpdate) (again bool) {
	if u.Kind == types.ObjectUpdateKindLeave {
		return true
	}
	p, d := v.power, v.disks
	for _, ch := range u.ChangeSet {
		switch val := ch.Val.(type) {
		case types.VirtualMachinePowerState:
			p = power(val)
		case types.ArrayOfVirtualDevice:
			d = disks(val.VirtualDevice)
		default:
			again = again || ch.Name != "runtime.powerState" // a part of the devices: read them whole
		}
	}
	w.state(v, p, d)
	return again
}

// state tells what differs from what was known; all, the first time.
func (w *watcher) state(v *watched, p hostctl.Power, d []hostctl.Disk) {
	moved := diskChange(v.disks, d)
	if v.told && p == v.power && moved == "" {
		return
	}
	e := hostctl.Event{Power: p, Text: "it is " + powerWord(p)}
	if v.told && moved != "" {
		e.Disks, e.Text = true, moved
		if p != v.power {
			e.Text += "; it is " + powerWord(p)
		}
	}
	v.power, v.disks = p, d
	w.tell(v, e)
}

func powerWord(p hostctl.Power) string {
	if p == hostctl.PowerUnknown {
		return "in an unknown power state"
	}
	return p.String()
}

// diskChange says how the disks differ, or nothing.
func diskChange(was, are []hostctl.Disk) string {
	byKey := map[int32]hostctl.Disk{}
	for _, d := range was {
		byKey[d.Key] = d
	}
	for _, d := range are {
		switch old, ok := byKey[d.Key]; {
		case !ok:
			return "disk " + d.Label + " was added"
		case old.Size != d.Size:
			return "disk " + d.Label + " has another size"
		case old.UUID != d.UUID || old.File != d.File:
			return "disk " + d.Label + " has another backing: " + d.File
		}
		delete(byKey, d.Key)
	}
	for _, d := range byKey {
		return "disk " + d.Label + " was removed"
	}
	return ""
}
