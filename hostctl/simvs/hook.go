package simvs

import (
	"reflect"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// anonymous are the methods that need no session. govmomi's simulator lets
// everybody read properties, a vCenter does not.
var anonymous = map[string]bool{
	"Login": true, "LoginByToken": true, "CloneSession": true, "RetrieveServiceContent": true, "CurrentTime": true,
}

// hook is an object that answers some methods in place of one of the simulator.
// Its calls are not serialised by the simulator: what they touch has locks.
type hook struct {
	s    *Server
	self types.ManagedObjectReference
}

func (h *hook) Reference() types.ManagedObjectReference { return h.self }
func (*hook) Lock()                                     {}
func (*hook) Unlock()                                   {}

// handle is called by the simulator for each call before it looks for the object
// itself. It refuses what is not allowed, and sends the methods that a hook has
// to the hook.
//
// The object that a Handler returns is forgotten when the session knows one for
// the same reference, and a session knows all that the inventory has
// (simulator.Service.call, Session.Get). So the reference of the call is changed
// to one that nobody knows; the body of the call keeps the true one.
// TestHandlerComesFirst fails when this order changes.
func (s *Server) handle(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if ctx.Session == nil && !anonymous[method.Name] {
		return nil, &types.NotAuthenticated{NoPermission: types.NoPermission{Object: &method.This, PrivilegeId: "System.View"}}
	}
	if ctx.Session != nil {
		if fault := s.authorize(ctx.Session.UserName, method); fault != nil {
			return nil, fault
		}
	}
	if s.isDisabled(method.This, method.Name) {
		return nil, &types.MethodDisabled{Source: "simvs"}
	}
	h := s.hookOf(method.This)
	if h == nil || !reflect.ValueOf(h).MethodByName(goName(method.Name)).IsValid() {
		return nil, nil
	}
	method.This = types.ManagedObjectReference{Type: "simvs", Value: method.This.Value}
	return h, nil
}

// goName is how the simulator spells a method: PowerOnVM_Task is PowerOnVMTask.
func goName(name string) string {
	if base, ok := strings.CutSuffix(name, "_Task"); ok {
		name = base + "Task"
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

func (s *Server) hookOf(ref types.ManagedObjectReference) mo.Reference {
	base := &hook{s, ref}
	switch ref.Type {
	case "VirtualMachine":
		if m := s.machine(ref); m != nil {
			return &vmHook{base, m}
		}
	case "VirtualMachineSnapshot":
		if m, point := s.snapshot(ref); m != nil {
			return &snapshotHook{base, m, point}
		}
	case "Folder":
		return &folderHook{base}
	case "SearchIndex":
		return &searchHook{base}
	case "SessionManager":
		return &sessionHook{base}
	case "AuthorizationManager":
		return &rightsHook{base}
	case "Datastore":
		return &storeHook{base}
	}
	return nil
}

// isDisabled reports whether somebody has disabled the method on the entity.
func (s *Server) isDisabled(ref types.ManagedObjectReference, method string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, off := s.disabled[ref][method]
	return off
}
