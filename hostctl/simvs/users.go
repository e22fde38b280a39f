package simvs

import (
	"slices"
	"sort"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// account is somebody who may log in.
type account struct {
	password   string
	admin      bool
	privileges []string
}

// AddUser lets somebody log in who has the given privileges, on everything, and
// no others. Once more with the same name it changes them.
func (s *Server) AddUser(name, password string, privileges ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[name] = &account{password: password, privileges: privileges}
}

// granted reports whether the user has the privilege. Calls from inside have no
// user and all privileges; everybody who is logged in may look.
func (s *Server) granted(user, privilege string) bool {
	switch privilege {
	case "System.Anonymous", "System.View", "System.Read", "":
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.users[user]
	return user == "" || a != nil && (a.admin || slices.Contains(a.privileges, privilege))
}

// privileges are those that methods need, on the object that they are called on.
// What is not here needs none.
var privileges = map[string][]string{
	"PowerOnVM_Task":                 {"VirtualMachine.Interact.PowerOn"},
	"PowerOffVM_Task":                {"VirtualMachine.Interact.PowerOff"},
	"ShutdownGuest":                  {"VirtualMachine.Interact.PowerOff"},
	"SuspendVM_Task":                 {"VirtualMachine.Interact.Suspend"},
	"ResetVM_Task":                   {"VirtualMachine.Interact.Reset"},
	"AnswerVM":                       {"VirtualMachine.Interact.AnswerQuestion"},
	"CreateSnapshot_Task":            {"VirtualMachine.State.CreateSnapshot"},
	"CreateSnapshotEx_Task":          {"VirtualMachine.State.CreateSnapshot"},
	"RemoveSnapshot_Task":            {"VirtualMachine.State.RemoveSnapshot"},
	"RemoveAllSnapshots_Task":        {"VirtualMachine.State.RemoveSnapshot"},
	"ConsolidateVMDisks_Task":        {"VirtualMachine.State.RemoveSnapshot"},
	"RevertToSnapshot_Task":          {"VirtualMachine.State.RevertToSnapshot"},
	"RevertToCurrentSnapshot_Task":   {"VirtualMachine.State.RevertToSnapshot"},
	"QueryChangedDiskAreas":          {"VirtualMachine.Provisioning.DiskRandomRead"},
	"CreateVM_Task":                  {"VirtualMachine.Inventory.Create"},
	"RegisterVM_Task":                {"VirtualMachine.Inventory.Register"},
	"UnregisterVM":                   {"VirtualMachine.Inventory.Unregister"},
	"Rename_Task":                    {"VirtualMachine.Config.Rename"},
	"Destroy_Task":                   {"VirtualMachine.Inventory.Delete"},
	"RelocateVM_Task":                {"Resource.ColdMigrate"},
	"DisableMethods":                 {"Global.DisableMethods"},
	"EnableMethods":                  {"Global.EnableMethods"},
	"DeleteDatastoreFile_Task":       {"Datastore.FileManagement"},
	"MoveDatastoreFile_Task":         {"Datastore.FileManagement"},
	"CopyDatastoreFile_Task":         {"Datastore.FileManagement"},
	"MakeDirectory":                  {"Datastore.FileManagement"},
	"SearchDatastore_Task":           {"Datastore.Browse"},
	"SearchDatastoreSubFolders_Task": {"Datastore.Browse"},
	"TerminateSession":               {"Sessions.TerminateSession"},
}

// authorize refuses what the user has no privilege for.
func (s *Server) authorize(user string, method *simulator.Method) types.BaseMethodFault {
	needs := privileges[method.Name]
	if r, ok := method.Body.(*types.ReconfigVM_Task); ok {
		needs = reconfigNeeds(&r.Spec)
	}
	for _, need := range needs {
		if !s.granted(user, need) {
			return &types.NoPermission{Object: &method.This, PrivilegeId: need}
		}
	}
	return nil
}

// reconfigNeeds are the privileges for a change of configuration.
func reconfigNeeds(spec *types.VirtualMachineConfigSpec) (needs []string) {
	need := func(yes bool, name string) {
		if yes {
			needs = append(needs, "VirtualMachine.Config."+name)
		}
	}
	need(spec.ChangeTrackingEnabled != nil, "ChangeTracking")
	need(len(spec.ExtraConfig) > 0, "AdvancedConfig")
	need(spec.Annotation != "", "Annotation")
	need(spec.NumCPUs != 0, "CPUCount")
	need(spec.MemoryMB != 0, "Memory")
	need(spec.Name != "", "Rename")
	for _, change := range spec.DeviceChange {
		c := change.GetVirtualDeviceConfigSpec()
		_, disk := c.Device.(*types.VirtualDisk)
		switch c.Operation {
		case types.VirtualDeviceConfigSpecOperationAdd:
			need(disk && c.FileOperation == "", "AddExistingDisk")
			need(disk && c.FileOperation != "", "AddNewDisk")
			need(!disk, "AddRemoveDevice")
		case types.VirtualDeviceConfigSpecOperationRemove:
			need(disk, "RemoveDisk")
			need(!disk, "AddRemoveDevice")
		case types.VirtualDeviceConfigSpecOperationEdit:
			need(disk, "DiskExtend")
			need(!disk, "EditDevice")
		}
	}
	if len(needs) == 0 {
		needs = []string{"VirtualMachine.Config.Settings"}
	}
	return needs
}

type rightsHook struct{ *hook }

// HasUserPrivilegeOnEntities answers truly.
func (h *rightsHook) HasUserPrivilegeOnEntities(_ *simulator.Context, r *types.HasUserPrivilegeOnEntities) soap.HasFault {
	return &methods.HasUserPrivilegeOnEntitiesBody{Res: &types.HasUserPrivilegeOnEntitiesResponse{Returnval: h.availability(r.UserName, r.Entities, r.PrivId)}}
}

// HasPrivilegeOnEntities answers truly for a session.
func (h *rightsHook) HasPrivilegeOnEntities(_ *simulator.Context, r *types.HasPrivilegeOnEntities) soap.HasFault {
	return &methods.HasPrivilegeOnEntitiesBody{Res: &types.HasPrivilegeOnEntitiesResponse{Returnval: h.availability(h.userOf(r.SessionId), r.Entity, r.PrivId)}}
}

// HasPrivilegeOnEntity answers truly for a session.
func (h *rightsHook) HasPrivilegeOnEntity(_ *simulator.Context, r *types.HasPrivilegeOnEntity) soap.HasFault {
	has := make([]bool, len(r.PrivId))
	for i, id := range r.PrivId {
		has[i] = h.s.granted(h.userOf(r.SessionId), id)
	}
	return &methods.HasPrivilegeOnEntityBody{Res: &types.HasPrivilegeOnEntityResponse{Returnval: has}}
}

// FetchUserPrivilegeOnEntities lists what a user has.
func (h *rightsHook) FetchUserPrivilegeOnEntities(_ *simulator.Context, r *types.FetchUserPrivilegeOnEntities) soap.HasFault {
	has := h.all(r.UserName)
	var list []types.UserPrivilegeResult
	for _, e := range r.Entities {
		list = append(list, types.UserPrivilegeResult{Entity: e, Privileges: has})
	}
	return &methods.FetchUserPrivilegeOnEntitiesBody{Res: &types.FetchUserPrivilegeOnEntitiesResponse{Returnval: list}}
}

func (h *rightsHook) availability(user string, entities []types.ManagedObjectReference, ids []string) (list []types.EntityPrivilege) {
	for _, e := range entities {
		p := types.EntityPrivilege{Entity: e}
		for _, id := range ids {
			p.PrivAvailability = append(p.PrivAvailability, types.PrivilegeAvailability{PrivId: id, IsGranted: user != "" && h.s.granted(user, id)})
		}
		list = append(list, p)
	}
	return list
}

// userOf is the user of a session; nobody has a name that no user has.
func (h *rightsHook) userOf(session string) string {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if user, ok := h.s.sessions[session]; ok {
		return user
	}
	return "\x00"
}

func (h *rightsHook) all(user string) (list []string) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	a := h.s.users[user]
	switch {
	case a == nil:
		return nil
	case !a.admin:
		list = append([]string{"System.Anonymous", "System.Read", "System.View"}, a.privileges...)
	default:
		seen := map[string]bool{}
		for _, ids := range privileges {
			for _, id := range ids {
				seen[id] = true
			}
		}
		for id := range seen {
			list = append(list, id)
		}
	}
	sort.Strings(list)
	return list
}
