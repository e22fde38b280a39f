package vsphere

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// Register implements hostctl.Registry.
func (c *Client) Register(ctx context.Context, op *hostctl.Op, vmx string, where hostctl.Placement) (ref hostctl.Ref, err error) {
	if ds := datastoreOf(vmx); ds == "" || !strings.HasSuffix(vmx, ".vmx") {
		return ref, c.refuse("%q is no path of a VM: it is like \"[datastore] web/web.vmx\"", clean(vmx))
	}
	done := func(ctx context.Context) (bool, error) {
		vm, err := c.Find(ctx, hostctl.Query{Path: vmx})
		ref = vm.Ref
		return err == nil, unlessGone(err)
	}
	if ok, err := done(ctx); ok || err != nil {
		return ref, err
	}
	if where.Datastore == "" {
		where.Datastore = datastoreOf(vmx)
	}
	at, err := c.place(ctx, where)
	if err != nil {
		return ref, err
	}
	err = c.act(ctx, op, action{
		what: "register " + clean(vmx), kinds: []string{"registerVm"}, entity: at.folder.Reference(), done: done,
		start: func(ctx context.Context, l *link) (types.ManagedObjectReference, error) {
			folder := object.NewFolder(l.Client, at.folder.Reference())
			return task(folder.RegisterVM(ctx, vmx, "", false, at.pool, at.server))
		},
	})
	return ref, err
}

// unlessGone is err, unless it says that there is no such thing.
func unlessGone(err error) error {
	if isGone(err) {
		return nil
	}
	return err
}

// Unregister implements hostctl.Registry. The host has no task for it.
func (c *Client) Unregister(ctx context.Context, op *hostctl.Op, ref hostctl.Ref) error {
	vm, _, err := c.resolve(ctx, ref)
	switch {
	case isGone(err):
		return nil
	case err != nil:
		return err
	case vm.Power != hostctl.Off:
		return c.refuse("%s is %s: only a VM that is off can be unregistered; power it off", vm.Name, powerWord(vm.Power))
	}
	return c.act(ctx, op, action{
		what: "unregister " + vm.Name,
		done: func(ctx context.Context) (bool, error) {
			_, _, err := c.read(ctx, vmRef(vm.ID))
			return isGone(err), unlessGone(err)
		},
		start: func(ctx context.Context, l *link) (none types.ManagedObjectReference, err error) {
			return none, object.NewVirtualMachine(l.Client, vmRef(vm.ID)).Unregister(ctx)
		},
	})
}

// Destroy implements hostctl.Registry. A VM that is not registered is registered
// to look at its mark: its file is the one place where that stands.
func (c *Client) Destroy(ctx context.Context, op *hostctl.Op, vmx string) error {
	vm, err := c.Find(ctx, hostctl.Query{Path: vmx})
	if isGone(err) {
		there, err := c.exists(ctx, vmx)
		if err != nil || !there {
			return err
		}
		vm, err = c.adopt(ctx, op, vmx, hostctl.Placement{Datastore: datastoreOf(vmx)})
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	switch {
	case vm.Marks[hostctl.MarkMade] != op.Run:
		return c.notOurs(vm, op)
	case vm.Power != hostctl.Off:
		return c.refuse("%s is %s: only a VM that is off is deleted; power it off", vm.Name, powerWord(vm.Power))
	}
	self := vmRef(vm.ID)
	return c.act(ctx, op, action{
		what: "delete " + vm.Name, kinds: []string{"destroy"}, entity: self,
		done: func(ctx context.Context) (bool, error) {
			_, _, err := c.read(ctx, self)
			return isGone(err), unlessGone(err)
		},
		start: func(ctx context.Context, l *link) (types.ManagedObjectReference, error) {
			return task(object.NewVirtualMachine(l.Client, self).Destroy(ctx))
		},
	})
}

// notOurs refuses to touch a VM that another run, or a person, has made.
func (c *Client) notOurs(vm hostctl.VM, op *hostctl.Op) error {
	by := "it was not made by haulback"
	if m := vm.Marks[hostctl.MarkMade]; m != "" {
		by = "run " + m + " has made it"
	}
	return c.refuse("%s (%s): %s, not run %s; look at it and delete it yourself if it is not needed", vm.Name, vm.Path, by, op.Run)
}

// adopt registers a VM to look at it. One that is not of op's run is left as it
// was found.
func (c *Client) adopt(ctx context.Context, op *hostctl.Op, vmx string, where hostctl.Placement) (vm hostctl.VM, err error) {
	ref, err := c.Register(ctx, op, vmx, where)
	if err != nil {
		return vm, err
	}
	if vm, err = c.Find(ctx, hostctl.Query{ID: ref.ID}); err != nil {
		return vm, err
	}
	if vm.Marks[hostctl.MarkMade] == op.Run {
		return vm, nil
	}
	if err := c.Unregister(ctx, op, ref); err != nil {
		return vm, err
	}
	return vm, c.notOurs(vm, op)
}

// exists reports whether a file is on its datastore.
func (c *Client) exists(ctx context.Context, file string) (found bool, err error) {
	var p object.DatastorePath
	p.FromString(file)
	err = c.observe(ctx, "look for "+clean(file), func(l *link) error {
		found = false
		dcs, err := c.datacenters(ctx, l)
		if err != nil {
			return err
		}
		for _, dc := range dcs {
			some, err := none(find.NewFinder(l.Client).SetDatacenter(dc).DatastoreList(ctx, "*"))
			if err != nil {
				return err
			}
			for _, ds := range some {
				if ds.Name() != p.Datastore {
					continue
				}
				ok, err := hasFile(ctx, ds, p)
				if err != nil {
					return err
				}
				found = found || ok
			}
		}
		return nil
	})
	return found, err
}

// hasFile searches one folder of a datastore.
func hasFile(ctx context.Context, ds *object.Datastore, p object.DatastorePath) (bool, error) {
	b, err := ds.Browser(ctx)
	if err != nil {
		return false, err
	}
	folder := object.DatastorePath{Datastore: p.Datastore, Path: path.Dir(p.Path)}
	t, err := b.SearchDatastore(ctx, folder.String(), &types.HostDatastoreBrowserSearchSpec{MatchPattern: []string{path.Base(p.Path)}})
	if err != nil {
		return false, noFile(err)
	}
	info, err := t.WaitForResult(ctx)
	if err != nil {
		return false, noFile(err)
	}
	r, ok := info.Result.(types.HostDatastoreBrowserSearchResults)
	return ok && slices.ContainsFunc(r.File, func(f types.BaseFileInfo) bool { return f.GetFileInfo().Path == path.Base(p.Path) }), nil
}

// noFile takes "there is no such folder" for the answer that it is.
func noFile(err error) error {
	if is[*types.FileNotFound](err) || is[*types.NotFound](err) {
		return nil
	}
	return err
}

// Rebind implements hostctl.Registry. A map that exchanges two networks is
// refused: half done, it could not be told from done.
func (c *Client) Rebind(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, networks map[string]string) error {
	for from, to := range networks {
		if next, ok := networks[to]; ok && from != to && next != to {
			return c.refuse("networks: %q is both the new name of %q and an old name; map it in two runs", clean(to), clean(from))
		}
	}
	vm, o, err := c.resolve(ctx, ref)
	if err != nil {
		return err
	}
	bound := func(vm hostctl.VM) bool {
		return !slices.ContainsFunc(vm.NICs, func(n hostctl.NIC) bool {
			to, ok := networks[n.Network]
			return ok && to != n.Network
		})
	}
	if bound(vm) {
		return nil
	}
	spec, err := c.rebinding(ctx, &vm, &o, networks)
	if err != nil {
		return err
	}
	return c.act(ctx, op, c.reconfigure(vm, "connect the networks of "+vm.Name, spec, bound))
}

// rebinding is the change of the NICs that the map names.
func (c *Client) rebinding(ctx context.Context, vm *hostctl.VM, o *mo.VirtualMachine, networks map[string]string) (spec types.VirtualMachineConfigSpec, err error) {
	at, err := c.datacenterOf(ctx, vm)
	if err != nil {
		return spec, err
	}
	devices := object.VirtualDeviceList(o.Config.Hardware.Device)
	err = c.observe(ctx, "look for the networks of "+vm.Name, func(l *link) error {
		spec.DeviceChange = nil
		for _, n := range vm.NICs {
			to, ok := networks[n.Network]
			if !ok || to == n.Network {
				continue
			}
			backing, err := c.network(ctx, l, at, to)
			if err != nil {
				return err
			}
			dev := devices.FindByKey(n.Key)
			dev.GetVirtualDevice().Backing = backing
			spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
				Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: dev,
			})
		}
		return nil
	})
	return spec, err
}

// datacenterOf is the datacenter that a VM is in.
func (c *Client) datacenterOf(ctx context.Context, vm *hostctl.VM) (dc *object.Datacenter, err error) {
	err = c.observe(ctx, "find the datacenter of "+vm.Name, func(l *link) error {
		where, err := find.InventoryPath(ctx, l.Client, vmRef(vm.ID))
		if err != nil {
			return err
		}
		all, err := find.NewFinder(l.Client).DatacenterList(ctx, "*")
		if err != nil {
			return err
		}
		for _, d := range all {
			if strings.HasPrefix(where, d.InventoryPath+"/") {
				dc = d
				return nil
			}
		}
		return c.notFound(fmt.Sprintf("the datacenter of %s", vm.Name))
	})
	return dc, err
}
