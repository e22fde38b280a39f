package exitcode

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"syscall"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

// Code is the exit code of a process.
type Code int

// The exit codes. Append only; never renumber.
const (
	Done        Code = 0   // done
	Failed      Code = 1   // failed, and everything without a code of its own
	Incomplete  Code = 3   // began and did not end; the same command goes on
	Verify      Code = 4   // the disks differ, or could not be proved equal
	Host        Code = 5   // a host (vCenter, volume cluster) refused
	Usage       Code = 10  // wrong arguments or configuration
	Locked      Code = 11  // in use by another, or fenced
	Auth        Code = 12  // a key is not paired, or may not do this
	Unavailable Code = 13  // an endpoint cannot be reached; a retry may help
	Tracking    Code = 14  // change tracking or base invalid under --strict
	Canceled    Code = 130 // the operator stopped it
)

// ErrCanceled is the cause of a context that a signal ended.
var ErrCanceled = errors.New("stopped by a signal")

// UsageError is an error of the caller: arguments, flags, configuration.
type UsageError struct{ Err error }

// Error implements error.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap is the error that was made a usage error.
func (e *UsageError) Unwrap() error { return e.Err }

// Of is the exit code that belongs to err. The order of its questions matters:
// a cancel or an interruption says more to a caller than what it interrupted.
func Of(err error) Code {
	if err == nil {
		return Done
	}
	if errors.Is(err, ErrCanceled) {
		return Canceled
	}
	if _, ok := errors.AsType[*mover.IncompleteError](err); ok {
		return Incomplete
	}
	if _, ok := errors.AsType[*UsageError](err); ok {
		return Usage
	}
	if code := ofSentinel(err); code != Failed {
		return code
	}
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return ofWire(e)
	}
	return ofNetwork(err)
}

// ofSentinel knows the conditions that have a name in this process.
func ofSentinel(err error) Code {
	switch {
	case errors.Is(err, wire.ErrUnknownPeer):
		return Auth
	case errors.Is(err, syscall.EBUSY), errors.Is(err, mover.ErrHeld):
		return Locked
	case errors.Is(err, wire.ErrKeyExposed), errors.Is(err, wire.ErrBadKey), errors.Is(err, wire.ErrBadID),
		errors.Is(err, vddk.ErrKind), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission),
		errors.Is(err, syscall.EROFS), errors.Is(err, vddk.ErrReadOnly), errors.Is(err, vddk.ErrFormat):
		return Usage
	}
	return Failed
}

// ofWire knows the codes that cross the wire.
func ofWire(e *wire.Error) Code {
	switch e.Code {
	case wire.CodeVerify:
		return Verify
	case wire.CodeBusy, wire.CodeFenced:
		return Locked
	case wire.CodeUnauthorized, wire.CodeExport: // a daemon does not say which exports others may use
		return Auth
	case wire.CodeTooSmall, wire.CodeRole:
		return Usage
	case wire.CodeHint:
		return Tracking
	case wire.CodeUnreachable, wire.CodeTimeout, wire.CodeDraining, wire.CodeLimit, wire.CodeOpen, wire.CodeDiskLost:
		return Unavailable
	}
	return ofNetwork(e)
}

// ofNetwork knows what the standard library and drivers say about an endpoint.
func ofNetwork(err error) Code {
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	if e, ok := err.(*wire.Error); ok {
		err = e.Err // its own word on trying again was heard above
	}
	if e, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err); ok && e.Retryable() { // a driver's word: its server is not there
		return Unavailable
	}
	return Failed
}
