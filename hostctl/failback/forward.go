package failback

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/haulback/haulback/hostctl"
)

// prepareScript is what comes before the first pass: nothing of it hurts the
// replica, and nothing is overwritten.
func prepareScript(c *record) []step {
	rep, tgt := c.Status.Replica, c.Status.Target
	st := func(name string, text string) step {
		return step{name: name, number: 1, activity: Preparing, text: text, slot: true}
	}
	set := func(s step, undo string) step { s.undo = undo; return s }
	list := []step{
		mark(set(st("claim-replica", "mark "+rep.Name+" as used by this run").of(rep), "the mark is taken away"), theReplica, hostctl.MarkRun, runMark),
		guard(set(st("guard-replica", "keep the host from moving "+rep.Name).of(rep), "the host may again"), theReplica, true),
	}
	if c.Facts.OriginalVM != nil {
		o := c.Status.Original
		list = append(list, power(set(st("power-off-original", fmt.Sprintf("power off %s, which is not the target (%s)", o.Name, graceWord(c))).of(o), "it stays off"), theOriginal, hostctl.Off, graceOf))
	}
	if c.Status.Spec.Destination == New {
		list = append(list, createStep(c, set(st("create-target", fmt.Sprintf("make VM %s on %s with %d empty disks", tgt.Name, tgt.Host, len(c.moved()))).of(tgt), "it is deleted with its disks")))
		if c.Facts.Unlisted {
			return list // nobody can start it: it needs neither mark nor guard
		}
		return append(list, markHalf(c, st))
	}
	list = append(
		list,
		mark(set(st("claim-target", "mark "+tgt.Name+" as used by this run").of(tgt), "the mark is taken away"), theTarget, hostctl.MarkRun, runMark),
		guard(set(st("guard-target", "keep the host from moving "+tgt.Name).of(tgt), "the host may again"), theTarget, true),
		power(set(st("power-off-target", fmt.Sprintf("power off %s (%s)", tgt.Name, graceWord(c))).of(tgt), "it stays off: the replica serves"), theTarget, hostctl.Off, graceOf),
	)
	protectTarget := protect(set(st("protect-target", "take a rollback snapshot of "+tgt.Name).of(tgt), "it is removed"), theTarget, func(c *record, s *hostctl.Snapshot) { c.Facts.Rollback = s.ID })
	if c.Status.Spec.NoRollback {
		protectTarget.skip = "asked for: no rollback point; if the failback fails, the target is no usable VM"
	}
	return append(list, protectTarget, markHalf(c, st))
}

// markHalf says on the target that its disks are about to be overwritten.
func markHalf(c *record, st func(name, text string) step) step {
	tgt := c.Status.Target
	s := st("mark-target", "mark "+tgt.Name+" as inconsistent until it is verified").of(tgt)
	s.undo = "taken away when its disks are what they were"
	return mark(s, theTarget, hostctl.MarkInconsistent, halfMark)
}

// createStep makes the target of destination new.
func createStep(_ *record, st step) step {
	st.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		row := c.row("create-target")
		return sight{there: row != nil && row.Task == asked, seen: "no VM of this run"}, nil
	}
	st.act = func(ctx context.Context, r *run, c *record, op *hostctl.Op) error {
		h, err := r.e.host(c.Status.Target.Host)
		if err != nil {
			return err
		}
		if h.Registry == nil {
			return halting(ReasonNoAbility, "choose another host or destination", "host %s can make no VM", h.Name)
		}
		out, done := r.outside(ctx)
		defer done()
		listed := r.e.c.Mover.Registered(h.Name)
		vm, err := h.Registry.Create(out, op, newVM(c, listed))
		if err != nil {
			return err
		}
		vm.Host = h.Name
		return r.created(ctx, vm, listed)
	}
	return st
}

func newVM(c *record, listed bool) hostctl.NewVM {
	spec := &c.Status.Spec
	vm := hostctl.NewVM{
		Name: c.Status.Target.Name, Like: c.Facts.ReplicaVM, Networks: spec.Networks,
		Connected: !spec.Isolated, Registered: listed,
	}
	vm.Like.Name = vm.Name
	if spec.New != nil {
		vm.Place = spec.New.Place
	}
	for _, i := range c.moved() {
		d := &c.Status.Disks[i]
		vm.Disks = append(vm.Disks, hostctl.NewDisk{Like: d.Replica, Size: d.Target.Size, Datastore: d.Target.Datastore, Thin: d.Target.Thin})
	}
	return vm
}

// created takes a new VM into the record, with its disks claimed.
func (r *run) created(ctx context.Context, vm hostctl.VM, listed bool) error {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	moved := r.rec.moved()
	if len(vm.Disks) != len(moved) {
		return halting(ReasonDrift, "look at the VM on the host, then cancel", "the new VM %s has %d disks, not %d", vm.Name, len(vm.Disks), len(moved))
	}
	if err := r.e.claim(ctx, r.rec.Status.ID, &vm); err != nil {
		return err
	}
	return r.e.change(r, func(c *record) {
		c.Status.Target, c.Facts.TargetVM, c.Facts.Unlisted = vm.Ref, slim(vm), !listed
		for _, i := range moved {
			d := &c.Status.Disks[i]
			for _, made := range vm.Disks { // by label: they were made with those of the replica
				if made.Label == d.Replica.Label {
					d.Target, d.Matched = made, "made from it"
				}
			}
		}
		if row := c.row("create-target"); row != nil {
			row.Task = asked
		}
	})
}

// slim is what a record keeps of a VM.
func slim(vm hostctl.VM) hostctl.VM {
	vm.Snapshots, vm.Marks, vm.Disabled, vm.Question, vm.Busy = nil, nil, nil, "", ""
	return vm
}

// syncScript is pass n, from a snapshot of the running replica.
func syncScript(c *record, n int) (list []step) {
	rep := c.Status.Replica
	st := func(name, text string, number int) step {
		activity := Syncing
		if n == 1 && number == 2 {
			activity = Preparing
		}
		return step{name: name, number: number, activity: activity, text: text, slot: true}.of(rep)
	}
	if n == 1 {
		on := st("enable-tracking", "turn change tracking on for "+rep.Name, 2)
		on.optional, on.undo = true, "it stays on"
		list = append(list, trackingStep(c, on))
	} else {
		list = append(list, release(
			st(fmt.Sprintf("replace-tracking-%d", n-1), "remove the snapshot of the pass before", 2), theReplica,
			trackingSnapshot(fmt.Sprintf("track-replica-%d", n)), nil,
		))
	}
	track := st(fmt.Sprintf("track-replica-%d", n), "take a snapshot of "+rep.Name+" to read from; what changes after it is tracked", 2)
	track.undo = "it is removed"
	list = append(list, protect(track, theReplica, keepPoint(func(c *record, s *hostctl.Snapshot) { c.Facts.Tracking = s.ID })))
	if n == 1 && c.Status.Spec.Destination != New {
		list = append(list, pairStep(st("pair-disks", "compare samples of the disks, to be sure that each goes to its own counterpart; nothing is written", 2)))
	}
	pass := st(fmt.Sprintf("pass-%d", n), passText(c, n), 3)
	pass.loses = losesText(c)
	pass.undo = backText(c)
	return append(list, passStep(pass, false))
}

// losesText is what passes overwrite; a plan says it once.
func losesText(c *record) string {
	return fmt.Sprintf("what differs on %d disks of %s", len(c.moved()), c.Status.Target.Name)
}

func backText(c *record) string {
	switch {
	case c.Status.Spec.Destination == New:
		return "the new VM is deleted"
	case c.Status.Spec.NoRollback:
		return "none: there is no rollback point"
	}
	return "the target is reverted to its rollback snapshot, and compared with it"
}

func passText(c *record, n int) string {
	if n > 1 {
		return fmt.Sprintf("pass %d: compare and move what the replica has changed since", n)
	}
	return fmt.Sprintf("pass 1: compare %d disks, move what differs; the replica serves on", len(c.moved()))
}

// keepPoint remembers the change IDs of a snapshot's disks.
func keepPoint(keep func(*record, *hostctl.Snapshot)) func(*record, *hostctl.Snapshot) {
	return func(c *record, s *hostctl.Snapshot) {
		keep(c, s)
		c.Facts.Points = make([]string, len(c.Status.Disks))
		c.Facts.PointAt = s.Created
		for i, d := range c.Status.Disks {
			for _, of := range s.Disks {
				if diskID(&of) == diskID(&d.Replica) {
					c.Facts.Points[i] = of.ChangeID
				}
			}
		}
	}
}

// trackingSnapshot picks the tracking snapshots of a run, but for one.
func trackingSnapshot(but string) func(*record, *hostctl.Snapshot) bool {
	return func(c *record, s *hostctl.Snapshot) bool {
		rest, ok := strings.CutPrefix(s.Name, hostctl.SnapshotPrefix+c.Status.Run+"-")
		return ok && strings.HasPrefix(rest, "track-replica-") && rest != but
	}
}

func trackingStep(c *record, st step) step {
	if c.Facts.ReplicaVM.Tracking {
		st.skip = "it is on"
	} else if !c.Facts.ReplicaVM.CanTrack {
		st.skip = "the host cannot: every pass compares everything"
	}
	st.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		vm, err := r.find(ctx, c.replica())
		if err != nil {
			return sight{}, err
		}
		return sight{there: vm.Tracking, seen: fmt.Sprintf("tracking: %v", vm.Tracking)}, nil
	}
	st.act = onHost(theReplica, func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error {
		if h.Tracker == nil {
			return errors.New("the host has no change tracking")
		}
		return h.Tracker.EnableTracking(ctx, op, c.replica())
	})
	return st
}

// numbered is the name of a step of try k of the switch.
func numbered(name string, k int) string {
	if k > 1 {
		return fmt.Sprintf("%s-%d", name, k)
	}
	return name
}

// finalScript is try k of the switch, up to the final pass.
func finalScript(c *record, k int) []step {
	rep := c.Status.Replica
	st := func(name, text string, number int) step {
		return step{name: numbered(name, k), number: number, activity: Switching, text: text, slot: true}.of(rep)
	}
	off := st("power-off-replica", fmt.Sprintf("power off %s (%s); its users are without service from here", rep.Name, graceWord(c)), 4)
	off.undo = "it is powered on again"
	keep := st("protect-replica", "take the protective snapshot of "+rep.Name, 5)
	keep.undo = "an undo reverts to it; a commit keeps it as a restore point"
	old := st("release-tracking", "remove the snapshot of the last pass", 5)
	pass := st("final-pass", "final pass: compare and move what the replica has changed since, and verify every disk", 6)
	pass.loses, pass.undo = losesText(c), backText(c)
	mine := hostctl.SnapshotName(&hostctl.Op{Run: c.Status.Run, Step: keep.name})
	return []step{
		power(off, theReplica, hostctl.Off, graceOf),
		release(old, theReplica, func(c *record, s *hostctl.Snapshot) bool {
			return trackingSnapshot("")(c, s) || protective(c, s) && s.Name != mine
		}, func(c *record) { c.Facts.Tracking = "" }),
		protect(keep, theReplica, keepPoint(func(c *record, s *hostctl.Snapshot) { c.Facts.Protective = s.ID })),
		passStep(pass, true),
	}
}

// protective picks the protective snapshots of a run.
func protective(c *record, s *hostctl.Snapshot) bool {
	return strings.HasPrefix(s.Name, hostctl.SnapshotPrefix+c.Status.Run+"-protect-replica")
}

// homeScript is what follows when every disk is Verified: steps 7 to 9.
func homeScript(c *record) []step {
	spec, tgt := &c.Status.Spec, c.Status.Target
	st := func(name, text string, number int) step {
		return step{name: name, number: number, activity: Switching, text: text, slot: true}.of(tgt)
	}
	list := []step{stateStep(st("state", "state of "+spec.VM+": Failover -> Failback; replication is refused from here", 7))}
	hold := st("hold-replication", "hold replication of "+spec.VM, 7)
	hold.undo = "it is released"
	list = append(list, replication(hold, func(ctx context.Context, p Replication, pair *Pair, id string) error { return p.Hold(ctx, pair, id) }))
	if spec.Destination == New && (c.Facts.Unlisted || c.began("register")) {
		list = append(list, registerStep(st("register", "register "+tgt.Name+" on "+tgt.Host, 8)))
	}
	if len(spec.Networks) > 0 && spec.Destination == Existing {
		list = append(list, networksStep(st("networks", "connect "+tgt.Name+" to its networks", 8)))
	}
	if spec.Destination != Original {
		list = append(list, rebindStep(st("rebind", fmt.Sprintf("%s is the original of %s from here; %s keeps its place for an undo", tgt.Name, spec.VM, c.Status.Original.Name), 8)))
	}
	list = append(list, unmarkStep(st("unmark-target", "take the mark of an inconsistent VM off "+tgt.Name, 9)))
	on := st("power-on", "power on "+tgt.Name, 9)
	on.undo = "it is powered off"
	if !spec.PowerOn {
		on.skip = "not asked for"
	}
	list = append(list, powerOnStep(on))
	left := st("release-leftovers", "remove tracking snapshots that are left", 9).of(c.Status.Replica)
	return append(list, release(left, theReplica, trackingSnapshot(""), nil))
}

// stateStep is the one place where a VM becomes Failback: every disk is Verified
// by the final pass, and both VMs are off.
func stateStep(st step) step {
	return onPair(st, func(p *Pair, c *record) bool { return p.State == Failback && p.Held == c.Status.ID },
		func(p *Pair, c *record) { p.State, p.Held = Failback, c.Status.ID },
		func(c *record) { c.Status.State = Failback },
	).before(func(ctx context.Context, r *run, c *record) error {
		if err := proved(c); err != nil && !r.e.bugs.ungated {
			return err
		}
		if c.Status.State == Failback {
			return nil
		}
		replica, target, err := r.both(ctx, c)
		if err != nil {
			return err
		}
		if (replica.Power != hostctl.Off || c.replicaRan()) && !r.e.bugs.keepReplicaOn {
			return r.voided("the replica "+replica.Name+" was powered on from outside after the final pass", nil)
		}
		if target.Power != hostctl.Off || c.Facts.TargetRan {
			return r.voided("the target "+target.Name+" was powered on from outside before it was home", (*record).distrust)
		}
		return nil
	})
}

// before adds something that has to be so before a step is looked at.
func (s step) before(f func(ctx context.Context, r *run, c *record) error) step {
	observe := s.observe
	s.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		if err := f(ctx, r, c); err != nil {
			return sight{}, err
		}
		return observe(ctx, r, r.get())
	}
	return s
}

// proved refuses what the final pass has not Verified, from the durable record.
func proved(c *record) error {
	for _, i := range c.moved() {
		d := &c.Status.Disks[i]
		if n := len(d.Passes); d.Verified && n > 0 && d.Passes[n-1].Final && d.Passes[n-1].Verified && d.Passes[n-1].Number == c.Facts.Pass {
			continue
		}
		if n := len(d.Passes); c.Status.Spec.PowerOnUnproved && n > 0 && d.Passes[n-1].Final && !d.Passes[n-1].Ended.IsZero() {
			continue
		}
		return halting(ReasonUnproved, "undo or cancel, and look at the disk", "disk %s is not Verified by the final pass", d.Label)
	}
	return nil
}
