package vsphere

import (
	"context"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// Mark implements hostctl.Compute, in the VM's extra configuration: everybody who
// looks at the VM sees it, and it goes where the VM goes.
func (c *Client) Mark(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, key, value string) error {
	if key == "" || clean(key) != key || clean(value) != value {
		return c.refuse("mark %q: a mark is one line of plain text", clean(key))
	}
	vm, _, err := c.resolve(ctx, ref)
	if err != nil {
		return err
	}
	return c.act(ctx, op, c.reconfigure(vm, "mark "+vm.Name, types.VirtualMachineConfigSpec{
		ExtraConfig: []types.BaseOptionValue{option(key, value)},
	}, func(vm hostctl.VM) bool { return vm.Marks[key] == value }))
}

// option is a mark as the host keeps it; empty takes it away.
func option(key, value string) types.BaseOptionValue {
	return &types.OptionValue{Key: markPrefix + key, Value: value}
}

// reconfigure is the action that changes a VM's configuration until done says
// that it is as wanted.
func (c *Client) reconfigure(vm hostctl.VM, what string, spec types.VirtualMachineConfigSpec, done func(hostctl.VM) bool) action {
	self := vmRef(vm.ID)
	return action{
		what: what, kinds: []string{"reconfigure", "reconfigVM", "reconfig"}, entity: self, vm: self,
		done: func(ctx context.Context) (bool, error) {
			now, _, err := c.read(ctx, self)
			return err == nil && done(now), err
		},
		start: func(ctx context.Context, l *link) (types.ManagedObjectReference, error) {
			return task(object.NewVirtualMachine(l.Client, self).Reconfigure(ctx, spec))
		},
	}
}
