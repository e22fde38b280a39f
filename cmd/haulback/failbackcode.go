package main

import (
	"fmt"
	"strings"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl/failback"
)

// haltCode is the exit code of a failback that stands still: it can be continued,
// whatever it was; what was not proved, and what a host has refused, is said.
func haltCode(reason string) exitcode.Code {
	switch reason {
	case "CHECKSUM_MISMATCH", "NOT_VERIFIED", "DISK_CONTRADICTION":
		return exitcode.Verify
	case "HOST_REFUSED", "PRIVILEGE_MISSING", "END_STATE_MISSING", "NOT_SUPPORTED", "VM_QUESTION":
		return exitcode.Host
	}
	return exitcode.Incomplete
}

// problemCode is the exit code of what keeps a failback from starting.
func problemCode(reason string) exitcode.Code {
	switch reason {
	case "HOST_UNAVAILABLE", "MOVER_UNAVAILABLE", "ENGINE_UNAVAILABLE":
		return exitcode.Unavailable
	case "FOREIGN_RUN", "DISK_IN_USE", "FAILBACK_OPEN", "FENCED", "VM_BUSY", "HELD_BY_FAILBACK":
		return exitcode.Locked
	case "PRIVILEGE_MISSING", "HOST_REFUSED", "NOT_SUPPORTED", "VM_QUESTION", "NO_SPACE":
		return exitcode.Host
	}
	return exitcode.Usage
}

// problems is the error of a plan that cannot be started, or nil. The first one
// has the exit code.
func problems(p *failback.Plan) error {
	if len(p.Problems) == 0 {
		return nil
	}
	first := p.Problems[0]
	text := strings.TrimSuffix(fmt.Sprintf("%s cannot be brought home: %s; %s", p.VM, first.Text, first.Remedy), "; ")
	if n := len(p.Problems) - 1; n > 0 {
		text += fmt.Sprintf("; and %d more", n)
	}
	return &exitcode.Said{Code: problemCode(first.Reason), Text: report.OneLine(text)}
}

// goal is what somebody who waits calls done.
type goal int

const (
	goalHome   goal = iota // home, or it needs a word
	goalCommit             // committed
	goalBack               // undone or canceled
)

// verdictOf is the error of a failback that has ended or needs its operator.
func verdictOf(s *failback.Status, want goal) error {
	vm := s.Spec.VM
	if h := s.Halted; h != nil {
		return &exitcode.Said{Code: haltCode(h.Reason), Text: report.OneLine(fmt.Sprintf("%s stands still at step %d (%s): %s; %s", vm, h.Number, h.Step, h.Text, h.Remedy))}
	}
	switch {
	case s.Activity == failback.Canceled && want != goalBack:
		return &exitcode.Said{Code: exitcode.Canceled, Text: "the failback of " + vm + " was canceled"}
	case s.Activity == failback.Undone && want != goalBack:
		return &exitcode.Said{Code: exitcode.Failed, Text: "the failback of " + vm + " was undone: its replica serves"}
	case s.Activity == failback.Committed && want == goalBack:
		return &exitcode.Said{Code: exitcode.Failed, Text: "the failback of " + vm + " was committed"}
	}
	return nil
}

// rests reports whether there is nothing to wait for.
func rests(s *failback.Status, want goal) bool {
	if want != goalHome && s.Activity == failback.Deciding && s.Halted == nil {
		return false // it is on its way from there
	}
	return screen.Ended(s) || screen.NeedsYou(s)
}
