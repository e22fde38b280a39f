package osd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/haulback/haulback/hostctl"
)

// Class is what an error of a server means for us. Its codes say less: Internal is
// anything, and a reply that is lost is no failure.
type Class uint8

// The classes.
const (
	// Refused is final: the server, or we, will not have it.
	Refused Class = iota
	// NotFound is final: the volume, snapshot or parent is not there.
	NotFound
	// Elsewhere: the volume is attached on another node. Haulback takes it away
	// from nobody; a caller who has just powered off its user may wait.
	Elsewhere
	// NameConflict is final: a volume of that name is there, and is another one.
	NameConflict
	// Auth is final: the token was refused, also after it was read again.
	Auth
	// Transient may work later; nothing was done, or looking said so.
	Transient
	// Unknown: it may have happened, or may still happen. Look before asking again.
	Unknown
	// NoSpace is final until somebody makes space.
	NoSpace
	// Unsupported: this server or driver has no such thing.
	Unsupported
	// Suspicious: Internal or Unknown with a text that says nothing to us, after
	// all tries. Final.
	Suspicious
	// gone is what Detach and Delete take for done.
	gone
)

// String names the class.
func (c Class) String() string {
	names := [...]string{
		"refused", "not found", "attached elsewhere", "name conflict", "authentication", "transient", "unknown outcome",
		"no space", "unsupported", "suspicious", "gone",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Error is what a server answers, why it does not, or why we refuse its answer.
type Error struct {
	Profile string
	Class   Class
	Method  string     // of the API: "Attach"
	Thing   string     // the volume or snapshot, as it was named; or empty
	Node    string     // of Elsewhere, where it is known
	Text    string     // the server's, cleaned, or ours
	Code    codes.Code // OK: the text is ours

	err    error // a context's end, or nil
	unsure bool  // an earlier try of the same call has an unknown outcome
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "openstorage %s: %s", e.Profile, e.Method)
	if e.Thing != "" {
		fmt.Fprintf(&b, " %s", e.Thing)
	}
	fmt.Fprintf(&b, ": %s", e.Text)
	if e.Code != codes.OK {
		fmt.Fprintf(&b, " (%v)", e.Code)
	}
	switch {
	case e.Class == Elsewhere && e.Node != "":
		fmt.Fprintf(&b, "; it is on node %s: power off what uses it there", e.Node)
	case e.Class == Elsewhere:
		b.WriteString("; power off what uses it there")
	case e.Class == Auth && e.Code != codes.OK:
		b.WriteString("; look at token_file, and at the role and the volumes of its user")
	case e.Class == Unknown:
		b.WriteString("; whether it was done is not known")
	}
	return b.String()
}

// Retryable reports whether the same may work later. After Unknown, look first.
func (e *Error) Retryable() bool {
	return e.err == nil && (e.Class == Transient || e.Class == Unknown)
}

// Unwrap gives the sentinel of package hostctl, or the end of the context.
func (e *Error) Unwrap() error {
	switch {
	case e.err != nil:
		return e.err
	case e.Class == NotFound:
		return hostctl.ErrNotFound
	case e.Class == NoSpace:
		return hostctl.ErrNoSpace
	}
	return nil
}

// again reports whether a call may be made once more, after a look.
func (e *Error) again() bool {
	return e.err == nil && (e.Class == Transient || e.Class == Unknown || e.Class == Suspicious)
}

// open reports whether something may still come of what was asked.
func (e *Error) open() bool { return e.unsure || e.err != nil || e.Class == Unknown }

// isClass reports whether err is of a class.
func isClass(err error, class Class) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Class == class
}

// classify judges the status of a method that was called. It is the table of the
// platform's facts, section 8, and knows nothing but its arguments.
func classify(method string, st *status.Status) Class {
	text := strings.ToLower(st.Message())
	takes := method == "Detach" || method == "Delete"
	switch st.Code() {
	case codes.NotFound:
		if takes {
			return gone
		}
		return NotFound
	case codes.AlreadyExists:
		if method == "Attach" {
			return Elsewhere
		}
		return NameConflict
	case codes.PermissionDenied, codes.Unauthenticated:
		return Auth
	case codes.Unavailable:
		if cutOff(text) {
			return Unknown
		}
		return Transient
	case codes.DeadlineExceeded, codes.Canceled:
		return Unknown
	case codes.Aborted:
		return Transient
	case codes.ResourceExhausted:
		if strings.HasPrefix(text, "grpc: ") { // gRPC's own limit on messages
			return Refused
		}
		return NoSpace
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return Refused
	case codes.Unimplemented:
		return Unsupported
	case codes.Internal:
		return internal(text, takes)
	}
	return Suspicious
}

// internal judges the code that is used for anything. The texts are those of the
// reference server's drivers.
func internal(text string, takes bool) Class {
	switch {
	case strings.Contains(text, "operation not supported"):
		return Unsupported
	case strings.Contains(text, "still attached"), strings.Contains(text, "busy"):
		return Transient
	case takes && (strings.Contains(text, "cannot locate volume") || strings.Contains(text, "not found")):
		return gone
	}
	return Suspicious
}

// cutOff tells a connection that was lost while a call was under way from one that
// was never made, by the texts of grpc-go 1.83: both are Unavailable.
func cutOff(text string) bool {
	for _, s := range []string{"error while dialing", "error reading server preface"} {
		if strings.Contains(text, s) {
			return false
		}
	}
	for _, s := range []string{
		"error reading from server", "transport is closing", "connection closed", "connection reset", "broken pipe",
		"the stream was terminated", "goaway",
	} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// fail makes an *Error of what a call has returned.
func (c *Client) fail(ctx context.Context, o op, token secret, err error) error {
	st := status.Convert(err)
	e := &Error{Profile: c.cfg.Name, Class: classify(o.method, st), Method: o.method, Thing: o.thing, Code: st.Code()}
	e.Text = st.Message()
	if token != "" {
		e.Text = strings.ReplaceAll(e.Text, string(token), "[token]")
	}
	if e.Text = clean(e.Text); e.Text == "" {
		e.Text = "it says nothing"
	}
	switch {
	case ctx.Err() != nil && (e.Code == codes.Canceled || e.Code == codes.DeadlineExceeded):
		e.err = context.Cause(ctx)
	case e.Code == codes.DeadlineExceeded:
		e.Text = fmt.Sprintf("it does not answer within %v", c.limit(o))
	}
	return e
}

// refuse is an error of our own: what was asked, or what came, will not do.
func (c *Client) refuse(method, thing, format string, args ...any) *Error {
	return &Error{Profile: c.cfg.Name, Class: Refused, Method: method, Thing: thing, Text: cut(fmt.Sprintf(format, args...))}
}

// later is an error of our own after which the same may work.
func (c *Client) later(method, thing, format string, args ...any) *Error {
	e := c.refuse(method, thing, format, args...)
	e.Class = Transient
	return e
}
