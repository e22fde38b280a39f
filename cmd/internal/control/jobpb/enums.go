package jobpb

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// exitUsage is the command line's exit code for a request that is wrong.
const exitUsage = 10

// Invalid is the refusal of a field that cannot be understood.
func Invalid(field, format string, args ...any) *job.Failure {
	return &job.Failure{Reason: job.ReasonInvalid, Text: field + ": " + fmt.Sprintf(format, args...), Retry: job.RetryNever, Exit: exitUsage}
}

// unknown refuses an enum value. A newer caller may send one; to take it for
// something else would be to do what nobody asked for.
func unknown(field string, v protoreflect.Enum) *job.Failure {
	if v.Number() == 0 {
		return Invalid(field, "it is missing")
	}
	return Invalid(field, "this daemon does not know the value %d", v.Number())
}

// FromPhase translates a phase; one that the API does not know is UNSPECIFIED.
func FromPhase(p job.Phase) controlv1.Phase {
	if p < job.New || p > job.Paused {
		return controlv1.Phase_PHASE_UNSPECIFIED
	}
	return controlv1.Phase(p) // the numbers are the same, TestPhases
}

// ToPhase translates a phase.
func ToPhase(field string, p controlv1.Phase) (job.Phase, error) {
	if p < controlv1.Phase_PHASE_NEW || p > controlv1.Phase_PHASE_PAUSED {
		return 0, unknown(field, p)
	}
	return job.Phase(p), nil
}

func fromMode(m job.Mode) controlv1.Mode {
	switch m {
	case job.Copy:
		return controlv1.Mode_MODE_COPY
	case job.Verify:
		return controlv1.Mode_MODE_VERIFY
	}
	return controlv1.Mode_MODE_UNSPECIFIED
}

func toMode(field string, m controlv1.Mode) (job.Mode, error) {
	switch m {
	case controlv1.Mode_MODE_COPY:
		return job.Copy, nil
	case controlv1.Mode_MODE_VERIFY:
		return job.Verify, nil
	}
	return "", unknown(field, m)
}

// FromPriority translates a priority.
func FromPriority(p job.Priority) controlv1.Priority {
	switch p {
	case job.Low:
		return controlv1.Priority_PRIORITY_LOW
	case job.High:
		return controlv1.Priority_PRIORITY_HIGH
	}
	return controlv1.Priority_PRIORITY_NORMAL
}

// ToPriority translates a priority; none is normal.
func ToPriority(field string, p controlv1.Priority) (job.Priority, error) {
	switch p {
	case controlv1.Priority_PRIORITY_UNSPECIFIED, controlv1.Priority_PRIORITY_NORMAL:
		return job.Normal, nil
	case controlv1.Priority_PRIORITY_LOW:
		return job.Low, nil
	case controlv1.Priority_PRIORITY_HIGH:
		return job.High, nil
	}
	return 0, unknown(field, p)
}

// FromRetry translates a retry class.
func FromRetry(c job.RetryClass) controlv1.Retry {
	switch c {
	case job.RetryNever, job.RetryBackoff, job.RetryAfterReconcile:
		return controlv1.Retry(c) // the numbers are the same, TestRetries
	}
	return controlv1.Retry_RETRY_UNSPECIFIED
}

// toRetry takes what it does not know for "never": the careful answer.
func toRetry(c controlv1.Retry) job.RetryClass {
	switch c {
	case controlv1.Retry_RETRY_BACKOFF, controlv1.Retry_RETRY_AFTER_RECONCILE:
		return job.RetryClass(c)
	}
	return job.RetryNever
}

// Monday is 1 in the API and in package time; Sunday is 7 there and 0 here.
func fromWeekday(d time.Weekday) controlv1.Weekday {
	return controlv1.Weekday((int32(d)+6)%7 + 1)
}

func toWeekday(field string, d controlv1.Weekday) (time.Weekday, error) {
	if d < controlv1.Weekday_WEEKDAY_MONDAY || d > controlv1.Weekday_WEEKDAY_SUNDAY {
		return 0, unknown(field, d)
	}
	return time.Weekday(d % 7), nil
}
