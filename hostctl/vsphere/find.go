package vsphere

import (
	"context"
	"fmt"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// notFound is ErrNotFound with the thing.
func (c *Client) notFound(what string) error {
	return fmt.Errorf("host %s: %s: %w", c.cfg.Name, what, hostctl.ErrNotFound)
}

// Find implements hostctl.Compute. A path is that of the configuration ("[ds]
// web/web.vmx") or, with a slash first, of the inventory ("/DC0/vm/web"); so is
// a name with a slash in it.
func (c *Client) Find(ctx context.Context, q hostctl.Query) (hostctl.VM, error) {
	refs, what, err := c.lookup(ctx, q)
	if err != nil {
		return hostctl.VM{}, err
	}
	switch len(refs) {
	case 0:
		return hostctl.VM{}, c.notFound(what)
	case 1:
		vm, _, err := c.read(ctx, refs[0])
		return vm, err
	}
	return hostctl.VM{}, c.ambiguous(ctx, what, refs)
}

// lookup finds the VMs that answer to q.
func (c *Client) lookup(ctx context.Context, q hostctl.Query) (refs []types.ManagedObjectReference, what string, err error) {
	switch {
	case q.UUID != "":
		what = fmt.Sprintf("VM with instance UUID %s", clean(q.UUID))
		refs, err = c.byUUID(ctx, q.UUID)
	case q.ID != "":
		return []types.ManagedObjectReference{vmRef(q.ID)}, "VM " + clean(q.ID), nil
	case strings.HasPrefix(q.Path, "/"):
		what = fmt.Sprintf("VM %q", clean(q.Path))
		refs, err = c.byInventory(ctx, q.Path)
	case q.Path != "":
		what = fmt.Sprintf("VM %q", clean(q.Path))
		refs, err = c.byPath(ctx, q.Path)
	case strings.HasPrefix(q.Name, "/"):
		what = fmt.Sprintf("VM %q", clean(q.Name))
		refs, err = c.byInventory(ctx, q.Name)
	case q.Name != "":
		what = fmt.Sprintf("VM %q", clean(q.Name))
		refs, err = c.byName(ctx, q.Name)
	default:
		return nil, "", c.refuse("which VM? give its UUID, ID, path or name")
	}
	return refs, what, err
}

func vmRef(id string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "VirtualMachine", Value: id}
}

// resolve is the VM that ref names now. A registration gives a VM another ID, so
// what the ID names is believed only with the right UUID.
func (c *Client) resolve(ctx context.Context, ref hostctl.Ref) (vm hostctl.VM, o mo.VirtualMachine, err error) {
	if ref.ID != "" {
		vm, o, err = c.read(ctx, vmRef(ref.ID))
		if err == nil && (ref.UUID == "" || strings.EqualFold(ref.UUID, vm.UUID)) {
			return vm, o, nil
		}
		if err != nil && (!isGone(err) || ref.UUID == "") {
			return vm, o, err
		}
	}
	found, err := c.Find(ctx, hostctl.Query{UUID: ref.UUID, Name: ref.Name})
	if err != nil {
		return found, o, err
	}
	return c.read(ctx, vmRef(found.ID))
}

// datacenters are those that are looked at: the configured one, or all.
func (c *Client) datacenters(ctx context.Context, l *link) ([]*object.Datacenter, error) {
	pattern := "*"
	if c.cfg.Datacenter != "" {
		pattern = c.cfg.Datacenter
	}
	all, err := find.NewFinder(l.Client).DatacenterList(ctx, pattern)
	if _, none := err.(*find.NotFoundError); none {
		return nil, c.notFound(fmt.Sprintf("datacenter %q", pattern))
	}
	return all, err
}

func (c *Client) byUUID(ctx context.Context, uuid string) (refs []types.ManagedObjectReference, err error) {
	instance := true
	err = c.observe(ctx, "find VM "+clean(uuid), func(l *link) error {
		refs = nil
		within := []*object.Datacenter{nil}
		if c.cfg.Datacenter != "" {
			var err error
			if within, err = c.datacenters(ctx, l); err != nil {
				return err
			}
		}
		for _, dc := range within {
			found, err := object.NewSearchIndex(l.Client).FindAllByUuid(ctx, dc, uuid, true, &instance)
			if err != nil {
				return err
			}
			for _, r := range found {
				refs = append(refs, r.Reference())
			}
		}
		return nil
	})
	return refs, err
}

func (c *Client) byInventory(ctx context.Context, path string) (refs []types.ManagedObjectReference, err error) {
	err = c.observe(ctx, "find VM "+clean(path), func(l *link) error {
		refs = nil
		r, err := object.NewSearchIndex(l.Client).FindByInventoryPath(ctx, path)
		if err == nil && r != nil && r.Reference().Type == "VirtualMachine" {
			refs = append(refs, r.Reference())
		}
		return err
	})
	return refs, err
}

// byPath asks each datacenter: datastores of two may have one name.
func (c *Client) byPath(ctx context.Context, path string) (refs []types.ManagedObjectReference, err error) {
	err = c.observe(ctx, "find VM "+clean(path), func(l *link) error {
		refs = nil
		all, err := c.datacenters(ctx, l)
		if err != nil {
			return err
		}
		seen := map[types.ManagedObjectReference]bool{}
		for _, dc := range all {
			r, err := object.NewSearchIndex(l.Client).FindByDatastorePath(ctx, dc, path)
			if err != nil && !is[*types.InvalidDatastore](err) {
				return err
			}
			if err == nil && r != nil && !seen[r.Reference()] {
				seen[r.Reference()] = true
				refs = append(refs, r.Reference())
			}
		}
		return nil
	})
	return refs, err
}

// byName looks at the names of all VMs: folders and datacenters may each have
// one of the name.
func (c *Client) byName(ctx context.Context, name string) (refs []types.ManagedObjectReference, err error) {
	err = c.each(ctx, []string{"name"}, func(vm *mo.VirtualMachine) {
		if vm.Name == name {
			refs = append(refs, vm.Self)
		}
	})
	return refs, err
}

// each calls f with some properties of each VM.
func (c *Client) each(ctx context.Context, props []string, f func(vm *mo.VirtualMachine)) error {
	var all []mo.VirtualMachine
	err := c.observe(ctx, "list the VMs", func(l *link) error {
		all = nil
		roots := []types.ManagedObjectReference{l.ServiceContent.RootFolder}
		if c.cfg.Datacenter != "" {
			dcs, err := c.datacenters(ctx, l)
			if err != nil {
				return err
			}
			roots = roots[:0]
			for _, dc := range dcs {
				roots = append(roots, dc.Reference())
			}
		}
		for _, root := range roots {
			var some []mo.VirtualMachine
			if err := list(ctx, l, root, "VirtualMachine", props, &some); err != nil {
				return err
			}
			all = append(all, some...)
		}
		return nil
	})
	for i := range all {
		f(&all[i])
	}
	return err
}

// list reads properties of all objects of a kind below root.
func list(ctx context.Context, l *link, root types.ManagedObjectReference, kind string, props []string, dst any) error {
	v, err := view.NewManager(l.Client).CreateContainerView(ctx, root, []string{kind}, true)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
		defer cancel()
		_ = v.Destroy(end) // the session's end takes it too
	}()
	return v.Retrieve(ctx, []string{kind}, props, dst)
}

// ambiguous names each of refs by what tells it from the others.
func (c *Client) ambiguous(ctx context.Context, what string, refs []types.ManagedObjectReference) error {
	e := &hostctl.AmbiguousError{What: "host " + c.cfg.Name + ": " + what}
	for _, ref := range refs {
		vm, _, err := c.read(ctx, ref)
		if err != nil {
			e.Found = append(e.Found, clean(ref.Value))
			continue
		}
		e.Found = append(e.Found, fmt.Sprintf("%s (UUID %s, %s)", vm.ID, vm.UUID, vm.Path))
	}
	return e
}
