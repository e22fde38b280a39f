package failback

import (
	"context"
	"errors"
	"fmt"

	"github.com/haulback/haulback/hostctl"
)

// registerStep puts the new VM into the inventory, when its disks are complete
// (FB-21).
func registerStep(st step) step {
	st.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		h, err := r.e.host(c.Status.Target.Host)
		if err != nil {
			return sight{}, err
		}
		vm, err := h.Compute.Find(ctx, hostctl.Query{Path: c.Facts.TargetVM.Path})
		if errors.Is(err, hostctl.ErrNotFound) {
			return sight{seen: "not in the inventory"}, nil
		} else if err != nil {
			return sight{}, err
		}
		vm.Host = h.Name
		return sight{there: true, seen: vm.ID, save: func(c *record) {
			c.Status.Target, c.Facts.Unlisted = vm.Ref, false
			c.Facts.TargetVM = slim(vm)
		}}, nil
	}
	st.act = onHost(theTarget, func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error {
		var place hostctl.Placement
		if c.Status.Spec.New != nil {
			place = c.Status.Spec.New.Place
		}
		_, err := h.Registry.Register(ctx, op, c.Facts.TargetVM.Path, place)
		return err
	})
	return st
}

// networksStep connects the NICs of an existing VM as asked.
func networksStep(st step) step {
	st.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		vm, err := r.find(ctx, c.target())
		if err != nil {
			return sight{}, err
		}
		for _, n := range vm.NICs {
			if to, ok := c.Status.Spec.Networks[n.Network]; ok && to != n.Network {
				return sight{seen: n.Label + " at " + n.Network}, nil
			}
		}
		return sight{there: true, seen: "as asked"}, nil
	}
	st.act = onHost(theTarget, func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error {
		if h.Registry == nil {
			return halting(ReasonNoAbility, "connect them on the host, then continue", "host %s cannot connect networks", h.Name)
		}
		return h.Registry.Rebind(ctx, op, c.target(), c.Status.Spec.Networks)
	})
	return st
}

// rebindStep makes the target the VM's original, in one change (FB-18).
func rebindStep(st step) step {
	st.undo = "the former original is put back"
	return onPair(st, func(p *Pair, c *record) bool { return sameVM(p.Original, c.Status.Target) },
		func(p *Pair, c *record) {
			former := p.Original
			p.Former, p.Original = &former, c.Status.Target
			p.Disks = nil
			for _, i := range c.moved() {
				p.Disks = append(p.Disks, DiskPair{Replica: c.Status.Disks[i].Replica.UUID, Original: c.Status.Disks[i].Target.UUID})
			}
		}, nil)
}

// unmarkStep takes the mark away that keeps people from starting the target.
func unmarkStep(st step) step {
	return mark(st, theTarget, hostctl.MarkInconsistent, noMarkAtAll).before(func(_ context.Context, r *run, c *record) error {
		if r.e.bugs.ungated {
			return nil
		}
		return proved(c)
	})
}

// powerOnStep is step 9. The gate is the durable record, not the memory of this
// process; and the replica is off right before (never two).
func powerOnStep(st step) step {
	return power(st, theTarget, hostctl.On, atOnce).before(func(ctx context.Context, r *run, c *record) error {
		if r.e.bugs.ungated {
			return nil
		}
		if err := proved(c); err != nil {
			return err
		}
		if c.Status.State != Failback {
			return halting(ReasonUnproved, "this is a bug of haulback: undo", "step 9 before state Failback")
		}
		if err := r.formerOff(ctx, c); err != nil {
			return err
		}
		return r.mustBeOff(ctx, c.replica(), "the replica")
	})
}

// formerOff refuses to start a VM beside an original that is not the target. One
// whose host is gone does not keep anybody from being served.
func (r *run) formerOff(ctx context.Context, c *record) error {
	if c.Facts.OriginalVM == nil {
		return nil
	}
	err := r.mustBeOff(ctx, c.Status.Original, "the former original")
	if _, ok := errors.AsType[*stop](err); ok || err == nil {
		return err
	}
	r.e.c.Log.Warn("the former original cannot be looked at", "job", c.Status.ID, "vm", c.Status.Original.Name, "err", plain(err.Error()))
	return nil
}

// mustBeOff refuses to start a VM whose twin runs.
func (r *run) mustBeOff(ctx context.Context, ref hostctl.Ref, what string) error {
	vm, err := r.find(ctx, ref)
	if err != nil {
		return err
	}
	if vm.Power != hostctl.Off {
		return halting(ReasonTwoOn, "power one of them off on its host, then continue", "%s %s is %s: two of one VM would run", what, vm.Name, vm.Power)
	}
	return nil
}

// voided gives up a try of the switch: what users have written since is not in
// it. The next try begins at power-off.
func (r *run) voided(why string, forget func(*record)) error {
	const most = 5
	if r.get().Facts.Alarms >= most {
		return halting(ReasonPoweredOn, "find out who powers it on, then continue, cancel or undo", "%s, for the %dth time", why, most+1)
	}
	err := r.change(func(c *record) {
		now := r.e.now()
		c.warn("%s: the final pass is void and is made again", why)
		for _, s := range finalScript(c, c.Facts.Finals) {
			if row := c.row(s.name); row != nil {
				row.State, row.Ended, row.Text = Skipped, now, "void: "+why
			}
		}
		c.Facts.Finals++
		c.Facts.Alarms++
		if forget != nil {
			forget(c)
		}
		for _, i := range c.moved() {
			c.Status.Disks[i].Verified = false
		}
	})
	if err != nil {
		return err
	}
	r.e.c.Log.Warn("the final pass is void", "job", r.get().Status.ID, "reason", why)
	return errVoid
}

// errVoid makes the driver look at the script anew.
var errVoid = fmt.Errorf("failback: the final pass is void: %w", errTurn)
