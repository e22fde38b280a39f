package vsphere

import (
	"context"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// EnableTracking implements hostctl.Tracker.
func (c *Client) EnableTracking(ctx context.Context, op *hostctl.Op, ref hostctl.Ref) error {
	vm, _, err := c.resolve(ctx, ref)
	switch {
	case err != nil:
		return err
	case vm.Tracking:
		return nil
	case !vm.CanTrack:
		return c.refuse("%s: its virtual hardware cannot track changes; upgrade it to version 7 or later", vm.Name)
	case len(vm.Snapshots) > 0:
		// Since vSphere 6.5 that is no error of the host's, its answers are silently
		// incomplete (Veritas 100033481).
		return c.refuse("%s has %d snapshots (%q first): change tracking that begins above a snapshot loses changes without saying so; remove them first", vm.Name, len(vm.Snapshots), vm.Snapshots[0].Name)
	}
	on := true
	return c.act(ctx, op, c.reconfigure(vm, "turn change tracking on for "+vm.Name,
		types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &on},
		func(vm hostctl.VM) bool { return vm.Tracking }))
}

// markReset is the mark of a reset that is not done, with the phase that it is in.
const (
	markReset = "reset-tracking"
	resetOff  = "off" // it is off; a snapshot drops what is known
	resetOn   = "on"  // it is on; a snapshot makes it count
)

// ResetTracking implements hostctl.Tracker: off, a snapshot made and removed so
// that the host takes notice, on, and one more. The VM may be on. How far it came
// stands in a mark of the VM, because "off" alone does not say whether it was on
// before.
func (c *Client) ResetTracking(ctx context.Context, op *hostctl.Op, ref hostctl.Ref) error {
	// First the task, then the VM: while it runs the VM looks as if nothing had
	// been done.
	done, err := c.succeeded(ctx, op.Task)
	if err != nil {
		return err
	}
	vm, _, err := c.resolve(ctx, ref)
	if err != nil {
		return err
	}
	phase := vm.Marks[markReset]
	if phase == "" {
		if !vm.Tracking {
			return nil
		}
		// The mark goes with the last task, so a task of ours that has succeeded
		// and no mark is a reset that is done.
		if done {
			return nil
		}
		if len(vm.Snapshots) > 0 {
			return c.refuse("%s has the snapshot %q: change tracking is reset only without snapshots; remove it first", vm.Name, vm.Snapshots[0].Name)
		}
		if err := c.resetPhase(ctx, op, vm, resetOff); err != nil {
			return err
		}
		phase = resetOff
	}
	if phase == resetOff {
		if err := c.cycle(ctx, op, vm, "-a"); err != nil {
			return err
		}
		if err := c.resetPhase(ctx, op, vm, resetOn); err != nil {
			return err
		}
	}
	if err := c.cycle(ctx, op, vm, "-b"); err != nil {
		return err
	}
	return c.resetPhase(ctx, op, vm, "")
}

// resetPhase switches tracking and notes it, in one task.
func (c *Client) resetPhase(ctx context.Context, op *hostctl.Op, vm hostctl.VM, phase string) error {
	on := phase != resetOff
	return c.act(ctx, op, c.reconfigure(vm, "reset change tracking of "+vm.Name, types.VirtualMachineConfigSpec{
		ChangeTrackingEnabled: &on,
		ExtraConfig:           []types.BaseOptionValue{option(markReset, phase)},
	}, func(vm hostctl.VM) bool { return vm.Tracking == on && vm.Marks[markReset] == phase }))
}

// cycle makes a snapshot and removes it.
func (c *Client) cycle(ctx context.Context, op *hostctl.Op, vm hostctl.VM, suffix string) error {
	s, err := c.snapshot(ctx, op, vm, hostctl.SnapshotName(op)+suffix, "haulback resets change tracking")
	if err != nil {
		return err
	}
	return c.Release(ctx, op, vm.Ref, s.ID)
}

// succeeded waits for the end of a task and reports whether that was a good one.
// One that nobody knows any more had none.
func (c *Client) succeeded(ctx context.Context, stored string) (bool, error) {
	ref := taskRef(stored)
	if ref.Value == "" {
		return false, nil
	}
	err := c.await(ctx, &action{what: "wait for task " + clean(stored)}, ref)
	if err != nil && (ctx.Err() != nil || retries(err) && !isFault(err)) {
		return false, err
	}
	return err == nil, nil
}
