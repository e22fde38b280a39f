package vsphere

import (
	"context"
	"slices"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// held is what a vCenter must not do with a VM whose disks are used from outside:
// the same method that VDDK's PrepareForAccess disables.
const held = "RelocateVM_Task"

// holdSource is who holds. It is one for all runs, so that whoever comes after a
// crash can free what was held before.
const holdSource = "com.haulback"

// markGuard notes a hold: the host does not say who has disabled a method.
const markGuard = "guard"

// Hold implements hostctl.Guard. A bare ESXi, and a host that does not know the
// call, moves nothing by itself or cannot be kept from it: that is no error.
func (c *Client) Hold(ctx context.Context, op *hostctl.Op, ref hostctl.Ref) error {
	vm, _, err := c.resolve(ctx, ref)
	if err != nil {
		return err
	}
	if vc, err := c.isCenter(ctx); err != nil || !vc {
		return err
	}
	if vm.Marks[markGuard] != "" && slices.Contains(vm.Disabled, held) {
		return nil
	}
	// First the mark: what has it may be held, what has not is not.
	if err := c.Mark(ctx, op, vm.Ref, markGuard, op.Run); err != nil {
		return err
	}
	return c.switchHeld(ctx, vm, "hold "+vm.Name, true)
}

// Free implements hostctl.Guard.
func (c *Client) Free(ctx context.Context, op *hostctl.Op, ref hostctl.Ref) error {
	vm, _, err := c.resolve(ctx, ref)
	if err != nil {
		return err
	}
	if vc, err := c.isCenter(ctx); err != nil || !vc {
		return err
	}
	// A revert takes the mark away and not the hold: enabled it is in any case
	// where the method is disabled. Our source frees our hold only.
	if slices.Contains(vm.Disabled, held) {
		if err := c.switchHeld(ctx, vm, "free "+vm.Name, false); err != nil {
			return err
		}
	}
	return c.Mark(ctx, op, vm.Ref, markGuard, "")
}

// isCenter reports whether the host is a vCenter.
func (c *Client) isCenter(ctx context.Context) (vc bool, err error) {
	err = c.observe(ctx, "look at the host", func(l *link) error {
		vc = l.IsVC()
		return nil
	})
	return vc, err
}

// switchHeld disables or enables what is held. Both can be repeated.
func (c *Client) switchHeld(ctx context.Context, vm hostctl.VM, what string, hold bool) error {
	entities := []types.ManagedObjectReference{vmRef(vm.ID)}
	call := func(l *link) error {
		m := object.NewAuthorizationManager(l.Client)
		if !hold {
			return m.EnableMethods(ctx, entities, []string{held}, holdSource)
		}
		reason := object.DisabledMethodRequest{Method: held, Reason: holdSource}
		return m.DisableMethods(ctx, entities, []object.DisabledMethodRequest{reason}, holdSource)
	}
	err := c.observe(ctx, what, call)
	if is[*types.MethodNotFound](err) || is[*types.InvalidRequest](err) || is[*types.NotSupported](err) || is[*types.NotImplemented](err) {
		c.log.Info("host cannot hold VMs in their place", "vm", vm.Name)
		return nil
	}
	return err
}
