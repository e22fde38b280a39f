package screen

import (
	"fmt"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// Detail is how much of a plan is shown.
type Detail int

// The details: all of it, or what has to be read before it is confirmed.
const (
	Full Detail = iota
	Short
)

// Plan says what Start would do, what is lost to it, how long it takes and how it
// is taken back. The command that starts it is the last line.
func Plan(p *failback.Plan, start string, detail Detail, width int) string {
	out := newPage(width)
	out.say("", planSentence(p))
	if p.Replica.Host != "" {
		out.row("from", vmLine(p))
	}
	out.row("to", targetLine(p))
	out.row("why", p.Why)
	planDisks(out, p)
	planSteps(out, p, detail)
	overwritten(out, p)
	if len(p.Actions) > 0 {
		prospects(out, p)
	}
	remarks(out, p)
	if start != "" && len(p.Problems) == 0 {
		out.commands([]Command{{start, "shows this again and asks before anything is done"}})
	}
	return out.String()
}

func prospects(out *page, p *failback.Plan) {
	out.head("How long, and how to go back")
	out.row("moves", amount(p))
	out.row("pass 1", atMost(p.Time)+", while the replica serves")
	out.row("downtime", about(p.Downtime)+", from the replica's power-off to the end of step 9")
	out.row("reckoned", p.Reckoned)
	out.row("cancel", "until the switch: the replica goes on serving and loses nothing")
	out.row("undo", "from the switch to commit: the replica is what it was when it was powered off")
	out.row("commit", "ends it; after that haulback has no way back")
}

func planSentence(p *failback.Plan) string {
	vm := clean(p.VM)
	if n := len(p.Problems); n > 0 {
		return fmt.Sprintf("%s CANNOT be brought home yet: %s, see the end. Nothing was done.", vm, plural(n, "problem"))
	}
	switch {
	case p.Destination == failback.New:
		return fmt.Sprintf("Plan: bring %s home as a new VM. No VM that is there is overwritten.", vm)
	case p.Target == nil:
		return fmt.Sprintf("Plan: bring %s home. Nothing was done yet.", vm)
	case p.Destination == failback.Existing:
		return fmt.Sprintf("Plan: bring %s home to %s and OVERWRITE that VM's disks.", vm, name(p.Target.Ref))
	}
	return fmt.Sprintf("Plan: bring %s home to its original %s and OVERWRITE its disks.", vm, name(p.Target.Ref))
}

func vmLine(p *failback.Plan) string {
	var sum int64
	for i := range p.Replica.Disks {
		sum += p.Replica.Disks[i].Size
	}
	return fmt.Sprintf("%s (%s), %s, %s", name(p.Replica.Ref), power(p.Replica.Power), plural(len(p.Replica.Disks), "disk"), bytes(sum))
}

func targetLine(p *failback.Plan) string {
	switch {
	case p.Target == nil && p.Destination == failback.New:
		return "a VM that is made"
	case p.Target == nil:
		return ""
	}
	return fmt.Sprintf("%s (%s), %s", name(p.Target.Ref), power(p.Target.Power), clean(p.Target.Path))
}

func power(p hostctl.Power) string {
	if p == hostctl.PowerUnknown {
		return "power not known"
	}
	return p.String()
}

func planDisks(out *page, p *failback.Plan) {
	if len(p.Disks) == 0 {
		return
	}
	out.head("Disks")
	for i := range p.Disks {
		d := &p.Disks[i]
		to := "made new"
		if d.Target != nil {
			to = fmt.Sprintf("%s %s", d.Target.Label, d.Target.File)
		}
		if d.Excluded {
			to = "LEFT OUT, the target keeps its own"
		}
		out.say("  "+pad(label(d.Label), 9), fmt.Sprintf("%s  -->  %s", bytes(d.Replica.Size), to))
		if d.Excluded {
			continue
		}
		out.say("           ", differing(d))
		if d.Mode != "" {
			out.say("           ", d.Mode+": "+d.Reason)
		}
		if d.Matched != "" {
			out.say("           ", "paired by "+d.Matched)
		}
	}
}

func differing(d *failback.PlanDisk) string {
	if d.Differing < 0 {
		return fmt.Sprintf("at most %s to move; not measured, --measure does", bytes(d.AtMost))
	}
	out := "about " + bytes(d.Differing)
	if d.Error > 0 {
		out += " (" + bytes(d.Error) + " more or less)"
	}
	return out + fmt.Sprintf(" to move, at most %s", bytes(d.AtMost))
}

func planSteps(out *page, p *failback.Plan, detail Detail) {
	if len(p.Actions) == 0 {
		return
	}
	out.head("Steps")
	for i := range p.Actions {
		a := &p.Actions[i]
		number := fmt.Sprintf("  %2d  ", a.Number)
		if i > 0 && p.Actions[i-1].Number == a.Number {
			number = "      "
		}
		text := a.Text
		if a.Host != "" {
			text = clean(a.Host) + ": " + text
		}
		out.say(number, text)
		if detail == Full && a.Undo != "" {
			out.say("          ", "back: "+a.Undo)
		}
	}
}

// overwritten lists what is lost, each thing once.
func overwritten(out *page, p *failback.Plan) {
	seen := map[string]bool{}
	for i := range p.Actions {
		text := clean(p.Actions[i].Overwrites)
		if text == "" || seen[text] {
			continue
		}
		if len(seen) == 0 {
			out.head("What is OVERWRITTEN or lost")
		}
		seen[text] = true
		out.say("  ! ", text)
	}
	if len(seen) == 0 && len(p.Actions) > 0 {
		out.head("Nothing is overwritten.")
	}
}

func amount(p *failback.Plan) string {
	if p.Bytes <= 0 && p.AtMost > 0 {
		return "at most " + bytes(p.AtMost) + " before compression"
	}
	return fmt.Sprintf("about %s over the wire, at most %s, before compression", bytes(p.Bytes), bytes(p.AtMost))
}

// atMost is for what was reckoned from scattered reads, which are slower.
func atMost(d time.Duration) string {
	if d <= 0 {
		return "not known before it is measured"
	}
	return "at most " + Span(max(d, time.Second))
}

func about(d time.Duration) string {
	if d <= 0 {
		return "not known"
	}
	return "about " + Span(d)
}

func remarks(out *page, p *failback.Plan) {
	for i, w := range p.Warnings {
		if i == 0 {
			out.head("Warnings")
		}
		out.say("  ! ", w)
	}
	for i, q := range p.Problems {
		if i == 0 {
			out.head("Problems: nothing is started while there are any")
		}
		out.say("  x ", sentence(q.Text))
		out.say("      ", q.Remedy)
		out.say("      ", "("+q.Reason+")")
	}
}

// Priority is the word for one.
func Priority(p job.Priority) string {
	switch {
	case p < 0:
		return "low"
	case p > 0:
		return "high"
	}
	return "normal"
}
