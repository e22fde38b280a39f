package simvs

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type folderHook struct{ *hook }

// CreateVMTask makes a VM with disks that have bytes.
func (h *folderHook) CreateVMTask(ctx *simulator.Context, r *types.CreateVM_Task) soap.HasFault {
	ref := h.s.start(ctx, h.self, "CreateVM_Task", "Folder.createVm", nil, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return h.s.createVM(c, r)
	})
	return &methods.CreateVM_TaskBody{Res: &types.CreateVM_TaskResponse{Returnval: ref}}
}

// RegisterVMTask takes a VM from its .vmx.
func (h *folderHook) RegisterVMTask(ctx *simulator.Context, r *types.RegisterVM_Task) soap.HasFault {
	ref := h.s.start(ctx, h.self, "RegisterVM_Task", "Folder.registerVm", nil, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return h.s.registerVM(c, r)
	})
	return &methods.RegisterVM_TaskBody{Res: &types.RegisterVM_TaskResponse{Returnval: ref}}
}

func (s *Server) createVM(ctx *simulator.Context, r *types.CreateVM_Task) (types.AnyType, types.BaseMethodFault) {
	s.create.Lock()
	defer s.create.Unlock()
	spec := &r.Config
	if spec.Name == "" {
		return nil, &types.InvalidVmConfig{Property: "configSpec.name"}
	}
	folder, fault := s.vmFolder(ctx, r.This, &r.Pool, r.Host)
	if fault != nil {
		return nil, fault
	}
	dir, fault := s.vmDirectory(spec)
	if fault != nil {
		return nil, fault
	}
	defaults := object.VirtualDeviceList{}
	done, fault := s.prepare(ctx, safeName(spec.Name), dir, defaults, spec.DeviceChange)
	if fault != nil {
		os.Remove(filepath.Dir(dir.flat())) // if it is empty
		return nil, fault
	}
	if spec.InstanceUuid == "" || s.takenUUID(spec.InstanceUuid, nil) {
		spec.InstanceUuid = newUUID()
	}
	if spec.Uuid == "" {
		spec.Uuid = newUUID()
	}
	if spec.GuestId == "" {
		spec.GuestId = string(types.VirtualMachineGuestOsIdentifierOtherGuest)
	}
	result, fault := s.base(ctx, folder, func() types.ManagedObjectReference {
		return folder.CreateVMTask(ctx, r).(*methods.CreateVM_TaskBody).Res.Returnval
	})
	if fault != nil {
		done.undo()
		return nil, fault
	}
	m, err := s.adopt(ctx, result.(types.ManagedObjectReference))
	if err != nil {
		return nil, fileFault(err.Error())
	}
	m.saveVMX(ctx)
	s.space(ctx, m.stores()...)
	return m.ref, nil
}

// vmFolder checks what the simulator takes for granted.
func (s *Server) vmFolder(ctx *simulator.Context, ref types.ManagedObjectReference, pool, host *types.ManagedObjectReference) (*simulator.Folder, types.BaseMethodFault) {
	folder, ok := ctx.Map.Get(ref).(*simulator.Folder)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: ref}
	}
	if pool != nil && ctx.Map.Get(*pool) == nil {
		return nil, &types.ManagedObjectNotFound{Obj: *pool}
	}
	if host != nil && ctx.Map.Get(*host) == nil {
		return nil, &types.ManagedObjectNotFound{Obj: *host}
	}
	return folder, nil
}

// vmDirectory completes the path of a .vmx as a host does and makes its
// directory.
func (s *Server) vmDirectory(spec *types.VirtualMachineConfigSpec) (link, types.BaseMethodFault) {
	if spec.Files == nil || spec.Files.VmPathName == "" {
		return link{}, &types.InvalidVmConfig{Property: "configSpec.files.vmPathName"}
	}
	var p object.DatastorePath
	if !p.FromString(spec.Files.VmPathName) || p.Path != "" && !filepath.IsLocal(p.Path) {
		return link{}, &types.InvalidDatastorePath{DatastorePath: spec.Files.VmPathName}
	}
	ds := s.stores[p.Datastore]
	if ds == nil {
		return link{}, &types.InvalidDatastore{Name: p.Datastore}
	}
	name := safeName(spec.Name)
	if path.Ext(p.Path) != ".vmx" {
		dir := name
		if p.Path != "" {
			dir = p.Path
		}
		free := dir
		for n := 1; exists(filepath.Join(ds.Path, free)); n++ {
			free = fmt.Sprintf("%s_%d", dir, n)
		}
		p.Path = path.Join(free, name+".vmx")
	}
	vmx := filepath.Join(ds.Path, p.Path)
	if exists(vmx) {
		return link{}, &types.FileAlreadyExists{FileFault: types.FileFault{File: p.String()}}
	}
	if err := os.MkdirAll(filepath.Dir(vmx), 0o750); err != nil {
		return link{}, &types.CannotCreateFile{FileFault: types.FileFault{File: p.String()}}
	}
	spec.Files = &types.VirtualMachineFileInfo{VmPathName: p.String()}
	return link{ds: ds, dir: path.Dir(p.Path), base: name}, nil
}

// takenUUID reports whether another VM has the instanceUuid. An ESXi host does
// not care.
func (s *Server) takenUUID(id string, but *machine) bool {
	if s.cfg.Kind == ESXi || s.switches().DuplicateUUID {
		return false
	}
	for _, m := range s.all() {
		m.mu.RLock()
		same := m != but && strings.EqualFold(m.uuid, id)
		m.mu.RUnlock()
		if same {
			return true
		}
	}
	return false
}

func (s *Server) registerVM(ctx *simulator.Context, r *types.RegisterVM_Task) (types.AnyType, types.BaseMethodFault) {
	s.create.Lock()
	defer s.create.Unlock()
	if r.AsTemplate {
		return nil, &types.NotSupported{}
	}
	folder, fault := s.vmFolder(ctx, r.This, r.Pool, r.Host)
	if fault != nil {
		return nil, fault
	}
	var p object.DatastorePath
	if !p.FromString(r.Path) || path.Ext(p.Path) != ".vmx" {
		return nil, &types.InvalidDatastorePath{DatastorePath: r.Path}
	}
	for _, m := range s.all() {
		if m.vmx == p.String() {
			return nil, &types.AlreadyExists{Name: m.ref.Value}
		}
	}
	file, err := s.file(r.Path)
	if err != nil || !exists(file) {
		return nil, &types.NotFound{}
	}
	config, err := readVMX(file)
	if err != nil {
		return nil, &types.InvalidVmConfig{Property: err.Error()}
	}
	if r.Name == "" {
		r.Name = config.name
	}
	if r.Name == "" {
		r.Name = strings.TrimSuffix(path.Base(p.Path), ".vmx")
	}
	if r.Pool == nil {
		r.Pool = &s.pool
	}
	return s.register(ctx, folder, r, config)
}

// register lets the simulator make the VM, which it does without disks, and then
// gives it what the .vmx says.
func (s *Server) register(ctx *simulator.Context, folder *simulator.Folder, r *types.RegisterVM_Task, config *vmx) (types.AnyType, types.BaseMethodFault) {
	file, err := s.file(r.Path)
	if err != nil {
		return nil, &types.NotFound{}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fileFault(r.Path)
	}
	for _, name := range []string{r.Name + ".nvram", "vmware.log"} { // the simulator wants them
		if f, err := os.OpenFile(filepath.Join(filepath.Dir(file), safeName(name)), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
			f.Close()
		}
	}
	result, fault := s.base(ctx, folder, func() types.ManagedObjectReference {
		return folder.RegisterVMTask(ctx, r).(*methods.RegisterVM_TaskBody).Res.Returnval
	})
	if fault != nil {
		return nil, fault
	}
	ref := result.(types.ManagedObjectReference)
	m, err := s.adopt(ctx, ref)
	if err != nil {
		return nil, fileFault(r.Path)
	}
	m.op.Lock()
	defer m.op.Unlock()
	fault = m.applyVMX(ctx, config)
	if fault != nil {
		s.drop(ctx, m)
		_ = os.WriteFile(file, text, 0o600) // as it was
		return nil, fault
	}
	return ref, nil
}

// UnregisterVM takes the VM out of the inventory; its files stay.
func (h *vmHook) UnregisterVM(ctx *simulator.Context, _ *types.UnregisterVM) soap.HasFault {
	h.m.op.Lock()
	defer h.m.op.Unlock()
	if fault := h.m.isOff(); fault != nil {
		return &methods.UnregisterVMBody{Fault_: simulator.Fault(faultText(fault), fault)}
	}
	if fault := h.s.drop(ctx, h.m); fault != nil {
		return &methods.UnregisterVMBody{Fault_: simulator.Fault("", fault)}
	}
	return &methods.UnregisterVMBody{Res: &types.UnregisterVMResponse{}}
}

func (m *machine) isOff() types.BaseMethodFault {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.power == on {
		return &types.InvalidPowerState{RequestedState: off, ExistingState: m.power}
	}
	return nil
}

func (s *Server) drop(ctx *simulator.Context, m *machine) types.BaseMethodFault {
	c := *ctx
	var body soap.HasFault
	c.WithLock(m.vm, func() { body = m.vm.UnregisterVM(&c, &types.UnregisterVM{This: m.ref}) })
	if f := body.Fault(); f != nil {
		return f.VimFault().(types.BaseMethodFault)
	}
	s.mu.Lock()
	delete(s.machines, m.ref)
	delete(s.disabled, m.ref)
	s.mu.Unlock()
	m.mu.RLock()
	defer m.mu.RUnlock()
	for ref := range m.points {
		c.Map.Remove(&c, ref)
	}
	return nil
}

// DestroyTask deletes the VM with its files.
func (h *vmHook) DestroyTask(ctx *simulator.Context, _ *types.Destroy_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "Destroy_Task", "VirtualMachine.destroy", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return nil, h.m.destroy(c)
	})
	return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: ref}}
}

func (m *machine) destroy(ctx *simulator.Context) types.BaseMethodFault {
	if fault := m.isOff(); fault != nil {
		return fault
	}
	m.mu.RLock()
	var links []link
	for _, d := range m.disks {
		links = append(links, d.leaf)
	}
	for _, p := range m.points {
		for _, l := range p.disks {
			links = append(links, l)
		}
	}
	stores := m.stores()
	m.mu.RUnlock()
	for _, l := range links {
		if isLocked(l.flat()) || isLocked(l.path()) {
			return &types.FileLocked{FileFault: types.FileFault{File: l.name()}}
		}
	}
	if fault := m.s.drop(ctx, m); fault != nil {
		return fault
	}
	for _, l := range links {
		_ = l.remove()
		os.Remove(filepath.Dir(l.flat())) // if it is empty
	}
	if file, err := m.s.file(m.vmx); err == nil {
		os.RemoveAll(filepath.Dir(file))
	}
	m.s.space(ctx, stores...)
	return nil
}
