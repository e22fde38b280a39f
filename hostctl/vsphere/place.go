package vsphere

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// place is a placement in the host's own objects.
type place struct {
	dc        *object.Datacenter
	folder    *object.Folder
	pool      *object.ResourcePool
	server    *object.HostSystem // nil: the host chooses
	datastore string
}

// place chooses what p leaves open where there is one choice only.
func (c *Client) place(ctx context.Context, p hostctl.Placement) (at place, err error) {
	err = c.observe(ctx, "look for a place", func(l *link) (err error) {
		at, err = c.choose(ctx, l, p)
		return err
	})
	return at, err
}

func (c *Client) choose(ctx context.Context, l *link, p hostctl.Placement) (at place, err error) {
	all, err := c.datacenters(ctx, l)
	if err != nil {
		return at, err
	}
	if at.dc, err = pick(c, "datacenter", p.Datacenter, all, func(d *object.Datacenter) string { return d.InventoryPath }); err != nil {
		return at, err
	}
	f := find.NewFinder(l.Client).SetDatacenter(at.dc)
	if at.folder, err = c.folder(ctx, f, &at, p.Folder); err != nil {
		return at, err
	}
	if p.Server != "" {
		servers, err := none(f.HostSystemList(ctx, "*"))
		if err != nil {
			return at, err
		}
		if at.server, err = pick(c, "server", p.Server, servers, func(h *object.HostSystem) string { return h.InventoryPath }); err != nil {
			return at, err
		}
	}
	if at.pool, err = c.pool(ctx, f, &at, p.Pool); err != nil {
		return at, err
	}
	at.datastore, err = c.datastore(ctx, l, f, &at, p.Datastore)
	return at, err
}

// none makes an empty list of govmomi's "not found".
func none[T any](all []T, err error) ([]T, error) {
	if _, empty := err.(*find.NotFoundError); empty {
		return nil, nil
	}
	return all, err
}

// pick finds the one of a name, which may be an inventory path; without a name
// the only one that there is.
func pick[T any](c *Client, what, name string, all []T, pathOf func(T) string) (one T, err error) {
	var fit []T
	for _, o := range all {
		if p := pathOf(o); name == "" || p == name || path.Base(p) == name {
			fit = append(fit, o)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) == 0 && name != "":
		return one, c.notFound(fmt.Sprintf("%s %q (there are: %s)", what, clean(name), names(all, pathOf)))
	case len(fit) == 0:
		return one, c.notFound("any " + what + " that the login may see")
	}
	// In the words of the placement: hostctl.AmbiguousError asks for a UUID.
	return one, c.refuse("there are %d choices of a %s: %s; name one", len(fit), what, names(fit, pathOf))
}

// names lists at most ten.
func names[T any](all []T, pathOf func(T) string) string {
	var said []string
	for _, o := range all {
		said = append(said, clean(pathOf(o)))
	}
	slices.Sort(said)
	if len(said) > 10 {
		said = append(said[:10], fmt.Sprintf("and %d more", len(said)-10))
	}
	return strings.Join(said, ", ")
}

// folder is the datacenter's own, or one below it.
func (c *Client) folder(ctx context.Context, f *find.Finder, at *place, name string) (*object.Folder, error) {
	folders, err := at.dc.Folders(ctx)
	if err != nil || name == "" || strings.Trim(name, "/") == "vm" {
		return vmFolder(folders), err
	}
	full := name
	if !strings.HasPrefix(name, "/") {
		full = path.Join(at.dc.InventoryPath, "vm", name)
	}
	found, err := none(f.FolderList(ctx, full))
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, c.notFound(fmt.Sprintf("folder %q of datacenter %s", clean(name), clean(at.dc.Name())))
	}
	return found[0], nil
}

func vmFolder(f *object.DatacenterFolders) *object.Folder {
	if f == nil {
		return nil
	}
	return f.VmFolder
}

// pool is the one of a name; without, the root pool of the server or of the only
// cluster.
func (c *Client) pool(ctx context.Context, f *find.Finder, at *place, name string) (*object.ResourcePool, error) {
	if name != "" {
		all, err := none(f.ResourcePoolListAll(ctx, "*"))
		if err != nil {
			return nil, err
		}
		return pick(c, "pool", name, all, func(p *object.ResourcePool) string { return p.InventoryPath })
	}
	if at.server != nil {
		return at.server.ResourcePool(ctx)
	}
	all, err := none(f.ComputeResourceList(ctx, "*"))
	if err != nil {
		return nil, err
	}
	cr, err := pick(c, "cluster or server (name its pool or a server of it)", "", all, func(r *object.ComputeResource) string { return r.InventoryPath })
	if err != nil {
		return nil, err
	}
	return cr.ResourcePool(ctx)
}

// datastore is the one of a name; without, the only one that the place reaches.
func (c *Client) datastore(ctx context.Context, l *link, f *find.Finder, at *place, name string) (string, error) {
	all, err := none(f.DatastoreList(ctx, "*"))
	if err != nil {
		return "", err
	}
	reached, err := c.reached(ctx, l, at)
	if err != nil {
		return "", err
	}
	all = slices.DeleteFunc(all, func(d *object.Datastore) bool { return len(reached) > 0 && !slices.Contains(reached, d.Reference()) })
	ds, err := pick(c, "datastore", name, all, func(d *object.Datastore) string { return d.InventoryPath })
	if err != nil {
		return "", err
	}
	return ds.Name(), nil
}

// reached are the datastores of the server, or of the pool's cluster.
func (c *Client) reached(ctx context.Context, l *link, at *place) ([]types.ManagedObjectReference, error) {
	pc := property.DefaultCollector(l.Client)
	if at.server != nil {
		var h mo.HostSystem
		err := pc.RetrieveOne(ctx, at.server.Reference(), []string{"datastore"}, &h)
		return h.Datastore, err
	}
	var p mo.ResourcePool
	if err := pc.RetrieveOne(ctx, at.pool.Reference(), []string{"owner"}, &p); err != nil {
		return nil, err
	}
	var r mo.ComputeResource
	err := pc.RetrieveOne(ctx, p.Owner, []string{"datastore"}, &r)
	return r.Datastore, err
}

// network finds the backing of a network by its name.
func (c *Client) network(ctx context.Context, l *link, dc *object.Datacenter, name string) (types.BaseVirtualDeviceBackingInfo, error) {
	if name == "" {
		return nil, c.notFound("a network without a name")
	}
	all, err := none(find.NewFinder(l.Client).SetDatacenter(dc).NetworkList(ctx, "*"))
	if err != nil {
		return nil, err
	}
	n, err := pick(c, "network", name, all, func(n object.NetworkReference) string { return n.GetInventoryPath() })
	if err != nil {
		return nil, err
	}
	return n.EthernetCardBackingInfo(ctx)
}
