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

// missingError means that the worker is not installed.
type missingError struct {
	beside string
	err    error // of PATH
}

func (e *missingError) Error() string {
	return fmt.Sprintf("%s: found neither as %s nor in PATH; it is a program of its own, needed for vddk:// only: %v", Program, e.beside, e.err)
}

func (e *missingError) Unwrap() error { return e.err }

// Usage is true: it has to be installed.
func (e *missingError) Usage() bool { return true }
