package osd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/haulback/haulback/hostctl"
)

// TestClassify is the table of the platform's facts, section 8, row by row.
func TestClassify(t *testing.T) {
	const (
		attached = "Failed to delete volume 1: Volume is still attached and cannot be deleted"
		busy     = "Failed to detach volume 1: Volume is busy"
		locate   = "Failed to detach volume 1: Cannot locate volume with name 1"
		missing  = "Failed to delete volume 1: Key not found"
		no       = "Failed to update: Operation not supported"
		eof      = "error reading from server: EOF"
		refused  = `connection error: desc = "transport: Error while dialing: dial tcp: connect: connection refused"`
		preface  = `connection error: desc = "error reading server preface: EOF"`
		reset    = `connection error: desc = "transport: Error while dialing: read: connection reset by peer"`
	)
	for _, test := range []struct {
		method string
		code   codes.Code
		text   string
		want   Class
		retry  bool
	}{
		{"Inspect", codes.NotFound, "Volume id 1 not found", NotFound, false},
		{"Attach", codes.NotFound, "", NotFound, false},
		{"SnapshotCreate", codes.NotFound, "", NotFound, false},
		{"SnapshotRestore", codes.NotFound, "", NotFound, false},
		{"Clone", codes.NotFound, "", NotFound, false},
		{"Delete", codes.NotFound, "", gone, false},
		{"Detach", codes.NotFound, "", gone, false},

		{"Attach", codes.AlreadyExists, "Volume is attached on another node", Elsewhere, false},
		{"Create", codes.AlreadyExists, "Existing volume has a size of 1", NameConflict, false},
		{"Clone", codes.AlreadyExists, "", NameConflict, false},

		{"Inspect", codes.PermissionDenied, "Unable to authenticate token", Auth, false},
		{"Attach", codes.Unauthenticated, "x is not a trusted issuer", Auth, false},

		{"Inspect", codes.Unavailable, "Resource has not been initialized", Transient, true},
		{"Attach", codes.Unavailable, refused, Transient, true},
		{"Attach", codes.Unavailable, preface, Transient, true},
		{"Attach", codes.Unavailable, reset, Transient, true},
		{"Attach", codes.Unavailable, `connection error: desc = "error reading server preface: connection reset by peer"`, Transient, true},

		{"Attach", codes.DeadlineExceeded, "", Unknown, true},
		{"SnapshotCreate", codes.Canceled, "", Unknown, true},
		{"SnapshotCreate", codes.Unavailable, eof, Unknown, true},
		{"Clone", codes.Unavailable, "transport is closing", Unknown, true},
		{"Clone", codes.Unavailable, "error reading from server: read: connection reset by peer", Unknown, true},
		{"Clone", codes.Unavailable, "closing transport due to: connection error: write: broken pipe, received prior goaway", Unknown, true},

		{"Clone", codes.Aborted, "failed to clone", Transient, true},
		{"Create", codes.ResourceExhausted, "no storage backends were able to meet the request", NoSpace, false},
		{"InspectWithFilters", codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 4)", Refused, false},

		{"Attach", codes.InvalidArgument, "", Refused, false},
		{"Attach", codes.FailedPrecondition, "", Refused, false},
		{"Attach", codes.OutOfRange, "", Refused, false},

		{"SnapshotRestore", codes.Unimplemented, "", Unsupported, false},
		{"Update", codes.Internal, no, Unsupported, false},
		{"Delete", codes.Internal, attached, Transient, true},
		{"Detach", codes.Internal, busy, Transient, true},
		{"Attach", codes.Internal, "failed  to attach volume: Volume is busy", Transient, true},
		{"Detach", codes.Internal, locate, gone, false},
		{"Delete", codes.Internal, missing, gone, false},
		{"Attach", codes.Internal, "failed  to attach volume: Cannot locate volume with name 1", Suspicious, false},
		{"SnapshotCreate", codes.Internal, "Failed to create snapshot: Key not found", Suspicious, false},
		{"SnapshotRestore", codes.Internal, "stat /x: no such file or directory", Suspicious, false},
		{"Inspect", codes.Unknown, "", Suspicious, false},
		{"Inspect", codes.DataLoss, "", Suspicious, false},
		{"Inspect", codes.Code(77), "", Suspicious, false},
	} {
		got := classify(test.method, status.New(test.code, test.text))
		if got != test.want {
			t.Errorf("%s, %v, %q: %v, want %v", test.method, test.code, test.text, got, test.want)
		}
		if e := (&Error{Class: got}); e.Retryable() != test.retry {
			t.Errorf("%s, %v, %q: retryable %v, want %v", test.method, test.code, test.text, e.Retryable(), test.retry)
		}
	}
	for c := Refused; c <= gone; c++ {
		if s := c.String(); s == "" || s == Class(99).String() {
			t.Errorf("class %d has no name", c)
		}
	}
}

func TestErrorIs(t *testing.T) {
	for class, want := range map[Class]error{NotFound: hostctl.ErrNotFound, NoSpace: hostctl.ErrNoSpace} {
		if err := fmt.Errorf("x: %w", &Error{Class: class}); !errors.Is(err, want) {
			t.Errorf("%v is no %v", class, want)
		}
	}
	c := &Client{cfg: Config{Name: "px"}, log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the job has ended")
	cancel(why)
	err := c.fail(ctx, op{method: "Attach", thing: "v"}, "", status.Error(codes.Canceled, "context canceled"))
	if !errors.Is(err, why) {
		t.Errorf("%v does not say why the context ended", err)
	}
	retryable(t, err, false)
	err = c.fail(t.Context(), op{method: "Attach", thing: "v"}, "", status.Error(codes.Internal, "two\nlines\x1b[31m\u202e"))
	wants(t, err, "openstorage px: Attach v: two lines")
	wants(t, &Error{Profile: "px", Method: "Attach", Thing: "v", Class: Elsewhere, Node: "n2", Text: "t"}, "it is on node n2")
}
