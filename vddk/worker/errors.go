package worker

import (
	"fmt"
	"syscall"
)

// DiedError means that the worker is gone, and with it what it was asked for.
type DiedError struct {
	VM     string // "VM vm-42 of vc.example"
	Reason string // "was killed (signal 9)"
}

func (e *DiedError) Error() string {
	return fmt.Sprintf("the VDDK worker of %s %s; it is started again when the disk is opened", e.VM, e.Reason)
}

// Retryable is true: another worker will be started.
func (e *DiedError) Retryable() bool { return true }

// Unwrap is syscall.ESHUTDOWN.
func (e *DiedError) Unwrap() error { return syscall.ESHUTDOWN }
