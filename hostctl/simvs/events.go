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

// posted tells that a task begins on a VM. Snapshots have no other events.
func (m *machine) posted(ctx *simulator.Context, t *simulator.Task) {
	postEvents(ctx, &types.TaskEvent{Event: m.event().Event, Info: t.Info})
}

func postEvents(ctx *simulator.Context, events ...types.BaseEvent) {
	em := ctx.Map.EventManager()
	ctx.WithLock(em, func() {
		for _, e := range events {
			em.PostEvent(ctx, &types.PostEvent{EventToPost: e})
		}
	})
}
