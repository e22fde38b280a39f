package screen

import (
	"fmt"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
)

// Status is where a failback stands, what happens next, and the way back.
func Status(s *failback.Status, now time.Time, width int) string {
	p := newPage(width)
	standing(p, s, now)
	disks(p, s)
	steps(p, s)
	p.commands(Next(s))
	return p.String()
}

// standing is a status without disks and steps.
func standing(p *page, s *failback.Status, now time.Time) {
	p.say("", Sentence(s, now))
	if h := s.Halted; h != nil {
		p.row("remedy", sentence(h.Remedy))
		p.row("halted", fmt.Sprintf("%s (%s)", moment(h.At), clean(h.Reason)))
	}
	p.row("next", s.Next)
	p.row("waits", waits(s))
	p.head("Where it stands")
	p.row("failback", fmt.Sprintf("%s of %s, started by %s %s ago", s.ID, s.Spec.VM, owner(s), Span(now.Sub(s.Created))))
	p.row("state", string(s.State)+", "+string(s.Activity))
	p.row("authority", authority(s))
	p.row("power", powered(s))
	p.row("data goes", flow(s))
	p.row("switch", switchText(s))
	p.row("downtime", downtime(s, now))
	if g := s.Spec.Group; g != "" {
		p.row("group", fmt.Sprintf("%s, order %d, priority %s", g, s.Spec.Order, Priority(s.Spec.Priority)))
	}
	p.row("to go back", goBack(s))
	for _, w := range s.Warnings {
		p.row("WARNING", w)
	}
}

func owner(s *failback.Status) string {
	if s.Owner == "" {
		return "somebody"
	}
	return s.Owner
}

// switchText says when the replica is powered off.
func switchText(s *failback.Status) string {
	w := s.Spec.Switch
	var out string
	switch {
	case Switched(s):
		return "done " + moment(offAt(s))
	case Ended(s), s.State == failback.Failback:
		return ""
	case w.When == failback.WhenManual:
		out = "when you say so"
	case w.When == failback.WhenAt:
		out = "not before " + moment(w.At)
	default:
		out = "by itself, as soon as the disks allow"
	}
	if w.Budget > 0 {
		out += ", with at most " + Span(w.Budget) + " of downtime"
	}
	return out
}

// downtime says how long users are, were or would be without the VM.
func downtime(s *failback.Status, now time.Time) string {
	f := &s.Forecast
	switch {
	case s.Downtime > 0 && s.Activity == failback.Deciding && !did(s, "power-on"):
		return Span(s.Downtime) + " to the end of step 9, and on until it is powered on"
	case s.Downtime > 0:
		return Span(s.Downtime)
	case Ended(s), s.State == failback.Failback && !Switched(s):
		return ""
	case Switched(s):
		return Span(now.Sub(offAt(s))) + " so far" + expected(f)
	case f.Downtime > 0:
		out := "about " + Span(f.Downtime) + " if it switched now"
		if s.Spec.Switch.Budget > 0 && !f.Within {
			out += ", MORE than the budget"
		}
		if f.Text != "" {
			out += " (" + f.Text + ")"
		}
		return out
	}
	return "not known before the end of pass 1"
}

func expected(f *failback.Forecast) string {
	if f.Downtime <= 0 {
		return ""
	}
	return ", expected " + Span(f.Downtime)
}

// powered says whether haulback has powered on the VM that waits at home.
func powered(s *failback.Status) string {
	row := find(s, "power-on")
	switch {
	case s.Activity != failback.Deciding || row == nil:
		return ""
	case row.State == failback.Done:
		return name(s.Target) + " was powered on " + moment(row.Ended)
	}
	return "haulback did not power " + name(s.Target) + " on; nobody serves until somebody does"
}

func disks(p *page, s *failback.Status) {
	if len(s.Disks) == 0 {
		return
	}
	p.head("Disks")
	n := labelWidth(s.Disks)
	for i := range s.Disks {
		d := &s.Disks[i]
		if over := verdict(d); over != "" {
			p.say("  "+pad(label(d.Label), n), over)
		} else {
			p.line(cut(diskLine(d, n, p.width), p.width))
		}
		if q := last(d); q != nil && q.Reason != "" {
			p.say("      ", called(q)+mode(q)+because(q.Reason))
		}
		if q := last(d); q != nil && q.Event != "" && q.Ended.IsZero() {
			p.say("      ", q.Event)
		}
	}
}

// mode is how a pass found what differs, and what was asked for if that is
// another thing.
func mode(p *failback.Pass) string {
	if p.Used == "" {
		return ""
	}
	used := ", all compared"
	if p.Used == "hint" {
		used = ", by change tracking"
	}
	if p.Asked == string(failback.FirstCBT) && p.Used == "full" {
		used += " instead of what change tracking says"
	}
	return used
}

func steps(p *page, s *failback.Status) {
	if len(s.Steps) == 0 {
		return
	}
	p.head("Steps")
	for i := range s.Steps {
		row := &s.Steps[i]
		text := stepText(row)
		p.say(fmt.Sprintf("  %2d  %-8s  %s", row.Number, row.Began.Local().Format("15:04:05"), pad(stepState(s, row), 8)), text)
	}
}

func stepState(s *failback.Status, row *failback.Step) string {
	switch row.State {
	case failback.Intent:
		if h := s.Halted; h != nil && h.Step == row.Name {
			return "HALTED"
		}
		return "now"
	case failback.Done:
		return "done"
	case failback.Skipped:
		return "skipped"
	case failback.Compensating:
		return "undoing"
	case failback.Compensated:
		return "undone"
	}
	return clean(string(row.State))
}
