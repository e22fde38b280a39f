package vsphere

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// The host's words for what it does with snapshots and disks.
var (
	creating      = []string{"createSnapshot", "createSnapshotEx"}
	removing      = []string{"removeSnapshot", "Snapshot.remove", "remove", "removeAllSnapshots"}
	reverting     = []string{"revertToSnapshot", "Snapshot.revert", "revert", "revertToCurrentSnapshot"}
	consolidating = []string{"consolidateDisks", "consolidateVMDisks"}
)

// maxConsolidations bounds how often Release asks for a consolidation: one that
// leaves something three times will do so a fourth time.
const maxConsolidations = 3

// Protect implements hostctl.Storage. The guest is not made quiet: see doc.go.
func (c *Client) Protect(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, text string) (s hostctl.Snapshot, err error) {
	vm, _, err := c.resolve(ctx, ref)
	if err != nil {
		return s, err
	}
	return c.snapshot(ctx, op, vm, hostctl.SnapshotName(op), text)
}

// snapshot makes a snapshot of a name, or finds it.
func (c *Client) snapshot(ctx context.Context, op *hostctl.Op, vm hostctl.VM, name, text string) (s hostctl.Snapshot, err error) {
	if s, ok := shotNamed(vm, name); ok {
		return s, nil
	}
	for _, d := range vm.Disks {
		if d.Unfit != "" {
			return s, c.refuse("%s: disk %s can have no snapshot: it is %s; leave it out, or make it an ordinary dependent disk", vm.Name, d.Label, d.Unfit)
		}
	}
	if err := c.settle(ctx, vm); err != nil {
		return s, err
	}
	self := vmRef(vm.ID)
	err = c.act(ctx, op, action{
		what: "make snapshot " + name + " of " + vm.Name, kinds: creating, entity: self, vm: self,
		done: func(ctx context.Context) (ok bool, err error) {
			now, _, err := c.read(ctx, self)
			if err == nil {
				s, ok = shotNamed(now, name)
			}
			return ok, err
		},
		start: func(ctx context.Context, l *link) (types.ManagedObjectReference, error) {
			return task(object.NewVirtualMachine(l.Client, self).CreateSnapshot(ctx, name, text, false, false))
		},
	})
	return s, err
}

// shotNamed is the first snapshot of a name. Two can only be the same step asked
// twice: the older one has what was there when the step began.
func shotNamed(vm hostctl.VM, name string) (hostctl.Snapshot, bool) {
	i := slices.IndexFunc(vm.Snapshots, func(s hostctl.Snapshot) bool { return s.Name == name })
	if i < 0 {
		return hostctl.Snapshot{}, false
	}
	return vm.Snapshots[i], true
}

// shot is the snapshot of an ID.
func shot(vm hostctl.VM, id string) (hostctl.Snapshot, bool) {
	i := slices.IndexFunc(vm.Snapshots, func(s hostctl.Snapshot) bool { return s.ID == id })
	if i < 0 {
		return hostctl.Snapshot{}, false
	}
	return vm.Snapshots[i], true
}

// settle waits for what the host is at with the VM's disks: a snapshot that is
// made while another is being removed has lost writes (KB 2136854), and a host
// that is busy refuses it anyway.
func (c *Client) settle(ctx context.Context, vm hostctl.VM) error {
	self := vmRef(vm.ID)
	kinds := slices.Concat(removing, reverting, consolidating)
	refs, err := c.running(ctx, self, kinds)
	if err != nil {
		return err
	}
	a := action{what: "wait for the snapshots of " + vm.Name, vm: self}
	for _, ref := range refs {
		// How somebody else's task ends is not ours to judge.
		if err := c.await(ctx, &a, ref); err != nil && (ctx.Err() != nil || isQuestion(err) || retries(err) && !isFault(err)) {
			return err
		}
	}
	return nil
}

// Restore implements hostctl.Storage. Nothing that can be seen tells a revert
// that is done from one that is not, when the leaf stands on the snapshot before
// and after. So the Op's own task is believed; without one the revert is made
// again, which is the same.
func (c *Client) Restore(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, snapshot string) error {
	vm, _, err := c.resolve(ctx, ref)
	if err != nil {
		return err
	}
	if _, ok := shot(vm, snapshot); !ok {
		return c.notFound("snapshot " + clean(snapshot) + " of " + vm.Name)
	}
	if vm.Power != hostctl.Off {
		return c.refuse("%s is %s: a VM is reverted only when it is off; power it off", vm.Name, powerWord(vm.Power))
	}
	self := vmRef(vm.ID)
	quiet := true // it stays off, whatever it was at the snapshot
	return c.act(ctx, op, action{
		what: "revert " + vm.Name + " to snapshot " + clean(snapshot), kinds: reverting, entity: self, vm: self, trust: true,
		done: func(context.Context) (bool, error) { return false, nil },
		start: func(ctx context.Context, l *link) (ref types.ManagedObjectReference, err error) {
			r, err := methods.RevertToSnapshot_Task(ctx, l, &types.RevertToSnapshot_Task{This: shotRef(snapshot), SuppressPowerOn: &quiet})
			if err != nil {
				return ref, err
			}
			return r.Returnval, nil
		},
	})
}

func shotRef(id string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: id}
}

// Release implements hostctl.Storage: it is done when the snapshot is gone and
// no disk stands on a delta of it.
func (c *Client) Release(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, snapshot string) error {
	vm, _, err := c.resolve(ctx, ref)
	if err != nil {
		return err
	}
	self := vmRef(vm.ID)
	gone := func(ctx context.Context) (bool, error) {
		now, _, err := c.read(ctx, self)
		_, there := shot(now, snapshot)
		return err == nil && !there, err
	}
	consolidate := true
	err = c.act(ctx, op, action{
		what: "remove snapshot " + clean(snapshot) + " of " + vm.Name, kinds: removing, entity: self, vm: self, done: gone,
		start: func(ctx context.Context, l *link) (ref types.ManagedObjectReference, err error) {
			r, err := methods.RemoveSnapshot_Task(ctx, l, &types.RemoveSnapshot_Task{This: shotRef(snapshot), Consolidate: &consolidate})
			if err != nil {
				return ref, err
			}
			return r.Returnval, nil
		},
	})
	if err != nil {
		return err
	}
	return c.consolidated(ctx, op, vm)
}

// consolidated waits until the disks of a VM have no delta that belongs to no
// snapshot, and asks the host for that where it does not do it by itself.
func (c *Client) consolidated(ctx context.Context, op *hostctl.Op, vm hostctl.VM) error {
	self := vmRef(vm.ID)
	left := ""
	done := func(ctx context.Context) (bool, error) {
		now, o, err := c.read(ctx, self)
		if err == nil {
			left = unconsolidated(&now, &o)
		}
		return err == nil && left == "", err
	}
	for range maxConsolidations {
		if err := c.settle(ctx, vm); err != nil {
			return err
		}
		err := c.act(ctx, op, action{
			what: "consolidate the disks of " + vm.Name, kinds: consolidating, entity: self, vm: self, done: done,
			start: func(ctx context.Context, l *link) (ref types.ManagedObjectReference, err error) {
				r, err := methods.ConsolidateVMDisks_Task(ctx, l, &types.ConsolidateVMDisks_Task{This: self})
				if err != nil {
					return ref, err
				}
				return r.Returnval, nil
			},
		})
		if !errors.Is(err, errNotDone) {
			return err
		}
	}
	return c.later("consolidate the disks of "+vm.Name, "%s after %d tries; look who holds its files (a backup, another proxy), and consolidate it on the host", left, maxConsolidations)
}

// unconsolidated says what is left of a removed snapshot, or nothing. Besides
// the host's own word it follows each disk's chain: a delta that no snapshot
// accounts for is one that is yet to be merged, and to be read as such.
func unconsolidated(vm *hostctl.VM, o *mo.VirtualMachine) string {
	if o.Runtime.ConsolidationNeeded {
		return "the host says that consolidation is needed"
	}
	known := map[string]bool{}
	for _, s := range vm.Snapshots {
		for _, d := range s.Disks {
			known[d.File] = true
		}
	}
	for _, dev := range o.Config.Hardware.Device {
		d, ok := dev.(*types.VirtualDisk)
		if !ok {
			continue
		}
		k := backing(d.Backing)
		for _, parent := range k.parents {
			// Parents elsewhere are a linked clone's.
			if !known[parent] && path.Dir(parent) == path.Dir(clean(k.file)) && isDelta(clean(k.file)) {
				return "a disk stands on " + parent + ", which belongs to no snapshot"
			}
		}
	}
	return ""
}

// isDelta tells "web-000001.vmdk", as hosts name what is above a snapshot.
func isDelta(file string) bool {
	name := strings.TrimSuffix(path.Base(file), ".vmdk")
	i := strings.LastIndexByte(name, '-')
	return i >= 0 && len(name)-i == 7 && strings.Trim(name[i+1:], "0123456789") == ""
}

// Space implements hostctl.Storage.
func (c *Client) Space(ctx context.Context, ref hostctl.Ref) (all []hostctl.Space, err error) {
	vm, o, err := c.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{datastoreOf(vm.Path): true}
	for _, d := range vm.Disks {
		used[d.Datastore] = true
	}
	err = c.observe(ctx, "look at the datastores of "+vm.Name, func(l *link) error {
		all = nil
		if len(o.Datastore) == 0 {
			return nil
		}
		for _, ref := range o.Datastore {
			// A vCenter counts what is free every half hour or so. One that cannot
			// count now answers what it knows.
			if _, err := methods.RefreshDatastore(ctx, l.Client, &types.RefreshDatastore{This: ref}); isLogout(err) {
				return err
			}
		}
		var some []mo.Datastore
		if err := property.DefaultCollector(l.Client).Retrieve(ctx, o.Datastore, []string{"name", "summary"}, &some); err != nil {
			return err
		}
		for _, d := range some {
			if used[clean(d.Name)] {
				all = append(all, hostctl.Space{Datastore: clean(d.Name), Free: d.Summary.FreeSpace, Size: d.Summary.Capacity})
			}
		}
		return nil
	})
	return all, err
}
