package simvs

import (
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sys/unix"
)

// searchHook finds VMs. The simulator reads their configuration without a lock.
type searchHook struct{ *hook }

func (h *searchHook) matches(same func(m *machine) bool) (refs []types.ManagedObjectReference) {
	for _, m := range h.s.all() {
		m.mu.RLock()
		if same(m) {
			refs = append(refs, m.ref)
		}
		m.mu.RUnlock()
	}
	return refs
}

func byUUID(id string, instance *bool) func(m *machine) bool {
	return func(m *machine) bool {
		if instance != nil && *instance {
			return strings.EqualFold(m.uuid, id)
		}
		return strings.EqualFold(m.bios, id)
	}
}

func first(refs []types.ManagedObjectReference) *types.ManagedObjectReference {
	if len(refs) == 0 {
		return nil
	}
	return &refs[0]
}

// FindByUuid finds a VM, the first of several.
func (h *searchHook) FindByUuid(ctx *simulator.Context, r *types.FindByUuid) soap.HasFault {
	if !r.VmSearch {
		return ctx.Map.SearchIndex().FindByUuid(ctx, r)
	}
	return &methods.FindByUuidBody{Res: &types.FindByUuidResponse{Returnval: first(h.matches(byUUID(r.Uuid, r.InstanceUuid)))}}
}

// FindAllByUuid finds all of them.
func (h *searchHook) FindAllByUuid(ctx *simulator.Context, r *types.FindAllByUuid) soap.HasFault {
	if !r.VmSearch {
		return ctx.Map.SearchIndex().FindAllByUuid(ctx, r)
	}
	return &methods.FindAllByUuidBody{Res: &types.FindAllByUuidResponse{Returnval: h.matches(byUUID(r.Uuid, r.InstanceUuid))}}
}

// FindByDatastorePath finds a VM by its .vmx.
func (h *searchHook) FindByDatastorePath(_ *simulator.Context, r *types.FindByDatastorePath) soap.HasFault {
	var p object.DatastorePath
	p.FromString(r.Path)
	refs := h.matches(func(m *machine) bool { return m.vmx == p.String() })
	return &methods.FindByDatastorePathBody{Res: &types.FindByDatastorePathResponse{Returnval: first(refs)}}
}

type storeHook struct{ *hook }

// RefreshDatastore counts what is free.
func (h *storeHook) RefreshDatastore(ctx *simulator.Context, _ *types.RefreshDatastore) soap.HasFault {
	c := *ctx
	for _, ds := range h.s.stores {
		if ds.ref == h.self {
			h.s.space(&c, ds)
		}
	}
	return &methods.RefreshDatastoreBody{Res: &types.RefreshDatastoreResponse{}}
}

// used is what the files of a datastore take, and what is left of its capacity
// and of the file system below.
func (s *Server) used(ds *datastore) (used, free int64) {
	_ = filepath.WalkDir(ds.Path, func(path string, e fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && e.Type().IsRegular() && unix.Stat(path, &st) == nil {
			used += st.Blocks * 512
		}
		return nil // what goes away meanwhile takes no space
	})
	free = max(ds.Capacity-used, 0)
	var fs unix.Statfs_t
	if unix.Statfs(ds.Path, &fs) == nil {
		free = min(free, int64(fs.Bavail)*fs.Bsize)
	}
	return used, free
}

// space writes the free space of datastores into their properties.
func (s *Server) space(ctx *simulator.Context, stores ...*datastore) {
	s.stock.Lock()
	defer s.stock.Unlock()
	for _, ds := range stores {
		_, free := s.used(ds)
		o, ok := ctx.Map.Get(ds.ref).(*simulator.Datastore)
		if !ok {
			continue
		}
		ctx.WithLock(o, func() {
			ctx.Update(o, []types.PropertyChange{
				{Name: "summary.capacity", Val: ds.Capacity},
				{Name: "summary.freeSpace", Val: free},
			})
			info := o.Info.GetDatastoreInfo()
			info.FreeSpace = free
		})
	}
}
