package vsphere

import (
	"context"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// shutdownTask begins the reference of a guest's shutdown, which has no task of
// the host. The time after it is when the grace ends, so a try after a crash does
// not give the guest another whole grace.
const shutdownTask = "guest-shutdown "

// SetPower implements hostctl.Compute.
func (c *Client) SetPower(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, want hostctl.Power, grace time.Duration) error {
	if want != hostctl.On && want != hostctl.Off {
		return c.refuse("a VM can be made on or off, not power state %d", want)
	}
	vm, _, err := c.resolve(ctx, ref)
	if err != nil {
		return err
	}
	if want == hostctl.Off && grace > 0 && vm.Power == hostctl.On && vm.Tools && vm.Question == "" {
		if err := c.shutDown(ctx, op, vm, grace); err != nil {
			return err
		}
	}
	return c.act(ctx, op, c.powerAction(vm, want))
}

// powerAction is the host's own switch.
func (c *Client) powerAction(vm hostctl.VM, want hostctl.Power) action {
	self := vmRef(vm.ID)
	a := action{
		what: "power off " + vm.Name, kinds: []string{"powerOff"}, entity: self, vm: self,
		done: func(ctx context.Context) (bool, error) { return c.powerIs(ctx, vm.ID, want) },
		start: func(ctx context.Context, l *link) (types.ManagedObjectReference, error) {
			return task(object.NewVirtualMachine(l.Client, self).PowerOff(ctx))
		},
	}
	if want == hostctl.On {
		a.what, a.kinds = "power on "+vm.Name, []string{"powerOn"}
		a.start = func(ctx context.Context, l *link) (types.ManagedObjectReference, error) {
			return task(object.NewVirtualMachine(l.Client, self).PowerOn(ctx))
		}
	}
	return a
}

// powerIs observes the power state. What stands in the way of the other state is
// an error: a question that waits, a memory image.
func (c *Client) powerIs(ctx context.Context, id string, want hostctl.Power) (bool, error) {
	vm, _, err := c.read(ctx, vmRef(id))
	switch {
	case err != nil:
		return false, err
	case vm.Power == want:
		return true, nil
	case vm.Question != "":
		return false, &questionError{c.cfg.Name, vm.Name, vm.Question}
	case vm.Power == hostctl.Suspended:
		// Resumed, its memory would meet disks that it does not know; powered off,
		// what its guest has not written yet would be lost.
		return false, c.refuse("%s is suspended: neither on nor safely off; resume it and shut it down, or power it off on the host", vm.Name)
	}
	return false, nil
}

// shutDown asks the guest and waits until it is off, the grace has passed, or a
// question stands in the way. Nothing of that is an error: the host's switch
// comes after it, and observes first.
func (c *Client) shutDown(ctx context.Context, op *hostctl.Op, vm hostctl.VM, grace time.Duration) error {
	end, asked := graceEnd(op.Task)
	if !asked {
		err := c.change(ctx, "shut down the guest of "+vm.Name, func(l *link) error {
			return object.NewVirtualMachine(l.Client, vmRef(vm.ID)).ShutdownGuest(ctx)
		})
		switch {
		case ctx.Err() != nil:
			return err
		case err != nil && !isFault(err):
			return err // the host is away
		case err != nil:
			c.log.Info("guest cannot be asked to shut down, it is powered off", "vm", vm.Name, "err", err)
			return nil
		}
		end = c.now().Add(grace)
		if op.Started != nil {
			if err := op.Started(shutdownTask + end.UTC().Format(time.RFC3339)); err != nil {
				return err
			}
		}
	}
	left := min(end.Sub(c.now()), grace)
	if left <= 0 {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	err := c.watchPower(wait, vm)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		c.log.Info("guest has not shut down in time, it is powered off", "vm", vm.Name, "dur", grace)
		return nil
	}
	return err
}

// graceEnd reads the reference of a guest's shutdown.
func graceEnd(stored string) (end time.Time, ok bool) {
	s, ok := strings.CutPrefix(stored, shutdownTask)
	if !ok {
		return end, false
	}
	end, err := time.Parse(time.RFC3339, s)
	return end, err == nil
}

// watchPower waits until the VM is not on any more or has a question.
func (c *Client) watchPower(ctx context.Context, vm hostctl.VM) error {
	return c.observe(ctx, "wait for the guest of "+vm.Name, func(l *link) error {
		filter := new(property.WaitFilter).Add(vmRef(vm.ID), "VirtualMachine", []string{"runtime.powerState", "runtime.question"})
		return updates(ctx, l, filter.CreateFilter, func(all []types.ObjectUpdate) (end bool) {
			for _, u := range all {
				for _, ch := range u.ChangeSet {
					switch v := ch.Val.(type) {
					case types.VirtualMachinePowerState:
						end = end || v != types.VirtualMachinePowerStatePoweredOn
					case types.VirtualMachineQuestionInfo:
						end = true
					}
				}
			}
			return end
		})
	})
}
