package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/haulback/haulback/cbt"
)

// Conditions a caller branches on.
var (
	// ErrReadOnly means a write to an export that is read-only or was opened so.
	ErrReadOnly = errors.New("export is open for reading only")
	// ErrNoFlush means that a server offers neither FLUSH nor FUA: it can never
	// say that written data is durable, so the export cannot be a target.
	ErrNoFlush = errors.New("server cannot say when data is durable: it has neither FLUSH nor FUA")
)

// Error is a failed request. Err is the server's answer (a [syscall.Errno]),
// cbt.ErrBounds, fs.ErrClosed, a [*LostError] or a [*ProtocolError].
type Error struct {
	Op     string
	Extent cbt.Extent // what was asked; one byte where the server said which
	Err    error
	Text   string // the server's own words, or empty
	start  int64  // of the request that failed: nothing is known of its bytes
}

// done is how many of length bytes from off on were done before the failure.
func (e *Error) done(off int64, length int) int {
	return int(max(0, min(e.start-off, int64(length))))
}

// Error is one line: read [0, +4096): input/output error (server: bad sector).
func (e *Error) Error() string {
	s := fmt.Sprintf("nbd: %s %v: %v", e.Op, e.Extent, e.Err)
	if e.Text != "" {
		s += fmt.Sprintf(" (server: %s)", e.Text)
	}
	return s
}

// Unwrap is Err.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether the same request may succeed later, at the latest
// on a new connection.
func (e *Error) Retryable() bool {
	if class, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](e.Err); ok {
		return class.Retryable()
	}
	return errors.Is(e.Err, syscall.ESHUTDOWN) || errors.Is(e.Err, syscall.ENOMEM) || errors.Is(e.Err, syscall.EAGAIN)
}

// LostError means that there is no connection, or none any more: refused, cut,
// silent for too long, or the server is shutting down. All that was written
// since the last Flush is in doubt.
type LostError struct {
	Addr  string
	Cause error
}

// Error names the server and the cause.
func (e *LostError) Error() string { return fmt.Sprintf("connection to %s: %v", e.Addr, e.Cause) }

// Unwrap is the cause.
func (e *LostError) Unwrap() error { return e.Cause }

// Retryable is true: a new connection may work.
func (e *LostError) Retryable() bool { return true }

// ProtocolError is an answer that the protocol forbids. The connection is
// closed, because nothing that follows could be told apart.
type ProtocolError struct {
	What string
}

// Error says what was wrong.
func (e *ProtocolError) Error() string { return "server broke the protocol: " + e.What }

// Retryable is false: the server would do it again.
func (e *ProtocolError) Retryable() bool { return false }

func violation(format string, args ...any) error {
	return &ProtocolError{fmt.Sprintf(format, args...)}
}

// ContextError means that the server does not offer a metadata context.
type ContextError struct {
	Export  string
	Name    string   // what was asked for
	Offered []string // what there is
}

// Error says what there is instead.
func (e *ContextError) Error() string {
	there := "none"
	if len(e.Offered) > 0 {
		there = strings.Join(e.Offered, ", ")
	}
	return fmt.Sprintf("nbd: export %q does not offer %q (offered: %s)", e.Export, e.Name, there)
}

// OptionError is the server's refusal of an option while connecting.
type OptionError struct {
	Option string // "GO", "STARTTLS", ...
	Reason string
	Text   string // the server's own words, or empty
	code   uint32
}

// Error is one line.
func (e *OptionError) Error() string {
	s := fmt.Sprintf("server refuses %s: %s", e.Option, e.Reason)
	if e.Text != "" {
		s += fmt.Sprintf(" (server: %s)", e.Text)
	}
	return s
}

// Retryable is true while the server shuts down.
func (e *OptionError) Retryable() bool { return e.code == repErrShutdown }

// Usage is true otherwise: another export has to be named, or another way.
func (e *OptionError) Usage() bool { return !e.Retryable() }

// optionNames and optionReasons are for messages.
var (
	optionNames = map[uint32]string{
		optExportName: "EXPORT_NAME", optAbort: "ABORT", optList: "LIST", optStartTLS: "STARTTLS", optInfo: "INFO", optGo: "GO",
		optStructuredReply: "STRUCTURED_REPLY", optListMetaContext: "LIST_META_CONTEXT", optSetMetaContext: "SET_META_CONTEXT",
	}
	optionReasons = map[uint32]string{
		repErrUnsup: "it does not know it", repErrPolicy: "its policy forbids it", repErrInvalid: "it takes it for malformed",
		repErrPlatform: "its platform cannot", repErrTLSReqd: "it wants TLS first: use nbds:// or nbds+unix://",
		repErrUnknown: "there is no such export", repErrShutdown: "it is shutting down",
		repErrBlockSize: "it wants block sizes honoured", repErrTooBig: "it is too big", repErrExtHeadReqd: "it wants extended headers",
	}
)

func clientOptionError(option, code uint32, text string) *OptionError {
	reason, known := optionReasons[code]
	if !known {
		reason = fmt.Sprintf("error %#x", code)
	}
	return &OptionError{Option: optionNames[option], Reason: reason, Text: text, code: code}
}

// clientErrno is the errno of an error number of the wire. One that the
// protocol does not have is an I/O error: its number is some system's own.
func clientErrno(code uint32) syscall.Errno {
	known := []uint32{errPerm, errIO, errNoMem, errInval, errNoSpc, errOverflow, errNotSup, errShutdown}
	if slices.Contains(known, code) {
		return syscall.Errno(code)
	}
	return syscall.EIO
}

// printable makes the server's words fit into one line of a log.
func printable(s []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, strings.TrimSpace(string(s)))
}

// errSilent is the watchdog's.
var errSilent = errors.New("server is silent")

// handshakeError tells a connection that was lost, or never came about, from a
// server that said something.
func handshakeError(ctx context.Context, u URI, err error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("negotiation: %w", err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return &LostError{u.Address, fmt.Errorf("%w during negotiation (a server that takes few connections makes others wait: qemu-nbd -e)", errSilent)}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && !isTLSAlert(op) {
		return &LostError{u.Address, op.Err}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &LostError{u.Address, fmt.Errorf("during negotiation: %w", errHungUp)}
	}
	return err
}

// isTLSAlert: crypto/tls wraps the peer's alert as if the network had failed.
func isTLSAlert(op *net.OpError) bool {
	_, ok := errors.AsType[tls.AlertError](op.Err)
	return ok || op.Op == "remote error"
}
