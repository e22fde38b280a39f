package exitcode

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/vddk/worker/control"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
)

func TestOf(t *testing.T) {
	code := func(c wire.Code) error { return fmt.Errorf("copy: %w", wire.Errorf(c, "text")) }
	began := func(err error) error { return fmt.Errorf("copy: %w", &mover.IncompleteError{Err: err}) }
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		name string
		err  error
		want Code
	}{
		{"nothing", nil, Done},
		{"anything", errors.New("x"), Failed},
		{"a bug", code(wire.CodeInternal), Failed},
		{"read error", code(wire.CodeRead), Failed},
		{"flush error", code(wire.CodeFlush), Failed},
		{"poisoned", code(wire.CodePoisoned), Failed},
		{"unreadable source", code(wire.CodeUnreadable), Failed},
		{"version", code(wire.CodeVersion), Failed},
		{"a code of the future", code(9999), Failed},
		{"no space, nothing began", code(wire.CodeNoSpace), Failed},
		{"no space", began(code(wire.CodeNoSpace)), Incomplete},
		{"link lost after begin", began(code(wire.CodeUnreachable)), Incomplete},
		{"drained after begin", began(code(wire.CodeDraining)), Incomplete},
		{"different", code(wire.CodeVerify), Verify},
		{"flag", &UsageError{Err: errors.New("x")}, Usage},
		{"too small", code(wire.CodeTooSmall), Usage},
		{"unknown export, or one of others", code(wire.CodeExport), Auth},
		{"read-only file system", fmt.Errorf("create: %w", syscall.EROFS), Usage},
		{"read-only device", fmt.Errorf("open: %w", vddk.ErrReadOnly), Usage},
		{"wrong role", code(wire.CodeRole), Usage},
		{"exposed key", fmt.Errorf("%w: x", wire.ErrKeyExposed), Usage},
		{"no key", fmt.Errorf("%w: x", wire.ErrBadKey), Usage},
		{"bad ID", fmt.Errorf("%w: x", wire.ErrBadID), Usage},
		{"a snapshot", fmt.Errorf("x.vmdk: %w: a snapshot", vddk.ErrFormat), Usage},
		{"a directory", fmt.Errorf("%w: x", vddk.ErrKind), Usage},
		{"no such file", fmt.Errorf("open: %w", fs.ErrNotExist), Usage},
		{"not allowed here", wire.Errorf(wire.CodeOpen, "open: %w", fs.ErrPermission), Usage},
		{"busy", code(wire.CodeBusy), Locked},
		{"fenced", code(wire.CodeFenced), Locked},
		{"locked file", wire.Errorf(wire.CodeOpen, "open: %w", &vddk.LockedError{Path: "x"}), Locked},
		{"journal held", fmt.Errorf("journal: %w", mover.ErrHeld), Locked},
		{"unknown peer", wire.Errorf(wire.CodeUnauthorized, "%w", wire.ErrUnknownPeer), Auth},
		{"may not order", code(wire.CodeUnauthorized), Auth},
		{"unreachable", code(wire.CodeUnreachable), Unavailable},
		{"timeout", code(wire.CodeTimeout), Unavailable},
		{"about to stop", code(wire.CodeDraining), Unavailable},
		{"sessions used up", code(wire.CodeLimit), Unavailable},
		{"disk of an export is gone", &wire.Error{Code: wire.CodeOpen, Remote: true}, Unavailable},
		{"refused", refused, Unavailable},
		{"no such host", &net.DNSError{IsNotFound: true}, Unavailable},
		{"deadline", context.DeadlineExceeded, Unavailable},
		{"a stream that is damaged", wire.Errorf(wire.CodeDiskChanged, "check: %w", archive.ErrDamaged), Verify},
		{"no stream", fmt.Errorf("stdin: %w", archive.ErrFormat), Usage},
		{"change tracking under --strict", code(wire.CodeHint), Tracking},
		{"ticket", code(wire.CodeTicket), Auth},
		{"ticket after begin", began(code(wire.CodeTicket)), Incomplete},
		{"disk lost", code(wire.CodeDiskLost), Unavailable},
		{"disk lost after begin", began(code(wire.CodeDiskLost)), Incomplete},
		{"NBD server is down", wire.Errorf(wire.CodeOpen, "open: %w", retry{}), Unavailable},
		{"driver's server is down", fmt.Errorf("open: %w", retry{}), Unavailable},
		{"read error of a disk here", wire.Errorf(wire.CodeRead, "read: %w", syscall.EIO), Failed},
		{"I/O error of a disk here", fmt.Errorf("open: %w", syscall.EIO), Failed},
		{"timeout of a disk", fmt.Errorf("open: %w", &fs.PathError{Op: "open", Err: syscall.ETIMEDOUT}), Failed},
		{"no socket of an NBD server", wire.Errorf(wire.CodeOpen, "open: %w", &nbd.LostError{Addr: "/s", Cause: syscall.ENOENT}), Unavailable},
		{"no socket, disk lost", wire.Errorf(wire.CodeDiskLost, "open: %w", fs.ErrNotExist), Unavailable},
		{"no such NBD export", fmt.Errorf("open: %w", &nbd.OptionError{Option: "GO"}), Usage},
		{"read-only NBD export", fmt.Errorf("open: %w", nbd.ErrReadOnly), Usage},
		{"NBD server without a flush", fmt.Errorf("open: %w", nbd.ErrNoFlush), Usage},
		{"certificate", fmt.Errorf("TLS: %w", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), Auth},
		{"our certificate", &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, Auth},
		{"login", fmt.Errorf("open: %w", &control.Error{Deny: true, Errno: syscall.EIO}), Auth},
		{"library", fmt.Errorf("start: %w", &control.Error{Wrong: true}), Usage},
		{"I/O error of a worker", fmt.Errorf("start: %w", &control.Error{Errno: syscall.EIO}), Failed},
		{"locked VM", fmt.Errorf("start: %w", &control.Error{Retry: true, Errno: syscall.EBUSY}), Locked},
		{"wrong kind of change tracking", wire.Errorf(wire.CodeOpen, "open: %w", vddk.ErrTrack), Usage},
		{"a daemon's word", fmt.Errorf("job: %w", &Said{Code: Verify, Text: "x"}), Verify},
		{"signal", wire.Errorf(wire.CodeCanceled, "%w", ErrCanceled), Canceled},
		{"signal after begin", began(wire.Errorf(wire.CodeCanceled, "%w", ErrCanceled)), Canceled},
		{"cancelled by the peer", code(wire.CodeCanceled), Failed},
	} {
		if got := Of(c.err); got != c.want {
			t.Errorf("%s: Of(%v) = %d, want %d", c.name, c.err, got, c.want)
		}
	}
}

// retry is a driver's error whose server is not there.
type retry struct{}

func (retry) Error() string   { return "server is down" }
func (retry) Retryable() bool { return true }

// TestPort: what may be there in a moment is tried again, the rest is a mistake.
func TestPort(t *testing.T) {
	for err, want := range map[error]Code{
		&net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}: Unavailable,
		syscall.EADDRNOTAVAIL: Unavailable,
		syscall.EMFILE:        Unavailable,
		syscall.ENOBUFS:       Unavailable,
		syscall.ENETDOWN:      Unavailable,
		syscall.EADDRINUSE:    Usage,
		syscall.EACCES:        Usage,
		errors.New("x"):       Usage,
	} {
		got := Port(fmt.Errorf("listen: %w; do this", &net.OpError{Op: "listen", Err: err}))
		if Of(got) != want || !strings.Contains(got.Error(), err.Error()+"; do this") {
			t.Errorf("%v: %d, want %d: %v", err, Of(got), want, got)
		}
	}
}
