package simvs

import (
	"errors"
	"fmt"
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// VM is a VM to make.
type VM struct {
	Name      string   `json:"name"`
	Datastore string   `json:"datastore,omitempty"` // default: the first one
	Disks     []Disk   `json:"disks,omitempty"`     // on scsi0:0, scsi0:1 and so on
	Networks  []string `json:"networks,omitempty"`  // default: VM Network
	CPUs      int32    `json:"cpus,omitempty"`      // default 1
	MemoryMiB int64    `json:"memory_mib,omitempty"`
	UUID      string   `json:"uuid,omitempty"` // instanceUuid; default: a random one
	Firmware  string   `json:"firmware,omitempty"`
	Guest     string   `json:"guest,omitempty"` // default otherGuest
	On        bool     `json:"on,omitempty"`
}

// Disk is a disk of it.
type Disk struct {
	Size        int64  `json:"size,omitempty"`  // bytes; with an Image: at least its size
	Image       string `json:"image,omitempty"` // a local file with the bytes to begin with
	Thick       bool   `json:"thick,omitempty"`
	Datastore   string `json:"datastore,omitempty"`   // default: that of the VM
	Independent bool   `json:"independent,omitempty"` // left out by snapshots
}

// AddVM makes a VM and returns its reference ("vm-21").
func (s *Server) AddVM(v *VM) (string, error) {
	spec, err := s.spec(v)
	if err != nil {
		return "", fmt.Errorf("simvs: VM %s: %w", v.Name, err)
	}
	ctx := s.context(s.cfg.User)
	result, fault := s.createVM(ctx, &types.CreateVM_Task{This: s.folder, Config: *spec, Pool: s.pool, Host: &s.hosts[0]})
	if fault != nil {
		return "", fmt.Errorf("simvs: VM %s: %s (%T)", v.Name, faultText(fault), fault)
	}
	m := s.machine(result.(types.ManagedObjectReference))
	if err := m.fill(v); err != nil {
		return "", fmt.Errorf("simvs: VM %s: %w", v.Name, err)
	}
	s.space(ctx, m.stores()...)
	if v.On {
		if err := s.PowerOn(m.ref.Value); err != nil {
			return "", err
		}
	}
	return m.ref.Value, nil
}

func (s *Server) spec(v *VM) (*types.VirtualMachineConfigSpec, error) {
	store := v.Datastore
	if store == "" {
		store = s.cfg.Datastores[0].Name
	}
	spec := &types.VirtualMachineConfigSpec{
		Name: v.Name, NumCPUs: max(v.CPUs, 1), MemoryMB: max(v.MemoryMiB, 32), InstanceUuid: v.UUID, Firmware: v.Firmware, GuestId: v.Guest,
		Files: &types.VirtualMachineFileInfo{VmPathName: "[" + store + "]"},
	}
	add(spec, scsiController("pvscsi", 0))
	for i, d := range v.Disks {
		size := (d.Size + 511) / 512 * 512
		if d.Image != "" {
			st, err := os.Stat(d.Image)
			if err != nil {
				return nil, err
			}
			size = max(size, (st.Size()+511)/512*512)
		}
		unit := int32(i)
		if unit >= 7 {
			unit++
		}
		backing := &types.VirtualDiskFlatVer2BackingInfo{ThinProvisioned: types.NewBool(!d.Thick), DiskMode: "persistent"}
		if d.Independent {
			backing.DiskMode = "independent_persistent"
		}
		if d.Datastore != "" {
			backing.FileName = "[" + d.Datastore + "]"
		}
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: types.VirtualDeviceConfigSpecFileOperationCreate,
			Device: &types.VirtualDisk{CapacityInBytes: size, VirtualDevice: types.VirtualDevice{ControllerKey: 1000, UnitNumber: &unit, Backing: backing}},
		})
	}
	networks := v.Networks
	if networks == nil {
		networks = []string{"VM Network"}
	}
	for i, name := range networks {
		card := &types.VirtualVmxnet3{}
		card.ControllerKey, card.UnitNumber, card.AddressType = 100, types.NewInt32(int32(7+i)), "generated"
		card.Backing = &types.VirtualEthernetCardNetworkBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: name}}
		card.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true}
		add(spec, card)
	}
	return spec, nil
}

// fill copies the images into the disks, which are empty.
func (m *machine) fill(v *VM) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, d := range m.disks {
		if i >= len(v.Disks) || v.Disks[i].Image == "" {
			continue
		}
		if err := os.Remove(d.leaf.flat()); err != nil {
			return err
		}
		if err := copyFlat(v.Disks[i].Image, d.leaf.flat(), d.size); err != nil {
			return err
		}
	}
	return nil
}

// act runs one action on a VM as its task would.
func (s *Server) act(vm string, do func(ctx *simulator.Context, m *machine) types.BaseMethodFault) error {
	m, err := s.find(vm)
	if err != nil {
		return err
	}
	m.op.Lock()
	defer m.op.Unlock()
	if fault := do(s.context(s.cfg.User), m); fault != nil {
		return fmt.Errorf("simvs: VM %s: %s", m.name, faultText(fault))
	}
	return nil
}

// PowerOn starts a VM, which is named by reference, name, instanceUuid or path.
func (s *Server) PowerOn(vm string) error {
	return s.act(vm, func(ctx *simulator.Context, m *machine) types.BaseMethodFault { return m.setPower(ctx, on) })
}

// PowerOff stops it.
func (s *Server) PowerOff(vm string) error {
	return s.act(vm, func(ctx *simulator.Context, m *machine) types.BaseMethodFault { return m.setPower(ctx, off) })
}

// PowerLoss stops it as a power cut does: change tracking begins anew.
func (s *Server) PowerLoss(vm string) error {
	return s.act(vm, func(ctx *simulator.Context, m *machine) types.BaseMethodFault {
		fault := m.setPower(ctx, off)
		m.mu.Lock()
		m.loseEpoch()
		m.mu.Unlock()
		return fault
	})
}

// ErrOff means that nobody can write: the VM is off.
var ErrOff = errors.New("simvs: the VM is off")
