package failbackpb

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// FromStatus is the message of a failback.
func FromStatus(s *failback.Status) *controlv1.Failback {
	out := &controlv1.Failback{
		Id: s.ID, Run: s.Run, Spec: FromSpec(&s.Spec), Owner: s.Owner, Revision: s.Revision, Created: jobpb.FromTime(s.Created), Ended: jobpb.FromTime(s.Ended),
		State: states.code(s.State), Activity: activities.code(s.Activity), Halted: fromHalt(s.Halted), Next: s.Next, Wait: s.Wait,
		Steps: each(s.Steps, fromStep), Disks: each(s.Disks, fromFailbackDisk), Forecast: fromForecast(s.Forecast), Downtime: jobpb.FromDuration(s.Downtime),
		Original: fromRef(s.Original), Replica: fromRef(s.Replica), Target: fromRef(s.Target),
		Warnings: append([]string(nil), s.Warnings...), Decisions: each(s.Decisions, fromDecision),
	}
	return mended(out)
}

// ToStatus is the failback in a message, for programs that call the API. A word
// that this program does not know is empty.
func ToStatus(m *controlv1.Failback) (*failback.Status, error) {
	if m == nil {
		return nil, jobpb.Invalid("failback", "it is missing")
	}
	spec, err := ToSpec("failback.spec", m.Spec)
	if err != nil {
		return nil, err
	}
	r := &reader{}
	out := &failback.Status{
		ID: m.Id, Run: m.Run, Spec: spec, Owner: m.Owner, Revision: m.Revision, Created: jobpb.ToTime(m.Created), Ended: jobpb.ToTime(m.Ended),
		State: states.word(m.State), Activity: activities.word(m.Activity), Halted: toHalt(m.Halted), Next: m.Next, Wait: m.Wait,
		Steps: each(m.Steps, toStep), Disks: each(m.Disks, r.disk), Forecast: r.forecast(m.Forecast), Downtime: r.duration("failback.downtime", m.Downtime),
		Original: toRef(m.Original), Replica: toRef(m.Replica), Target: toRef(m.Target), Warnings: m.Warnings, Decisions: each(m.Decisions, toDecision),
	}
	return out, r.err
}

// reader keeps the first thing that could not be read.
type reader struct{ err error }

func (r *reader) duration(field string, m *durationpb.Duration) time.Duration {
	d, err := jobpb.ToDuration(field, m)
	if r.err == nil {
		r.err = err
	}
	return d
}

func (r *reader) digest(field, text string) cbt.Digest {
	d, err := jobpb.ToDigest(field, text)
	if r.err == nil {
		r.err = err
	}
	return d
}

func fromHalt(h *failback.Halt) *controlv1.Halt {
	if h == nil {
		return nil
	}
	return &controlv1.Halt{Step: h.Step, Number: int32(h.Number), Reason: h.Reason, Text: h.Text, Remedy: h.Remedy, At: jobpb.FromTime(h.At)}
}

func toHalt(m *controlv1.Halt) *failback.Halt {
	if m == nil {
		return nil
	}
	return &failback.Halt{Step: m.Step, Number: int(m.Number), Reason: m.Reason, Text: m.Text, Remedy: m.Remedy, At: jobpb.ToTime(m.At)}
}

func fromStep(s failback.Step) *controlv1.FailbackStep {
	return &controlv1.FailbackStep{
		Name: s.Name, Number: int32(s.Number), State: stepStates.code(s.State), Attempt: int32(s.Attempt), Host: s.Host, Vm: s.VM, Before: s.Before,
		Task: s.Task, Epoch: s.Epoch, Began: jobpb.FromTime(s.Began), Ended: jobpb.FromTime(s.Ended), Text: s.Text,
	}
}

func toStep(m *controlv1.FailbackStep) failback.Step {
	return failback.Step{
		Name: m.GetName(), Number: int(m.GetNumber()), State: stepStates.word(m.GetState()), Attempt: int(m.GetAttempt()), Host: m.GetHost(), VM: m.GetVm(),
		Before: m.GetBefore(), Task: m.GetTask(), Epoch: m.GetEpoch(), Began: jobpb.ToTime(m.GetBegan()), Ended: jobpb.ToTime(m.GetEnded()), Text: m.GetText(),
	}
}

func fromDecision(d failback.Decision) *controlv1.Decision {
	return &controlv1.Decision{What: d.What, By: d.By, At: jobpb.FromTime(d.At), Text: d.Text}
}

func toDecision(m *controlv1.Decision) failback.Decision {
	return failback.Decision{What: m.GetWhat(), By: m.GetBy(), At: jobpb.ToTime(m.GetAt()), Text: m.GetText()}
}

func fromFailbackDisk(d failback.Disk) *controlv1.FailbackDisk {
	return &controlv1.FailbackDisk{
		Label: d.Label, Replica: fromDisk(d.Replica), Target: fromDisk(d.Target), Matched: d.Matched, Excluded: d.Excluded, Passes: each(d.Passes, fromPass),
		Verified: d.Verified, Sampled: d.Sampled, Root: jobpb.FromDigest(d.Root), Before: jobpb.FromDigest(d.Before), Failure: jobpb.FromFailure(d.Failure),
	}
}

func (r *reader) disk(m *controlv1.FailbackDisk) failback.Disk {
	return failback.Disk{
		Label: m.GetLabel(), Replica: toDisk(m.GetReplica()), Target: toDisk(m.GetTarget()), Matched: m.GetMatched(), Excluded: m.GetExcluded(),
		Passes: each(m.GetPasses(), r.pass), Verified: m.GetVerified(), Sampled: m.GetSampled(), Root: r.digest("disk.root", m.GetRoot()),
		Before: r.digest("disk.before", m.GetBefore()), Failure: jobpb.ToFailure(m.GetFailure()),
	}
}

func fromPass(p failback.Pass) *controlv1.FailbackPass {
	return &controlv1.FailbackPass{
		Number: int32(p.Number), Final: p.Final, Asked: p.Asked, Used: p.Used, Reason: p.Reason, Began: jobpb.FromTime(p.Began), Ended: jobpb.FromTime(p.Ended),
		Counters: jobpb.FromCounters(&p.Counters), RateBytes: p.Rate, Left: jobpb.FromDuration(p.Left), Verified: p.Verified,
		Root: jobpb.FromDigest(p.Root), Epoch: p.Epoch, Event: p.Event,
	}
}

func (r *reader) pass(m *controlv1.FailbackPass) failback.Pass {
	return failback.Pass{
		Number: uint32(m.GetNumber()), Final: m.GetFinal(), Asked: m.GetAsked(), Used: m.GetUsed(), Reason: m.GetReason(), Began: jobpb.ToTime(m.GetBegan()),
		Ended: jobpb.ToTime(m.GetEnded()), Counters: jobpb.ToCounters(m.GetCounters()), Rate: m.GetRateBytes(), Left: r.duration("pass.left", m.GetLeft()),
		Verified: m.GetVerified(), Root: r.digest("pass.root", m.GetRoot()), Epoch: m.GetEpoch(), Event: m.GetEvent(),
	}
}

func fromForecast(f failback.Forecast) *controlv1.Forecast {
	if f == (failback.Forecast{}) {
		return nil
	}
	return &controlv1.Forecast{Downtime: jobpb.FromDuration(f.Downtime), DirtyRateBytes: f.Dirty, Passes: int32(f.Passes), Within: f.Within, Text: f.Text}
}

func (r *reader) forecast(m *controlv1.Forecast) failback.Forecast {
	return failback.Forecast{
		Downtime: r.duration("forecast.downtime", m.GetDowntime()), Dirty: m.GetDirtyRateBytes(), Passes: int(m.GetPasses()), Within: m.GetWithin(), Text: m.GetText(),
	}
}
