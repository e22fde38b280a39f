package job

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Why a disk that runs was told to stop.
var (
	errPause  = errors.New("job: paused")
	errCancel = errors.New("job: canceled")
	errDrain  = errors.New("job: the daemon stops")
)

func conflict(format string, args ...any) *Failure {
	return &Failure{Reason: ReasonConflict, Text: fmt.Sprintf(format, args...), Retry: RetryAfterReconcile, Exit: 1}
}

func canceled() *Failure {
	return &Failure{Reason: ReasonCanceled, Text: "canceled", Retry: RetryNever, Exit: 130}
}

// cancel wants the job canceled. It reports whether anything changes.
func (s *state) cancel(id string) (bool, *Failure) {
	switch {
	case s.Phase == Canceled || s.Wanted == Canceled:
		return false, nil
	case s.Phase.Ended():
		return false, conflict("job %s is %v: it has ended", id, s.Phase)
	}
	s.Wanted = Canceled
	return true, nil
}

func (s *state) pause(id string) (bool, *Failure) {
	switch {
	case s.Phase == Paused || s.Wanted == Paused:
		return false, nil
	case s.Phase.Ended():
		return false, conflict("job %s is %v: it has ended", id, s.Phase)
	case s.Wanted == Canceled:
		return false, conflict("job %s is being canceled", id)
	}
	s.Wanted = Paused
	return true, nil
}

func (s *state) resume(id string) (bool, *Failure) {
	switch {
	case s.Wanted != 0:
		return false, conflict("job %s is on its way to %v: wait until it is there", id, s.Wanted)
	case s.Phase == Paused:
		for i := range s.Disks {
			if s.Disks[i].Phase == Paused {
				s.Disks[i].Phase = Accepted
			}
		}
		s.Phase = Accepted
		return true, nil
	case s.Phase == Failed:
		return s.again(id)
	case s.Phase.Ended():
		return false, conflict("job %s is %v: it has ended", id, s.Phase)
	}
	return false, nil // it goes on already
}

// again makes the failed disks wait once more that may succeed. Their runs
// stay.
func (s *state) again(id string) (bool, *Failure) {
	found := false
	for i := range s.Disks {
		if d := &s.Disks[i]; d.Phase == Failed && d.Failure.Retry != RetryNever {
			d.Phase, d.Failure, d.Ended, found = Accepted, nil, time.Time{}, true
		}
	}
	if !found {
		return false, conflict("job %s is Failed and the same would fail again: %s", id, s.Failure.Text)
	}
	s.Phase, s.Failure, s.Ended = Accepted, nil, time.Time{}
	return true, nil
}

// settle draws the conclusions: what is wanted happens to disks that do not
// run, and the job's phase follows from those of its disks.
func (s *state) settle(runs func(i int) bool, now time.Time) {
	if s.Phase.Ended() {
		return
	}
	var running, paused, open, canceledDisks int
	for i := range s.Disks {
		d := &s.Disks[i]
		if !d.Phase.Ended() && !runs(i) {
			switch s.Wanted {
			case Canceled:
				d.Phase, d.Failure, d.Ended = Canceled, canceled(), now
			case Paused:
				d.Phase = Paused
			}
		}
		switch {
		case runs(i) && !d.Phase.Ended():
			running++
		case d.Phase == Paused:
			paused++
		case d.Phase == Canceled:
			canceledDisks++
		case !d.Phase.Ended():
			open++
		case d.Phase == Failed && s.Failure == nil:
			s.Failure = d.Failure
		}
	}
	switch {
	case running+paused+open == 0:
		s.end(canceledDisks, now)
	case s.Wanted == Canceled:
		s.Phase = Canceling
	case s.Wanted == Paused && running == 0:
		s.Phase, s.Wanted = Paused, 0
	}
}

// end gives the job its last phase. It says Completed of nothing but disks that
// are all Completed and Verified.
func (s *state) end(canceledDisks int, now time.Time) {
	s.Ended, s.Wanted = now, 0
	switch {
	case canceledDisks > 0:
		s.Phase = Canceled
		if s.Failure == nil {
			s.Failure = canceled()
		}
		return
	case s.Failure != nil:
		s.Phase = Failed
		return
	}
	for i := range s.Disks {
		if d := &s.Disks[i]; d.Phase != Completed || !d.Outcome.Verified {
			s.Phase = Failed
			s.Failure = &Failure{Reason: ReasonInternal, Text: fmt.Sprintf("disk %s is %v and not Verified", d.Name, d.Phase), Retry: RetryAfterReconcile, Exit: 1}
			return
		}
	}
	s.Phase = Completed
}

// begin is a start of a disk, before its transfer is called.
func (s *state) begin(i int, now time.Time) {
	d := &s.Disks[i]
	d.Phase, d.Starts = Prepared, d.Starts+1
	if d.Started.IsZero() {
		d.Started = now
	}
	if s.Started.IsZero() {
		s.Started = now
	}
	if s.Phase == Accepted {
		s.Phase = Prepared
	}
}

// moving is the first byte of a disk.
func (s *state) moving(i int) {
	s.Disks[i].Phase = InProgress
	if s.Phase == Prepared || s.Phase == Accepted {
		s.Phase = InProgress
	}
}

// finish is the return of a transfer. stop is why it was told to, or nil.
func (s *state) finish(i int, o Outcome, err, stop error, now time.Time) {
	d := &s.Disks[i]
	failure := classify(o, err)
	if err != nil || failure != nil {
		o.Verified = false // an error after the proof: nobody may build on it
	}
	d.Outcome = o.bounded(len(s.Disks))
	switch {
	case failure == nil:
		d.Phase, d.Failure, d.Ended = Completed, nil, now
	case stop != nil && stopped(err, failure):
		// What is wanted decides in settle. A drain leaves the phase.
	default:
		d.Phase, d.Failure, d.Ended = Failed, failure, now
	}
}

// overwritten looks whether the target of disk i, that has just been proved, is
// that of another disk by another name (a link, a second export): only one of the
// two can be what its source is. Both fail. Identities are those of one machine.
func (s *state) overwritten(i int, spec *Spec, now time.Time) {
	d := &s.Disks[i]
	if spec.Mode != Copy || d.Phase != Completed || d.Outcome.TargetIdentity == "" || len(d.Outcome.TargetIdentity) >= maxDetail {
		return // one that was cut tells nothing apart
	}
	for k := range s.Disks {
		other := &s.Disks[k]
		if k == i || other.Outcome.TargetIdentity != d.Outcome.TargetIdentity || authority(spec.Disks[k].Target) != authority(spec.Disks[i].Target) {
			continue
		}
		for _, both := range []*DiskStatus{d, other} {
			if both.Phase == Completed {
				both.Phase, both.Outcome.Verified, both.Outcome.Equal, both.Ended = Failed, false, false, now
				both.Failure = &Failure{
					Reason: ReasonEndpoint, Retry: RetryNever, Exit: 10,
					Text: fmt.Sprintf("the targets of disks %s and %s are one disk (%s): each has overwritten the other", d.Name, other.Name, d.Outcome.TargetIdentity),
				}
			}
		}
	}
}

// authority is the machine that a name of a disk has in it, or empty.
func authority(name string) string {
	u, err := url.Parse(name)
	if err != nil || !strings.Contains(name, "://") {
		return ""
	}
	return strings.ToLower(u.Host)
}

// panicError is a transfer that panicked; stopping it explains nothing.
type panicError struct{ value any }

func (e *panicError) Error() string {
	return fmt.Sprintf("the transfer panicked (a bug, please report it): %v", e.value)
}

// classify is nil for the only success.
func classify(o Outcome, err error) *Failure {
	f, classed := errors.AsType[*Failure](err)
	switch {
	case err == nil && o.Verified:
		return nil
	case err == nil:
		f = &Failure{Reason: ReasonInternal, Text: "the transfer ended without an error, but the disk is not Verified", Retry: RetryAfterReconcile}
	case classed:
		g := *f // it may be the transfer's own
		f = &g
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		f = &Failure{Reason: ReasonIncomplete, Text: err.Error(), Retry: RetryBackoff, Exit: 3}
	default:
		f = &Failure{Reason: ReasonInternal, Text: err.Error(), Retry: RetryAfterReconcile}
	}
	f.Text = cut(f.Text, maxText)
	if f.Reason == "" {
		f.Reason = ReasonInternal
	}
	if f.Retry == 0 {
		f.Retry = RetryNever // a class is a claim, and nobody made one
	}
	if f.Exit == 0 {
		f.Exit = 1
	}
	return f
}

// stopped tells whether an end is explained by having been told to stop. A
// failure that would come again is told now.
func stopped(err error, f *Failure) bool {
	if _, bug := errors.AsType[*panicError](err); bug {
		return false
	}
	return f.Retry != RetryNever || f.Reason == ReasonCanceled || f.Reason == ReasonIncomplete
}

var phaseNames = [...]string{New: "New", Accepted: "Accepted", Prepared: "Prepared", InProgress: "InProgress", Canceling: "Canceling", Canceled: "Canceled", Completed: "Completed", Failed: "Failed", Paused: "Paused"}

// String is the phase's name.
func (p Phase) String() string {
	if int(p) < len(phaseNames) && phaseNames[p] != "" {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}
