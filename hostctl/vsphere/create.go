package vsphere

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// Create implements hostctl.Registry. The path of the new VM comes from its name
// and the run, so a try after a crash finds it there, registered or not, and its
// mark says whose it is.
func (c *Client) Create(ctx context.Context, op *hostctl.Op, n hostctl.NewVM) (vm hostctl.VM, err error) {
	if err := c.sane(&n); err != nil {
		return vm, err
	}
	at, err := c.place(ctx, n.Place)
	if err != nil {
		return vm, err
	}
	vmx := pathOf(op, &n, at.datastore)
	vm, err = c.Find(ctx, hostctl.Query{Path: vmx})
	if isGone(err) {
		vm, err = c.make(ctx, op, &n, &at, vmx)
	}
	switch {
	case err != nil:
		return vm, err
	case vm.Marks[hostctl.MarkMade] != op.Run:
		return vm, c.notOurs(vm, op)
	case n.Registered:
		return vm, nil
	}
	return vm, c.Unregister(ctx, op, vm.Ref)
}

// sane looks at what a VM is to be made of, before anything is made.
func (c *Client) sane(n *hostctl.NewVM) error {
	if n.Name == "" || clean(n.Name) != n.Name || len(n.Name) > 80 || strings.ContainsAny(n.Name, "/\\%[]") {
		return c.refuse("%q cannot be the name of a VM: at most 80 bytes without control characters and / \\ %% [ ]", clean(n.Name))
	}
	if len(n.Disks) == 0 {
		return c.refuse("VM %s: it would have no disk", n.Name)
	}
	seen := map[string]bool{}
	for _, d := range n.Disks {
		switch {
		case d.Size <= 0 || d.Size%512 != 0:
			return c.refuse("VM %s: disk %s: %d bytes are not a number of sectors", n.Name, d.Like.Label, d.Size)
		case seen[d.Like.Label]:
			return c.refuse("VM %s: two disks are to be attached at %s", n.Name, d.Like.Label)
		}
		seen[d.Like.Label] = true
	}
	return nil
}

// pathOf is where Create puts the configuration of a VM.
func pathOf(op *hostctl.Op, n *hostctl.NewVM, datastore string) string {
	run := strings.ReplaceAll(op.Run, "-", "")
	p := object.DatastorePath{Datastore: datastore, Path: fmt.Sprintf("%s-%s/%s.vmx", n.Name, run[:min(8, len(run))], n.Name)}
	return p.String()
}

// make takes what an earlier try has left unregistered, or makes it.
func (c *Client) make(ctx context.Context, op *hostctl.Op, n *hostctl.NewVM, at *place, vmx string) (vm hostctl.VM, err error) {
	there, err := c.exists(ctx, vmx)
	if err != nil {
		return vm, err
	}
	if there {
		where := n.Place
		where.Datastore = at.datastore
		return c.adopt(ctx, op, vmx, where)
	}
	spec, err := c.spec(ctx, op, n, at, vmx)
	if err != nil {
		return vm, err
	}
	err = c.act(ctx, op, action{
		what: "make VM " + n.Name, kinds: []string{"createVm", "createVM"}, entity: at.folder.Reference(),
		done: func(ctx context.Context) (bool, error) {
			vm, err = c.Find(ctx, hostctl.Query{Path: vmx})
			return err == nil, unlessGone(err)
		},
		start: func(ctx context.Context, l *link) (types.ManagedObjectReference, error) {
			return task(object.NewFolder(l.Client, at.folder.Reference()).CreateVM(ctx, spec, at.pool, at.server))
		},
	})
	return vm, err
}

// spec is the configuration of a new VM: that of the one that it is to be like,
// with new disks. A hardware version is not asked for: the host's own suits it.
func (c *Client) spec(ctx context.Context, op *hostctl.Op, n *hostctl.NewVM, at *place, vmx string) (types.VirtualMachineConfigSpec, error) {
	spec := types.VirtualMachineConfigSpec{
		Name: n.Name, GuestId: cmp.Or(n.Like.GuestOS, string(types.VirtualMachineGuestOsIdentifierOtherGuest64)),
		NumCPUs: int32(max(1, n.Like.CPUs)), MemoryMB: max(4, n.Like.MemoryMiB), Firmware: n.Like.Firmware,
		Files: &types.VirtualMachineFileInfo{VmPathName: vmx},
		ExtraConfig: []types.BaseOptionValue{
			option(hostctl.MarkMade, op.Run),
			// Else its first power-on waits for "I moved it or I copied it".
			&types.OptionValue{Key: "uuid.action", Value: "keep"},
		},
	}
	var devices object.VirtualDeviceList
	devices, err := c.newDisks(n, at, devices)
	if err != nil {
		return spec, err
	}
	err = c.observe(ctx, "look for the networks of "+n.Name, func(l *link) (err error) {
		all, err := c.newNICs(ctx, l, n, at, devices)
		if err == nil {
			spec.DeviceChange, err = all.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
		}
		return err
	})
	return spec, err
}

// newDisks are the disks at the places of those that they are like, with their
// controllers.
func (c *Client) newDisks(n *hostctl.NewVM, at *place, devices object.VirtualDeviceList) (object.VirtualDeviceList, error) {
	controllers := map[string]types.BaseVirtualController{}
	for i, d := range n.Disks {
		kind, bus, unit, ok := parseLabel(d.Like.Label)
		if !ok {
			return nil, c.refuse("VM %s: disk %q: it is not known where to attach it; its label has to be like scsi0:0", n.Name, clean(d.Like.Label))
		}
		slot := fmt.Sprintf("%s%d", kind, bus)
		if controllers[slot] == nil {
			dev, err := newController(kind, bus, d.Like.Adapter, int32(-100-len(controllers)))
			if err != nil {
				return nil, c.refuse("VM %s: disk %s: %v", n.Name, d.Like.Label, err)
			}
			controllers[slot] = dev.(types.BaseVirtualController)
			devices = append(devices, dev)
		}
		devices = append(devices, newDisk(&d, at, controllers[slot], unit, int32(-200-i)))
	}
	return devices, nil
}

// parseLabel reads "scsi0:1".
func parseLabel(label string) (kind string, bus, unit int32, ok bool) {
	slot, u, found := strings.Cut(label, ":")
	kind = strings.TrimRight(slot, "0123456789")
	b, err1 := strconv.ParseInt(slot[len(kind):], 10, 8)
	n, err2 := strconv.ParseInt(u, 10, 8)
	known := slices.Contains([]string{"scsi", "sata", "ide", "nvme"}, kind)
	return kind, int32(b), int32(n), found && known && err1 == nil && err2 == nil && b >= 0 && n >= 0
}

// newController makes a controller of the model; without one, of the model that
// guests have known longest.
func newController(kind string, bus int32, adapter string, key int32) (types.BaseVirtualDevice, error) {
	at := types.VirtualController{BusNumber: bus, VirtualDevice: types.VirtualDevice{Key: key}}
	scsi := types.VirtualSCSIController{SharedBus: types.VirtualSCSISharingNoSharing, VirtualController: at}
	switch kind {
	case "sata":
		return &types.VirtualAHCIController{VirtualSATAController: types.VirtualSATAController{VirtualController: at}}, nil
	case "nvme":
		return &types.VirtualNVMEController{VirtualController: at}, nil
	case "ide":
		return &types.VirtualIDEController{VirtualController: at}, nil
	}
	switch adapter {
	case "pvscsi":
		return &types.ParaVirtualSCSIController{VirtualSCSIController: scsi}, nil
	case "lsilogic-sas":
		return &types.VirtualLsiLogicSASController{VirtualSCSIController: scsi}, nil
	case "buslogic":
		return &types.VirtualBusLogicController{VirtualSCSIController: scsi}, nil
	case "lsilogic", "":
		return &types.VirtualLsiLogicController{VirtualSCSIController: scsi}, nil
	}
	return nil, fmt.Errorf("a controller %q is not known", clean(adapter))
}

// newDisk is an empty disk. Its file gets its name from the host, beside the
// configuration or in a folder of the VM's name on another datastore.
func newDisk(d *hostctl.NewDisk, at *place, ctl types.BaseVirtualController, unit, key int32) *types.VirtualDisk {
	thin := d.Thin
	where := object.DatastorePath{Datastore: cmp.Or(d.Datastore, at.datastore)}
	return &types.VirtualDisk{
		CapacityInBytes: d.Size, CapacityInKB: (d.Size + 1023) / 1024,
		VirtualDevice: types.VirtualDevice{
			Key: key, ControllerKey: ctl.GetVirtualController().Key, UnitNumber: &unit,
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: where.String()},
				DiskMode:                     string(types.VirtualDiskModePersistent),
				ThinProvisioned:              &thin,
			},
		},
	}
}

// newNICs adds the NICs, on the networks that the map names or that are called
// the same here.
func (c *Client) newNICs(ctx context.Context, l *link, n *hostctl.NewVM, at *place, devices object.VirtualDeviceList) (object.VirtualDeviceList, error) {
	for i, like := range n.Like.NICs {
		name, mapped := n.Networks[like.Network]
		if !mapped {
			name = like.Network
		}
		backing, err := c.network(ctx, l, at.dc, name)
		if err != nil {
			if !mapped {
				return nil, fmt.Errorf("VM %s: %s is on network %q, and no map says which one that is here (mapped are: %s): %w", n.Name, like.Label, like.Network, strings.Join(slices.Sorted(maps.Keys(n.Networks)), ", "), err)
			}
			return nil, err
		}
		model := cmp.Or(like.Model, "vmxnet3")
		if model == "sriov" {
			return nil, c.refuse("VM %s: %s is a device of its host (SR-IOV); give the replica an ordinary adapter", n.Name, like.Label)
		}
		dev, err := devices.CreateEthernetCard(model, backing)
		if err != nil {
			return nil, c.refuse("VM %s: %s: an adapter %q is not known", n.Name, like.Label, model)
		}
		card := dev.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard()
		card.Key = int32(-300 - i)
		card.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: n.Connected, AllowGuestControl: true, Connected: n.Connected}
		devices = append(devices, dev)
	}
	return devices, nil
}
