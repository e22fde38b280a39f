package jobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/wire"
)

// TestClassifyCodes: every code that crosses the wire, said by a peer and begun
// or not. A code that is added has to be put into the table.
func TestClassifyCodes(t *testing.T) {
	want := map[wire.Code]struct {
		reason string
		retry  job.RetryClass
		exit   int
	}{
		wire.CodeInternal: {"INTERNAL", 1, 1}, wire.CodeVersion: {"ENDPOINT_INVALID", 3, 1}, wire.CodeFrame: {"INTERNAL", 1, 1},
		wire.CodeLimit: {"QUOTA", 2, 13}, wire.CodeTimeout: {"ENDPOINT_UNAVAILABLE", 2, 13}, wire.CodeDraining: {"ENDPOINT_UNAVAILABLE", 2, 13},
		wire.CodeCanceled: {"CANCELED", 2, 1}, wire.CodeExport: {"AUTH", 3, 12}, wire.CodeRole: {"ENDPOINT_INVALID", 3, 10},
		wire.CodeBusy: {"BUSY", 2, 11}, wire.CodeFenced: {"FENCED", 3, 11}, wire.CodeTooSmall: {"TARGET_TOO_SMALL", 3, 10},
		wire.CodeExtent: {"INTERNAL", 1, 1}, wire.CodeBinding: {"INTERNAL", 1, 1}, wire.CodeDigest: {"CHECKSUM_MISMATCH", 2, 1},
		wire.CodeDecompress: {"CHECKSUM_MISMATCH", 2, 1}, wire.CodeRead: {"STORAGE", 3, 1}, wire.CodeWrite: {"STORAGE", 3, 1},
		wire.CodeFlush: {"STORAGE", 3, 1}, wire.CodeNoSpace: {"NO_SPACE", 3, 1}, wire.CodeDiskChanged: {"SOURCE_CHANGED", 3, 1},
		wire.CodeJournal: {"STORAGE", 3, 1}, wire.CodePoisoned: {"STORAGE", 3, 1}, wire.CodeVerify: {"CHECKSUM_MISMATCH", 3, 4},
		wire.CodeUnreadable: {"STORAGE", 3, 1}, wire.CodeOpen: {"ENDPOINT_UNAVAILABLE", 2, 13}, wire.CodeUnauthorized: {"AUTH", 3, 12},
		wire.CodeUnreachable: {"ENDPOINT_UNAVAILABLE", 2, 13}, wire.CodeSuperseded: {"FENCED", 3, 1}, wire.CodeHint: {"CBT_INVALID", 3, 14},
		wire.CodeDistrust: {"CBT_INVALID", 2, 1}, wire.CodeDiskLost: {"ENDPOINT_UNAVAILABLE", 2, 13}, wire.CodeTicket: {"AUTH", 3, 12},
		wire.CodeSwitch: {"ENDPOINT_UNAVAILABLE", 2, 13},
	}
	for code := wire.CodeInternal; !strings.HasPrefix(code.String(), "code "); code++ {
		w, ok := want[code]
		if !ok {
			t.Errorf("code %v: not in this table", code)
			continue
		}
		err := &wire.Error{Code: code, Text: "text\nof two lines", Remote: true}
		got := Classify(fmt.Errorf("copy: %w", err))
		if got.Reason != w.reason || got.Retry != w.retry || got.Exit != w.exit || got.Text != "copy: peer: text; of two lines ("+code.String()+")" {
			t.Errorf("code %v: %+v, want %+v", code, *got, w)
		}
		began := Classify(fmt.Errorf("copy: %w", &mover.IncompleteError{Err: err}))
		wantReason := "INCOMPLETE"
		if code == wire.CodeCanceled || code == wire.CodeNoSpace {
			wantReason = w.reason
		}
		if began.Reason != wantReason || began.Exit != 3 || began.Retry == job.RetryNever {
			t.Errorf("code %v after the run began: %+v, want %s, exit code 3, and a way to go on", code, *began, wantReason)
		}
	}
}

// TestClassify: what this process itself knows of an error says more than the
// code that it got on its way up.
func TestClassify(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		reason string
		retry  job.RetryClass
		exit   int
	}{
		{"failure", fmt.Errorf("x: %w", &job.Failure{Reason: job.ReasonQuota, Retry: 2, Exit: 7}), "QUOTA", 2, 7},
		{"anything", errors.New("x"), "INTERNAL", 3, 1},
		{"a code of the future", &wire.Error{Code: 9999, Remote: true}, "INTERNAL", 3, 1},
		{"stopped", errStopped, "CANCELED", 2, 1},
		{"stopped after begin", &mover.IncompleteError{Err: errStopped}, "CANCELED", 2, 3},
		{"context", context.Canceled, "CANCELED", 2, 1},
		{"no such file", fmt.Errorf("open: %w", fs.ErrNotExist), "ENDPOINT_INVALID", 3, 10},
		{"not allowed here", wire.Errorf(wire.CodeOpen, "open: %w", fs.ErrPermission), "ENDPOINT_INVALID", 3, 10},
		{"a directory", fmt.Errorf("open: %w", vddk.ErrKind), "ENDPOINT_INVALID", 3, 10},
		{"no peer there", &exitcode.UsageError{Err: errors.New("no paired peer")}, "ENDPOINT_INVALID", 3, 10},
		{"locked", wire.Errorf(wire.CodeOpen, "open: %w", &vddk.LockedError{Path: "x"}), "BUSY", 2, 11},
		{"journal held", fmt.Errorf("journal: %w", mover.ErrHeld), "BUSY", 2, 11},
		{"unknown peer", wire.Errorf(wire.CodeUnauthorized, "%w", wire.ErrUnknownPeer), "AUTH", 3, 12},
		{"NBD server down", wire.Errorf(wire.CodeOpen, "open: %w", &nbd.LostError{Addr: "/s", Cause: syscall.ENOENT}), "ENDPOINT_UNAVAILABLE", 2, 13},
		{"refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "ENDPOINT_UNAVAILABLE", 2, 13},
		{"deadline", context.DeadlineExceeded, "ENDPOINT_UNAVAILABLE", 2, 13},
		{"read error", wire.Errorf(wire.CodeRead, "read: %w", syscall.EIO), "STORAGE", 3, 1},
		{"no space", wire.Errorf(wire.CodeNoSpace, "write: %w", syscall.ENOSPC), "NO_SPACE", 3, 1},
		{"changed", wire.Errorf(wire.CodeOpen, "open: %w", vddk.ErrChanged), "SOURCE_CHANGED", 3, 13},
		{"no such tracking", wire.Errorf(wire.CodeOpen, "open: %w", vddk.ErrTrack), "CBT_INVALID", 3, 10},
		{"different", wire.Errorf(wire.CodeVerify, "the disks differ"), "CHECKSUM_MISMATCH", 3, 4},
	} {
		got := Classify(c.err)
		if got.Reason != c.reason || got.Retry != c.retry || got.Exit != c.exit {
			t.Errorf("%s: %+v, want %s, retry %d, exit code %d", c.name, *got, c.reason, c.retry, c.exit)
		}
	}
	if f := Classify(nil); f != nil {
		t.Errorf("no error: %+v", f)
	}
}
