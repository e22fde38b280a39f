package simvs

import (
	"crypto/rand"
	"os"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// RevertToSnapshotTask makes disks and configuration what they were.
func (h *snapshotHook) RevertToSnapshotTask(ctx *simulator.Context, _ *types.RevertToSnapshot_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "RevertToSnapshot_Task", "vm.Snapshot.revert", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return nil, h.m.revert(c, h.p.ref)
	})
	return &methods.RevertToSnapshot_TaskBody{Res: &types.RevertToSnapshot_TaskResponse{Returnval: ref}}
}

// RevertToCurrentSnapshotTask does it for the snapshot under the leaf.
func (h *vmHook) RevertToCurrentSnapshotTask(ctx *simulator.Context, _ *types.RevertToCurrentSnapshot_Task) soap.HasFault {
	h.m.mu.RLock()
	current := h.m.visible(h.m.current)
	h.m.mu.RUnlock()
	if current == nil {
		return &methods.RevertToCurrentSnapshot_TaskBody{Fault_: simulator.Fault("", &types.NotFound{})}
	}
	ref := h.s.start(ctx, h.m.ref, "RevertToCurrentSnapshot_Task", "VirtualMachine.revertToCurrentSnapshot", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return nil, h.m.revert(c, *current)
	})
	return &methods.RevertToCurrentSnapshot_TaskBody{Res: &types.RevertToCurrentSnapshot_TaskResponse{Returnval: ref}}
}

// revert puts a new leaf on the snapshot and takes its configuration. The old
// leaf is lost. A snapshot is without memory: the VM is off then.
func (m *machine) revert(ctx *simulator.Context, to types.ManagedObjectReference) types.BaseMethodFault {
	sw := m.s.switches()
	if sw.RevertDoesNothing {
		return nil
	}
	m.mu.RLock()
	p, on := m.points[to], m.power != types.VirtualMachinePowerStatePoweredOff
	m.mu.RUnlock()
	if p == nil || p.removed {
		return &types.ManagedObjectNotFound{Obj: to}
	}
	if on {
		m.setPower(ctx, types.VirtualMachinePowerStatePoweredOff)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.disks {
		if isLocked(d.leaf.flat()) {
			return &types.FileLocked{FileFault: types.FileFault{File: d.leaf.name()}}
		}
	}
	fresh := map[int32]link{}
	for key, l := range p.disks {
		one, err := m.regrow(l, sw.RevertWrongBytes)
		if err != nil {
			for _, made := range fresh {
				_ = made.remove()
			}
			return fileFault(l.name())
		}
		fresh[key] = one
	}
	m.dropLeaves(p, sw.StaleAfterRevert)
	if err := m.restoreConfig(ctx, p, fresh); err != nil {
		return fileFault(err.Error())
	}
	ref := p.ref
	m.current = &ref
	m.stun()
	m.showLeaves(ctx)
	m.showTree(ctx)
	m.saveVMXLocked(ctx)
	return nil
}

// regrow makes a new leaf with the bytes of l; or with wrong ones.
func (m *machine) regrow(l link, wrong bool) (link, error) {
	size, uuid, thin, err := readDescriptor(l.path())
	if err != nil {
		return link{}, err
	}
	one, err := l.next()
	if err != nil {
		return link{}, err
	}
	d := disk{size: size, uuid: uuid, thin: thin}
	if err := d.copyTo(l, one); err != nil {
		return link{}, err
	}
	if wrong {
		err = spoil(one.flat(), size)
	}
	return one, err
}

// spoil overwrites 4 KiB in the middle.
func spoil(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	garbage := make([]byte, min(4096, size))
	_, _ = rand.Read(garbage) // never fails
	_, err = f.WriteAt(garbage, size/2/4096*4096)
	return err
}

// dropLeaves deletes the files of the leaves that the snapshot will replace.
func (m *machine) dropLeaves(p *point, stale bool) {
	for _, d := range m.disks {
		under, ok := p.disks[d.key]
		if !ok || d.leaf == under {
			continue
		}
		if stale {
			d.track.blindTo(m.s, d.leaf, under, d.size)
		}
		_ = d.leaf.remove()
	}
}

// restoreConfig takes the snapshot's configuration, and leaves what belongs to
// the inventory: name, UUIDs, place.
func (m *machine) restoreConfig(ctx *simulator.Context, p *point, leaves map[int32]link) (err error) {
	o := ctx.Map.Get(p.ref).(*simulator.VirtualMachineSnapshot)
	var c types.VirtualMachineConfigInfo
	ctx.WithLock(o, func() { c = clone(o.Config) })
	for key, l := range leaves {
		setBacking(object.VirtualDeviceList(c.Hardware.Device), key, l, "")
	}
	ctx.WithLock(m.vm, func() {
		now := m.vm.Config
		c.Name, c.Files, c.Uuid, c.InstanceUuid, c.LocationId = now.Name, now.Files, now.Uuid, now.InstanceUuid, now.LocationId
		ctx.Update(m.vm, []types.PropertyChange{
			{Name: "config", Val: c},
			{Name: "summary.config.numCpu", Val: c.Hardware.NumCPU},
			{Name: "summary.config.memorySizeMB", Val: c.Hardware.MemoryMB},
			{Name: "summary.config.annotation", Val: c.Annotation},
			{Name: "summary.config.guestId", Val: c.GuestId},
		})
		err = m.takeConfig()
	})
	return err
}
