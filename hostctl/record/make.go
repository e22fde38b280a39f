package record

import (
	"encoding/hex"
	"strings"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// of is what a record says of a failback. Rates, expected times and what comes
// next are of the moment and left out.
func of(s *failback.Status, hooks func(step string) []string) Failback {
	out := Failback{
		ID: s.ID, Run: s.Run, Revision: s.Revision, Owner: s.Owner, Created: stamp(s.Created), Ended: stamp(s.Ended),
		State: string(s.State), Activity: string(s.Activity), Asked: asked(&s.Spec), Original: vm(s.Original), Replica: vm(s.Replica), Target: vm(s.Target),
		Decisions: each(s.Decisions, decision), Overrides: overrides(s), Steps: each(s.Steps, step), Disks: each(s.Disks, disk),
		PredictedMS: s.Forecast.Downtime.Milliseconds(), DowntimeMS: s.Downtime.Milliseconds(), Reckoned: s.Forecast.Text, WithinBudget: s.Forecast.Within,
		DirtyRateBytes: int64(s.Forecast.Dirty), RepeatedPasses: s.Forecast.Passes, Warnings: s.Warnings,
	}
	if h := s.Halted; h != nil {
		out.Halted = &Halt{Step: h.Step, Number: h.Number, Reason: h.Reason, Text: h.Text, Remedy: h.Remedy, At: stamp(h.At)}
	}
	for i := range s.Disks {
		if n := written(out.Disks[i].Passes); n > 0 {
			out.Overwritten = append(out.Overwritten, Overwrite{VM: out.Target, Disk: out.Disks[i].Target, Bytes: n, Before: out.Disks[i].BeforeRoot})
		}
	}
	if hooks != nil {
		for _, st := range s.Steps {
			for _, name := range hooks(st.Name) {
				out.Hooks = append(out.Hooks, Hook{Step: st.Name, Name: name})
			}
		}
	}
	return out
}

// written is what all passes have made durable on the target.
func written(passes []Pass) (n int64) {
	for i := range passes {
		n += passes[i].Counters.Durable
	}
	return n
}

func each[A, B any](list []A, one func(*A) B) (out []B) {
	for i := range list {
		out = append(out, one(&list[i]))
	}
	return out
}

// stamp is nil for no time.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// digest is empty for the zero digest, which nothing has.
func digest(d cbt.Digest) string {
	if d == (cbt.Digest{}) {
		return ""
	}
	return hex.EncodeToString(d[:])
}

func vm(r hostctl.Ref) VM { return VM{Host: r.Host, ID: r.ID, UUID: r.UUID, Name: r.Name} }

func virtual(d *hostctl.Disk) VirtualDisk {
	return VirtualDisk{
		Key: d.Key, Label: d.Label, UUID: d.UUID, File: d.File, SizeBytes: d.Size, Datastore: d.Datastore, Thin: d.Thin, ChangeID: d.ChangeID, Unfit: d.Unfit, Adapter: d.Adapter,
	}
}

func asked(s *failback.Spec) Asked {
	out := Asked{
		VM: s.VM, Destination: string(s.Destination), TargetHost: s.TargetHost, Disks: each(s.Disks, rule), Networks: s.Networks,
		When: string(s.Switch.When), At: stamp(s.Switch.At), BudgetMS: s.Switch.Budget.Milliseconds(), Passes: s.Switch.Passes,
		PowerOn: s.PowerOn, Isolated: s.Isolated, GraceMS: s.Grace.Milliseconds(), NoRollback: s.NoRollback, Tracking: string(s.Tracking), Full: s.Full,
		Limits: limits(&s.Limits), Priority: int(s.Priority), Group: s.Group, Order: s.Order,
		PolicyAfterMS: s.Policy.After.Milliseconds(), PolicyUndo: s.Policy.Undo, PowerOnUnproved: s.PowerOnUnproved,
	}
	if q := Query(s.Target); q != (Query{}) {
		out.Target = &q
	}
	if s.New != nil {
		place := Place(s.New.Place)
		out.NewName, out.NewPlace = s.New.Name, &place
	}
	return out
}

func rule(r *failback.DiskRule) Rule {
	return Rule{Disk: r.Disk, Exclude: r.Exclude, Target: r.Target, GrowBytes: r.Grow, Thin: r.Thin, Datastore: r.Datastore}
}

func limits(l *job.Limits) *Limits {
	if l.Wire == 0 && l.Read == 0 && l.Latency == 0 && len(l.Windows) == 0 {
		return nil
	}
	return &Limits{WireBytes: l.Wire, ReadBytes: l.Read, LatencyMS: float64(l.Latency.Microseconds()) / 1e3, Windows: each(l.Windows, window)}
}

func window(w *job.Window) Window {
	out := Window{FromMinute: w.From, ToMinute: w.To, WireBytes: w.Wire, ReadBytes: w.Read}
	for day := time.Sunday; day <= time.Saturday; day++ {
		if w.Days[day] {
			out.Days = append(out.Days, strings.ToLower(day.String()))
		}
	}
	return out
}

func decision(d *failback.Decision) Decision {
	return Decision{What: d.What, By: d.By, At: stamp(d.At), Text: d.Text}
}

// overrides are the safeties that the spec leaves out.
func overrides(s *failback.Status) (out []Override) {
	add := func(what, text string) { out = append(out, Override{What: what, By: s.Owner, Text: text}) }
	if s.Spec.PowerOnUnproved {
		add("power_on_unproved", "power on although a disk is not verified")
	}
	if s.Spec.NoRollback {
		add("no_rollback", "no rollback point on the target")
	}
	if s.Spec.Tracking == failback.FirstCBT {
		add("tracking_cbt", "change tracking narrows pass 1")
	}
	for i := range s.Disks {
		if s.Disks[i].Excluded {
			add("exclude", "disk "+s.Disks[i].Label+" is not brought home")
		}
	}
	return out
}

func step(s *failback.Step) Step {
	return Step{
		Name: s.Name, Number: s.Number, State: string(s.State), Attempt: s.Attempt, Host: s.Host, VM: s.VM, Before: s.Before, Task: s.Task, Epoch: s.Epoch,
		Began: stamp(s.Began), Ended: stamp(s.Ended), Text: s.Text,
	}
}

func disk(d *failback.Disk) Disk {
	out := Disk{
		Label: d.Label, Replica: virtual(&d.Replica), Target: virtual(&d.Target), Matched: d.Matched, Excluded: d.Excluded, Verified: d.Verified,
		Sampled: d.Sampled, Root: digest(d.Root), BeforeRoot: digest(d.Before), Passes: each(d.Passes, pass),
	}
	if f := d.Failure; f != nil {
		out.Failure = &Failure{Reason: f.Reason, Text: f.Text, Retry: int(f.Retry), Exit: f.Exit}
	}
	return out
}

func pass(p *failback.Pass) Pass {
	return Pass{
		Number: p.Number, Final: p.Final, Asked: p.Asked, Used: p.Used, Reason: p.Reason, Began: stamp(p.Began), Ended: stamp(p.Ended),
		Counters: Counters(p.Counters), Verified: p.Verified, Root: digest(p.Root), Epoch: p.Epoch, Event: p.Event,
	}
}
