package failback

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
)

// begin writes the terminal row: from here a failback only goes forward, to its
// end.
func (c *record) begin(a Activity, number int, by string, e *Engine) {
	names := map[Activity]string{Committing: "commit", Undoing: "undo", Canceling: "cancel"}
	now := e.now()
	c.Status.Activity, c.Status.Halted, c.Status.Wait = a, nil, ""
	c.decided(e, names[a], by, "")
	text := names[a] + " was decided"
	if by != "" {
		text += " by " + plain(by)
	}
	c.Status.Steps = append(c.Status.Steps, Step{Name: names[a], Number: number, State: Done, Epoch: e.fence, Began: now, Ended: now, Text: text})
}

// commitScript is what a commit does: the target works, go back to it.
func commitScript(c *record) []step {
	rep, tgt := c.Status.Replica, c.Status.Target
	st := func(name, text string, of hostctl.Ref) step {
		return step{name: "commit-" + name, number: 10, activity: Committing, text: text}.of(of)
	}
	var list []step
	if c.Facts.Rollback != "" || c.began("protect-target") {
		list = append(list, release(st("unprotect-target", "remove the rollback snapshot of "+tgt.Name, tgt), theTarget, rollback, nil))
	}
	list = append(list, release(st("release-tracking", "remove tracking snapshots that are left", rep), theReplica, trackingSnapshot(""), nil))
	if c.Facts.Commit.DeleteProtective {
		list = append(list, release(st("delete-protective", "remove the protective snapshot of "+rep.Name, rep), theReplica, protective, nil))
	}
	list = append(list, resetStep(st("reset-tracking", "reset change tracking of "+tgt.Name+": it does not know what was written from outside; the next backup and replication of it read everything once", tgt)))
	list = append(list, released(c, st)...)
	list = append(list, replication(st("release-replication", "let replication of "+c.Status.Spec.VM+" go on", tgt),
		func(ctx context.Context, p Replication, pair *Pair, id string) error { return p.Release(ctx, pair, id) }))
	return append(list, onPair(
		st("state", "state of "+c.Status.Spec.VM+": Failback -> Ready", tgt),
		func(p *Pair, _ *record) bool { return p.State == Ready && p.Held == "" && p.Former == nil },
		func(p *Pair, _ *record) {
			p.State, p.Held = Ready, ""
			if p.Former != nil {
				p.Excluded, p.Former = append(p.Excluded, *p.Former), nil
			}
		},
		func(c *record) { c.Status.State = Ready },
	))
}

// rollback picks the rollback snapshot of a run, also one that was not finished.
func rollback(c *record, s *hostctl.Snapshot) bool {
	return strings.HasPrefix(s.Name, hostctl.SnapshotName(&hostctl.Op{Run: c.Status.Run, Step: "protect-target"}))
}

// released gives both VMs back to their hosts.
func released(c *record, st func(name, text string, of hostctl.Ref) step) (list []step) {
	one := func(what string, ref hostctl.Ref, of who) {
		if c.began("claim-" + what) {
			list = append(list, mark(st("unclaim-"+what, "take the mark of this run off "+ref.Name, ref), of, hostctl.MarkRun, noMarkAtAll))
		}
		if c.began("guard-" + what) {
			list = append(list, guard(st("unguard-"+what, "let the host move "+ref.Name+" again", ref), of, false))
		}
	}
	one("target", c.Status.Target, theTarget)
	one("replica", c.Status.Replica, theReplica)
	return list
}

// resetStep drops what the target's own tracking believes.
func resetStep(st step) step {
	st.optional = true
	st.observe = func(_ context.Context, r *run, c *record) (sight, error) {
		h, err := r.e.host(c.target().Host)
		if err != nil {
			return sight{}, err
		}
		row := c.row(st.name)
		return sight{there: h.Tracker == nil || row != nil && row.Task == asked, seen: "not known"}, nil
	}
	st.act = onHost(theTarget, func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error {
		if err := h.Tracker.ResetTracking(ctx, op, c.target()); err != nil {
			return err
		}
		return op.Started(asked)
	})
	return st
}

// backScript takes a failback back: 11 from state Failback (undo), 12 from before
// (cancel). The replica comes first: it is the production VM. Only what the
// journal says was begun is taken back.
func backScript(c *record, number int) (list []step) {
	rep, tgt, spec := c.Status.Replica, c.Status.Target, &c.Status.Spec
	prefix := map[int]string{11: "undo-", 12: "cancel-"}[number]
	st := func(name, text string, of hostctl.Ref) step {
		return step{name: prefix + name, number: number, activity: c.Status.Activity, text: text}.of(of)
	}
	made := spec.Destination == New
	listed := !c.Facts.Unlisted && (!made || c.Facts.TargetVM.Path != "" && c.row("create-target") != nil && c.row("create-target").Task == asked)
	if listed && (c.began("power-off-target") || made) {
		list = append(list, power(st("power-off-target", "power off "+tgt.Name, tgt), theTarget, hostctl.Off, graceOf))
	}
	if number == 11 {
		list = append(list, restoreStep(st(restoreReplica, "revert "+rep.Name+" to its protective snapshot, and compare", rep), theReplica,
			func(c *record) string { return c.Facts.Protective }, replicaDisks))
	}
	list = append(list, pairBack(st("rebind", "the original of "+spec.VM+" is "+c.Status.Original.Name+"; state Failover", rep)))
	if c.began("hold-replication") {
		list = append(list, replication(st("release-replication", "let go of replication of "+spec.VM, rep),
			func(ctx context.Context, p Replication, pair *Pair, id string) error { return p.Release(ctx, pair, id) }))
	}
	if c.poweredOff() && c.Facts.ReplicaOn {
		on := st("power-on-replica", "power on "+rep.Name, rep)
		if number == 11 && c.Facts.Undo.KeepOff {
			on.skip = "asked for: the replica stays off"
		}
		list = append(list, replicaOn(on))
	}
	list = append(list, release(st("release-snapshots", "remove the snapshots of this run from "+rep.Name, rep), theReplica,
		func(c *record, s *hostctl.Snapshot) bool {
			return trackingSnapshot("")(c, s) || protective(c, s)
		}, nil))
	list = append(list, targetBack(c, st, listed)...)
	list = append(list, released(c, st)...)
	for i := range list {
		if strings.HasSuffix(list[i].name, "-target") {
			list[i] = list[i].without()
		}
	}
	return list
}

// without lets the way back end where the target is not on its host any more: it
// was deleted, and an operator who knows that has continued.
func (s step) without() step {
	observe := s.observe
	s.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		if c.Facts.TargetGone {
			if _, err := r.find(ctx, c.target()); errors.Is(err, hostctl.ErrNotFound) {
				return sight{there: true, seen: "the VM is not there", save: func(c *record) {
					c.warn("the target %s is not on host %s any more: the failback was taken back without it", c.Status.Target.Name, c.Status.Target.Host)
				}}, nil
			}
		}
		return observe(ctx, r, c)
	}
	return s
}

// poweredOff reports whether the replica may have been powered off.
func (c *record) poweredOff() bool { return c.Facts.Finals > 0 }

// replicaOn starts the replica again: never beside its twin.
func replicaOn(st step) step {
	return power(st, theReplica, hostctl.On, atOnce).before(func(ctx context.Context, r *run, c *record) error {
		if err := r.formerOff(ctx, c); err != nil {
			return err
		}
		if c.Facts.Unlisted {
			return nil
		}
		err := r.mustBeOff(ctx, c.target(), "the target")
		if errors.Is(err, hostctl.ErrNotFound) {
			return nil // what is not there does not run
		}
		return err
	})
}

// pairBack puts the pair back as it was.
func pairBack(st step) step {
	return onPair(
		st,
		func(p *Pair, c *record) bool { return p.State == Failover && p.Held == "" && p.Former == nil },
		func(p *Pair, c *record) {
			p.State, p.Held = Failover, ""
			if p.Former != nil {
				p.Original, p.Former, p.Disks = *p.Former, nil, c.Facts.FormerDisks
			}
		},
		func(c *record) { c.Status.State = Failover },
	)
}

// targetBack makes the target what it was before the failback.
func targetBack(c *record, st func(name, text string, of hostctl.Ref) step, listed bool) (list []step) {
	tgt := c.Status.Target
	if c.Status.Spec.Destination == New {
		if c.began("create-target") {
			list = append(list, destroyStep(st("destroy-target", "delete the new VM "+tgt.Name+" with its disks", tgt)))
		}
		return list
	}
	if c.began("mark-target") {
		restore := restoreStep(st(restoreTarget, "revert "+tgt.Name+" to its rollback snapshot, and compare", tgt), theTarget,
			func(c *record) string { return c.Facts.Rollback }, targetDisks)
		if c.Facts.Rollback == "" {
			restore.skip = "there is no rollback point: the target keeps what was written, and the mark that says so"
		} else if c.Facts.Pass == 0 {
			restore.skip = "nothing was written to it"
		}
		if restore.skip == "" { // it may have been taken away in step 9
			list = append(list, mark(st("mark-target", "mark "+tgt.Name+" as inconsistent until it is reverted", tgt), theTarget, hostctl.MarkInconsistent, halfMark))
		}
		list = append(list, restore)
	}
	if c.began("protect-target") {
		list = append(list, release(st("unprotect-target", "remove the rollback snapshot of "+tgt.Name, tgt), theTarget, rollback, nil))
	}
	if listed && c.began("mark-target") {
		unmark := mark(st("unmark-target", "take the mark of an inconsistent VM off "+tgt.Name, tgt), theTarget, hostctl.MarkInconsistent, noMarkAtAll)
		if c.Facts.Rollback == "" && c.Facts.Pass > 0 {
			unmark.skip = "its disks are half overwritten: the mark stays"
		}
		list = append(list, unmark)
	}
	return list
}

func replicaDisks(c *record, i int) *hostctl.Disk { return &c.Status.Disks[i].Replica }
func targetDisks(c *record, i int) *hostctl.Disk  { return &c.Status.Disks[i].Target }

// restoreStep makes the disks of a VM what they were at a snapshot. The host is
// asked first and not believed: every disk is compared with the snapshot, and
// moved back where it differs. What the host cannot do at all is moved.
func restoreStep(st step, of who, id func(*record) string, disk func(*record, int) *hostctl.Disk) step {
	st.observe = func(_ context.Context, r *run, c *record) (sight, error) {
		return sight{there: c.Facts.Proof[st.name] != "", seen: "not compared", save: func(c *record) {
			if row := c.row(st.name); row != nil {
				row.Text += ": " + c.Facts.Proof[st.name]
			}
		}}, nil
	}
	st.act = func(ctx context.Context, r *run, c *record, op *hostctl.Op) error {
		ref := of(c)
		vm, err := r.find(ctx, ref)
		if err != nil {
			return err
		}
		if vm.Power != hostctl.Off {
			return halting(ReasonPoweredOn, "power it off, then continue", "VM %s was powered on from outside: it cannot be reverted", vm.Name)
		}
		snapshot := snapshotID(&vm, id(c))
		if snapshot == nil {
			return halting(ReasonSnapshotGone, asItIsRemedy(st.name), "snapshot %s of VM %s is gone: it cannot be made what it was", id(c), vm.Name)
		}
		// A pass of an earlier try may be Verified: it says nothing of what the
		// host does to the disks now.
		if err := r.change(func(c *record) { c.Facts.Pass++ }); err != nil {
			return &again{err.Error()}
		}
		c = r.get()
		out, done := r.outside(ctx)
		defer done()
		said := r.revert(out, op, ref, snapshot)
		if retryable(said) {
			return said
		}
		moved := 0
		err = r.watched(out, []hostctl.Ref{ref}, func(ctx context.Context) error {
			if vm, err = r.find(ctx, ref); err == nil {
				moved, err = r.moveBack(ctx, c, &vm, snapshot, disk, proofOf(c, st.name))
			}
			return err
		})
		if err != nil {
			return err
		}
		if sameVM(ref, c.Status.Replica) { // the target keeps its mark for a later step
			if err := r.markHalf(out, ref, ""); err != nil {
				return err
			}
		}
		how := "reverted by the host, compared and equal"
		if said != nil {
			how = fmt.Sprintf("the host did not revert it (%s); %d disks were moved back and verified", plain(said.Error()), moved)
		} else if moved > 0 {
			how = fmt.Sprintf("the host said that it was reverted and it was not: %d disks were moved back and verified", moved)
		}
		err = r.change(func(c *record) {
			c.Facts.Proof[st.name] = how
			if moved > 0 {
				c.warn("%s: %s", st.name, how)
			}
		})
		if err != nil {
			return &again{err.Error()}
		}
		return nil
	}
	return st
}

// markHalf puts the mark of an inconsistent VM on it, or takes it off. A revert
// has taken an earlier one away where the host keeps marks in the configuration.
func (r *run) markHalf(ctx context.Context, ref hostctl.Ref, value string) error {
	vm, err := r.find(ctx, ref)
	if err != nil || vm.Marks[hostctl.MarkInconsistent] == value {
		return err
	}
	h, err := r.e.host(ref.Host)
	if err != nil {
		return err
	}
	op := &hostctl.Op{Run: r.get().Status.Run, Step: "mark-half", Started: func(string) error { return nil }}
	return h.Compute.Mark(ctx, op, ref, hostctl.MarkInconsistent, value)
}

// The steps of the way back that need a snapshot.
const (
	restoreReplica = "restore-replica"
	restoreTarget  = "restore-target"
)

func asItIsRemedy(step string) string {
	if strings.HasSuffix(step, restoreTarget) {
		return "continue leaves it as it is, off and marked as inconsistent: restore it from a backup, or fail back onto it again"
	}
	return "look at the VM; continue takes it as it is, which nothing proves"
}

// asItIs goes on without a snapshot that somebody removed or wrote to, because an
// operator says so: there is no other way to the end, and nobody serves meanwhile.
func (c *record) asItIs(step string) {
	switch {
	case strings.HasSuffix(step, restoreTarget):
		c.Facts.Rollback = "" // as if none had been made: the mark stays
		c.warn("the rollback point of %s is gone: its disks are half overwritten, and it stays marked as inconsistent", c.Status.Target.Name)
	case strings.HasSuffix(step, restoreReplica):
		c.Facts.Proof[step] = "not proved: its protective snapshot is gone or is not what it was, and it was taken as it is"
		c.warn("the protective snapshot of %s is gone or is not what it was: it was taken as it is, and nothing proves that it is what it was", c.Status.Replica.Name)
	}
}

// revert asks the host.
func (r *run) revert(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, s *hostctl.Snapshot) error {
	h, err := r.e.host(ref.Host)
	if err != nil {
		return err
	}
	return h.Storage.Restore(ctx, op, ref, s.ID)
}

// proofOf is the root that each disk had when a step's snapshot was made; zero
// where nothing recorded it. The final pass has read the protective snapshot
// whole, or it has no root.
func proofOf(c *record, step string) func(i int) cbt.Digest {
	return func(i int) cbt.Digest {
		p := lastPass(&c.Status.Disks[i])
		if !strings.HasSuffix(step, restoreReplica) || p == nil || !p.Final || !p.Verified || p.Counters.Skipped > 0 {
			return cbt.Digest{}
		}
		return p.Root
	}
}

// moveBack compares every disk with the snapshot, and moves what differs. Some
// hosts let snapshots be written: one that is not what the run has read any more
// brings nothing back.
func (r *run) moveBack(
	ctx context.Context, c *record, vm *hostctl.VM, s *hostctl.Snapshot, disk func(*record, int) *hostctl.Disk, proof func(int) cbt.Digest,
) (moved int, err error) {
	as := func(i int, root cbt.Digest) error {
		if want := proof(i); want != (cbt.Digest{}) && root != (cbt.Digest{}) && root != want {
			return halting(ReasonSnapshotGone, asItIsRemedy(restoreReplica), "snapshot %s of VM %s, disk %s, is not what the final pass has read of it (%x, now %x): somebody wrote to it",
				s.ID, vm.Name, disk(c, i).Label, want[:8], root[:8])
		}
		return nil
	}

	for _, i := range c.moved() {
		is := disk(c, i)
		from, ok := diskOf(s.Disks, is)
		to, ok2 := diskOf(vm.Disks, is)
		if !ok || !ok2 {
			return moved, halting(ReasonDrift, "put the VM back as it was, then continue", "VM %s or its snapshot has no disk %s any more", vm.Name, is.Label)
		}
		m := &Move{
			Run: diskRun(c, i), Pass: c.Facts.Pass, Fence: r.e.fence, VM: c.Status.Spec.VM, Sample: 1, Unproved: true,
			Source: Place{VM: vm.Ref, Snapshot: s.ID, Disk: from}, Target: Place{VM: vm.Ref, Disk: to},
			Limits: r.limits, Priority: job.High,
			Progress: func(n job.Counters) { r.live[i].progress(n, r.e.now()) }, Event: r.live[i].event,
		}
		l, err := r.e.c.Mover.Compare(ctx, m)
		if err != nil {
			return moved, fmt.Errorf("compare disk %s of %s with its snapshot: %w", is.Label, vm.Name, err)
		}
		if l.Equal && (l.Compared > 0 || is.Size == 0) {
			if err := as(i, l.Root); err != nil {
				return moved, err
			}
			continue
		}
		if err := r.markHalf(ctx, vm.Ref, halfMark(c, r.e)); err != nil { // before the first byte is written
			return moved, err
		}
		out, err := r.e.c.Mover.Move(ctx, m)
		if err != nil {
			return moved, fmt.Errorf("move disk %s of %s back: %w", is.Label, vm.Name, err)
		}
		if !out.Verified {
			return moved, halting(ReasonUnproved, "look at the disk, then continue", "disk %s of %s was moved back and is not Verified", is.Label, vm.Name)
		}
		if err := as(i, out.Root); err != nil {
			return moved, err
		}
		moved++
	}
	return moved, nil
}

// destroyStep deletes what create-target has made.
func destroyStep(st step) step {
	st.observe = func(_ context.Context, r *run, c *record) (sight, error) {
		row := c.row(st.name)
		return sight{there: row != nil && row.Task == asked, seen: "not deleted"}, nil
	}
	st.act = onHost(theTarget, func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error {
		path := c.Facts.TargetVM.Path
		if path == "" { // create-target was cut off: what it made is found by asking for it again
			vm, err := h.Registry.Create(ctx, &hostctl.Op{Run: op.Run, Step: "create-target", Started: func(string) error { return nil }}, newVM(c, r.e.c.Mover.Registered(h.Name)))
			if err != nil {
				return err
			}
			path = vm.Path
		}
		if err := h.Registry.Destroy(ctx, op, path); err != nil && !errors.Is(err, hostctl.ErrNotFound) {
			return err
		}
		return op.Started(asked)
	})
	return st
}
