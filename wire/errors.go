package wire

import (
	"errors"
	"fmt"
)

// Conditions a caller branches on, in the order in which they can occur.
var (
	// ErrBadID means that a text is not a peer ID, or that a check digit of it
	// is wrong (a typing error).
	ErrBadID = errors.New("wire: not a peer ID")
	// ErrBadKey means that a key file does not hold one Ed25519 private key.
	ErrBadKey = errors.New("wire: not an Ed25519 key file")
	// ErrKeyExposed means that others than the owner may read the key file.
	ErrKeyExposed = errors.New("wire: key file may be read by others")
	// ErrUnknownPeer means that the other end holds a key that is not pinned.
	ErrUnknownPeer = errors.New("wire: peer is not paired")
	// ErrVersion means that the two ends share no protocol version.
	ErrVersion = errors.New("wire: no common protocol version")
	// ErrClosed means that this end closed the listener or the link before.
	ErrClosed = errors.New("wire: closed")
	// ErrFrame means that bytes from the peer are not a frame of the protocol.
	ErrFrame = errors.New("wire: malformed frame")
)

// Code is the reason that crosses the wire when a session is refused or ends.
// Append only; never renumber, never reuse.
type Code uint16

// The codes of protocol 1.
const (
	CodeOK           Code = 0  // ended on purpose, nothing is wrong
	CodeInternal     Code = 1  // a bug at the end that says so
	CodeVersion      Code = 2  // no common version of the protocol
	CodeFrame        Code = 3  // malformed frame, or one that may not come now
	CodeLimit        Code = 4  // a local cap: sessions, frame size, memory
	CodeTimeout      Code = 5  // no frame, or no progress, within the deadline
	CodeDraining     Code = 6  // the daemon is about to stop
	CodeCanceled     Code = 7  // the operator or the caller cancelled
	CodeExport       Code = 8  // unknown export, or one this peer may not use
	CodeRole         Code = 9  // the export is for the other role
	CodeBusy         Code = 10 // the disk is held by another session or program
	CodeFenced       Code = 11 // a later epoch has taken the disk over
	CodeTooSmall     Code = 12 // the target is smaller than the source
	CodeExtent       Code = 13 // extent outside the disk or the plan
	CodeBinding      Code = 14 // right block at a wrong place, pass or epoch
	CodeDigest       Code = 15 // data do not have their digest
	CodeDecompress   Code = 16 // payload does not expand to its declared length
	CodeRead         Code = 17 // a disk could not be read
	CodeWrite        Code = 18 // the target could not be written
	CodeFlush        Code = 19 // the target could not be flushed
	CodeNoSpace      Code = 20 // no space for the target's data or its journal
	CodeDiskChanged  Code = 21 // size or identity of a disk changed in the run
	CodeJournal      Code = 22 // the journal cannot be read or written
	CodePoisoned     Code = 23 // the target disk is poisoned; see its journal
	CodeVerify       Code = 24 // read-back or manifest root differ
	CodeUnreadable   Code = 25 // finished, but extents of the source are unreadable
	CodeOpen         Code = 26 // the disk behind the export cannot be opened
	CodeUnauthorized Code = 27 // the peer may not ask for this operation
	CodeUnreachable  Code = 28 // the daemon that was told to could not reach its peer
	CodeSuperseded   Code = 29 // a new link of the same session took over
	CodeHint         Code = 30 // change tracking was required and is not to be had
	CodeDistrust     Code = 31 // change tracking was caught in a lie; the same run again compares all
	CodeDiskLost     Code = 32 // what is behind a disk went away; opened anew it may be back
	CodeTicket       Code = 33 // the export wants a controller's ticket, and this one does not open it, or not any more
	CodeSwitch       Code = 34 // the dialer goes on over another transport; nothing is wrong
)

var codeNames = [...]string{
	"ok", "internal", "version", "frame", "limit", "timeout", "draining", "canceled", "export", "role", "busy", "fenced",
	"too small", "extent", "binding", "digest", "decompress", "read", "write", "flush", "no space", "disk changed",
	"journal", "poisoned", "verify", "unreadable", "open", "unauthorized", "unreachable", "superseded",
	"hint", "distrust", "disk lost", "ticket", "switch",
}

// String is the code's word in messages.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint16(c))
}

// Error is a refusal or an end of a session that has a code, made here or
// received from the peer.
type Error struct {
	Code   Code
	Text   string // for people; from a peer it is printable and at most 256 bytes
	Remote bool   // the peer said so
	Err    error  // the local cause, or nil
}

// Errorf makes a local *Error; each %w in format becomes a cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	e := &Error{Code: code, Text: err.Error(), Err: errors.Unwrap(err)}
	if _, several := err.(interface{ Unwrap() []error }); several {
		e.Err = err // errors.Unwrap has no answer for these
	}
	return e
}

// Error implements error.
func (e *Error) Error() string {
	if e.Remote {
		return fmt.Sprintf("peer: %s (%s)", e.Text, e.Code)
	}
	return e.Text
}

// Unwrap is the local cause.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether the same request may succeed when it is sent
// again: the transport is changed, the peer stops for a restart, a deadline passed, a disk was lost or a
// flush of it and it has to be opened anew, or the hint of the run is dropped.
func (e *Error) Retryable() bool {
	switch e.Code {
	case CodeTimeout, CodeDraining, CodeFlush, CodeUnreachable, CodeDistrust, CodeDiskLost, CodeSwitch:
		return true
	}
	return false
}
