package failback

import "github.com/haulback/haulback/hostctl/job"

// verb is what somebody asks of a VM or its failback.
type verb string

// The verbs.
const (
	doFailover     verb = "failover"
	doUndoFailover verb = "undo failover"
	doRemove       verb = "remove the pair"
	doStart        verb = "start failback"
	doSwitch       verb = "switch"
	doCommit       verb = "commit"
	doUndo         verb = "undo failback"
	doCancel       verb = "cancel"
	doContinue     verb = "continue"
)

var verbs = []verb{doFailover, doUndoFailover, doRemove, doStart, doSwitch, doCommit, doUndo, doCancel, doContinue}

// place is where a VM and its failback stand, as far as a verb asks.
type place struct {
	State    State
	Activity Activity // empty: there was no failback
	Halted   bool
	Powering bool // halted in step 9, where all is done but to start the target
}

// Refuses is why the engine would not do what somebody asks of a failback that
// stands as s, or that it is so already; nil: it would. What is one of the words
// of Decision: "switch", "commit", "undo", "cancel", "continue". It is for those
// who show what is possible; the engine asks itself again.
func (s *Status) Refuses(what string) *job.Failure {
	v := verb(what)
	if what == "undo" {
		v = doUndo
	}
	at := (&record{Status: *s}).place()
	switch d := decide(at, v); {
	case d.refused():
		return refuse(d.Reason, verbExit(d.Reason), d.Text, d.Remedy)
	case d.Same:
		return refuse(ReasonConflict, verbExit(ReasonConflict), "it is "+string(s.Activity)+" already", "")
	}
	return nil
}

// verdict is the answer to a verb: a change, the same again, or a refusal.
type verdict struct {
	State        State    // of the VM then
	Activity     Activity // of the failback then
	Same         bool     // it is so already
	Reason       string
	Text, Remedy string
}

func (v verdict) refused() bool { return v.Reason != "" }

// decide is the state table of the failback page: a pure function, and the only
// place that knows which verb is allowed where.
func decide(at place, v verb) verdict {
	switch v {
	case doFailover, doUndoFailover, doRemove, doStart:
		return decideVM(at, v)
	}
	switch at.Activity {
	case "":
		return no(ReasonUnknown, "the VM has no failback", "start one")
	case Committing, Committed:
		return decideEnd(at, v, doCommit)
	case Undoing, Undone:
		return decideEnd(at, v, doUndo)
	case Canceling, Canceled:
		if v == doUndo { // it was a cancel by that name
			v = doCancel
		}
		return decideEnd(at, v, doCancel)
	case Waiting, Preparing, Syncing:
		return decideSync(at, v)
	case Standing:
		return decideStanding(at, v)
	case Switching:
		return decideSwitching(at, v)
	case Deciding:
		return decideDeciding(at, v)
	}
	return no(ReasonInvalid, "the failback does "+string(at.Activity)+", which this program does not know", "use the program that wrote it")
}

func no(reason, text, remedy string) verdict {
	return verdict{Reason: reason, Text: text, Remedy: remedy}
}

// Ended reports whether nothing happens to the failback any more.
func (a Activity) Ended() bool { return a == Committed || a == Undone || a == Canceled }

// decideVM answers verbs of the VM.
func decideVM(at place, v verb) verdict {
	open := at.Activity != "" && !at.Activity.Ended()
	switch {
	case open && v == doStart && at.Activity == Standing && at.State == ReadyToSwitch:
		return verdict{State: ReadyToSwitch, Activity: Syncing} // resync
	case open && v == doStart && at.State == Failback:
		return no(ReasonVMFailback, "the VM was brought home and waits for commit or undo", "commit or undo it first")
	case open && v == doUndoFailover && at.State != Failback:
		return no(ReasonOpen, "a failback of the VM has not ended", "cancel it first")
	case open:
		return no(ReasonOpen, "a failback of the VM has not ended", "wait for it, or cancel or undo it")
	}
	switch at.State {
	case Ready:
		switch v {
		case doFailover:
			return verdict{State: Failover, Activity: at.Activity}
		case doRemove:
			return verdict{State: Ready, Activity: at.Activity}
		}
		return no(ReasonVMReady, "the VM is Ready: it runs at home", "a failback begins in state Failover; tell haulback of a failover with \"haulback failback failover\"")
	case Failover:
		switch v {
		case doFailover:
			return no(ReasonVMFailover, "the VM is in Failover already", "start a failback, or undo the failover")
		case doUndoFailover:
			return verdict{State: Ready, Activity: at.Activity}
		case doStart:
			return verdict{State: Failover, Activity: Waiting}
		}
		return no(ReasonVMFailover, "the VM is in Failover: its replica serves", "undo the failover or fail back first")
	}
	return no(ReasonVMFailback, "the VM is in "+string(at.State)+" without a failback", "put its pair right")
}

// decideEnd answers verbs of a failback that ends, or has ended, by verb own.
func decideEnd(at place, v, own verb) verdict {
	reason := map[Activity]string{
		Committing: ReasonCommitting, Undoing: ReasonUndoing, Canceling: ReasonCanceling,
		Committed: ReasonCommitted, Undone: ReasonUndone, Canceled: ReasonCanceled,
	}[at.Activity]
	switch {
	case v == own:
		return verdict{State: at.State, Activity: at.Activity, Same: true}
	case v == doContinue && at.Halted:
		return verdict{State: at.State, Activity: at.Activity}
	case at.Activity.Ended():
		return no(reason, "the failback is over: "+string(at.Activity), "start another one where it is needed")
	case v == doContinue:
		return no(ReasonNotHalted, "the failback goes on by itself ("+string(at.Activity)+")", "wait for it")
	}
	return no(reason, "the failback is "+string(at.Activity)+", which only goes forward", "wait for its end; continue it where it is halted")
}

// decideSync answers while the replica serves and passes run.
func decideSync(at place, v verb) verdict {
	switch v {
	case doSwitch:
		return verdict{State: at.State, Activity: at.Activity}
	case doCommit:
		return no(ReasonNotSwitched, "nothing was switched yet: there is nothing to commit", "wait for the passes, switch, then commit")
	case doUndo:
		if at.State == ReadyToSwitch {
			return verdict{State: Failover, Activity: Canceling}
		}
		return no(ReasonNotSwitched, "nothing was switched yet: there is nothing to undo", "cancel the failback")
	case doCancel:
		return verdict{State: Failover, Activity: Canceling}
	}
	return proceed(at)
}

func proceed(at place) verdict {
	if at.Halted {
		return verdict{State: at.State, Activity: at.Activity}
	}
	return no(ReasonNotHalted, "the failback goes on by itself ("+string(at.Activity)+")", "wait for it")
}

func decideStanding(at place, v verb) verdict {
	switch v {
	case doSwitch:
		return verdict{State: at.State, Activity: Standing}
	case doCommit:
		return no(ReasonNotSwitched, "the failback waits for the switch: there is nothing to commit", "switch, then commit")
	case doUndo, doCancel:
		return verdict{State: Failover, Activity: Canceling}
	case doContinue:
		if at.Halted {
			return verdict{State: at.State, Activity: Standing}
		}
		return verdict{State: at.State, Activity: Syncing} // resync
	}
	return proceed(at)
}

func decideSwitching(at place, v verb) verdict {
	home := at.State == Failback
	switch v {
	case doSwitch:
		return no(ReasonSwitching, "the switch is at work", "wait for it")
	case doCommit:
		if home && at.Halted && at.Powering {
			return verdict{State: Failback, Activity: Committing}
		}
		return no(ReasonSwitching, "the switch has not ended: there is nothing to commit", "wait for it; continue it where it is halted")
	case doUndo:
		if home {
			return verdict{State: Failover, Activity: Undoing}
		}
		return verdict{State: Failover, Activity: Canceling}
	case doCancel:
		if home {
			return no(ReasonSwitched, "the VM is home already: it cannot be canceled", "undo it")
		}
		return verdict{State: Failover, Activity: Canceling}
	}
	return proceed(at)
}

func decideDeciding(at place, v verb) verdict {
	switch v {
	case doCommit:
		return verdict{State: Failback, Activity: Committing}
	case doUndo:
		return verdict{State: Failover, Activity: Undoing}
	case doSwitch:
		return no(ReasonSwitched, "the VM was switched already", "commit or undo it")
	case doCancel:
		return no(ReasonSwitched, "the VM is home already: it cannot be canceled", "undo it")
	}
	return proceed(at)
}
