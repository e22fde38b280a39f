package failback

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/haulback/haulback/hostctl"
)

// sentry watches the VMs of a failback that have to be off, also while no pass
// runs: through ReadyToSwitch, shutdowns and consolidations. What somebody starts
// and stops again in between has written, and no change tracking of the replica
// knows of it.
type sentry struct {
	posted []hostctl.Ref
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

// haveToBeOff are the VMs that nobody may start now: the target from its
// power-off until the VM is home, the replica from its own until commit or undo
// (FB-13).
func (c *record) haveToBeOff() (list []hostctl.Ref) {
	switch c.Status.Activity {
	case Waiting, Preparing, Syncing, Standing, Switching, Deciding:
	default:
		return nil
	}
	if c.Status.State == Failback {
		return []hostctl.Ref{c.Status.Replica}
	}
	if !c.Facts.Unlisted && c.ended("mark-target") {
		list = append(list, c.Status.Target)
	}
	if c.Facts.Finals > 0 && c.ended(numbered("power-off-replica", c.Facts.Finals)) {
		list = append(list, c.Status.Replica)
	}
	return list
}

// post watches these VMs and no others.
func (s *sentry) post(ctx context.Context, r *run, vms []hostctl.Ref) {
	if slices.Equal(vms, s.posted) {
		return
	}
	s.leave()
	ctx, s.stop = context.WithCancel(ctx)
	s.posted = vms
	for _, ref := range vms {
		h, err := r.e.host(ref.Host)
		if err != nil {
			continue // the next step says so
		}
		s.wg.Go(func() { r.watch(ctx, h, ref) })
	}
}

func (s *sentry) leave() {
	if s.stop != nil {
		s.stop()
	}
	s.wg.Wait()
	s.posted, s.stop = nil, nil
}

// watch remembers that a VM was started, until ctx is done.
func (r *run) watch(ctx context.Context, h *hostctl.Host, ref hostctl.Ref) {
	for ctx.Err() == nil {
		for ev, err := range h.Compute.Watch(ctx, []hostctl.Ref{ref}) {
			switch {
			case ctx.Err() != nil:
				return
			case err != nil: // nobody knows what happens until it is watched again
				r.e.c.Log.Warn("a VM that has to be off is not watched for a moment", "job", r.get().Status.ID, "vm", ref.Name, "err", plain(err.Error()))
			case ev.Power != hostctl.On && ev.Power != hostctl.Suspended:
				continue
			}
			r.remember(ctx, ref)
		}
		r.pause(ctx, heartbeat)
	}
}

// remember makes durable that a VM was on, or may have been.
func (r *run) remember(ctx context.Context, ref hostctl.Ref) {
	saw := func(c *record) {
		switch {
		case !slices.Contains(c.haveToBeOff(), ref):
		case sameVM(ref, c.Status.Target):
			c.Facts.TargetRan = true
		case c.Status.State == Failback: // for people: which of the two is right is theirs to say
			c.warn("the replica %s was powered on from outside while the VM is home: look which of the two its users have used, and power the other one off", ref.Name)
		default:
			c.Facts.ReplicaRan = c.Facts.Finals
		}
	}
	for ctx.Err() == nil && r.change(saw) != nil {
		r.pause(ctx, time.Second)
	}
}

// takeOver is the first thing that a controller does with a failback that another
// one, or itself before a restart, has left. Between the two nobody watched: a
// target that was started and stopped then has written what no change tracking of
// the replica knows of. So nothing that was proved of its disks counts as a base,
// and while the replica serves one more pass compares everything. Once the switch
// has begun users wait, for whom the minute of a restart is not made hours.
func (r *run) takeOver() error {
	if c := r.get(); c.Facts.WatchedBy == r.e.fence {
		return nil
	}
	return r.change(func(c *record) {
		known := func(id string) bool { return id != "" }
		if c.Facts.WatchedBy != 0 && c.Facts.Finals == 0 && slices.ContainsFunc(c.Facts.Bases, known) {
			clear(c.Facts.Bases)
			c.Facts.Stale = true
		}
		c.Facts.WatchedBy = r.e.fence
	})
}

// distrust forgets what is known of the target's disks: the next pass compares
// everything.
func (c *record) distrust() {
	clear(c.Facts.Bases)
	c.Facts.TargetRan = false
}

// replicaRan reports whether the replica was on since this try of the switch has
// powered it off: what its users wrote then is in no snapshot.
func (c *record) replicaRan() bool { return c.Facts.Finals > 0 && c.Facts.ReplicaRan == c.Facts.Finals }
