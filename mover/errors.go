package mover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// DiskError is a failed call to a disk.
type DiskError struct {
	Role   string // "source" or "target"
	Op     string // "read", "write", "flush", ...
	Extent cbt.Extent
	Err    error
}

// Error implements error.
func (e *DiskError) Error() string {
	if e.Extent.Len == 0 {
		return fmt.Sprintf("%s disk: %s: %v", e.Role, e.Op, e.Err)
	}
	return fmt.Sprintf("%s disk: %s %v: %v", e.Role, e.Op, e.Extent, e.Err)
}

// Unwrap is the driver's error.
func (e *DiskError) Unwrap() error { return e.Err }

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// diskError gives a driver's error the code that belongs to it.
func diskError(code wire.Code, role, op string, e cbt.Extent, err error) error {
	de := &DiskError{Role: role, Op: op, Extent: e, Err: err}
	switch {
	case retryable(err):
		return wire.Errorf(wire.CodeDiskLost, "%w", de)
	case isNoSpace(err):
		return wire.Errorf(wire.CodeNoSpace, "%w: free space there; the copy can then go on", de)
	case errors.Is(err, syscall.EBUSY):
		code = wire.CodeBusy
	}
	return wire.Errorf(code, "%w", de)
}

// linkError marks an error as one of the link, not of a disk or of the other
// side's judgement: a new link may do better.
type linkError struct{ err error }

func (e *linkError) Error() string   { return "link lost: " + e.err.Error() }
func (e *linkError) Unwrap() error   { return e.err }
func (e *linkError) Retryable() bool { return true }

// onLink classes an error of a stream or link. What the peer said with a code
// keeps it.
func onLink(err error) error {
	if err == nil || errors.Is(err, wire.ErrFrame) || errors.Is(err, wire.ErrUnknownPeer) || errors.Is(err, wire.ErrVersion) ||
		errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*wire.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*linkError](err); ok {
		return err
	}
	return &linkError{err}
}

// retryable reports whether the same session may do better on a new link.
func retryable(err error) bool {
	if e, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err); ok {
		return e.Retryable()
	}
	return false
}

// dialError classes an error of a dial: refused or unreachable may pass,
// unknown keys and bad names do not.
func dialError(err error) error {
	if errors.Is(err, wire.ErrUnknownPeer) || errors.Is(err, wire.ErrVersion) {
		return err
	}
	if de, ok := errors.AsType[*net.DNSError](err); ok && de.IsNotFound {
		return &finalError{wire.Errorf(wire.CodeUnreachable, "%w", err)}
	}
	return onLink(err)
}

// finalError is an error that is not tried again here, whatever its code says.
type finalError struct{ err error }

func (f *finalError) Error() string   { return f.err.Error() }
func (f *finalError) Unwrap() error   { return f.err }
func (f *finalError) Retryable() bool { return false }

// gone reports whether err says that the peer or this end closed in order.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, wire.ErrClosed)
}

// oneLine keeps an error's text to a line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
