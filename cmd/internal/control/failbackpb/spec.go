package failbackpb

import (
	"fmt"
	"maps"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// FromSpec is the message of a spec.
func FromSpec(s *failback.Spec) *controlv1.FailbackSpec {
	out := &controlv1.FailbackSpec{
		Vm: s.VM, Destination: destinations.code(s.Destination), Target: fromQuery(s.Target), TargetHost: s.TargetHost,
		Networks: maps.Clone(s.Networks), Switch: FromSwitch(s.Switch), PowerOn: s.PowerOn, Isolated: s.Isolated,
		Grace: jobpb.FromDuration(s.Grace), NoRollback: s.NoRollback, Tracking: firstPasses.code(s.Tracking), Full: s.Full,
		Limits: jobpb.FromLimits(s.Limits), Priority: jobpb.FromPriority(s.Priority), Group: s.Group, Order: int32(s.Order),
		PowerOnUnproved: s.PowerOnUnproved, Disks: each(s.Disks, fromRule),
	}
	if s.New != nil {
		out.NewTarget = &controlv1.NewTarget{Name: s.New.Name, Place: fromPlacement(s.New.Place)}
	}
	if s.Policy != (failback.Policy{}) {
		out.Policy = &controlv1.FailbackPolicy{After: jobpb.FromDuration(s.Policy.After), Undo: s.Policy.Undo}
	}
	return mended(out)
}

func fromRule(r failback.DiskRule) *controlv1.DiskRule {
	return &controlv1.DiskRule{Disk: r.Disk, Exclude: r.Exclude, Target: r.Target, GrowBytes: r.Grow, Thin: clone(r.Thin), Datastore: r.Datastore}
}

func toRule(m *controlv1.DiskRule) failback.DiskRule {
	out := failback.DiskRule{Disk: m.GetDisk(), Exclude: m.GetExclude(), Target: m.GetTarget(), Grow: m.GetGrowBytes(), Datastore: m.GetDatastore()}
	if m != nil {
		out.Thin = clone(m.Thin)
	}
	return out
}

func clone(b *bool) *bool {
	if b == nil {
		return nil
	}
	c := *b
	return &c
}

// ToSpec is the spec in a message; field is what the caller calls the message.
func ToSpec(field string, m *controlv1.FailbackSpec) (s failback.Spec, err error) {
	if m == nil {
		return s, jobpb.Invalid(field, "it is missing")
	}
	if n := max(len(m.Disks), len(m.Networks)); n > maxList {
		return s, jobpb.Invalid(field, "%d disks or networks, %d at most", n, maxList)
	}
	for i, d := range m.Disks {
		if d == nil {
			return s, jobpb.Invalid(fmt.Sprintf("%s.disks[%d]", field, i), "it is missing")
		}
	}
	s = failback.Spec{
		VM: m.Vm, Target: toQuery(m.Target), TargetHost: m.TargetHost, Disks: each(m.Disks, toRule), PowerOn: m.PowerOn, Isolated: m.Isolated,
		NoRollback: m.NoRollback, Full: m.Full, Group: m.Group, Order: int(m.Order), PowerOnUnproved: m.PowerOnUnproved,
	}
	if len(m.Networks) > 0 {
		s.Networks = maps.Clone(m.Networks)
	}
	if m.NewTarget != nil {
		s.New = &failback.NewTarget{Name: m.NewTarget.Name, Place: toPlacement(m.NewTarget.Place)}
	}
	if s.Destination, err = destinations.known(field+".destination", m.Destination); err != nil {
		return s, err
	}
	if s.Tracking, err = firstPasses.known(field+".tracking", m.Tracking); err != nil {
		return s, err
	}
	if s.Switch, err = ToSwitch(field+".switch", m.Switch); err != nil {
		return s, err
	}
	if s.Priority, err = jobpb.ToPriority(field+".priority", m.Priority); err != nil {
		return s, err
	}
	if s.Limits, err = jobpb.ToLimits(field+".limits", m.Limits); err != nil {
		return s, err
	}
	if s.Grace, err = jobpb.ToDuration(field+".grace", m.Grace); err != nil {
		return s, err
	}
	s.Policy.Undo = m.GetPolicy().GetUndo()
	s.Policy.After, err = jobpb.ToDuration(field+".policy.after", m.GetPolicy().GetAfter())
	return s, err
}

// FromSwitch is the message of a switch, nil when it says nothing.
func FromSwitch(s failback.Switch) *controlv1.SwitchSpec {
	if s == (failback.Switch{}) {
		return nil
	}
	return &controlv1.SwitchSpec{When: whens.code(s.When), At: jobpb.FromTime(s.At), Budget: jobpb.FromDuration(s.Budget), Passes: int32(s.Passes)}
}

// ToSwitch is the switch in a message; none is the zero Switch.
func ToSwitch(field string, m *controlv1.SwitchSpec) (s failback.Switch, err error) {
	if m == nil {
		return s, nil
	}
	if m.At != nil && m.At.CheckValid() != nil {
		return s, jobpb.Invalid(field+".at", "not a time")
	}
	s = failback.Switch{At: jobpb.ToTime(m.At), Passes: int(m.Passes)}
	if s.When, err = whens.known(field+".when", m.When); err != nil {
		return s, err
	}
	s.Budget, err = jobpb.ToDuration(field+".budget", m.Budget)
	return s, err
}
