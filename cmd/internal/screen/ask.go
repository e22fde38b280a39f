package screen

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// CommitText is what a commit costs, for who has to confirm it.
func CommitText(deleteProtective bool) string {
	text := "After commit it cannot be undone any more: the rollback point at home is removed, and replication writes to the replica again."
	if deleteProtective {
		text += " The replica's protective snapshot is DELETED."
	}
	return text
}

// UndoText is what an undo costs, for who has to confirm it.
func UndoText(keepOff bool) string {
	text := "What was written at home since the switch is LOST. The replica serves again, as it was when it was powered off."
	if keepOff {
		text += " It stays off."
	}
	return text
}

// SamePlace reports whether what was confirmed of a still holds of b. The
// revision would tell too much: each line of the journal is a new one. Another
// halt is another place: the remedy that was read is not its.
func SamePlace(a, b *failback.Status) bool {
	halt := func(s *failback.Status) failback.Halt {
		if s.Halted == nil {
			return failback.Halt{}
		}
		return failback.Halt{Step: s.Halted.Step, Text: s.Halted.Text, Remedy: s.Halted.Remedy}
	}
	return a.Activity == b.Activity && a.State == b.State && (a.Halted == nil) == (b.Halted == nil) && halt(a) == halt(b) &&
		a.Spec.VM == b.Spec.VM && name(a.Replica) == name(b.Replica) && name(a.Target) == name(b.Target)
}

// Verb is what somebody may do to an item of a board.
type Verb string

// The verbs. The first five are those of failbacks, the last three of jobs.
const (
	Switch   Verb = "switch"
	Commit   Verb = "commit"
	Undo     Verb = "undo"
	Continue Verb = "continue"
	Cancel   Verb = "cancel"
	Pause    Verb = "pause"
	Resume   Verb = "resume"
)

// Refuses says why a verb cannot be done to the item; empty: it can. The daemon
// is asked all the same, and its answer counts.
func (it Item) Refuses(v Verb) string {
	switch s, j := it.Failback, it.Job; {
	case s != nil && (v == Pause || v == Resume):
		return fmt.Sprintf("only jobs have that, and %s is a failback", it.Name())
	case j != nil && v != Pause && v != Resume && v != Cancel:
		return fmt.Sprintf("only failbacks have that, and %s is a job", it.Name())
	case s != nil && v == Undo && !Ended(s) && s.State != failback.Failback: // the engine takes it for a cancel
		return "it is not home yet: there is nothing to undo; x cancels it"
	case s != nil:
		if f := s.Refuses(string(v)); f != nil {
			return clean(f.Text)
		}
		return ""
	}
	return refusesJob(&it.Job.Job, v)
}

func refusesJob(j *job.Job, v Verb) string {
	wanted := map[Verb]job.Phase{Pause: job.Paused, Cancel: job.Canceled}[v]
	switch {
	case v == Resume && j.Phase == job.Paused:
		return ""
	case v == Resume && j.Phase == job.Failed:
		if f := j.Failure; f != nil && f.Retry == job.RetryNever {
			return "the job failed for good: " + clean(f.Text)
		}
		return ""
	case v == Resume:
		return "the job is " + j.Phase.String() + ": nothing is to be resumed"
	case j.Phase.Ended():
		return "the job has ended: " + j.Phase.String()
	case j.Wanted == wanted || j.Phase == wanted || v == Cancel && j.Phase == job.Canceling:
		return "the job is " + wanted.String() + ", or on its way there"
	}
	return ""
}

// Question is what is asked before a verb is done.
type Question struct {
	Title string
	Facts []string // what happens, what goes off and on, what is lost
	Type  string   // what has to be typed, with Enter; empty: nothing is asked, it is only said
}

// Answers reports whether what was typed is the answer, as it is shown: a name with
// two blanks or an unprintable character is one that people type as they see it.
func (q *Question) Answers(typed string) bool { return q.Type != "" && clean(typed) == q.Type }

// yes is typed where nothing is decided for good. A single key would be hit by
// text that was meant for another window.
const yes = "yes"

// Ask is the question before a verb. What decides about a VM for good has to be
// confirmed with the VM's name, as on the command line, and as it is shown: nobody
// can type another one. One that shows nothing is no answer: Enter alone would do.
func (it Item) Ask(v Verb) Question {
	if j := it.Job; j != nil {
		return askJob(&j.Job, v)
	}
	s := it.Failback
	q := Question{Type: yes, Title: fmt.Sprintf("%s the failback of %s?", map[Verb]string{
		Switch: "Switch", Commit: "Commit", Undo: "UNDO", Continue: "Continue", Cancel: "Cancel",
	}[v], it.Name())}
	replica, target := name(s.Replica), name(s.Target)
	switch v {
	case Switch:
		q.Facts = askSwitch(s)
	case Commit:
		q.Type = cmp.Or(it.Name(), yes)
		q.Facts = []string{target + " stays, " + replica + " stays off.", CommitText(false)}
		if !did(s, "power-on") {
			q.Facts = append(q.Facts, "haulback did NOT power "+target+" on: nobody has seen it work yet, unless somebody did.")
		}
	case Undo:
		q.Type = cmp.Or(it.Name(), yes)
		q.Facts = []string{target + " goes OFF, " + replica + " goes ON.", UndoText(false), wayBack(s)}
	case Continue:
		q.Facts = askContinue(s)
	case Cancel:
		q.Facts = []string{"It stops before the VM is home. " + wayBack(s)}
	}
	return q
}

// wayBack is goBack without the verb, which stands above.
func wayBack(s *failback.Status) string {
	_, text, ok := strings.Cut(goBack(s), ": ")
	if !ok {
		text = goBack(s)
	}
	return sentence("Then " + text)
}

func askSwitch(s *failback.Status) []string {
	replica, target := name(s.Replica), name(s.Target)
	when := "As soon as the disks allow, "
	if s.Activity == failback.Standing {
		when = "Now "
	}
	facts := []string{when + replica + " goes OFF, and nobody serves until " + target + " goes ON."}
	switch {
	case !s.Spec.PowerOn:
		facts[0] = when + replica + " goes OFF, and nobody serves until SOMEBODY powers " + target + " on: haulback was not asked to."
	case s.Spec.Isolated:
		facts[0] += " Its network stays unplugged until somebody plugs it in."
	}
	if s.Forecast.Downtime > 0 {
		facts = append(facts, "Downtime: "+downtime(s, s.Created)+".")
	}
	return append(facts, "Nothing is lost: it waits for commit or undo then. Until it is home, cancel powers "+replica+" on again.")
}

func askContinue(s *failback.Status) []string {
	if h := s.Halted; h != nil {
		return []string{
			fmt.Sprintf("It halted at step %d (%s): %s", h.Number, clean(h.Step), sentence(h.Text)),
			"Remedy: " + sentence(h.Remedy),
			"When that is done: the step is looked at and goes on; what is done already is not done again.",
		}
	}
	return []string{"Another pass brings home what the replica has changed meanwhile, which makes the switch shorter. " + name(s.Replica) + " goes on serving."}
}

func askJob(j *job.Job, v Verb) Question {
	id := clean(j.ID)
	switch v {
	case Pause:
		return Question{Type: yes, Title: "Pause job " + id + "?", Facts: []string{"It stops at a checkpoint and releases its disks. Its targets stay Inconsistent until it is resumed and done."}}
	case Resume:
		return Question{Type: yes, Title: "Resume job " + id + "?", Facts: []string{"It goes on where it was; what is durable already is not sent again."}}
	}
	return Question{Type: yes, Title: "Cancel job " + id + "?", Facts: []string{"It stops for good and cannot be resumed. Targets that were begun stay Inconsistent: do not use them."}}
}
