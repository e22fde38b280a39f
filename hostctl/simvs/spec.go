package simvs

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// newUUID is random.
func newUUID() string { return uuid.NewString() }

// prepared is what prepare has made on disk; undo takes it away.
type prepared struct{ links []link }

func (p *prepared) undo() {
	for _, l := range p.links {
		_ = l.remove()
	}
}

// prepare makes a list of device changes fit for the simulator: the keys and
// units that a host would give, networks that exist, and for each new disk true
// files, so that the simulator need not make its empty ones. have are the devices
// that the VM has, dir its directory.
func (s *Server) prepare(ctx *simulator.Context, vmName string, dir link, have object.VirtualDeviceList, changes []types.BaseVirtualDeviceConfigSpec) (*prepared, types.BaseMethodFault) {
	done := &prepared{}
	keys := map[int32]int32{}
	all := append(object.VirtualDeviceList{}, have...)
	for i, change := range changes {
		spec := change.GetVirtualDeviceConfigSpec()
		if spec.Device == nil {
			return done, &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
		}
		if spec.Operation != types.VirtualDeviceConfigSpecOperationAdd {
			if fault := s.checkEdit(ctx, have, spec, int32(i)); fault != nil {
				done.undo()
				return done, fault
			}
			continue
		}
		v := spec.Device.GetVirtualDevice()
		if to, ok := keys[v.ControllerKey]; ok {
			v.ControllerKey = to
		}
		old := v.Key
		var fault types.BaseMethodFault
		switch d := spec.Device.(type) {
		case types.BaseVirtualSCSIController:
			v.Key = 1000 + d.GetVirtualSCSIController().BusNumber
		case types.BaseVirtualSATAController:
			v.Key = 15000 + d.GetVirtualSATAController().BusNumber
		case *types.VirtualNVMEController:
			v.Key = 31000 + d.BusNumber
		case *types.VirtualDisk:
			fault = s.prepareDisk(done, vmName, dir, all, spec, d)
		case types.BaseVirtualEthernetCard:
			v.Key = nextKey(all, 4000)
			fault = s.checkNetwork(ctx, v)
		}
		if fault != nil {
			done.undo()
			return done, fault
		}
		if old != v.Key {
			keys[old] = v.Key
		}
		all = append(all, spec.Device)
	}
	return done, nil
}

func nextKey(list object.VirtualDeviceList, from int32) int32 {
	for list.FindByKey(from) != nil {
		from++
	}
	return from
}

// checkNetwork refuses a NIC on a network that is not there. The simulator
// panics.
func (s *Server) checkNetwork(ctx *simulator.Context, v *types.VirtualDevice) types.BaseMethodFault {
	b, ok := v.Backing.(*types.VirtualEthernetCardNetworkBackingInfo)
	if !ok || s.hasNetwork(ctx, b.DeviceName) {
		return nil
	}
	return &types.InvalidDeviceBacking{InvalidDeviceSpec: types.InvalidDeviceSpec{InvalidVmConfig: types.InvalidVmConfig{Property: "network " + b.DeviceName}}}
}

func (s *Server) hasNetwork(ctx *simulator.Context, name string) bool {
	var refs []types.ManagedObjectReference
	ctx.WithLock(s.dc, func() { refs = append(refs, s.dc.Network...) })
	return ctx.Map.FindByName(name, refs) != nil
}

// checkEdit looks at changes and removals.
func (s *Server) checkEdit(ctx *simulator.Context, have object.VirtualDeviceList, spec *types.VirtualDeviceConfigSpec, i int32) types.BaseMethodFault {
	v := spec.Device.GetVirtualDevice()
	old := have.FindByKey(v.Key)
	if old == nil {
		return &types.InvalidDeviceSpec{DeviceIndex: i}
	}
	if spec.Operation != types.VirtualDeviceConfigSpecOperationEdit {
		return nil
	}
	if v.UnitNumber == nil {
		v.UnitNumber = old.GetVirtualDevice().UnitNumber
	}
	if _, ok := spec.Device.(types.BaseVirtualEthernetCard); ok {
		return s.checkNetwork(ctx, v)
	}
	return nil
}

// prepareDisk gives a disk its key, unit and files.
func (s *Server) prepareDisk(done *prepared, vmName string, dir link, all object.VirtualDeviceList, spec *types.VirtualDeviceConfigSpec, d *types.VirtualDisk) types.BaseMethodFault {
	invalid := &types.InvalidDeviceSpec{InvalidVmConfig: types.InvalidVmConfig{Property: "virtualDeviceSpec.device.backing"}}
	backing, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok || all.FindByKey(d.ControllerKey) == nil {
		return invalid
	}
	if d.UnitNumber == nil || *d.UnitNumber < 0 {
		d.UnitNumber = freeUnit(all, d.ControllerKey)
	}
	d.Key = diskKey(all, d)
	if d.CapacityInBytes == 0 {
		d.CapacityInBytes = d.CapacityInKB << 10
	}
	l, fault := s.placeDisk(vmName, dir, backing.FileName, spec.FileOperation != "")
	if fault != nil {
		return fault
	}
	if spec.FileOperation == "" {
		size, id, thin, err := readDescriptor(l.path())
		if err != nil {
			return &types.FileNotFound{FileFault: types.FileFault{File: l.name()}}
		}
		d.CapacityInBytes, backing.Uuid, backing.ThinProvisioned = size, id, types.NewBool(thin)
	} else {
		if fault := s.makeDisk(l, d, backing); fault != nil {
			return fault
		}
		done.links = append(done.links, l)
	}
	d.CapacityInKB = d.CapacityInBytes >> 10
	backing.FileName, backing.ChangeId, spec.FileOperation = l.name(), "", ""
	if backing.DiskMode == "" {
		backing.DiskMode = string(types.VirtualDiskModePersistent)
	}
	return nil
}

// diskKey is the one that a host gives: by controller and unit.
func diskKey(all object.VirtualDeviceList, d *types.VirtualDisk) int32 {
	switch c := all.FindByKey(d.ControllerKey).(type) {
	case types.BaseVirtualSCSIController:
		return 2000 + 16*c.GetVirtualSCSIController().BusNumber + *d.UnitNumber
	case types.BaseVirtualSATAController:
		return 16000 + 30*c.GetVirtualSATAController().BusNumber + *d.UnitNumber
	case *types.VirtualNVMEController:
		return 32000 + 15*c.BusNumber + *d.UnitNumber
	}
	return nextKey(all, 3000)
}

func freeUnit(all object.VirtualDeviceList, controller int32) *int32 {
	taken := map[int32]bool{7: true} // that of a SCSI controller
	for _, device := range all {
		if v := device.GetVirtualDevice(); v.ControllerKey == controller && v.UnitNumber != nil {
			taken[*v.UnitNumber] = true
		}
	}
	unit := int32(0)
	for taken[unit] {
		unit++
	}
	return &unit
}

// placeDisk completes a file name: "" and "[ds]" are for the host to fill.
func (s *Server) placeDisk(vmName string, dir link, name string, fresh bool) (link, types.BaseMethodFault) {
	var p object.DatastorePath
	if name != "" && !p.FromString(name) {
		return link{}, &types.InvalidDatastorePath{DatastorePath: name}
	}
	if p.Path != "" && path.Ext(p.Path) == ".vmdk" {
		l, err := s.parseLink(name)
		if err != nil {
			return l, &types.InvalidDatastorePath{DatastorePath: name}
		}
		return l, nil
	}
	if !fresh {
		return link{}, &types.InvalidDatastorePath{DatastorePath: name}
	}
	at := dir
	if p.Datastore != "" && p.Datastore != dir.ds.Name {
		if at.ds = s.stores[p.Datastore]; at.ds == nil {
			return link{}, &types.InvalidDatastore{Name: p.Datastore}
		}
	}
	for n := 0; ; n++ {
		at.base = vmName
		if n > 0 {
			at.base = fmt.Sprintf("%s_%d", vmName, n)
		}
		if !exists(at.path()) && !exists(at.flat()) {
			return at, nil
		}
	}
}

// makeDisk makes the files of an empty disk.
func (s *Server) makeDisk(l link, d *types.VirtualDisk, backing *types.VirtualDiskFlatVer2BackingInfo) types.BaseMethodFault {
	if exists(l.path()) || exists(l.flat()) {
		return &types.FileAlreadyExists{FileFault: types.FileFault{File: l.name()}}
	}
	if d.CapacityInBytes <= 0 || d.CapacityInBytes%512 != 0 {
		return &types.InvalidDeviceSpec{InvalidVmConfig: types.InvalidVmConfig{Property: "capacityInBytes"}}
	}
	thick := backing.ThinProvisioned == nil || !*backing.ThinProvisioned
	if _, free := s.used(l.ds); thick && free < d.CapacityInBytes {
		return &types.NoDiskSpace{FileFault: types.FileFault{File: l.name()}, Datastore: l.ds.Name}
	}
	if backing.Uuid == "" {
		id := newUUID()
		backing.Uuid = "6000c29" + id[7:]
	}
	err := os.MkdirAll(filepath.Dir(l.flat()), 0o750)
	if err == nil {
		err = makeFlat(l.flat(), d.CapacityInBytes)
	}
	if err == nil {
		err = l.describe(d.CapacityInBytes, backing.Uuid, !thick)
	}
	if err != nil {
		return &types.CannotCreateFile{FileFault: types.FileFault{File: l.name()}}
	}
	return nil
}

// safeName is a directory name for a VM.
func safeName(name string) string {
	return strings.NewReplacer("/", "%2f", "\\", "%5c", "[", "(", "]", ")").Replace(name)
}
