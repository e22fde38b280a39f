package vsphere

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// disks are the virtual disks among devices.
func disks(devices object.VirtualDeviceList) (all []hostctl.Disk) {
	for _, dev := range devices {
		d, ok := dev.(*types.VirtualDisk)
		if !ok {
			continue
		}
		k := backing(d.Backing)
		h := hostctl.Disk{
			Key: d.Key, Label: label(devices, d), UUID: clean(k.uuid), File: clean(k.file),
			Size: d.CapacityInBytes, Thin: k.thin, ChangeID: clean(k.changeID), Unfit: k.unfit,
		}
		if h.Size == 0 {
			h.Size = d.CapacityInKB * 1024 // before vSphere 5.5
		}
		h.Datastore, h.Adapter = datastoreOf(h.File), adapter(devices.FindByKey(d.ControllerKey))
		if h.Unfit == "" {
			h.Unfit = sharedBus(devices.FindByKey(d.ControllerKey))
		}
		all = append(all, h)
	}
	return all
}

// datastoreOf is "ds" of "[ds] dir/file".
func datastoreOf(file string) string {
	var p object.DatastorePath
	p.FromString(file)
	return p.Datastore
}

// diskBacking is what the kinds of backings have in common.
type diskBacking struct {
	file, uuid, changeID string
	thin                 bool
	unfit                string
	parents              []string // files, nearest first
}

// maxChain bounds how far a chain of backings is followed. vSphere allows 32
// snapshots.
const maxChain = 64

// backing reads the kinds of backing that a disk of a vCenter or ESXi has.
func backing(b types.BaseVirtualDeviceBackingInfo) (k diskBacking) {
	switch b := b.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		k = diskBacking{file: b.FileName, uuid: b.Uuid, changeID: b.ChangeId, thin: b.ThinProvisioned != nil && *b.ThinProvisioned, unfit: unfit(b.DiskMode, b.Sharing)}
		for p := b.Parent; p != nil && len(k.parents) < maxChain; p = p.Parent {
			k.parents = append(k.parents, clean(p.FileName))
		}
	case *types.VirtualDiskSeSparseBackingInfo:
		k = diskBacking{file: b.FileName, uuid: b.Uuid, changeID: b.ChangeId, thin: true, unfit: unfit(b.DiskMode, "")}
		for p := b.Parent; p != nil && len(k.parents) < maxChain; p = p.Parent {
			k.parents = append(k.parents, clean(p.FileName))
		}
	case *types.VirtualDiskSparseVer2BackingInfo:
		k = diskBacking{file: b.FileName, uuid: b.Uuid, changeID: b.ChangeId, thin: true, unfit: unfit(b.DiskMode, "")}
		for p := b.Parent; p != nil && len(k.parents) < maxChain; p = p.Parent {
			k.parents = append(k.parents, clean(p.FileName))
		}
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
		k = diskBacking{file: b.FileName, uuid: b.Uuid, changeID: b.ChangeId, unfit: unfit(b.DiskMode, b.Sharing)}
		if b.CompatibilityMode == string(types.VirtualDiskCompatibilityModePhysicalMode) {
			k.unfit = "a raw device in physical mode"
		}
		for p := b.Parent; p != nil && len(k.parents) < maxChain; p = p.Parent {
			k.parents = append(k.parents, clean(p.FileName))
		}
	case *types.VirtualDiskRawDiskVer2BackingInfo:
		k = diskBacking{uuid: b.Uuid, changeID: b.ChangeId, unfit: "a raw device"}
	case types.BaseVirtualDeviceFileBackingInfo:
		f := b.GetVirtualDeviceFileBackingInfo()
		k = diskBacking{file: f.FileName, unfit: fmt.Sprintf("a backing of another kind (%s)", strings.TrimPrefix(fmt.Sprintf("%T", b), "*types."))}
	default:
		k.unfit = "a backing of another kind"
	}
	return k
}

// unfit says why a disk can have no snapshot.
func unfit(mode, sharing string) string {
	switch types.VirtualDiskMode(mode) {
	case types.VirtualDiskModeIndependent_persistent:
		return "independent persistent"
	case types.VirtualDiskModeIndependent_nonpersistent:
		return "independent nonpersistent"
	case types.VirtualDiskModeNonpersistent, types.VirtualDiskModeUndoable, types.VirtualDiskModeAppend:
		return clean(mode)
	}
	if sharing != "" && sharing != string(types.VirtualDiskSharingSharingNone) {
		return "shared between VMs (" + clean(strings.TrimPrefix(sharing, "sharing")) + ")"
	}
	return ""
}

// sharedBus says why the disks of a controller can have no snapshot.
func sharedBus(dev types.BaseVirtualDevice) string {
	c, ok := dev.(types.BaseVirtualSCSIController)
	if !ok {
		return ""
	}
	if s := c.GetVirtualSCSIController().SharedBus; s != "" && s != types.VirtualSCSISharingNoSharing {
		return "on a SCSI bus that VMs share"
	}
	return ""
}

// label is where a disk is attached: "scsi0:1".
func label(devices object.VirtualDeviceList, d *types.VirtualDisk) string {
	kind, bus := "disk", int32(0)
	switch c := devices.FindByKey(d.ControllerKey).(type) {
	case types.BaseVirtualSCSIController:
		kind, bus = "scsi", c.GetVirtualSCSIController().BusNumber
	case *types.VirtualIDEController:
		kind, bus = "ide", c.BusNumber
	case types.BaseVirtualSATAController:
		kind, bus = "sata", c.GetVirtualSATAController().BusNumber
	case *types.VirtualNVMEController:
		kind, bus = "nvme", c.BusNumber
	default:
		return fmt.Sprintf("disk%d", d.Key)
	}
	unit := int32(0)
	if d.UnitNumber != nil {
		unit = *d.UnitNumber
	}
	return fmt.Sprintf("%s%d:%d", kind, bus, unit)
}

// adapter is the model of a controller, as adapters has it.
func adapter(dev types.BaseVirtualDevice) string {
	switch dev.(type) {
	case *types.ParaVirtualSCSIController:
		return "pvscsi"
	case *types.VirtualLsiLogicSASController:
		return "lsilogic-sas"
	case *types.VirtualLsiLogicController:
		return "lsilogic"
	case *types.VirtualBusLogicController:
		return "buslogic"
	case *types.VirtualNVMEController:
		return "nvme"
	case *types.VirtualIDEController:
		return "ide"
	case types.BaseVirtualSATAController:
		return "ahci"
	}
	return ""
}

// model is the model of a network card, as govmomi makes one of a name.
func model(dev types.BaseVirtualDevice) string {
	switch dev.(type) {
	case *types.VirtualVmxnet3:
		return "vmxnet3"
	case *types.VirtualVmxnet2:
		return "vmxnet2"
	case *types.VirtualE1000e:
		return "e1000e"
	case *types.VirtualE1000:
		return "e1000"
	case *types.VirtualPCNet32:
		return "pcnet32"
	case *types.VirtualSriovEthernetCard:
		return "sriov"
	}
	return ""
}

// nics are the network adapters among devices. The name of a distributed port
// group takes a call: see networkNames.
func nics(devices object.VirtualDeviceList) (all []hostctl.NIC) {
	for _, dev := range devices {
		e, ok := dev.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		card := e.GetVirtualEthernetCard()
		n := hostctl.NIC{Key: card.Key, MAC: clean(card.MacAddress), Network: networkOf(card.Backing)}
		if card.DeviceInfo != nil {
			n.Label = clean(card.DeviceInfo.GetDescription().Label)
		}
		n.Label = cmp.Or(n.Label, fmt.Sprintf("nic%d", card.Key))
		n.Model = model(dev)
		n.Connected = card.Connectable == nil || card.Connectable.StartConnected
		all = append(all, n)
	}
	return all
}

// networkOf is the name of a standard network, or the key of one whose name is
// elsewhere.
func networkOf(b types.BaseVirtualDeviceBackingInfo) string {
	switch b := b.(type) {
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		return clean(b.Port.PortgroupKey)
	case *types.VirtualEthernetCardOpaqueNetworkBackingInfo:
		return clean(b.OpaqueNetworkId)
	case types.BaseVirtualDeviceDeviceBackingInfo:
		return clean(b.GetVirtualDeviceDeviceBackingInfo().DeviceName)
	}
	return ""
}

// networkNames puts names in place of the keys of distributed port groups. One
// that the login may not see keeps its key.
func networkNames(ctx context.Context, pc *property.Collector, devices []types.BaseVirtualDevice, all []hostctl.NIC) error {
	byKey := map[int32]*hostctl.NIC{}
	for i := range all {
		byKey[all[i].Key] = &all[i]
	}
	for _, dev := range devices {
		b, ok := dev.GetVirtualDevice().Backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo)
		n := byKey[dev.GetVirtualDevice().Key]
		if !ok || n == nil {
			continue
		}
		ref := types.ManagedObjectReference{Type: "DistributedVirtualPortgroup", Value: b.Port.PortgroupKey}
		var e mo.DistributedVirtualPortgroup
		switch err := pc.RetrieveOne(ctx, ref, []string{"name"}, &e); {
		case err == nil:
			n.Network = clean(e.Name)
		case isGone(err) || is[*types.NoPermission](err):
		default:
			return err
		}
	}
	return nil
}
