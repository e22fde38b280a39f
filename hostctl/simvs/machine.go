package simvs

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// machine is what we know of a VM besides what the simulator does. Lock order:
// op, mu, a lock of the simulator, Server.mu.
type machine struct {
	s    *Server
	vm   *simulator.VirtualMachine
	ref  types.ManagedObjectReference
	name string // as at creation, for messages
	vmx  string // datastore path
	host types.ManagedObjectReference

	op sync.Mutex // one task at a time

	mu       sync.RWMutex // guards what follows; a guest's I/O holds it for reading
	power    types.VirtualMachinePowerState
	tools    bool // installed: they run while the VM does
	wanted   bool // change tracking in the configuration
	disks    []*disk
	points   map[types.ManagedObjectReference]*point
	current  *types.ManagedObjectReference // the snapshot that the leaf stands on
	serial   int32                         // of snapshots
	locks    []string                      // lock files
	title    string                        // the name of now
	uuid     string                        // instanceUuid
	bios     string
	answered chan struct{} // closed when the VM's question is answered
}

// disk is a virtual disk of a machine.
type disk struct {
	key         int32
	label       string
	uuid        string
	size        int64
	thin        bool
	independent bool
	leaf        link
	file        *os.File // of the leaf while the guest runs
	track       tracking
}

// point is a snapshot.
type point struct {
	ref     types.ManagedObjectReference
	parent  *types.ManagedObjectReference
	tree    types.VirtualMachineSnapshotTree // without children
	disks   map[int32]link
	changes map[int32]string // change IDs
	removed bool             // gone from the tree; its files wait for a consolidation
}

func (s *Server) machine(ref types.ManagedObjectReference) *machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machines[ref]
}

// find looks for a VM by reference, name, UUID or path of its .vmx.
func (s *Server) find(what string) (*machine, error) {
	var found []*machine
	for _, m := range s.all() {
		m.mu.RLock()
		same := m.ref.Value == what || m.title == what || m.vmx == what || m.uuid == what
		m.mu.RUnlock()
		if same {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("simvs: no VM %q", what)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("simvs: %d VMs are called %q: use a reference", len(found), what)
}

// all machines, oldest first.
func (s *Server) all() []*machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*machine
	for _, m := range s.machines {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *machine) int {
		if n := len(a.ref.Value) - len(b.ref.Value); n != 0 {
			return n
		}
		return strings.Compare(a.ref.Value, b.ref.Value)
	})
	return list
}

func (s *Server) snapshot(ref types.ManagedObjectReference) (*machine, *point) {
	for _, m := range s.all() {
		m.mu.RLock()
		p := m.points[ref]
		m.mu.RUnlock()
		if p != nil {
			return m, p
		}
	}
	return nil, nil
}

// adopt makes a machine of a VM that the simulator has.
func (s *Server) adopt(ctx *simulator.Context, ref types.ManagedObjectReference) (*machine, error) {
	vm := ctx.Map.Get(ref).(*simulator.VirtualMachine)
	m := &machine{
		s: s, vm: vm, ref: ref, power: types.VirtualMachinePowerStatePoweredOff, tools: true,
		points: map[types.ManagedObjectReference]*point{},
	}
	var err error
	ctx.WithLock(vm, func() {
		m.name, m.vmx, m.host = vm.Name, vm.Config.Files.VmPathName, *vm.Runtime.Host
		err = m.takeConfig()
		ctx.Update(vm, []types.PropertyChange{
			{Name: "capability.changeTrackingSupported", Val: true},
			{Name: "runtime.consolidationNeeded", Val: false},
		})
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.machines[ref] = m
	s.mu.Unlock()
	return m, nil
}

// takeConfig reads the configuration of the VM, whose lock is held, into m.
func (m *machine) takeConfig() error {
	c := m.vm.Config
	m.wanted = c.ChangeTrackingEnabled != nil && *c.ChangeTrackingEnabled
	m.title, m.uuid, m.bios = m.vm.Name, c.InstanceUuid, c.Uuid
	var disks []*disk
	list := object.VirtualDeviceList(c.Hardware.Device)
	for _, device := range list.SelectByType((*types.VirtualDisk)(nil)) {
		v := device.(*types.VirtualDisk)
		backing, ok := v.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if !ok {
			continue
		}
		l, err := m.s.parseLink(backing.FileName)
		if err != nil {
			return err
		}
		d := m.disk(v.Key)
		if d == nil {
			d = &disk{key: v.Key}
		}
		d.label, d.uuid, d.size = diskLabel(list, v), backing.Uuid, v.CapacityInBytes
		d.thin = backing.ThinProvisioned != nil && *backing.ThinProvisioned
		d.independent = strings.HasPrefix(backing.DiskMode, "independent")
		d.leaf = l
		disks = append(disks, d)
	}
	slices.SortFunc(disks, func(a, b *disk) int { return int(a.key) - int(b.key) })
	m.disks = disks
	return nil
}

func (m *machine) disk(key int32) *disk {
	for _, d := range m.disks {
		if d.key == key {
			return d
		}
	}
	return nil
}

// diskLabel is "scsi0:1".
func diskLabel(list object.VirtualDeviceList, v *types.VirtualDisk) string {
	unit := int32(0)
	if v.UnitNumber != nil {
		unit = *v.UnitNumber
	}
	kind, bus := "scsi", int32(0)
	switch c := list.FindByKey(v.ControllerKey).(type) {
	case types.BaseVirtualSCSIController:
		bus = c.GetVirtualSCSIController().BusNumber
	case types.BaseVirtualSATAController:
		kind, bus = "sata", c.GetVirtualSATAController().BusNumber
	case *types.VirtualNVMEController:
		kind, bus = "nvme", c.BusNumber
	case *types.VirtualIDEController:
		kind, bus = "ide", c.BusNumber
	}
	return fmt.Sprintf("%s%d:%d", kind, bus, unit)
}

// parseLink takes "[ds] dir/web.vmdk" apart.
func (s *Server) parseLink(name string) (link, error) {
	var p object.DatastorePath
	if !p.FromString(name) || s.stores[p.Datastore] == nil {
		return link{}, fmt.Errorf("%q names no datastore of this host", name)
	}
	base, ok := strings.CutSuffix(path.Base(p.Path), ".vmdk")
	if !ok || !filepath.IsLocal(p.Path) {
		return link{}, fmt.Errorf("%q is no path of a .vmdk", name)
	}
	return link{s.stores[p.Datastore], path.Dir(p.Path), base}, nil
}

// file is the local path of "[ds] dir/file".
func (s *Server) file(name string) (string, error) {
	var p object.DatastorePath
	if !p.FromString(name) || s.stores[p.Datastore] == nil || !filepath.IsLocal(p.Path) {
		return "", fmt.Errorf("%q names no file of this host", name)
	}
	return filepath.Join(s.stores[p.Datastore].Path, p.Path), nil
}

// clone copies a value of the API's types all through.
func clone[T any](v T) (c T) {
	text, err := xml.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("simvs: %T is no type of the API: %v", v, err))
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	d.TypeFunc = types.TypeFunc()
	if err := d.Decode(&c); err != nil {
		panic(fmt.Sprintf("simvs: %T is no type of the API: %v", v, err))
	}
	return c
}

// change edits a copy of the VM's devices and puts it in their place. The VM's
// lock is held.
func (m *machine) changeDevices(ctx *simulator.Context, edit func(object.VirtualDeviceList)) {
	list := clone(types.ArrayOfVirtualDevice{VirtualDevice: m.vm.Config.Hardware.Device}).VirtualDevice
	edit(list)
	ctx.Update(m.vm, []types.PropertyChange{{Name: "config.hardware.device", Val: list}})
}

// showLeaves writes the names of the leaves into the VM's devices. m.mu is held.
func (m *machine) showLeaves(ctx *simulator.Context) {
	ctx.WithLock(m.vm, func() {
		m.changeDevices(ctx, func(list object.VirtualDeviceList) {
			for _, d := range m.disks {
				setBacking(list, d.key, d.leaf, "")
			}
		})
	})
	m.s.space(ctx, m.stores()...)
}

func (m *machine) stores() (list []*datastore) {
	for _, d := range m.disks {
		if !slices.Contains(list, d.leaf.ds) {
			list = append(list, d.leaf.ds)
		}
	}
	return list
}

func setBacking(list object.VirtualDeviceList, key int32, l link, changeID string) {
	v, ok := list.FindByKey(key).(*types.VirtualDisk)
	if !ok {
		return
	}
	if b, ok := v.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
		b.FileName, b.Datastore, b.ChangeId = l.name(), &l.ds.ref, changeID
	}
}

// fileFault names a file in the way vSphere does.
func fileFault(name string) types.BaseMethodFault { return &types.FileFault{File: name} }
