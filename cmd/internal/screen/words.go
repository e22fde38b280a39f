package screen

import (
	"fmt"
	"strings"
	"time"

	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
)

// Command is something to type, and why.
type Command struct{ Line, Why string }

// verb is a command about the VM of s.
func verb(s *failback.Status, name, why string) Command {
	return Command{"haulback failback " + name + " " + clean(s.Spec.VM), why}
}

// Ended reports whether nothing more happens to the failback.
func Ended(s *failback.Status) bool {
	switch s.Activity {
	case failback.Committed, failback.Undone, failback.Canceled:
		return true
	}
	return false
}

// NeedsYou reports whether the failback waits for a word of the operator.
func NeedsYou(s *failback.Status) bool {
	return s.Halted != nil || s.Activity == failback.Deciding || s.Activity == failback.Standing && wantsWord(s)
}

// wantsWord reports whether the switch waits for the operator: he said so, or his
// budget is not to be had by passes alone.
func wantsWord(s *failback.Status) bool {
	w := &s.Spec.Switch
	return w.When == failback.WhenManual || w.When == failback.WhenNow && w.Budget > 0 && !s.Forecast.Within
}

// Sentence says in one sentence where the failback stands.
func Sentence(s *failback.Status, now time.Time) string {
	vm := clean(s.Spec.VM)
	if h := s.Halted; h != nil {
		return fmt.Sprintf("%s STANDS STILL at step %d (%s): %s", vm, h.Number, clean(h.Step), sentence(h.Text))
	}
	switch s.Activity {
	case failback.Waiting:
		return fmt.Sprintf("%s waits for its turn to come home; its replica serves.", vm)
	case failback.Preparing:
		return fmt.Sprintf("%s is made ready to come home; its replica serves.", vm)
	case failback.Syncing:
		return fmt.Sprintf("%s is coming home, %s; its replica serves.", vm, progress(s))
	case failback.Standing:
		return vm + " is READY TO SWITCH" + until(s) + "; its replica serves."
	case failback.Switching:
		return fmt.Sprintf("%s is SWITCHING%s: its replica is off, nobody serves.", vm, since(offAt(s), now))
	case failback.Deciding:
		return vm + " is home" + served(s) + " and waits for your word: commit or undo."
	case failback.Committing:
		return vm + " is being committed: it stays home."
	case failback.Undoing:
		return vm + " is being undone: its replica is put back."
	case failback.Canceling:
		if Switched(s) {
			return vm + " is being canceled: its replica is powered on again."
		}
		return vm + " is being canceled; its replica serves."
	case failback.Committed:
		return vm + " is home for good; the failback was committed."
	case failback.Undone:
		return vm + " is at its replica again: the failback was undone."
	case failback.Canceled:
		return vm + " is still at its replica: the failback was canceled."
	}
	return fmt.Sprintf("%s is in activity %q, which this program does not know.", vm, clean(string(s.Activity)))
}

// sentence ends text with a full stop.
func sentence(text string) string {
	if text = clean(text); text == "" || strings.ContainsAny(text[len(text)-1:], ".!?") {
		return text
	}
	return text + "."
}

func until(s *failback.Status) string {
	if w := s.Spec.Switch; w.When == failback.WhenAt {
		return " at " + moment(w.At)
	}
	if wantsWord(s) {
		return " and waits for your word"
	}
	return ""
}

// served says whether somebody can use the VM.
func served(s *failback.Status) string {
	switch {
	case unplugged(s):
		return " (on, network unplugged)"
	case did(s, "power-on"):
		return " (powered on)"
	}
	return " (not powered on)"
}

// unplugged reports whether the VM at home was powered on without its network.
func unplugged(s *failback.Status) bool { return s.Spec.Isolated && did(s, "power-on") }

func since(at, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	return " since " + Span(now.Sub(at))
}

// find is the last row of a step, which may have been tried anew as name-2.
func find(s *failback.Status, name string) *failback.Step {
	for i := len(s.Steps) - 1; i >= 0; i-- {
		rest, ok := strings.CutPrefix(s.Steps[i].Name, name)
		if ok && strings.Trim(rest, "-0123456789") == "" {
			return &s.Steps[i]
		}
	}
	return nil
}

// did reports whether a step stands as done.
func did(s *failback.Status, name string) bool {
	row := find(s, name)
	return row != nil && row.State == failback.Done
}

// begun reports whether a step may have changed something that still stands.
func begun(s *failback.Status, name string) bool {
	row := find(s, name)
	return row != nil && (row.State == failback.Done || row.State == failback.Intent || row.State == failback.Compensating)
}

// offAt is when the replica was told to power off, or zero.
func offAt(s *failback.Status) time.Time {
	if row := find(s, "power-off-replica"); row != nil && row.State != failback.Compensated {
		return row.Began
	}
	return time.Time{}
}

// Switched reports whether the replica is off, or on its way there.
func Switched(s *failback.Status) bool { return begun(s, "power-off-replica") }

// authority says which side holds what counts, and what becomes of the other.
func authority(s *failback.Status) string {
	replica, target := name(s.Replica), name(s.Target)
	switch s.Activity {
	case failback.Committed:
		return target
	case failback.Deciding, failback.Committing:
		return target + "; " + replica + " is off and has to stay off"
	case failback.Undoing, failback.Undone, failback.Canceled:
		return replica
	}
	out := replica + ", which serves"
	if Switched(s) {
		out = replica + ", which is off"
	}
	if begun(s, "mark-target") {
		out += "; " + target + " is half overwritten: do not power it on"
	}
	return out
}

// flow says which way bytes go.
func flow(s *failback.Status) string {
	replica, target := name(s.Replica), name(s.Target)
	switch s.Activity {
	case failback.Waiting, failback.Preparing, failback.Syncing, failback.Standing, failback.Switching:
		return replica + " --> " + target
	case failback.Undoing:
		return target + " goes back to its rollback point, " + replica + " to its protective snapshot"
	case failback.Canceling:
		return "none; " + target + " goes back to its rollback point"
	}
	return "none"
}

// goBack says how the failback is taken back, and what that costs.
func goBack(s *failback.Status) string {
	replica, target := name(s.Replica), name(s.Target)
	restored := target + " is put back to its rollback point"
	switch {
	case s.Spec.Destination == failback.New:
		restored = target + ", which was made for this, is deleted"
	case !begun(s, "mark-target"):
		restored = target + " is not written to yet"
	case s.Spec.NoRollback:
		restored = target + " STAYS OVERWRITTEN, there is no rollback point"
	}
	switch {
	case s.Activity == failback.Committed:
		return "not by haulback: fail over again, or restore a backup"
	case s.Activity == failback.Committing, s.Activity == failback.Undoing, s.Activity == failback.Canceling, Ended(s):
		return ""
	case s.State == failback.Failback:
		at := ""
		if off := offAt(s); !off.IsZero() {
			at = " at " + moment(off)
		}
		lost := ""
		if begun(s, "power-on") {
			lost = "; what " + target + " has written since is lost"
		}
		return fmt.Sprintf("undo: %s is what it was when it was powered off%s%s; %s", replica, at, lost, restored)
	}
	serves := " goes on serving"
	if Switched(s) {
		serves = " is powered on again"
	}
	return "cancel: " + replica + serves + " and loses nothing; " + restored
}

// Next are the commands that help now, the likeliest first.
func Next(s *failback.Status) []Command {
	if s.Halted != nil {
		return halted(s)
	}
	watch := verb(s, "watch", "look on until it needs you")
	switch s.Activity {
	case failback.Waiting, failback.Preparing, failback.Syncing:
		list := []Command{watch}
		if s.Spec.Switch.When != failback.WhenNow {
			list = append(list, verb(s, "switch", "switch as soon as the disks allow"))
		}
		return append(list, cancel(s))
	case failback.Standing:
		return []Command{
			verb(s, "switch", "power the replica off and bring the rest home: users are without the VM meanwhile"),
			verb(s, "continue", "or another pass first, which makes the switch shorter"),
			cancel(s),
		}
	case failback.Deciding:
		list := []Command{
			verb(s, "commit", "the VM works at home: keep it there; no undo after it"),
			verb(s, "undo", "it does not: the replica serves again; what was written at home is lost"),
		}
		if unplugged(s) {
			list = append(list, Command{"", "its users reach it when the network of " + name(s.Target) + " is plugged in on its host: haulback does not do that"})
		}
		if !did(s, "power-on") {
			list = append(list, Command{"", "or power " + name(s.Target) + " on first, and look"})
		}
		return list
	case failback.Switching:
		if s.State != failback.Failback {
			return []Command{watch, cancel(s)}
		}
		return []Command{watch}
	case failback.Committing, failback.Undoing, failback.Canceling:
		return []Command{watch}
	case failback.Committed, failback.Undone, failback.Canceled:
		list := []Command{
			{"haulback failback record " + clean(s.ID), "the signed record of what was done"},
			{"haulback failback gc", "look for what was left on the hosts"},
		}
		if s.Activity == failback.Committed && unplugged(s) {
			list = append(list, Command{"", "and plug the network of " + name(s.Target) + " in on its host, if that was not done: haulback does not"})
		}
		return list
	}
	return nil
}

// halted are the ways on from where a failback stands still.
func halted(s *failback.Status) []Command {
	list := []Command{verb(s, "continue", "when the cause is gone: the step is looked at and goes on")}
	switch s.Activity {
	case failback.Committing, failback.Undoing, failback.Canceling: // these only roll forward
		return list
	}
	if s.State != failback.Failback {
		return append(list, cancel(s))
	}
	if s.Activity == failback.Deciding || s.Halted.Step == "power-on" {
		list = append(list, verb(s, "commit", "keep the VM at home; no undo after it"))
	}
	return append(list, verb(s, "undo", "the replica serves again, as it was when it was powered off"))
}

// cancel says what it does, which is another thing when the replica is off.
func cancel(s *failback.Status) Command {
	if Switched(s) {
		return verb(s, "cancel", "stop; the replica is powered on again and loses nothing")
	}
	return verb(s, "cancel", "stop; the replica goes on serving and loses nothing")
}

// waits is what somebody or something is waited for, after the word waits.
func waits(s *failback.Status) string {
	return strings.TrimPrefix(clean(s.Wait), "waits ")
}

// name is a VM as people call it.
func name(r hostctl.Ref) string {
	n := r.Name
	if n == "" {
		n = r.ID
	}
	if n == "" {
		n = "the VM that is made"
		if r.Host == "" {
			return n
		}
		return n + " on " + clean(r.Host)
	}
	return clean(r.Host + "/" + n)
}

// moment is a time as the operator's clock shows it.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// Span is a duration in the units that matter.
func Span(d time.Duration) string {
	switch {
	case d < time.Second:
		return "under 1s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d >= 10*time.Minute && d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	const day = 24 * time.Hour
	return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
}

// plural is n things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func bytes(n int64) string { return size.Text(n) }
