package failback

import (
	"context"
	"fmt"

	"github.com/haulback/haulback/hostctl"
)

// Of the content probe.
const (
	probeSample = 64   // one grain in so many
	probeMost   = 8    // disks of one size that are compared each with each
	probeMargin = 0.05 // by which another counterpart has to be more alike
)

// pairStep compares samples: where two disks have one size, each with each.
// What the contents contradict halts, with nothing written.
func pairStep(st step) step {
	st.observe = func(_ context.Context, r *run, c *record) (sight, error) {
		row := c.row(st.name)
		return sight{there: row != nil && row.Task == asked, seen: "not compared"}, nil
	}
	st.act = func(ctx context.Context, r *run, c *record, op *hostctl.Op) error {
		replica, target, err := r.both(ctx, c)
		if err != nil {
			return err
		}
		if target.Power != hostctl.Off {
			if err := r.quell(ctx, &target); err != nil {
				return err
			}
			return &again{"the target was powered on from outside: the disks are compared again"}
		}
		from := snapshotID(&replica, c.Facts.Tracking)
		if from == nil {
			return halting(ReasonSnapshotGone, "cancel, and start again", "the tracking snapshot of VM %s is gone", replica.Name)
		}
		said := map[int]string{}
		for _, i := range c.moved() {
			if said[i], err = r.probe(ctx, c, i, from, &target); err != nil {
				return err
			}
		}
		if err := r.change(func(c *record) {
			for i, text := range said {
				c.Status.Disks[i].Matched += ", " + text
			}
		}); err != nil {
			return &again{err.Error()}
		}
		return op.Started(asked)
	}
	return st
}

// probe compares one disk of the replica with all that could be its counterpart.
func (r *run) probe(ctx context.Context, c *record, i int, from *hostctl.Snapshot, target *hostctl.VM) (string, error) {
	d := &c.Status.Disks[i]
	own, err := r.alike(ctx, c, i, from, target, &d.Target)
	if err != nil {
		return "", err
	}
	tried := 0
	for j := range target.Disks {
		other := &target.Disks[j]
		if diskID(other) == diskID(&d.Target) || other.Size != d.Target.Size || tried >= probeMost {
			continue
		}
		tried++
		is, err := r.alike(ctx, c, i, from, target, other)
		if err != nil {
			return "", err
		}
		if is.share() > own.share()+probeMargin {
			return "", halting(ReasonContradiction, fmt.Sprintf("cancel; then pair disk %s with %s explicitly, or, if it is right as it is, with %s", d.Label, other.Label, d.Target.Label),
				"disk %s of the replica is paired with %s of the target, of which %s are like it; of %s %s are. Nothing was written", d.Label, d.Target.Label, own.text(), other.Label, is.text())
		}
	}
	return own.text() + " alike", nil
}

// likely is a Likeness as a share.
type likely struct{ same, of int64 }

func (l likely) share() float64 {
	if l.of == 0 {
		return 0
	}
	return float64(l.same) / float64(l.of)
}

func (l likely) text() string {
	return fmt.Sprintf("%.0f %% of a sample of %s", 100*l.share(), sized(l.of))
}

func (r *run) alike(ctx context.Context, c *record, i int, from *hostctl.Snapshot, target *hostctl.VM, disk *hostctl.Disk) (likely, error) {
	source, ok := diskOf(from.Disks, &c.Status.Disks[i].Replica)
	if !ok {
		return likely{}, halting(ReasonDrift, "cancel, and start again", "snapshot %s has no disk %s", from.ID, c.Status.Disks[i].Label)
	}
	at, ok := diskOf(target.Disks, disk)
	if !ok {
		return likely{}, halting(ReasonDrift, "cancel, and start again", "VM %s has no disk %s", target.Name, disk.Label)
	}
	l, err := r.e.c.Mover.Compare(ctx, &Move{
		Run: diskRun(c, i), Fence: r.e.fence, VM: c.Status.Spec.VM, Sample: probeSample, Limits: r.limits, Priority: c.Status.Spec.Priority,
		Source: Place{VM: c.replica(), Snapshot: from.ID, Disk: source}, Target: Place{VM: target.Ref, Disk: at},
	})
	if err != nil {
		return likely{}, fmt.Errorf("compare disk %s with %s: %w", c.Status.Disks[i].Label, disk.Label, err)
	}
	return likely{same: l.Compared - l.Different, of: l.Compared}, nil
}
