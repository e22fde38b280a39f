package simvs

import (
	"reflect"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// DisableMethods and EnableMethods are not in the public API. govmomi has their
// requests (object/authorization_manager_internal.go) without exporting them.
type disableMethods struct {
	This   types.ManagedObjectReference   `xml:"_this"`
	Entity []types.ManagedObjectReference `xml:"entity"`
	Method []struct {
		Method string `xml:"method"`
		Reason string `xml:"reasonId"`
	} `xml:"method"`
	Source string `xml:"sourceId"`
}

type enableMethods struct {
	This   types.ManagedObjectReference   `xml:"_this"`
	Entity []types.ManagedObjectReference `xml:"entity"`
	Method []string                       `xml:"method"`
	Source string                         `xml:"sourceId"`
}

type (
	disableMethodsResponse struct{}
	enableMethodsResponse  struct{}
	disableMethodsBody     struct {
		Res    *disableMethodsResponse `xml:"DisableMethodsResponse,omitempty"`
		Fault_ *soap.Fault
	}
	enableMethodsBody struct {
		Res    *enableMethodsResponse `xml:"EnableMethodsResponse,omitempty"`
		Fault_ *soap.Fault
	}
)

func (b *disableMethodsBody) Fault() *soap.Fault { return b.Fault_ }
func (b *enableMethodsBody) Fault() *soap.Fault  { return b.Fault_ }

// The decoder of requests looks types up in govmomi's table, which must not
// change once it is in use: so before main.
var _ = func() bool {
	types.Add("DisableMethods", reflect.TypeFor[disableMethods]())
	types.Add("EnableMethods", reflect.TypeFor[enableMethods]())
	return true
}()

// DisableMethods keeps everybody from calling methods of entities.
func (h *rightsHook) DisableMethods(ctx *simulator.Context, r *disableMethods) soap.HasFault {
	h.s.mu.Lock()
	for _, e := range r.Entity {
		if h.s.disabled[e] == nil {
			h.s.disabled[e] = map[string]string{}
		}
		for _, m := range r.Method {
			h.s.disabled[e][m.Method] = r.Source
		}
	}
	h.s.mu.Unlock()
	h.s.showDisabled(ctx, r.Entity)
	return &disableMethodsBody{Res: &disableMethodsResponse{}}
}

// EnableMethods ends that, for what the same source has disabled.
func (h *rightsHook) EnableMethods(ctx *simulator.Context, r *enableMethods) soap.HasFault {
	h.s.mu.Lock()
	for _, e := range r.Entity {
		for _, m := range r.Method {
			if h.s.disabled[e][m] == r.Source {
				delete(h.s.disabled[e], m)
			}
		}
	}
	h.s.mu.Unlock()
	h.s.showDisabled(ctx, r.Entity)
	return &enableMethodsBody{Res: &enableMethodsResponse{}}
}

func (s *Server) showDisabled(ctx *simulator.Context, entities []types.ManagedObjectReference) {
	c := *ctx
	for _, e := range entities {
		m := s.machine(e)
		if m == nil {
			continue
		}
		s.mu.Lock()
		list := []string{}
		for method := range s.disabled[e] {
			list = append(list, method)
		}
		s.mu.Unlock()
		slices.Sort(list)
		c.WithLock(m.vm, func() {
			c.Update(m.vm, []types.PropertyChange{{Name: "disabledMethod", Val: list}})
		})
	}
}
