package simvs

import (
	"os"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// RemoveSnapshotTask takes a snapshot away and keeps what its VM has now.
func (h *snapshotHook) RemoveSnapshotTask(ctx *simulator.Context, r *types.RemoveSnapshot_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "RemoveSnapshot_Task", "vm.Snapshot.remove", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		keep := r.Consolidate != nil && !*r.Consolidate
		return nil, h.m.forget(c, []types.ManagedObjectReference{h.p.ref}, r.RemoveChildren, keep)
	})
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: ref}}
}

// RemoveAllSnapshotsTask takes all away.
func (h *vmHook) RemoveAllSnapshotsTask(ctx *simulator.Context, r *types.RemoveAllSnapshots_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "RemoveAllSnapshots_Task", "VirtualMachine.removeAllSnapshots", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		h.m.mu.RLock()
		var roots []types.ManagedObjectReference
		for _, p := range h.m.children(nil) {
			roots = append(roots, p.ref)
		}
		h.m.mu.RUnlock()
		return nil, h.m.forget(c, roots, true, r.Consolidate != nil && !*r.Consolidate)
	})
	return &methods.RemoveAllSnapshots_TaskBody{Res: &types.RemoveAllSnapshots_TaskResponse{Returnval: ref}}
}

// ConsolidateVMDisksTask merges what a removal had to leave.
func (h *vmHook) ConsolidateVMDisksTask(ctx *simulator.Context, _ *types.ConsolidateVMDisks_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "ConsolidateVMDisks_Task", "VirtualMachine.consolidateDisks", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return nil, h.m.forget(c, nil, false, false)
	})
	return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: ref}}
}

// forget removes snapshots and merges the disks of all removed ones, unless
// somebody has a file of them open: then they stay until a later consolidation,
// and the task fails as it does on a host.
func (m *machine) forget(ctx *simulator.Context, refs []types.ManagedObjectReference, below, keep bool) types.BaseMethodFault {
	m.mu.Lock()
	for i := 0; i < len(refs); i++ {
		p := m.points[refs[i]]
		if p == nil || p.removed && len(refs) == 1 {
			m.mu.Unlock()
			return &types.ManagedObjectNotFound{Obj: refs[i]}
		}
		p.removed = true
		if below {
			for _, child := range m.children(&p.ref) {
				refs = append(refs, child.ref)
			}
		}
	}
	var fault types.BaseMethodFault
	var gone []types.ManagedObjectReference
	for again := !keep; again; {
		again = false
		for _, p := range m.removedFromRoot(nil) {
			if fault = m.merge(ctx, p); fault != nil {
				break
			}
			gone, again = append(gone, p.ref), true
			break // the list has changed
		}
	}
	m.stun()
	m.relock()
	m.showLeaves(ctx)
	m.showTree(ctx)
	m.mu.Unlock()
	for _, ref := range gone {
		ctx.Map.Remove(ctx, ref)
	}
	m.saveVMX(ctx)
	return fault
}

// removedFromRoot lists removed snapshots, parents first.
func (m *machine) removedFromRoot(parent *types.ManagedObjectReference) (list []*point) {
	for _, p := range m.children(parent) {
		if p.removed {
			list = append(list, p)
		}
		list = append(list, m.removedFromRoot(&p.ref)...)
	}
	return list
}

// merge gives the files of what stands on p the names of p's files: on a host
// the child is written into its parent. m.mu is held.
func (m *machine) merge(ctx *simulator.Context, p *point) types.BaseMethodFault {
	heir, leaf := m.heir(p)
	if name := m.inUse(p, heir, leaf); name != "" {
		return &types.FileLocked{FileFault: types.FileFault{File: name}}
	}
	for key, l := range p.disks {
		from := link{}
		d := m.disk(key)
		switch {
		case leaf && d != nil:
			from = d.leaf
		case heir != nil:
			from = heir.disks[key]
		}
		if from.ds == nil { // nothing stands on it: its bytes are not needed
			if d == nil || d.leaf != l {
				_ = l.remove()
			}
			continue
		}
		if err := from.takeNameOf(l); err != nil {
			return fileFault(l.name())
		}
		if leaf {
			d.leaf = l
		} else {
			heir.disks[key] = l
		}
	}
	if heir != nil && !leaf {
		m.showPoint(ctx, heir)
	}
	for _, child := range m.children(&p.ref) {
		child.parent = p.parent
	}
	if m.current != nil && *m.current == p.ref {
		m.current = p.parent
	}
	delete(m.points, p.ref)
	return nil
}

// heir is what takes over the names of p's files: the leaf, or the snapshot on
// the way to the leaf, or any one.
func (m *machine) heir(p *point) (heir *point, leaf bool) {
	if m.current != nil && *m.current == p.ref {
		return nil, true
	}
	way := map[types.ManagedObjectReference]bool{}
	for at := m.current; at != nil && m.points[*at] != nil; at = m.points[*at].parent {
		way[*at] = true
	}
	for _, child := range m.children(&p.ref) {
		if heir == nil || way[child.ref] {
			heir = child
		}
	}
	return heir, false
}

// inUse names a file that somebody else has open.
func (m *machine) inUse(p, heir *point, leaf bool) string {
	var all []link
	for key, l := range p.disks {
		all = append(all, l)
		if d := m.disk(key); leaf && d != nil {
			all = append(all, d.leaf)
		} else if heir != nil && heir.disks[key].ds != nil {
			all = append(all, heir.disks[key])
		}
	}
	for _, l := range all {
		if isLocked(l.flat()) || isLocked(l.path()) {
			return l.name()
		}
	}
	return ""
}

// takeNameOf moves the bytes of from into l; from is gone then.
func (from link) takeNameOf(l link) error {
	size, uuid, thin, err := readDescriptor(from.path())
	if err != nil {
		return err
	}
	if err := os.Rename(from.flat(), l.flat()); err != nil {
		return err
	}
	if err := l.describe(size, uuid, thin); err != nil {
		return err
	}
	return os.Remove(from.path())
}

// showPoint writes the names of a snapshot's files into its configuration.
func (m *machine) showPoint(ctx *simulator.Context, p *point) {
	o, ok := ctx.Map.Get(p.ref).(*simulator.VirtualMachineSnapshot)
	if !ok {
		return
	}
	ctx.WithLock(o, func() {
		list := clone(types.ArrayOfVirtualDevice{VirtualDevice: o.Config.Hardware.Device}).VirtualDevice
		for key, l := range p.disks {
			setBacking(object.VirtualDeviceList(list), key, l, p.changes[key])
		}
		ctx.Update(o, []types.PropertyChange{{Name: "config.hardware.device", Val: list}})
	})
}
