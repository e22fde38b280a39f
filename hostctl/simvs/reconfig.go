package simvs

import (
	"errors"
	"os"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// ReconfigVMTask changes the configuration: the simulator does it, and we what
// it means for files.
func (h *vmHook) ReconfigVMTask(ctx *simulator.Context, r *types.ReconfigVM_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "ReconfigVM_Task", "VirtualMachine.reconfigure", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return nil, h.m.reconfigure(c, &r.Spec)
	})
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: ref}}
}

func (m *machine) reconfigure(ctx *simulator.Context, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	if spec.InstanceUuid != "" && m.s.takenUUID(spec.InstanceUuid, m) {
		spec.InstanceUuid = newUUID()
	}
	spec.Files = nil // the place of a VM is not changed here
	var have object.VirtualDeviceList
	ctx.WithLock(m.vm, func() {
		have = clone(types.ArrayOfVirtualDevice{VirtualDevice: m.vm.Config.Hardware.Device}).VirtualDevice
	})
	dir, err := m.s.parseLink(m.vmx + ".vmdk") // in the directory of the .vmx
	if err != nil {
		return fileFault(m.vmx)
	}
	if fault := m.checkDisks(have, spec); fault != nil {
		return fault
	}
	done, fault := m.s.prepare(ctx, safeName(m.name), dir, have, spec.DeviceChange)
	if fault != nil {
		return fault
	}
	gone := m.destroyed(have, spec)
	if _, fault := m.s.base(ctx, m.vm, func() types.ManagedObjectReference {
		return m.vm.ReconfigVMTask(ctx, &types.ReconfigVM_Task{This: m.ref, Spec: *spec}).(*methods.ReconfigVM_TaskBody).Res.Returnval
	}); fault != nil {
		done.undo()
		return fault
	}
	return m.reconfigured(ctx, gone)
}

// checkDisks refuses to grow or take away what snapshots need.
func (m *machine) checkDisks(have object.VirtualDeviceList, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i, change := range spec.DeviceChange {
		c := change.GetVirtualDeviceConfigSpec()
		d, ok := c.Device.(*types.VirtualDisk)
		if !ok || c.Operation == types.VirtualDeviceConfigSpecOperationAdd {
			continue
		}
		old, ok := have.FindByKey(d.Key).(*types.VirtualDisk)
		if !ok {
			return &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
		}
		grows := c.Operation == types.VirtualDeviceConfigSpecOperationEdit && max(d.CapacityInBytes, d.CapacityInKB<<10) > old.CapacityInBytes
		switch {
		case grows && len(m.points) > 0:
			return &types.InvalidDeviceOperation{InvalidDeviceSpec: types.InvalidDeviceSpec{DeviceIndex: int32(i)}}
		case c.Operation == types.VirtualDeviceConfigSpecOperationEdit:
			d.Backing = old.Backing
			d.CapacityInBytes = max(d.CapacityInBytes, d.CapacityInKB<<10, old.CapacityInBytes)
			d.CapacityInKB = d.CapacityInBytes >> 10
		}
	}
	return nil
}

// destroyed lists the files that go with disks that are removed, and keeps the
// simulator from doing it.
func (m *machine) destroyed(have object.VirtualDeviceList, spec *types.VirtualMachineConfigSpec) (gone []link) {
	for _, change := range spec.DeviceChange {
		c := change.GetVirtualDeviceConfigSpec()
		if c.Operation != types.VirtualDeviceConfigSpecOperationRemove || c.FileOperation == "" {
			continue
		}
		d, ok := have.FindByKey(c.Device.GetVirtualDevice().Key).(*types.VirtualDisk)
		if !ok {
			continue
		}
		c.FileOperation = ""
		if b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			if l, err := m.s.parseLink(b.FileName); err == nil {
				gone = append(gone, l)
			}
		}
	}
	return gone
}

// reconfigured brings files in line with the new configuration.
func (m *machine) reconfigured(ctx *simulator.Context, gone []link) types.BaseMethodFault {
	m.mu.Lock()
	before := map[int32]*disk{}
	for _, d := range m.disks {
		before[d.key] = d
	}
	sizes := map[int32]int64{}
	for key, d := range before {
		sizes[key] = d.size
	}
	var err error
	ctx.WithLock(m.vm, func() { err = m.takeConfig() })
	for _, d := range m.disks {
		delete(before, d.key)
		if old, ok := sizes[d.key]; ok && old < d.size {
			err = errors.Join(err, d.extend())
		}
		if m.power == on && d.file == nil && err == nil {
			d.file, err = os.OpenFile(d.leaf.flat(), os.O_RDWR, 0)
		}
	}
	for _, d := range before { // taken away
		if d.file != nil {
			d.file.Close()
		}
	}
	for _, l := range gone {
		_ = l.remove()
	}
	m.relock()
	m.s.space(ctx, m.stores()...)
	m.saveVMXLocked(ctx)
	m.mu.Unlock()
	if err != nil {
		return fileFault(err.Error())
	}
	return nil
}

// extend makes the files as long as the configuration says.
func (d *disk) extend() error {
	if err := os.Truncate(d.leaf.flat(), d.size); err != nil {
		return err
	}
	return d.leaf.describe(d.size, d.uuid, d.thin)
}

// RenameTask changes the name; directory and files keep theirs.
func (h *vmHook) RenameTask(ctx *simulator.Context, r *types.Rename_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "Rename_Task", "ManagedEntity.rename", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return nil, h.m.reconfigure(c, &types.VirtualMachineConfigSpec{Name: r.NewName})
	})
	return &methods.Rename_TaskBody{Res: &types.Rename_TaskResponse{Returnval: ref}}
}

// RelocateVMTask moves nothing: it is refused, or, where it would change nothing,
// done.
func (h *vmHook) RelocateVMTask(ctx *simulator.Context, r *types.RelocateVM_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "RelocateVM_Task", "VirtualMachine.relocate", h.m, func(*simulator.Context) (types.AnyType, types.BaseMethodFault) {
		if r.Spec.Datastore == nil && len(r.Spec.Disk) == 0 {
			return nil, nil
		}
		return nil, &types.NotSupported{}
	})
	return &methods.RelocateVM_TaskBody{Res: &types.RelocateVM_TaskResponse{Returnval: ref}}
}

// CloneVMTask is refused: the simulator's copies have no bytes.
func (h *vmHook) CloneVMTask(*simulator.Context, *types.CloneVM_Task) soap.HasFault {
	return &methods.CloneVM_TaskBody{Fault_: simulator.Fault("clones are not simulated", &types.NotSupported{})}
}
