package failback

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
)

// passStep is one pass of all disks. Each disk has its own outcome: it is stored
// as soon as it is known, a disk that is done is not done again, and one that
// fails stops no other.
func passStep(st step, final bool) step {
	st.observe = func(_ context.Context, r *run, c *record) (sight, error) {
		if c.Facts.PassStep != st.name {
			return sight{seen: "not begun"}, nil
		}
		done, all := 0, c.moved()
		for _, i := range all {
			if passed(c, i) {
				done++
			}
		}
		there := done == len(all) || r.e.bugs.trustPass && done > 0 || r.e.bugs.ungated && final
		return sight{there: there, seen: fmt.Sprintf("%d of %d disks", done, len(all)), save: func(c *record) {
			c.Facts.BaseBefore, c.Facts.BaseAt = c.Facts.BaseAt, c.Facts.PointAt
			c.Facts.Resync = false
			reckon(c, r.e.now())
		}}, nil
	}
	st.act = func(ctx context.Context, r *run, c *record, _ *hostctl.Op) error { return r.pass(ctx, st.name, final) }
	return st
}

// passed reports whether a disk is done with the current pass: moved, and its
// target Verified.
func passed(c *record, i int) bool {
	p := lastPass(&c.Status.Disks[i])
	if p == nil || p.Number != c.Facts.Pass {
		return false
	}
	return p.Verified || c.Status.Spec.PowerOnUnproved && p.Final && unproved(&c.Status.Disks[i]) && !p.Ended.IsZero()
}

// unproved is a disk that was copied whole, and does not read back as it should.
func unproved(d *Disk) bool { return d.Failure != nil && d.Failure.Exit == 4 }

func lastPass(d *Disk) *Pass {
	if len(d.Passes) == 0 {
		return nil
	}
	return &d.Passes[len(d.Passes)-1]
}

// pass does what is left of the current pass.
func (r *run) pass(ctx context.Context, name string, final bool) error {
	c, err := r.number(name)
	if err != nil {
		return err
	}
	replica, target, err := r.both(ctx, c)
	if err != nil {
		return err
	}
	if target.Power != hostctl.Off { // FB-10, H6
		if err := r.quell(ctx, &target); err != nil {
			return err
		}
		return &again{"the target was powered on from outside: the pass begins again"}
	}
	if final && (replica.Power != hostctl.Off || c.replicaRan()) && !r.e.bugs.keepReplicaOn { // FB-13
		return r.voided("the replica "+replica.Name+" was powered on from outside", nil)
	}
	if c.Facts.TargetRan { // and is off again: what it has written is unknown
		err := r.change(func(c *record) {
			c.warn("the target %s was powered on from outside while it was inconsistent: everything is compared again", target.Name)
			c.distrust()
			c.nextPass(name)
		})
		if err != nil {
			return &again{err.Error()}
		}
		c = r.get()
	}
	if !c.Facts.Unlisted && target.Marks[hostctl.MarkInconsistent] != c.Status.Run && !r.e.bugs.noMark {
		return halting(ReasonDrift, "find out who took it away, then cancel", "VM %s does not carry the mark haulback.%s of this run any more", target.Name, hostctl.MarkInconsistent)
	}
	id := c.Facts.Tracking
	if final {
		id = c.Facts.Protective
	}
	snapshot := snapshotID(&replica, id)
	if snapshot == nil {
		return halting(ReasonSnapshotGone, "cancel, and start again", "the snapshot %s of VM %s that the pass reads is gone", id, replica.Name)
	}
	watched := []hostctl.Ref{}
	if !c.Facts.Unlisted {
		watched = append(watched, target.Ref)
	}
	if final && !r.e.bugs.keepReplicaOn {
		watched = append(watched, replica.Ref)
	}
	err = r.watched(ctx, watched, func(ctx context.Context) error {
		return r.disks(ctx, c, snapshot, &target, final)
	})
	if a, ok := errors.AsType[*alarm](err); ok {
		if sameVM(a.vm, replica.Ref) {
			return r.voided("the replica "+replica.Name+" was powered on from outside", nil)
		}
		if target, err = r.find(ctx, target.Ref); err != nil {
			return err
		}
		if err := r.quell(ctx, &target); err != nil {
			return err
		}
		return &again{a.Error()}
	}
	return err
}

// number gives the pass of a step its number; it keeps it over restarts.
func (r *run) number(step string) (*record, error) {
	if c := r.get(); c.Facts.PassStep == step {
		return c, nil
	}
	err := r.change(func(c *record) { c.nextPass(step) })
	return r.get(), err
}

func (c *record) nextPass(step string) {
	c.Facts.Pass++
	c.Facts.PassStep = step
	for _, i := range c.moved() {
		c.Status.Disks[i].Verified = false
	}
}

// quell powers off a target that somebody has started while its disks are half
// overwritten. What it has written is unknown: the pass is void, and the next
// one compares everything.
func (r *run) quell(ctx context.Context, target *hostctl.VM) error {
	const most = 5
	c := r.get()
	if c.Facts.Alarms >= most {
		return halting(ReasonPoweredOn, "find out who powers it on, then continue or cancel", "the target %s was powered on from outside, for the %dth time", target.Name, most+1)
	}
	r.e.c.Log.Error("the target was powered on from outside while it is inconsistent", "job", c.Status.ID, "vm", target.Name)
	err := r.change(func(c *record) {
		c.warn("the target %s was powered on from outside while it was inconsistent: it is powered off, and everything is compared again", target.Name)
		c.Facts.Alarms++
		c.distrust()
		c.nextPass(c.Facts.PassStep)
	})
	if err != nil {
		return err
	}
	h, err := r.e.host(target.Host)
	if err != nil {
		return err
	}
	out, done := r.outside(ctx)
	defer done()
	op := &hostctl.Op{Run: c.Status.Run, Step: "power-off-target", Started: func(string) error { return nil }}
	return h.Compute.SetPower(out, op, target.Ref, hostctl.Off, 0)
}

// disks runs the pass of every disk that is not done with it.
func (r *run) disks(ctx context.Context, c *record, from *hostctl.Snapshot, target *hostctl.VM, final bool) error {
	turns, urgency := r.e.syncs, int(c.Status.Spec.Priority)
	if final {
		turns = r.e.last
	}
	var wg sync.WaitGroup
	errs := make([]error, len(c.Status.Disks))
	for _, i := range c.moved() {
		if passed(c, i) {
			continue
		}
		wg.Go(func() {
			if errs[i] = turns.take(ctx, urgency); errs[i] != nil {
				return
			}
			defer turns.give()
			errs[i] = r.move(ctx, c, i, from, target, final)
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	// What an operator has to look at is told before what passes by itself.
	slices.SortStableFunc(errs, func(a, b error) int { return rank(b) - rank(a) })
	return errs[0]
}

func rank(err error) int {
	switch {
	case err == nil:
		return 0
	case retryable(err):
		return 1
	}
	return 2
}

// move is the pass of one disk.
func (r *run) move(ctx context.Context, c *record, i int, from *hostctl.Snapshot, target *hostctl.VM, final bool) error {
	d := &c.Status.Disks[i]
	m := &Move{
		Run: diskRun(c, i), Pass: c.Facts.Pass, Fence: r.e.fence, VM: c.Status.Spec.VM,
		Source: Place{VM: c.replica(), Snapshot: from.ID}, Target: Place{VM: target.Ref},
		Full: final && c.Status.Spec.Full, Limits: r.limits, Priority: c.Status.Spec.Priority,
	}
	var ok bool
	if m.Source.Disk, ok = diskOf(from.Disks, &d.Replica); !ok {
		return halting(ReasonDrift, "cancel, and start again", "snapshot %s of VM %s has no disk %s", from.ID, c.replica().Name, d.Label)
	}
	if m.Target.Disk, ok = diskOf(target.Disks, &d.Target); !ok {
		return halting(ReasonDrift, "cancel, and start again", "VM %s has no disk %s", target.Name, d.Target.Label)
	}
	var p Pass
	m.Hint, p = r.hint(ctx, c, i, from, m.Source.Disk)
	p.Number, p.Final, p.Began, p.Epoch = c.Facts.Pass, final, r.e.now(), r.e.fence
	if err := r.change(func(c *record) { c.Status.Disks[i].begin(p) }); err != nil {
		return &again{err.Error()}
	}
	l := &r.live[i]
	m.Progress, m.Event = func(n job.Counters) { l.progress(n, r.e.now()) }, l.event
	l.begin()
	out, err := r.e.c.Mover.Move(ctx, m)
	if err == nil && !out.Verified {
		err = &job.Failure{Reason: job.ReasonChecksum, Text: "disk " + d.Label + ": the mover says done, and not that it is Verified", Retry: job.RetryAfterReconcile, Exit: 4}
	}
	stored := r.change(func(c *record) { c.outcome(i, m.Pass, &out, err, r.e.now(), l) })
	if err != nil {
		return fmt.Errorf("disk %s: %w", d.Label, err)
	}
	if stored != nil {
		return &again{stored.Error()}
	}
	return nil
}

// begin puts a pass into the disk's list, in the place of one with its number.
func (d *Disk) begin(p Pass) {
	d.Verified, d.Failure = false, nil
	if last := lastPass(d); last != nil && last.Number == p.Number {
		p.Began = last.Began
		*last = p
		return
	}
	d.Passes = append(d.Passes, p)
}

// outcome takes the end of a disk's pass into the record.
func (c *record) outcome(i int, number uint32, out *job.Outcome, err error, now time.Time, l *liveDisk) {
	d := &c.Status.Disks[i]
	p := lastPass(d)
	if p == nil || p.Number != number {
		return // it is void meanwhile
	}
	p.Counters, p.Verified, p.Root = out.Counters, err == nil && out.Verified, out.Root
	p.Used, p.Event = name(out.ActualTracking, p.Used), l.last()
	if out.TrackingReason != "" {
		p.Reason = plain(name(p.Reason, out.TrackingReason))
	}
	if err != nil {
		d.Failure = asFailure(err)
		if d.Failure.Exit == 4 {
			p.Ended = now
		}
		return
	}
	p.Ended = now
	d.Verified, d.Root, d.Sampled = true, out.Root, ""
	if n := &out.Counters; p.Used == "hint" && n.Skipped > 0 { // else all was compared after all
		d.Sampled = fmt.Sprintf("sampled %s of %s", sized(n.Sampled), sized(n.Sampled+n.Skipped))
	}
	if len(c.Facts.Points) > i && len(c.Facts.Bases) > i {
		c.Facts.Bases[i] = c.Facts.Points[i]
	}
}

func asFailure(err error) *job.Failure {
	if f, ok := errors.AsType[*job.Failure](err); ok {
		f := *f
		f.Text = plain(f.Text)
		return &f
	}
	class := job.RetryAfterReconcile
	if retryable(err) {
		class = job.RetryBackoff
	}
	return &job.Failure{Reason: ReasonPass, Text: plain(err.Error()), Retry: class, Exit: 3}
}

// hint asks the replica's change tracking where the disk may have changed since
// the state that its target is proved to have. Whatever is odd means that
// everything is compared, and is said.
func (r *run) hint(ctx context.Context, c *record, i int, from *hostctl.Snapshot, disk hostctl.Disk) (*cbt.Hint, Pass) {
	full := func(why string) (*cbt.Hint, Pass) { return nil, Pass{Asked: "hash", Used: "full", Reason: why} }
	if len(c.Facts.Bases) <= i || c.Facts.Bases[i] == "" {
		if c.Facts.Pass == 1 {
			return full("the first pass compares everything")
		}
		return full("it is not known since when: no pass before was proved, it is void, or nobody watched the target since")
	}
	h, err := r.e.host(c.replica().Host)
	if err != nil || h.Tracker == nil {
		return full("the host has no change tracking")
	}
	hint, err := h.Tracker.Changed(ctx, c.replica(), from.ID, disk, c.Facts.Bases[i])
	if err == nil {
		_, _, err = hint.Changed(disk.Size)
	}
	if err != nil {
		r.e.c.Log.Warn("change tracking is not used", "job", c.Status.ID, "disk", c.Status.Disks[i].Label, "err", plain(err.Error()))
		_, p := full("change tracking is not believed: " + plain(err.Error()))
		p.Asked = "cbt"
		return nil, p
	}
	return &hint, Pass{Asked: "cbt", Used: "hint"}
}

func diskOf(disks []hostctl.Disk, like *hostctl.Disk) (hostctl.Disk, bool) {
	for _, d := range disks {
		if diskID(&d) == diskID(like) {
			return d, true
		}
	}
	return hostctl.Disk{}, false
}

// diskRun is the run of one disk; all its passes have it.
func diskRun(c *record, i int) string {
	d := digestOf("disk run v1", [2]string{c.Status.Run, diskID(&c.Status.Disks[i].Replica)})
	d[6], d[8] = d[6]&0x0F|0x80, d[8]&0x3F|0x80 // UUID version 8
	return fmt.Sprintf("%x-%x-%x-%x-%x", d[0:4], d[4:6], d[6:8], d[8:10], d[10:16])
}

func (r *run) limits() (job.Limits, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.get().Status.Spec.Limits, r.limited
}
