package simvs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl/simvs"
	"github.com/haulback/haulback/vddk"
)

func (r *rig) place() (*object.Folder, *object.ResourcePool) {
	r.t.Helper()
	finder := find.NewFinder(r.c.Client)
	f, err := finder.DefaultFolder(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	pool, err := finder.DefaultResourcePool(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return f, pool
}

func TestRegister(t *testing.T) {
	for _, kind := range []string{simvs.VCenter, simvs.ESXi} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t, &simvs.VM{
				Name: "web", CPUs: 2, MemoryMiB: 512, Firmware: "efi", Disks: []simvs.Disk{{Size: 2 << 20}, {Size: 4 << 20, Thick: true, Datastore: "two"}},
				Networks: []string{"VM Network", "lan"}, On: true,
			}, simvs.Config{Kind: kind, Networks: []string{"lan"}, Datastores: []simvs.Datastore{{Name: "one"}, {Name: "two"}}})
			ctx := t.Context()
			r.write(1, "bytes", 1<<20)
			r.wait(r.vm.Reconfigure(ctx, types.VirtualMachineConfigSpec{
				Annotation: "a \"note\"\nof | two lines", ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: "haulback.mark", Value: "m1"}},
			}))
			before := r.props()
			if err := r.vm.Unregister(ctx); !fault.Is(err, &types.InvalidPowerState{}) {
				t.Errorf("unregister while on: %v", err)
			}
			r.wait(r.vm.PowerOff(ctx))
			if err := r.vm.Unregister(ctx); err != nil {
				t.Fatal(err)
			}
			folder, pool := r.place()
			ref := r.wait(folder.RegisterVM(ctx, before.Config.Files.VmPathName, "", false, pool, nil)).Result.(types.ManagedObjectReference)
			r.vm = object.NewVirtualMachine(r.c.Client, ref)
			now := r.props()
			a, b := before.Config, now.Config
			if a.Uuid != b.Uuid || a.InstanceUuid != b.InstanceUuid || a.Annotation != b.Annotation || a.Firmware != b.Firmware || b.Name != "web" ||
				a.Hardware.NumCPU != b.Hardware.NumCPU || a.Hardware.MemoryMB != b.Hardware.MemoryMB {
				t.Errorf("registered as %+v, was %+v", b, a)
			}
			for i, d := range disks(b) {
				was := disks(a)[i]
				if d.Key != was.Key || backing(d).Uuid != backing(was).Uuid || backing(d).FileName != backing(was).FileName || d.CapacityInBytes != was.CapacityInBytes {
					t.Errorf("disk %d: %+v, was %+v", i, d, was)
				}
			}
			nics := object.VirtualDeviceList(b.Hardware.Device).SelectByType((*types.VirtualEthernetCard)(nil))
			if len(disks(b)) != 2 || len(nics) != 2 {
				t.Errorf("%d disks, %d NICs", len(disks(b)), len(nics))
			}
			if got := extra(b, "haulback.mark"); got != "m1" {
				t.Errorf("mark %q", got)
			}
			if f := r.files("")[1]; !fileHas(t, f.Flat, "bytes", 1<<20) {
				t.Error("other bytes")
			}
			if _, err := r.vm.PowerOn(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

func extra(c *types.VirtualMachineConfigInfo, key string) string {
	for _, o := range c.ExtraConfig {
		if v := o.GetOptionValue(); v.Key == key {
			return v.Value.(string)
		}
	}
	return ""
}

// TestRegisterElsewhere takes a VM to a site that does not have its network, and
// whose VM has the same instanceUuid.
func TestRegisterElsewhere(t *testing.T) {
	dir := t.TempDir()
	home := newRig(t, &simvs.VM{Name: "web", Disks: []simvs.Disk{{Size: 1 << 20}}, Networks: []string{"home-lan"}}, simvs.Config{
		Dir: filepath.Join(dir, "home"), Networks: []string{"home-lan"},
	})
	uuid := home.props().Config.InstanceUuid
	if err := os.CopyFS(filepath.Join(dir, "dr", "LocalDS_0"), os.DirFS(home.Datastores()["LocalDS_0"])); err != nil {
		t.Fatal(err)
	}
	dr := start(t, simvs.Config{Dir: filepath.Join(dir, "dr"), Networks: []string{"dr-lan"}}) // finds it
	g, err := dr.Guest("web")
	if err != nil || g == nil {
		t.Fatal(err)
	}
	r := &rig{t: t, Server: dr, c: admin(t, dr)}
	vm, err := find.NewFinder(r.c.Client).VirtualMachine(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	r.vm = vm
	nics := object.VirtualDeviceList(r.props().Config.Hardware.Device).SelectByType((*types.VirtualEthernetCard)(nil))
	if len(nics) != 1 {
		t.Fatalf("%d NICs", len(nics))
	}
	card := nics[0].(types.BaseVirtualEthernetCard).GetVirtualEthernetCard()
	if name := card.Backing.(*types.VirtualEthernetCardNetworkBackingInfo).DeviceName; name != "home-lan" {
		t.Errorf("network %q", name)
	}
	card.Backing = &types.VirtualEthernetCardNetworkBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "dr-lan"}}
	if err := r.vm.EditDevice(t.Context(), nics[0]); err != nil {
		t.Fatal(err)
	}
	if got := r.props(); got.Config.InstanceUuid != uuid || len(got.Network) != 1 {
		t.Errorf("uuid %s, networks %v", got.Config.InstanceUuid, got.Network)
	}
	ref, err := dr.AddVM(&simvs.VM{Name: "copy", UUID: uuid})
	if err != nil {
		t.Fatal(err)
	}
	r.vm = object.NewVirtualMachine(r.c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: ref})
	if r.props().Config.InstanceUuid == uuid {
		t.Error("two VMs have one instanceUuid")
	}
	dr.Switch(func(sw *simvs.Switches) { sw.DuplicateUUID = true })
	if ref, err = dr.AddVM(&simvs.VM{Name: "copy2", UUID: uuid}); err != nil {
		t.Fatal(err)
	}
	r.vm = object.NewVirtualMachine(r.c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: ref})
	if r.props().Config.InstanceUuid != uuid {
		t.Error("the switch DuplicateUUID does nothing")
	}
}

func TestCreateAndDestroy(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	ctx := t.Context()
	folder, pool := r.place()
	var devices object.VirtualDeviceList
	scsi, err := devices.CreateSCSIController("pvscsi")
	if err != nil {
		t.Fatal(err)
	}
	devices = append(devices, scsi)
	disk := devices.CreateDisk(scsi.(types.BaseVirtualController), types.ManagedObjectReference{}, "")
	disk.CapacityInKB = 3 << 10
	devices = append(devices, disk)
	change, err := devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	if err != nil {
		t.Fatal(err)
	}
	info := r.wait(folder.CreateVM(ctx, types.VirtualMachineConfigSpec{
		Name: "new", Files: &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"}, DeviceChange: change,
	}, pool, nil))
	r.vm = object.NewVirtualMachine(r.c.Client, info.Result.(types.ManagedObjectReference))
	f := r.files("")[0]
	if f.Key != 2000 || f.Label != "scsi0:0" || f.Size != 3<<20 {
		t.Errorf("%+v", f)
	}
	d, err := vddk.Open(ctx, "vmdk://"+f.Descriptor, vddk.Options{Mode: vddk.ReadWrite})
	if err != nil {
		t.Fatal(err)
	}
	if d.Size() != 3<<20 {
		t.Errorf("the driver sees %d bytes", d.Size())
	}
	task, err := r.vm.PowerOn(ctx)
	if err := r.fails(task, err); !fault.Is(err, &types.FileLocked{}) {
		t.Errorf("power on while the driver has the disk: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	r.wait(r.vm.PowerOn(ctx))
	if d, err := vddk.Open(ctx, "vmdk://"+f.Descriptor, vddk.Options{Mode: vddk.ReadWrite}); err == nil {
		d.Close()
		t.Error("the driver opened the disk of a VM that runs for writing")
	} else {
		t.Log(err)
	}
	r.wait(r.vm.PowerOff(ctx))
	// a second disk, grown, and taken away with its file
	list, err := r.vm.Device(ctx)
	if err != nil {
		t.Fatal(err)
	}
	controller, err := list.FindDiskController("")
	if err != nil {
		t.Fatal(err)
	}
	second := list.CreateDisk(controller, types.ManagedObjectReference{}, "[LocalDS_0] new/data.vmdk")
	second.CapacityInKB = 1 << 10
	if err := r.vm.AddDevice(ctx, second); err != nil {
		t.Fatal(err)
	}
	grown := disks(r.props().Config)[1]
	grown.CapacityInKB, grown.CapacityInBytes = 2<<10, 2<<20
	if err := r.vm.EditDevice(ctx, grown); err != nil {
		t.Fatal(err)
	}
	if f := r.files("")[1]; f.Size != 2<<20 || f.Name != "[LocalDS_0] new/data.vmdk" {
		t.Errorf("%+v", f)
	} else if st, err := os.Stat(f.Flat); err != nil || st.Size() != 2<<20 {
		t.Errorf("%v, %v", st, err)
	}
	if err := r.vm.RemoveDevice(ctx, false, disks(r.props().Config)[1]); err != nil {
		t.Fatal(err)
	}
	if n := len(r.files("")); n != 1 {
		t.Errorf("%d disks", n)
	}
	r.snapshot("s")
	r.wait(r.vm.Destroy(ctx))
	if _, err := os.Stat(filepath.Dir(f.Flat)); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}
