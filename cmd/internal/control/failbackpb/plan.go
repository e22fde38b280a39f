package failbackpb

import (
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// FromPlan is the message of a plan.
func FromPlan(p *failback.Plan) *controlv1.FailbackPlan {
	out := &controlv1.FailbackPlan{
		Vm: p.VM, Destination: destinations.code(p.Destination), Replica: fromVM(&p.Replica), Target: fromVM(p.Target), Disks: each(p.Disks, fromPlanDisk),
		Actions: each(p.Actions, fromAction), Problems: each(p.Problems, fromProblem), Warnings: append([]string(nil), p.Warnings...), Why: p.Why,
		Bytes: p.Bytes, AtMostBytes: p.AtMost, Time: jobpb.FromDuration(p.Time), Downtime: jobpb.FromDuration(p.Downtime),
		Reckoned: p.Reckoned, Digest: jobpb.FromDigest(p.Digest),
	}
	return mended(out)
}

// ToPlan is the plan in a message, for programs that call the API.
func ToPlan(m *controlv1.FailbackPlan) (*failback.Plan, error) {
	if m == nil {
		return nil, jobpb.Invalid("plan", "it is missing")
	}
	r := &reader{}
	out := &failback.Plan{
		VM: m.Vm, Destination: destinations.word(m.Destination), Target: toVM(m.Target), Disks: each(m.Disks, toPlanDisk),
		Actions: each(m.Actions, toAction), Problems: each(m.Problems, toProblem), Warnings: m.Warnings, Why: m.Why, Bytes: m.Bytes, AtMost: m.AtMostBytes,
		Time: r.duration("plan.time", m.Time), Downtime: r.duration("plan.downtime", m.Downtime), Reckoned: m.Reckoned, Digest: r.digest("plan.digest", m.Digest),
	}
	if m.Replica != nil {
		out.Replica = *toVM(m.Replica)
	}
	return out, r.err
}

// notMeasured is PlanDisk.Differing when nobody has looked.
const notMeasured = -1

func fromPlanDisk(d failback.PlanDisk) *controlv1.PlanDisk {
	out := &controlv1.PlanDisk{
		Label: d.Label, Replica: fromDisk(d.Replica), Matched: d.Matched, Excluded: d.Excluded, Mode: d.Mode, Reason: d.Reason,
		ErrorBytes: d.Error, AtMostBytes: d.AtMost,
	}
	if d.Target != nil {
		out.Target = fromDisk(*d.Target)
	}
	if n := d.Differing; n >= 0 {
		out.DifferingBytes = &n
	}
	return out
}

func toPlanDisk(m *controlv1.PlanDisk) failback.PlanDisk {
	out := failback.PlanDisk{
		Label: m.GetLabel(), Replica: toDisk(m.GetReplica()), Matched: m.GetMatched(), Excluded: m.GetExcluded(), Mode: m.GetMode(), Reason: m.GetReason(),
		Differing: notMeasured, Error: m.GetErrorBytes(), AtMost: m.GetAtMostBytes(),
	}
	if t := m.GetTarget(); t != nil {
		target := toDisk(t)
		out.Target = &target
	}
	if m != nil && m.DifferingBytes != nil {
		out.Differing = *m.DifferingBytes
	}
	return out
}

func fromAction(a failback.Action) *controlv1.PlanAction {
	return &controlv1.PlanAction{Step: a.Step, Number: int32(a.Number), Host: a.Host, Vm: a.VM, Text: a.Text, Overwrites: a.Overwrites, Undo: a.Undo}
}

func toAction(m *controlv1.PlanAction) failback.Action {
	return failback.Action{
		Step: m.GetStep(), Number: int(m.GetNumber()), Host: m.GetHost(), VM: m.GetVm(), Text: m.GetText(), Overwrites: m.GetOverwrites(), Undo: m.GetUndo(),
	}
}

func fromProblem(p hostctl.Problem) *controlv1.Problem {
	return &controlv1.Problem{Reason: p.Reason, Text: p.Text, Remedy: p.Remedy}
}

func toProblem(m *controlv1.Problem) hostctl.Problem {
	return hostctl.Problem{Reason: m.GetReason(), Text: m.GetText(), Remedy: m.GetRemedy()}
}

// FromLeftover is the message of a leftover.
func FromLeftover(l failback.Leftover) *controlv1.Leftover {
	out := &controlv1.Leftover{Host: l.Host, Vm: fromRef(l.VM), Kind: l.Kind, Name: l.Name, Run: l.Run, Why: l.Why, Error: l.Error}
	if l.Op != nil {
		out.Op = &controlv1.HostOp{Run: l.Op.Run, Step: l.Op.Step, Task: l.Op.Task}
	}
	return mended(out)
}

// ToLeftover is the leftover in a message, for programs that call the API.
func ToLeftover(m *controlv1.Leftover) failback.Leftover {
	out := failback.Leftover{
		Host: m.GetHost(), VM: toRef(m.GetVm()), Kind: m.GetKind(), Name: m.GetName(), Run: m.GetRun(), Why: m.GetWhy(), Error: m.GetError(),
	}
	if op := m.GetOp(); op != nil {
		out.Op = &hostctl.Op{Run: op.Run, Step: op.Step, Task: op.Task}
	}
	return out
}
