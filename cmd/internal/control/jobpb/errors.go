package jobpb

import (
	"context"
	"errors"
	"maps"
	"strconv"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"

	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// Domain is that of every ErrorInfo.
const Domain = "haulback"

// Reasons that only the API has; append only, like those of package job.
const (
	ReasonDeadline      = "DEADLINE"      // the call took longer than it may
	ReasonUnimplemented = "UNIMPLEMENTED" // no such method
)

// Reasons of package failback that have a code of their own; all others of it
// are told by their exit code.
const (
	reasonUnknownVM       = "VM_UNKNOWN"
	reasonUnknownFailback = "FAILBACK_UNKNOWN"
)

// metaExit is the key of the exit code in an ErrorInfo.
const metaExit = "exit_code"

// kind is what a reason means to a caller, where the failure does not say.
type kind struct {
	code  connect.Code
	retry controlv1.Retry
}

const (
	never     = controlv1.Retry_RETRY_NEVER
	backoff   = controlv1.Retry_RETRY_BACKOFF
	reconcile = controlv1.Retry_RETRY_AFTER_RECONCILE
)

// kindOf is the table of docs/api.md; the code of a reason never changes.
func kindOf(reason string) kind {
	k, ok := tabled(reason)
	if !ok {
		return kind{connect.CodeInternal, never}
	}
	return k
}

// kindOfFailure is kindOf, and for the many reasons of failbacks what their exit
// code stands for.
func kindOfFailure(f *job.Failure) kind {
	if k, ok := tabled(f.Reason); ok {
		return k
	}
	switch f.Exit {
	case 3:
		return kind{connect.CodeAborted, backoff}
	case 4:
		return kind{connect.CodeDataLoss, reconcile}
	case 5, 11:
		return kind{connect.CodeFailedPrecondition, reconcile}
	case exitUsage, 14:
		return kind{connect.CodeFailedPrecondition, never}
	case 12:
		return kind{connect.CodePermissionDenied, never}
	case 13:
		return kind{connect.CodeUnavailable, backoff}
	case 130:
		return kind{connect.CodeCanceled, never}
	}
	return kind{connect.CodeInternal, never}
}

func tabled(reason string) (kind, bool) {
	switch reason {
	case job.ReasonInvalid, job.ReasonEndpoint:
		return kind{connect.CodeInvalidArgument, never}, true
	case job.ReasonNotFound, reasonUnknownVM, reasonUnknownFailback:
		return kind{connect.CodeNotFound, never}, true
	case job.ReasonExists:
		return kind{connect.CodeAlreadyExists, never}, true
	case job.ReasonAuth:
		return kind{connect.CodePermissionDenied, never}, true
	case job.ReasonTooSmall, job.ReasonCBT, job.ReasonBase:
		return kind{connect.CodeFailedPrecondition, never}, true
	case job.ReasonConflict, job.ReasonStorage:
		return kind{connect.CodeFailedPrecondition, reconcile}, true
	case job.ReasonFenced, job.ReasonSource:
		return kind{connect.CodeAborted, reconcile}, true
	case job.ReasonIncomplete:
		return kind{connect.CodeAborted, backoff}, true
	case job.ReasonChecksum:
		return kind{connect.CodeDataLoss, reconcile}, true
	case job.ReasonNoSpace:
		return kind{connect.CodeResourceExhausted, reconcile}, true
	case job.ReasonQuota:
		return kind{connect.CodeResourceExhausted, backoff}, true
	case job.ReasonBusy, job.ReasonUnavailable, job.ReasonDraining, job.ReasonEngine:
		return kind{connect.CodeUnavailable, backoff}, true
	case job.ReasonCanceled:
		return kind{connect.CodeCanceled, never}, true
	case ReasonDeadline:
		return kind{connect.CodeDeadlineExceeded, backoff}, true
	case job.ReasonInternal:
		return kind{connect.CodeInternal, never}, true
	case ReasonUnimplemented:
		return kind{connect.CodeUnimplemented, never}, true
	}
	return kind{}, false
}

// reasonOf is the reason of an error that the protocol library made: a message
// that it cannot read, or that is too large.
func reasonOf(code connect.Code) string {
	switch code {
	case connect.CodeInvalidArgument:
		return job.ReasonInvalid
	case connect.CodeResourceExhausted:
		return job.ReasonQuota
	case connect.CodeUnimplemented:
		return ReasonUnimplemented
	case connect.CodeDeadlineExceeded:
		return ReasonDeadline
	case connect.CodeCanceled:
		return job.ReasonCanceled
	}
	return job.ReasonInternal
}

// FromError makes of any error what a caller gets: code, text, and ErrorInfo
// with reason and retry class. Nil stays nil.
func FromError(err error) *connect.Error {
	if err == nil {
		return nil
	}
	var made *connect.Error
	if errors.As(err, &made) {
		if _, ok := Info(made); ok {
			return made
		}
		reason := reasonOf(made.Code())
		retry := kindOf(reason).retry
		if reason == job.ReasonQuota { // the same request is as large the next time
			retry = never
		}
		return withInfo(made, reason, retry, nil)
	}
	var f *job.Failure
	if errors.As(err, &f) {
		k := kindOfFailure(f)
		if r := FromRetry(f.Retry); r != controlv1.Retry_RETRY_UNSPECIFIED {
			k.retry = r
		}
		return withInfo(connect.NewError(k.code, Text(f.Text)), f.Reason, k.retry, metadata(err, f)).WithCause(err)
	}
	reason := job.ReasonInternal
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		reason = ReasonDeadline
	case errors.Is(err, context.Canceled):
		reason = job.ReasonCanceled
	}
	k := kindOf(reason)
	// Whoever may call at all may read the daemon's log as well.
	return withInfo(connect.NewError(k.code, Text(err.Error())), reason, k.retry, nil).WithCause(err)
}

// metadata is what a program needs to know of an error. The exit code is there
// where the reason alone does not tell it.
func metadata(err error, f *job.Failure) map[string]string {
	var exists *job.ExistsError
	if errors.As(err, &exists) {
		return map[string]string{"job_id": exists.ID, "stored_digest": FromDigest(exists.Have), "submitted_digest": FromDigest(exists.Asked)}
	}
	if _, ok := tabled(f.Reason); !ok && f.Exit > 0 {
		return map[string]string{metaExit: strconv.Itoa(f.Exit)}
	}
	return nil
}

func withInfo(e *connect.Error, reason string, retry controlv1.Retry, more map[string]string) *connect.Error {
	detail, err := connectproto.NewErrorDetail(&controlv1.ErrorInfo{Reason: reason, Domain: Domain, Retry: retry, Metadata: maps.Clone(more)})
	if err != nil {
		return e // text that is not UTF-8; the code still says what it is
	}
	return e.WithDetail(detail)
}

// Info is the ErrorInfo of an error of the API, for programs that call it.
func Info(err error) (*controlv1.ErrorInfo, bool) {
	var e *connect.Error
	if !errors.As(err, &e) {
		return nil, false
	}
	for _, d := range e.Details() {
		m, err := connectproto.UnmarshalErrorDetail(d)
		if err != nil {
			continue
		}
		if info, ok := m.(*controlv1.ErrorInfo); ok && info.Domain == Domain {
			return info, true
		}
	}
	return nil, false
}

// Refusal is an error of the API as the failure that it was, for programs that
// call it. An error that did not come from a daemon has the reason
// ENDPOINT_UNAVAILABLE when the daemon could not be reached, else INTERNAL.
func Refusal(err error) *job.Failure {
	text := err.Error()
	var e *connect.Error
	if errors.As(err, &e) && e.Message() != "" {
		text = e.Message()
	}
	f := &job.Failure{Reason: job.ReasonInternal, Text: text, Retry: job.RetryNever}
	info, ok := Info(err)
	if ok {
		f.Reason, f.Retry = info.Reason, toRetry(info.Retry)
	} else if connect.CodeOf(err) == connect.CodeUnavailable {
		f.Reason, f.Retry = job.ReasonUnavailable, job.RetryBackoff
	}
	f.Exit = exitOf(f.Reason)
	if n, err := strconv.Atoi(info.GetMetadata()[metaExit]); err == nil && n > 0 && n < 256 {
		f.Exit = n
	}
	return f
}

// exitOf is DESIGN.md section 8.
func exitOf(reason string) int {
	switch reason {
	case job.ReasonInvalid, job.ReasonExists, job.ReasonNotFound, reasonUnknownVM, reasonUnknownFailback, job.ReasonEndpoint, job.ReasonTooSmall, ReasonUnimplemented:
		return exitUsage
	case job.ReasonIncomplete, job.ReasonDraining:
		return 3
	case job.ReasonChecksum:
		return 4
	case job.ReasonFenced, job.ReasonBusy, job.ReasonConflict:
		return 11
	case job.ReasonAuth:
		return 12
	case job.ReasonUnavailable, job.ReasonEngine, job.ReasonQuota, ReasonDeadline:
		return 13
	case job.ReasonCBT, job.ReasonBase:
		return 14
	case job.ReasonCanceled:
		return 130
	}
	return 1
}
