package failback

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
)

// The stable reasons of refusals and halts; append only. They are part of the
// control API, beside those of package job.
const (
	// Verbs that the state does not allow.
	ReasonUnknownVM       = "VM_UNKNOWN"          // no pair of that name
	ReasonUnknown         = "FAILBACK_UNKNOWN"    // no failback of that ID
	ReasonVMReady         = "VM_READY"            // Ready: there is nothing to bring home or to undo
	ReasonVMFailover      = "VM_IN_FAILOVER"      // it is failed over already
	ReasonVMFailback      = "VM_IN_FAILBACK"      // brought home already, not committed
	ReasonOpen            = "FAILBACK_OPEN"       // a failback of the VM has not ended
	ReasonNotSwitched     = "NOT_SWITCHED"        // commit or undo before the switch
	ReasonSwitching       = "SWITCHING"           // the switch is at work
	ReasonSwitched        = "ALREADY_SWITCHED"    // switch or cancel after the switch
	ReasonNotHalted       = "NOT_HALTED"          // continue of what goes on
	ReasonCommitting      = "COMMITTING"          // it only rolls forward
	ReasonUndoing         = "UNDOING"             //
	ReasonCanceling       = "CANCELING"           //
	ReasonCommitted       = "COMMITTED"           // it has ended
	ReasonUndone          = "UNDONE"              //
	ReasonCanceled        = "FAILBACK_CANCELED"   //
	ReasonHeld            = "HELD_BY_FAILBACK"    // replication, until commit or undo
	ReasonReplicationOver = "REPLICA_SERVES"      // replication of a VM in failover
	ReasonPlanChanged     = "PLAN_CHANGED"        // since the operator confirmed it
	ReasonFenced          = job.ReasonFenced      // another controller
	ReasonInvalid         = job.ReasonInvalid     // the request itself
	ReasonExists          = job.ReasonExists      // another spec under this ID
	ReasonConflict        = job.ReasonConflict    // not at the expected revision
	ReasonStore           = job.ReasonEngine      // the store cannot be read or written
	ReasonTooSmall        = job.ReasonTooSmall    //
	ReasonNoSpace         = job.ReasonNoSpace     // for the rollback point or the snapshots
	ReasonHostUnknown     = "HOST_UNKNOWN"        // not in the configuration
	ReasonHostDown        = "HOST_UNAVAILABLE"    // was tried for a while
	ReasonHostRefused     = "HOST_REFUSED"        // and will again
	ReasonHostLied        = "END_STATE_MISSING"   // the host says done, and it is not so
	ReasonPrivilege       = "PRIVILEGE_MISSING"   //
	ReasonVMGone          = "VM_NOT_FOUND"        // on its host
	ReasonVMAmbiguous     = "VM_AMBIGUOUS"        //
	ReasonSameVM          = "SAME_VM"             // source and target are one
	ReasonOtherVM         = "VM_OF_ANOTHER"       // a VM that is known under another name as well
	ReasonReplicaOff      = "REPLICA_NOT_RUNNING" //
	ReasonTargetOn        = "TARGET_RUNNING"      // of destination existing
	ReasonSuspended       = "VM_SUSPENDED"        // neither on nor safely off
	ReasonQuestion        = "VM_QUESTION"         // waits for an answer
	ReasonBusy            = "VM_BUSY"             // the host is at something with it
	ReasonSnapshots       = "SNAPSHOTS_IN_WAY"    // tracking cannot begin
	ReasonDiskUnfit       = "DISK_UNFIT"          // can be neither snapshotted nor tracked
	ReasonDiskUnmatched   = "DISK_UNMATCHED"      // no counterpart
	ReasonDiskAmbiguous   = "DISK_AMBIGUOUS"      // more than one
	ReasonDiskClaimed     = "DISK_IN_USE"         // by another failback
	ReasonForeignRun      = "FOREIGN_RUN"         // a VM carries the mark of another run
	ReasonTracking        = "TRACKING_UNKNOWN"    // pass 1 by tracking, and nobody recorded since when
	ReasonNoAbility       = "NOT_SUPPORTED"       // the host cannot do what is asked
	ReasonNameTaken       = "NAME_TAKEN"          // of a new VM
	ReasonMover           = "MOVER_UNAVAILABLE"   //
	ReasonDrift           = "VM_CHANGED"          // its disks, in the run
	ReasonContradiction   = "DISK_CONTRADICTION"  // the contents say another pairing
	ReasonPoweredOn       = "POWERED_ON_OUTSIDE"  // too often
	ReasonUnproved        = "NOT_VERIFIED"        // power-on of what no final pass has proved
	ReasonTwoOn           = "BOTH_WOULD_RUN"      // the other one is on
	ReasonSnapshotGone    = "SNAPSHOT_LOST"       // that a step needs
	ReasonHook            = "HOOK"                //
	ReasonReplication     = "REPLICATION"         // whoever replicates does not hold or release
	ReasonPass            = "PASS_FAILED"         // a disk's, for what nobody classed
)

// refuse makes an error of a verb: what is wrong, and what helps.
func refuse(reason string, exit int, text, remedy string) *job.Failure {
	if remedy != "" {
		text += "; " + remedy
	}
	class := job.RetryNever
	if exit == 13 || exit == 11 {
		class = job.RetryBackoff
	}
	return &job.Failure{Reason: reason, Text: plain(text), Retry: class, Exit: exit}
}

func invalid(format string, args ...any) *job.Failure {
	return refuse(ReasonInvalid, 10, fmt.Sprintf(format, args...), "")
}

// stop is an error that halts a step: nobody but an operator can help.
type stop struct {
	reason, text, remedy string
}

func (s *stop) Error() string { return s.text }

func halting(reason, remedy, format string, args ...any) error {
	return &stop{reason: reason, text: fmt.Sprintf(format, args...), remedy: remedy}
}

// again is an error that a retry may cure, as a host's own.
type again struct{ text string }

func (a *again) Error() string { return a.text }

// Retryable says so.
func (a *again) Retryable() bool { return true }

// retryable asks the error: who knows decides (no method means no).
func retryable(err error) bool {
	if r, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err); ok {
		return r.Retryable()
	}
	if f, ok := errors.AsType[*job.Failure](err); ok {
		return f.Retry == job.RetryBackoff
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// explain says of an error what it is for an operator.
func explain(err error) (reason, text, remedy string) {
	text = strings.ReplaceAll(plain(err.Error()), "hostctl: ", "") // a package is nobody's concern at night
	if s, ok := errors.AsType[*stop](err); ok {
		return s.reason, text, plain(s.remedy)
	}
	if f, ok := errors.AsType[*job.Failure](err); ok {
		return f.Reason, text, "look at what it names, then continue; undo or cancel takes the failback back"
	}
	if _, ok := errors.AsType[*hostctl.PrivilegeError](err); ok {
		return ReasonPrivilege, text, "give the login's role what is missing, then continue"
	}
	if _, ok := errors.AsType[*hostctl.AmbiguousError](err); ok {
		return ReasonVMAmbiguous, text, "name the VM by its UUID"
	}
	switch {
	case errors.Is(err, hostctl.ErrNotFound):
		return ReasonVMGone, text, "look on the host whether the VM was deleted or moved away; bring it back, then continue, or cancel"
	case errors.Is(err, hostctl.ErrNoSpace):
		return ReasonNoSpace, text, "free some there, then continue; undo or cancel takes the failback back"
	case retryable(err):
		return ReasonHostDown, text, "when the host answers again, continue"
	}
	return ReasonHostRefused, text, "do what the host asks for, then continue; undo or cancel takes the failback back"
}

// asProblem is the same before anything is done.
func asProblem(err error) hostctl.Problem {
	reason, text, remedy := explain(err)
	switch reason {
	case ReasonVMGone:
		remedy = "check the VM's name and UUID, and that the login may see it"
	case ReasonNoSpace:
		remedy = "free some there, or move a disk to another datastore"
	case ReasonHostDown:
		remedy = "check address and login of the host, and try again"
	case ReasonHostRefused:
		remedy = "do what the host asks for, and try again"
	}
	return hostctl.Problem{Reason: reason, Text: text, Remedy: remedy}
}

// exitOf is the command line's exit code of a problem.
func exitOf(reason string) int {
	switch reason {
	case ReasonHostDown, ReasonMover, ReasonStore:
		return 13
	case ReasonForeignRun, ReasonDiskClaimed, ReasonOpen, ReasonFenced, ReasonBusy:
		return 11
	case ReasonPrivilege, ReasonHostRefused, ReasonNoAbility, ReasonQuestion, ReasonNoSpace:
		return 5
	}
	return 10
}

// plain is text from outside without what could steer a terminal.
func plain(s string) string {
	const most = 2048
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

func fromStore(err error) *job.Failure {
	switch {
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrExists), errors.Is(err, store.ErrFenced), errors.Is(err, store.ErrHeld):
		return &job.Failure{Reason: ReasonFenced, Text: "another controller works on this store: " + err.Error() + "; run one controller for each state directory", Retry: job.RetryAfterReconcile, Exit: 11}
	}
	return &job.Failure{Reason: ReasonStore, Text: "the failback store: " + err.Error(), Retry: job.RetryBackoff, Exit: 13}
}

// sized is a number of bytes for people, with one decimal in the largest unit
// that it reaches.
func sized(n int64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	x, unit := float64(n)/step, 0
	for units := len(sizes); x >= step && unit < units-1; unit++ {
		x /= step
	}
	return fmt.Sprintf("%.1f %s", x, sizes[unit])
}

var sizes = [...]string{"KiB", "MiB", "GiB", "TiB"}

// exactly is for disks that have to be of one size.
func exactly(n int64) string { return fmt.Sprintf("%d bytes (%s)", n, sized(n)) }
