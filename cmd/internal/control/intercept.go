package control

import (
	"context"
	"errors"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// intercept is around every call of the protocol: nothing it panics with leaves
// the daemon without it, no error goes out without an ErrorInfo, and what could
// have changed something is audited.
func (s *Server) intercept(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
		c := callOf(ctx)
		seen := &seenStream{ServerStream: stream}
		var out *connect.Error
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("a call of the control API has a bug", "call", spec.Procedure, "reason", p, "stack", string(debug.Stack()))
				out = jobpb.FromError(&job.Failure{Reason: job.ReasonInternal, Text: "this daemon has a bug; its log has the details", Retry: job.RetryNever, Exit: 1})
			}
			s.audited(ctx, c, spec, seen.object, out)
			if out != nil {
				err = out // a nil *connect.Error would be an error that is not nil
			}
		}()
		if e := next(ctx, spec, seen); e != nil {
			out = jobpb.FromError(explain(ctx, e))
		}
		return nil
	}
}

// explain finds the cause that a caller can do something about.
func explain(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
		return &job.Failure{Reason: jobpb.ReasonDeadline, Text: "the request, or the reading of the answer, took too long", Retry: job.RetryBackoff, Exit: 13}
	}
	return why(ctx, err)
}

func (s *Server) audited(ctx context.Context, c *call, spec connect.Spec, object string, err *connect.Error) {
	e := c.entry(spec.Procedure, object, err)
	switch {
	case spec.IdempotencyLevel != connect.IdempotencyNoSideEffects:
		s.audit.done(ctx, e)
	case e.Reason == job.ReasonAuth:
		s.audit.refused(ctx, e)
	}
}

// seenStream remembers which job, failback or VM a request names.
type seenStream struct {
	connect.ServerStream
	object string
}

// Receive implements connect.ServerStream.
func (s *seenStream) Receive(msg any) error {
	err := s.ServerStream.Receive(msg)
	if err == nil {
		s.object = clip(objectOf(msg))
	}
	return err
}

// objectOf is what a request is about, or empty.
func objectOf(msg any) string {
	switch m := msg.(type) {
	case interface{ GetId() string }:
		return m.GetId()
	case interface{ GetName() string }:
		return m.GetName()
	case *controlv1.PutPairRequest:
		return m.GetPair().GetName()
	case *controlv1.PlanRequest:
		return m.GetSpec().GetVm()
	}
	return ""
}

// paced gives every event of a stream its own time to be taken: one who does not
// read must not hold a slot for ever.
type paced struct {
	rc *http.ResponseController
	d  time.Duration
}

// send runs f, which writes one event.
func (p paced) send(f func() error) error {
	if err := p.rc.SetWriteDeadline(time.Now().Add(p.d)); err != nil {
		return err
	}
	err := f()
	// HTTP/2 resets a stream whose deadline passes, in the middle of a silence too.
	return errors.Join(err, p.rc.SetWriteDeadline(time.Time{}))
}
