package exitcode

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"syscall"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
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

// Port is err of an address to listen at: a mistake of the configuration, or, when
// the address or what opens it may be there in a moment, Unavailable. A service
// manager does not try a mistake again.
func Port(err error) error {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return &Said{Code: Unavailable, Text: err.Error()}
	}
	for _, passing := range []error{syscall.EADDRNOTAVAIL, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ENETDOWN} {
		if errors.Is(err, passing) {
			return &Said{Code: Unavailable, Text: err.Error()}
		}
	}
	return &UsageError{Err: err}
}

// Told is an error with a text for people; its chain keeps the exit code.
type Told struct {
	Text string
	Err  error
}

// Error implements error.
func (e *Told) Error() string { return e.Text }

// Unwrap is the error that Text is about.
func (e *Told) Unwrap() error { return e.Err }

// Said is an error whose exit code is told by who knows more about it: a daemon, or
// Port.
type Said struct {
	Code Code
	Text string
}

// Error implements error.
func (e *Said) Error() string { return e.Text }

// Of is the exit code that belongs to err. The order of its questions matters:
// a cancel or an interruption says more to a caller than what it interrupted.
func Of(err error) Code {
	if err == nil {
		return Done
	}
	if errors.Is(err, ErrCanceled) {
		return Canceled
	}
	if e, ok := errors.AsType[*Said](err); ok {
		return e.Code
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
	return ofEndpoint(err)
}

// ofSentinel knows the conditions that have a name in this process. A server
// that is not there comes before the errno by which that was noticed: no socket
// is no wrong path.
func ofSentinel(err error) Code {
	switch {
	case errors.Is(err, archive.ErrFormat):
		return Usage
	case errors.Is(err, archive.ErrDamaged):
		return Verify
	case errors.Is(err, wire.ErrUnknownPeer):
		return Auth
	case errors.Is(err, syscall.EBUSY), errors.Is(err, mover.ErrHeld):
		return Locked
	case isDenied(err):
		return Auth
	case isLost(err):
		return Unavailable
	case isUsage(err), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return Usage
	}
	return Failed
}

// isDenied: a login or a certificate was refused, by one side or the other.
func isDenied(err error) bool {
	if e, ok := errors.AsType[interface {
		error
		Denied() bool
	}](err); ok && e.Denied() {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" // crypto/tls names an alert so
}

// isLost is a driver's word that its server is not there. That of a wire.Error
// on trying again is about a session, and ofWire knows it.
func isLost(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err)
	if w, is := e.(*wire.Error); is {
		return w.Code == wire.CodeDiskLost || w.Err != nil && isLost(w.Err)
	}
	return ok && e.Retryable()
}

// isUsage: the operator has to name something else, or to put something right
// on this machine.
func isUsage(err error) bool {
	if e, ok := errors.AsType[interface {
		error
		Usage() bool
	}](err); ok && e.Usage() {
		return true
	}
	for _, wrong := range []error{
		wire.ErrKeyExposed, wire.ErrBadKey, wire.ErrBadID, wire.ErrBadTicket, wire.ErrBadCode,
		vddk.ErrKind, vddk.ErrReadOnly, vddk.ErrFormat, vddk.ErrTrack, nbd.ErrReadOnly, nbd.ErrNoFlush,
	} {
		if errors.Is(err, wrong) {
			return true
		}
	}
	return false
}

// ofWire knows the codes that cross the wire.
func ofWire(e *wire.Error) Code {
	switch e.Code {
	case wire.CodeVerify:
		return Verify
	case wire.CodeBusy, wire.CodeFenced:
		return Locked
	case wire.CodeUnauthorized, wire.CodeTicket, wire.CodeExport: // a daemon does not say which exports others may use
		return Auth
	case wire.CodeTooSmall, wire.CodeRole:
		return Usage
	case wire.CodeHint:
		return Tracking
	case wire.CodeUnreachable, wire.CodeTimeout, wire.CodeDraining, wire.CodeLimit, wire.CodeOpen, wire.CodeDiskLost, wire.CodeSwitch:
		return Unavailable
	}
	return ofEndpoint(e)
}

// ofEndpoint knows what the standard library says about a network. The errno of
// a disk has the methods of a net.Error, and is none.
func ofEndpoint(err error) Code {
	_, op := errors.AsType[*net.OpError](err)
	_, name := errors.AsType[*net.DNSError](err)
	late, ok := errors.AsType[net.Error](err)
	_, errno := late.(syscall.Errno)
	if op || name || ok && !errno || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Failed
}

// Lines is an error whose text has lines that mean something: the place of a
// mistake, with a caret below it.
type Lines struct{ Err error }

// Error implements error.
func (e *Lines) Error() string { return e.Err.Error() }

// Unwrap is the error itself.
func (e *Lines) Unwrap() error { return e.Err }
