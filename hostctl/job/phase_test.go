package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// of makes a state of phases.
func of(job, wanted Phase, disks ...Phase) state {
	s := state{Phase: job, Wanted: wanted}
	for i, p := range disks {
		d := DiskStatus{Name: fmt.Sprint(i), Phase: p}
		switch p {
		case Completed:
			d.Outcome.Verified = true
		case Failed:
			d.Failure = &Failure{Reason: ReasonStorage, Text: "broken", Retry: RetryBackoff, Exit: 1}
		}
		s.Disks = append(s.Disks, d)
	}
	return s
}

func phases(s state) (list []Phase) {
	for _, d := range s.Disks {
		list = append(list, d.Phase)
	}
	return list
}

func TestSettle(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		in     state
		runs   []int
		job    Phase
		wanted Phase
		disks  []Phase
		reason string
	}{
		{name: "all verified", in: of(InProgress, 0, Completed, Completed), job: Completed, disks: []Phase{Completed, Completed}},
		{name: "one failed", in: of(InProgress, 0, Completed, Failed), job: Failed, disks: []Phase{Completed, Failed}, reason: ReasonStorage},
		{name: "one failed, one runs", in: of(InProgress, 0, InProgress, Failed), runs: []int{0}, job: InProgress, disks: []Phase{InProgress, Failed}, reason: ReasonStorage},
		{name: "one waits", in: of(InProgress, 0, Completed, Accepted), job: InProgress, disks: []Phase{Completed, Accepted}},
		{name: "cancel, nothing runs", in: of(Accepted, Canceled, Accepted, Accepted), job: Canceled, disks: []Phase{Canceled, Canceled}, reason: ReasonCanceled},
		{name: "cancel, one runs", in: of(InProgress, Canceled, InProgress, Accepted), runs: []int{0}, job: Canceling, wanted: Canceled, disks: []Phase{InProgress, Canceled}},
		{name: "cancel came too late", in: of(InProgress, Canceled, Completed, Completed), job: Completed, disks: []Phase{Completed, Completed}},
		{name: "cancel of the rest", in: of(InProgress, Canceled, Completed, Paused), job: Canceled, disks: []Phase{Completed, Canceled}, reason: ReasonCanceled},
		{name: "cancel after a failure", in: of(Canceling, Canceled, Failed, Prepared), job: Canceled, disks: []Phase{Failed, Canceled}, reason: ReasonStorage},
		{name: "cancel of what failed", in: of(Canceling, Canceled, Failed, Completed), job: Failed, disks: []Phase{Failed, Completed}, reason: ReasonStorage},
		{name: "pause, nothing runs", in: of(Accepted, Paused, Accepted), job: Paused, disks: []Phase{Paused}},
		{name: "pause, one runs", in: of(InProgress, Paused, InProgress, Accepted), runs: []int{0}, job: InProgress, wanted: Paused, disks: []Phase{InProgress, Paused}},
		{name: "pause after a crash", in: of(InProgress, Paused, InProgress, Completed), job: Paused, disks: []Phase{Paused, Completed}},
		{name: "pause came too late", in: of(InProgress, Paused, Completed), job: Completed, disks: []Phase{Completed}},
		{name: "ended stays", in: of(Failed, 0, Completed), job: Failed, disks: []Phase{Completed}},
		{name: "no false success", in: state{Phase: InProgress, Disks: []DiskStatus{{Name: "x", Phase: Completed}}}, job: Failed, disks: []Phase{Completed}, reason: ReasonInternal},
	} {
		s := c.in.clone()
		s.settle(func(i int) bool { return slices.Contains(c.runs, i) }, time.Unix(9, 0))
		got := ""
		if s.Failure != nil {
			got = s.Failure.Reason
		}
		if s.Phase != c.job || s.Wanted != c.wanted || !slices.Equal(phases(s), c.disks) || got != c.reason {
			t.Errorf("%s: %v wanted %v disks %v reason %q, want %v wanted %v disks %v reason %q", c.name, s.Phase, s.Wanted, phases(s), got, c.job, c.wanted, c.disks, c.reason)
		}
	}
}

func TestFinish(t *testing.T) {
	t.Parallel()
	broken := &Failure{Reason: ReasonStorage, Text: "broken", Retry: RetryNever, Exit: 1}
	later := &Failure{Reason: ReasonUnavailable, Text: "away", Retry: RetryBackoff, Exit: 13}
	for _, c := range []struct {
		name     string
		verified bool
		err      error
		stop     error
		phase    Phase // InProgress: left as it was
		reason   string
	}{
		{name: "verified", verified: true, phase: Completed},
		{name: "verified while told to stop", verified: true, stop: errPause, phase: Completed},
		{name: "no error and not verified", phase: Failed, reason: ReasonInternal},
		{name: "no error, not verified, told to stop", stop: errCancel, phase: InProgress},
		{name: "verified and an error", verified: true, err: broken, phase: Failed, reason: ReasonStorage},
		{name: "failed", err: later, phase: Failed, reason: ReasonUnavailable},
		{name: "failed as it stopped", err: later, stop: errPause, phase: InProgress},
		{name: "failed for good as it stopped", err: broken, stop: errPause, phase: Failed, reason: ReasonStorage},
		{name: "unclassed", err: errors.New("odd"), phase: Failed, reason: ReasonInternal},
		{name: "unclassed as it stopped", err: errors.New("odd"), stop: errDrain, phase: InProgress},
		{name: "wrapped", err: fmt.Errorf("pass 1: %w", later), phase: Failed, reason: ReasonUnavailable},
		{name: "canceled by nobody", err: context.Canceled, phase: Failed, reason: ReasonIncomplete},
		{name: "stopped", err: context.Canceled, stop: errDrain, phase: InProgress},
		{name: "panic as it stopped", err: &panicError{"x"}, stop: errPause, phase: Failed, reason: ReasonInternal},
		{name: "a failure that says nothing", err: &Failure{Text: "?"}, phase: Failed, reason: ReasonInternal},
	} {
		s := of(InProgress, 0, InProgress)
		s.finish(0, Outcome{Verified: c.verified}, c.err, c.stop, time.Unix(9, 0))
		d := s.Disks[0]
		got := ""
		if d.Failure != nil {
			got = d.Failure.Reason
			if d.Failure.Retry == 0 || d.Failure.Exit == 0 {
				t.Errorf("%s: the failure %+v is not complete", c.name, d.Failure)
			}
		}
		if d.Phase != c.phase || got != c.reason || d.Outcome.Verified != (c.phase == Completed) {
			t.Errorf("%s: %v, reason %q, verified %t; want %v, %q", c.name, d.Phase, got, d.Outcome.Verified, c.phase, c.reason)
		}
	}
	if broken.Exit != 1 || later.Text != "away" {
		t.Error("the transfer's own failure was changed")
	}
}

// TestVerbsByPhase is the table of what is refused, does nothing, or changes.
func TestVerbsByPhase(t *testing.T) {
	t.Parallel()
	verbs := map[string]func(*state, string) (bool, *Failure){"cancel": (*state).cancel, "pause": (*state).pause, "resume": (*state).resume}
	hopeless := of(Failed, 0, Failed)
	hopeless.Disks[0].Failure.Retry = RetryNever
	hopeless.Failure = hopeless.Disks[0].Failure
	for _, c := range []struct {
		name                  string
		in                    state
		cancel, pause, resume string // "ok", "same", "no"
	}{
		{"New", of(New, 0, Accepted), "ok", "ok", "same"},
		{"Accepted", of(Accepted, 0, Accepted), "ok", "ok", "same"},
		{"Prepared", of(Prepared, 0, Prepared), "ok", "ok", "same"},
		{"InProgress", of(InProgress, 0, InProgress), "ok", "ok", "same"},
		{"pausing", of(InProgress, Paused, InProgress), "ok", "same", "no"},
		{"Paused", of(Paused, 0, Paused), "ok", "same", "ok"},
		{"Canceling", of(Canceling, Canceled, InProgress), "same", "no", "no"},
		{"Canceled", of(Canceled, 0, Canceled), "same", "no", "no"},
		{"Completed", of(Completed, 0, Completed), "no", "no", "no"},
		{"Failed", of(Failed, 0, Failed, Completed), "no", "no", "ok"},
		{"Failed for good", hopeless, "no", "no", "no"},
	} {
		for verb, want := range map[string]string{"cancel": c.cancel, "pause": c.pause, "resume": c.resume} {
			s := c.in.clone()
			changes, f := verbs[verb](&s, "j")
			got := "same"
			switch {
			case f != nil:
				if got = "no"; f.Reason != ReasonConflict || !strings.Contains(f.Text, "j") {
					t.Errorf("%s of %s: %+v", verb, c.name, f)
				}
			case changes:
				got = "ok"
			}
			if got != want {
				t.Errorf("%s of %s: %s, want %s", verb, c.name, got, want)
			}
			if got == "no" && fmt.Sprint(phases(s), s.Phase, s.Wanted) != fmt.Sprint(phases(c.in), c.in.Phase, c.in.Wanted) {
				t.Errorf("%s of %s was refused and changed something", verb, c.name)
			}
		}
	}
}

func TestResumeOfFailed(t *testing.T) {
	t.Parallel()
	s := of(Failed, 0, Failed, Completed, Failed)
	s.Disks[2].Failure.Retry = RetryNever
	s.Failure = s.Disks[0].Failure
	if _, f := s.resume("j"); f != nil {
		t.Fatal(f)
	}
	if want := []Phase{Accepted, Completed, Failed}; s.Phase != Accepted || !slices.Equal(phases(s), want) || s.Disks[0].Failure != nil {
		t.Errorf("%v %v, want %v", s.Phase, phases(s), want)
	}
}
