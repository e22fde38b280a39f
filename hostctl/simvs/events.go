package simvs

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func (m *machine) event() types.VmEvent {
	return types.VmEvent{Event: types.Event{
		Datacenter: &types.DatacenterEventArgument{Datacenter: m.s.dc.Self, EntityEventArgument: types.EntityEventArgument{Name: m.s.dc.Name}},
		Host:       &types.HostEventArgument{Host: m.host},
		Vm:         &types.VmEventArgument{Vm: m.ref, EntityEventArgument: types.EntityEventArgument{Name: m.name}},
	}}
}

// post tells of what has no event of its own in the API: snapshots.
func (m *machine) post(ctx *simulator.Context, text string) {
	postEvents(ctx, &types.EventEx{
		Event: m.event().Event, EventTypeId: "simvs.vm.snapshot", Severity: string(types.EventEventSeverityInfo), Message: text,
		ObjectId: m.ref.Value, ObjectType: m.ref.Type, ObjectName: m.name,
	})
}

func postEvents(ctx *simulator.Context, events ...types.BaseEvent) {
	em := ctx.Map.EventManager()
	ctx.WithLock(em, func() {
		for _, e := range events {
			em.PostEvent(ctx, &types.PostEvent{EventToPost: e})
		}
	})
}
