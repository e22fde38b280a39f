package main

import (
	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
)

// failbackLine is a failback in JSON; what it has in common with a job has the
// same name there.
type failbackLine struct {
	ID          string         `json:"id"`
	Run         string         `json:"run"`
	VM          string         `json:"vm"`
	Destination string         `json:"destination"`
	Owner       string         `json:"owner"`
	Revision    uint64         `json:"revision"`
	State       string         `json:"state"`
	Activity    string         `json:"activity"`
	Over        bool           `json:"is_over"`
	NeedsYou    bool           `json:"needs_operator"`
	Halted      *haltLine      `json:"halted,omitempty"`
	Next        string         `json:"next,omitempty"`
	Wait        string         `json:"wait,omitempty"`
	Commands    []string       `json:"next_commands"`
	Created     string         `json:"created"`
	Ended       string         `json:"ended,omitempty"`
	Original    *refLine       `json:"original,omitempty"`
	Replica     *refLine       `json:"replica,omitempty"`
	Target      *refLine       `json:"target,omitempty"`
	Group       string         `json:"group,omitempty"`
	Order       int            `json:"order,omitempty"`
	Priority    string         `json:"priority"`
	Switch      switchLine     `json:"switch"`
	Forecast    *forecastLine  `json:"forecast,omitempty"`
	Downtime    float64        `json:"downtime_seconds,omitempty"`
	Disks       []homeDiskLine `json:"disks"`
	Steps       []stepLine     `json:"steps"`
	Decisions   []decisionLine `json:"decisions"`
	Warnings    []string       `json:"warnings"`
}

type haltLine struct {
	Step   string `json:"step"`
	Number int    `json:"number"`
	Reason string `json:"reason"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
	At     string `json:"at"`
	Code   int    `json:"code"`
}

type refLine struct {
	Host string `json:"host"`
	ID   string `json:"id,omitempty"`
	UUID string `json:"uuid,omitempty"`
	Name string `json:"name,omitempty"`
}

type switchLine struct {
	When   string  `json:"when"`
	At     string  `json:"at,omitempty"`
	Budget float64 `json:"budget_seconds,omitempty"`
}

type forecastLine struct {
	Downtime float64 `json:"downtime_seconds"`
	Dirty    int64   `json:"dirty_rate"`
	Passes   int     `json:"passes"`
	Within   bool    `json:"within_budget"`
	Text     string  `json:"text,omitempty"`
}

type homeDiskLine struct {
	Label    string       `json:"label"`
	Size     int64        `json:"size"`
	Replica  string       `json:"replica_file,omitempty"`
	Target   string       `json:"target_file,omitempty"`
	Matched  string       `json:"matched,omitempty"`
	Excluded bool         `json:"excluded"`
	Verified bool         `json:"is_verified"`
	Sampled  string       `json:"sampled_text,omitempty"`
	Root     string       `json:"root,omitempty"`
	Before   string       `json:"root_before,omitempty"`
	Passes   []passLine   `json:"passes"`
	Failure  *failureLine `json:"failure,omitempty"`
}

type passLine struct {
	Number   uint32  `json:"pass"`
	Final    bool    `json:"is_final"`
	Asked    string  `json:"requested_tracking,omitempty"`
	Actual   string  `json:"actual_tracking,omitempty"`
	Reason   string  `json:"tracking_reason,omitempty"`
	Began    string  `json:"began"`
	Ended    string  `json:"ended,omitempty"`
	Verified bool    `json:"is_verified"`
	Root     string  `json:"root,omitempty"`
	Epoch    uint64  `json:"epoch,omitempty"`
	Event    string  `json:"event,omitempty"`
	Rate     int64   `json:"rate"`
	Left     float64 `json:"left_seconds,omitempty"`
	Total    int64   `json:"total"`
	Compared int64   `json:"compared"`
	Changed  int64   `json:"changed"`
	Sent     int64   `json:"sent"`
	SentWire int64   `json:"sent_wire"`
	Settled  int64   `json:"verified"`
	Had      int64   `json:"had"`
}

type stepLine struct {
	Step    string `json:"step"`
	Number  int    `json:"number"`
	State   string `json:"state"`
	Attempt int    `json:"attempt"`
	Host    string `json:"host,omitempty"`
	VM      string `json:"vm,omitempty"`
	Before  string `json:"before,omitempty"`
	Task    string `json:"task,omitempty"`
	Began   string `json:"began,omitempty"`
	Ended   string `json:"ended,omitempty"`
	Text    string `json:"text,omitempty"`
}

type decisionLine struct {
	What string `json:"what"`
	By   string `json:"by"`
	At   string `json:"at"`
	Text string `json:"text,omitempty"`
}

func lineOfRef(r hostctl.Ref) *refLine {
	if r == (hostctl.Ref{}) {
		return nil
	}
	return &refLine{r.Host, r.ID, r.UUID, r.Name}
}

func hexOf(d cbt.Digest) string {
	if d == (cbt.Digest{}) {
		return ""
	}
	return d.String()
}

func lineOfFailback(s *failback.Status) failbackLine {
	out := failbackLine{
		ID: s.ID, Run: s.Run, VM: s.Spec.VM, Destination: string(s.Spec.Destination), Owner: s.Owner, Revision: s.Revision,
		State: string(s.State), Activity: string(s.Activity), Over: screen.Ended(s), NeedsYou: screen.NeedsYou(s), Next: s.Next, Wait: s.Wait,
		Created: stamp(s.Created), Ended: stamp(s.Ended), Original: lineOfRef(s.Original), Replica: lineOfRef(s.Replica), Target: lineOfRef(s.Target),
		Group: s.Spec.Group, Order: s.Spec.Order, Priority: screen.Priority(s.Spec.Priority), Downtime: s.Downtime.Seconds(),
		Switch:   switchLine{string(s.Spec.Switch.When), stamp(s.Spec.Switch.At), s.Spec.Switch.Budget.Seconds()},
		Commands: []string{}, Disks: []homeDiskLine{}, Steps: []stepLine{}, Decisions: []decisionLine{}, Warnings: append([]string{}, s.Warnings...),
	}
	if h := s.Halted; h != nil {
		out.Halted = &haltLine{h.Step, h.Number, h.Reason, h.Text, h.Remedy, stamp(h.At), int(haltCode(h.Reason))}
	}
	if f := s.Forecast; f.Downtime > 0 {
		out.Forecast = &forecastLine{f.Downtime.Seconds(), int64(f.Dirty), f.Passes, f.Within, f.Text}
	}
	for _, c := range screen.Next(s) {
		if c.Line != "" {
			out.Commands = append(out.Commands, c.Line)
		}
	}
	for i := range s.Disks {
		out.Disks = append(out.Disks, lineOfHomeDisk(&s.Disks[i]))
	}
	for _, r := range s.Steps {
		out.Steps = append(out.Steps, stepLine{r.Name, r.Number, string(r.State), r.Attempt, r.Host, r.VM, r.Before, r.Task, stamp(r.Began), stamp(r.Ended), r.Text})
	}
	for _, d := range s.Decisions {
		out.Decisions = append(out.Decisions, decisionLine{d.What, d.By, stamp(d.At), d.Text})
	}
	return out
}

func lineOfHomeDisk(d *failback.Disk) homeDiskLine {
	out := homeDiskLine{
		Label: d.Label, Size: d.Replica.Size, Replica: d.Replica.File, Target: d.Target.File, Matched: d.Matched, Excluded: d.Excluded,
		Verified: d.Verified, Sampled: d.Sampled, Root: hexOf(d.Root), Before: hexOf(d.Before), Passes: []passLine{}, Failure: lineOfFailure(d.Failure),
	}
	for i := range d.Passes {
		p := &d.Passes[i]
		c := &p.Counters
		out.Passes = append(out.Passes, passLine{
			Number: p.Number, Final: p.Final, Asked: p.Asked, Actual: p.Used, Reason: p.Reason, Began: stamp(p.Began), Ended: stamp(p.Ended),
			Verified: p.Verified, Root: hexOf(p.Root), Epoch: p.Epoch, Event: p.Event, Rate: int64(p.Rate), Left: p.Left.Seconds(),
			Total: c.Total, Compared: c.Scanned, Changed: c.Differing, Sent: c.Sent, SentWire: c.Wire, Settled: c.Verified, Had: c.Had,
		})
	}
	return out
}

// planLine is a plan in JSON.
type planLine struct {
	VM          string         `json:"vm"`
	Destination string         `json:"destination"`
	Digest      string         `json:"digest"`
	Replica     *refLine       `json:"replica,omitempty"`
	Target      *refLine       `json:"target,omitempty"`
	Disks       []planDiskLine `json:"disks"`
	Actions     []actionLine   `json:"actions"`
	Problems    []problemLine  `json:"problems"`
	Warnings    []string       `json:"warnings"`
	Why         string         `json:"why,omitempty"`
	Bytes       int64          `json:"bytes"`
	AtMost      int64          `json:"at_most"`
	Pass        float64        `json:"pass_seconds,omitempty"`
	Downtime    float64        `json:"downtime_seconds,omitempty"`
	Reckoned    string         `json:"reckoned,omitempty"`
}

type planDiskLine struct {
	Label     string `json:"label"`
	Size      int64  `json:"size"`
	Replica   string `json:"replica_file,omitempty"`
	Target    string `json:"target_file,omitempty"`
	Matched   string `json:"matched,omitempty"`
	Excluded  bool   `json:"excluded"`
	Mode      string `json:"mode,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Differing *int64 `json:"differing,omitempty"`
	Error     int64  `json:"differing_error,omitempty"`
	AtMost    int64  `json:"at_most"`
}

type actionLine struct {
	Step       string `json:"step"`
	Number     int    `json:"number"`
	Host       string `json:"host,omitempty"`
	VM         string `json:"vm,omitempty"`
	Text       string `json:"text"`
	Overwrites string `json:"overwrites,omitempty"`
	Undo       string `json:"undo,omitempty"`
}

type problemLine struct {
	Reason string `json:"reason"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
	Code   int    `json:"code"`
}

func lineOfPlan(p *failback.Plan) planLine {
	out := planLine{
		VM: p.VM, Destination: string(p.Destination), Digest: p.Digest.String(), Replica: lineOfRef(p.Replica.Ref), Why: p.Why, Bytes: p.Bytes, AtMost: p.AtMost,
		Pass: p.Time.Seconds(), Downtime: p.Downtime.Seconds(), Reckoned: p.Reckoned,
		Disks: []planDiskLine{}, Actions: []actionLine{}, Problems: []problemLine{}, Warnings: append([]string{}, p.Warnings...),
	}
	if p.Target != nil {
		out.Target = lineOfRef(p.Target.Ref)
	}
	for i := range p.Disks {
		d := &p.Disks[i]
		l := planDiskLine{
			Label: d.Label, Size: d.Replica.Size, Replica: d.Replica.File, Matched: d.Matched, Excluded: d.Excluded, Mode: d.Mode, Reason: d.Reason,
			Error: d.Error, AtMost: d.AtMost,
		}
		if d.Target != nil {
			l.Target = d.Target.File
		}
		if d.Differing >= 0 {
			l.Differing = &d.Differing
		}
		out.Disks = append(out.Disks, l)
	}
	for _, a := range p.Actions {
		out.Actions = append(out.Actions, actionLine{a.Step, a.Number, a.Host, a.VM, a.Text, a.Overwrites, a.Undo})
	}
	for _, q := range p.Problems {
		out.Problems = append(out.Problems, problemLine{q.Reason, q.Text, q.Remedy, int(problemCode(q.Reason))})
	}
	return out
}

// vmLine is a VM that is known, in JSON.
type vmLine struct {
	Name     string       `json:"name"`
	State    string       `json:"state"`
	Since    string       `json:"since,omitempty"`
	Original *refLine     `json:"original,omitempty"`
	Replica  *refLine     `json:"replica,omitempty"`
	Disks    []vmDiskLine `json:"disks"`
	Held     string       `json:"held_by,omitempty"`
	Failback string       `json:"failback,omitempty"`
	Former   *refLine     `json:"former,omitempty"`
	Excluded []*refLine   `json:"excluded_vms"`
	Revision uint64       `json:"revision"`
}

type vmDiskLine struct {
	Replica  string `json:"replica"`
	Original string `json:"original"`
}

func lineOfVM(p *failback.Pair) vmLine {
	out := vmLine{
		Name: p.Name, State: string(p.State), Since: stamp(p.Since), Original: lineOfRef(p.Original), Replica: lineOfRef(p.Replica), Held: p.Held,
		Failback: p.Failback, Revision: p.Revision, Disks: []vmDiskLine{}, Excluded: []*refLine{},
	}
	if p.Former != nil {
		out.Former = lineOfRef(*p.Former)
	}
	for _, d := range p.Disks {
		out.Disks = append(out.Disks, vmDiskLine{d.Replica, d.Original})
	}
	for i := range p.Excluded {
		out.Excluded = append(out.Excluded, lineOfRef(p.Excluded[i]))
	}
	return out
}

// leftoverLine is something that a failback has left on a host, in JSON.
type leftoverLine struct {
	Host    string   `json:"host"`
	VM      *refLine `json:"vm,omitempty"`
	Kind    string   `json:"kind"`
	Name    string   `json:"name,omitempty"`
	Run     string   `json:"run,omitempty"`
	Why     string   `json:"why,omitempty"`
	Removed bool     `json:"removed"`
	Error   string   `json:"error,omitempty"`
}

func lineOfLeftover(l failback.Leftover, removed bool) leftoverLine {
	return leftoverLine{l.Host, lineOfRef(l.VM), l.Kind, l.Name, l.Run, l.Why, removed && l.Error == "", l.Error}
}
