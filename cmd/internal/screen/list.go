package screen

import (
	"fmt"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
)

// table lays rows out in columns; the last one takes what is left of the width.
func table(width int, rows [][]string) string {
	if len(rows) == 0 {
		return ""
	}
	widths := make([]int, len(rows[0])-1)
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], columns(row[i]))
		}
	}
	p := newPage(width)
	for _, row := range rows {
		line := ""
		for i, n := range widths {
			line += row[i] + strings.Repeat(" ", n-columns(row[i])+2)
		}
		if columns(line) > p.width/2 && columns(line+row[len(row)-1]) > p.width { // the last column below the rest
			p.line(cut(line, p.width))
			p.say("      ", row[len(row)-1])
			continue
		}
		p.say(line, row[len(row)-1])
	}
	return p.String()
}

// Failbacks is a list of failbacks, one or two lines each.
func Failbacks(list []*failback.Status, now time.Time, width int) string {
	if len(list) == 0 {
		return "No failback is known here.\n"
	}
	rows := [][]string{{"VM", "STATE", "SINCE", "WHERE IT STANDS"}}
	for _, s := range list {
		at := s.Created
		if !s.Ended.IsZero() {
			at = s.Ended
		}
		rows = append(rows, []string{clean(s.Spec.VM), clean(string(s.State)), Span(now.Sub(at)), where(s, now)})
	}
	return table(width, rows)
}

// where is the sentence without the VM, which stands in its own column.
func where(s *failback.Status, now time.Time) string {
	return strings.TrimPrefix(Sentence(s, now), clean(s.Spec.VM)+" ")
}

// Pairs is a list of VMs.
func Pairs(list []failback.Pair, width int) string {
	if len(list) == 0 {
		return "No VM is declared here; haulback failback vm put declares one.\n"
	}
	rows := [][]string{{"VM", "STATE", "REPLICA --> ORIGINAL"}}
	for i := range list {
		v := &list[i]
		rows = append(rows, []string{clean(v.Name), clean(string(v.State)), name(v.Replica) + " --> " + name(v.Original)})
	}
	return table(width, rows)
}

// Pair is one VM.
func Pair(v *failback.Pair, now time.Time, width int) string {
	p := newPage(width)
	p.say("", pairSentence(v, now))
	p.row("original", refText(v.Original))
	p.row("replica", refText(v.Replica))
	for _, d := range v.Disks {
		p.row("disk", d.Replica+" is the replica of "+d.Original)
	}
	if len(v.Disks) == 0 {
		p.row("disks", "paired by label, size and content")
	}
	if v.Held != "" {
		p.row("held by", "failback "+v.Held+": replication has to wait")
	}
	if v.Former != nil {
		p.row("former", refText(*v.Former)+", for undo")
	}
	for _, r := range v.Excluded {
		p.row("excluded", refText(r)+": must not be replicated any more")
	}
	p.row("failback", v.Failback)
	p.commands(nextOfPair(v))
	return p.String()
}

func pairSentence(v *failback.Pair, now time.Time) string {
	vm := clean(v.Name)
	ago := ""
	if !v.Since.IsZero() {
		ago = ", since " + Span(now.Sub(v.Since))
	}
	switch v.State {
	case failback.Ready:
		return vm + " is Ready: the original serves" + ago + "."
	case failback.Failover:
		return vm + " is in Failover: the replica serves" + ago + "."
	case failback.ReadyToSwitch:
		return vm + " is ReadyToSwitch: the replica serves, its disks are nearly home" + ago + "."
	case failback.Failback:
		return vm + " is in Failback: it is home and waits for commit or undo" + ago + "."
	}
	return vm + " is in state " + clean(string(v.State)) + ago + "."
}

func nextOfPair(v *failback.Pair) []Command {
	cmd := func(verb, why string) Command { return Command{"haulback failback " + verb + " " + clean(v.Name), why} }
	switch {
	case v.State == failback.Ready:
		return []Command{cmd("failover", "say that the replica serves now; haulback powers nothing here")}
	case v.State == failback.Failover && v.Held == "":
		return []Command{cmd("plan", "what bringing it home would do"), cmd("undo-failover", "the original serves again, and what the replica has is of no interest")}
	}
	return []Command{cmd("status", "where its failback stands")}
}

func refText(r hostctl.Ref) string {
	var more []string
	for _, v := range []string{r.ID, r.UUID} {
		if v != "" && v != r.Name {
			more = append(more, v)
		}
	}
	out := name(r)
	if len(more) > 0 {
		out += " (" + strings.Join(more, ", ") + ")"
	}
	return out
}

// Leftovers is what of haulback is on the hosts and needed by nobody.
func Leftovers(list []failback.Leftover, width int) string {
	if len(list) == 0 {
		return "Nothing of haulback is left on the hosts that no failback needs.\n"
	}
	p := newPage(width)
	p.say("", fmt.Sprintf("%s of haulback on the hosts that no failback needs.", plural(len(list), "thing")))
	for i := range list {
		l := &list[i]
		p.say("  ", fmt.Sprintf("%s %s of %s", l.Kind, l.Name, name(l.VM)))
		p.say("      ", l.Why)
		if l.Error != "" {
			p.say("      ", "NOT REMOVED: "+l.Error)
		}
	}
	return p.String()
}
