package screen

import (
	"fmt"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
)

// Changes are what has happened between two statuses of one failback, one line
// each: what a log keeps. A nil before means that now is the first: what was done
// before it is passed over.
func Changes(before, now *failback.Status) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if before == nil {
		before = past(now)
		add("failback %s of %s; the authority is %s", clean(now.ID), clean(now.Spec.VM), authority(now))
	}
	if now.State != before.State {
		add("state %s", clean(string(now.State)))
	}
	for _, w := range now.Warnings {
		if !contains(before.Warnings, w) {
			add("WARNING: %s", clean(w))
		}
	}
	for i := range now.Steps {
		stepChange(before, &now.Steps[i], i, add)
	}
	for i := range now.Disks {
		var old *failback.Disk
		if i < len(before.Disks) {
			old = &before.Disks[i]
		}
		diskChanges(old, &now.Disks[i], add)
	}
	switch {
	case now.Halted != nil && (before.Halted == nil || !before.Halted.At.Equal(now.Halted.At)):
		add("HALTED at step %d (%s): %s", now.Halted.Number, clean(now.Halted.Step), sentence(now.Halted.Text))
	case now.Halted == nil && before.Halted != nil:
		add("goes on after the halt at step %d", before.Halted.Number)
	}
	if now.Wait != "" && now.Wait != before.Wait {
		add("waits %s", waits(now))
	}
	return out
}

// past is what is not told of a status that is the first one seen.
func past(now *failback.Status) *failback.Status {
	out := &failback.Status{}
	for i := range now.Steps {
		s := now.Steps[i]
		if s.State == failback.Intent || s.State == failback.Compensating {
			s.State = "" // it is at work: that is told
		}
		out.Steps = append(out.Steps, s)
	}
	for i := range now.Disks {
		d := now.Disks[i]
		if p := last(&d); p != nil && p.Ended.IsZero() {
			d.Passes = d.Passes[:len(d.Passes)-1]
		}
		d.Failure = nil
		out.Disks = append(out.Disks, d)
	}
	return out
}

func contains(list []string, s string) bool {
	for _, t := range list {
		if t == s {
			return true
		}
	}
	return false
}

// worthTelling is how long a step takes that has a line for its end.
const worthTelling = time.Second

func stepChange(before *failback.Status, row *failback.Step, i int, add func(string, ...any)) {
	var old failback.Step
	if i < len(before.Steps) {
		old = before.Steps[i]
	}
	if old.State == row.State && old.Attempt == row.Attempt {
		return
	}
	text := stepText(row)
	switch row.State {
	case failback.Intent:
		again := ""
		if row.Attempt > 1 {
			again = fmt.Sprintf(" (try %d)", row.Attempt)
		}
		add("step %d: %s%s", row.Number, text, again)
	case failback.Done:
		if took := row.Ended.Sub(row.Began); took < worthTelling && old.State == failback.Intent {
			return // the next thing that is told says so
		}
		add("step %d done in %s: %s", row.Number, Span(row.Ended.Sub(row.Began)), text)
	case failback.Skipped:
		add("step %d skipped: %s", row.Number, text)
	case failback.Compensating:
		add("taking back step %d: %s", row.Number, text)
	case failback.Compensated:
		add("step %d is taken back: %s", row.Number, text)
	}
}

// tenth is the step in which a log says how far a pass is.
const tenth = 10

func diskChanges(old, now *failback.Disk, add func(string, ...any)) {
	label := clean(now.Label)
	if now.Matched != "" && (old == nil || old.Matched != now.Matched) {
		add("%s is paired: %s", label, clean(now.Matched))
	}
	for i := range now.Passes {
		p := &now.Passes[i]
		var q failback.Pass
		if old != nil && i < len(old.Passes) {
			q = old.Passes[i]
		}
		switch {
		case !p.Ended.IsZero() && q.Ended.IsZero():
			add("%s: %s", label, ended(now, p))
		case q.Began.IsZero():
			add("%s: %s begins%s%s", label, called(p), mode(p), because(p.Reason))
		case int(share(p)*tenth) > int(share(&q)*tenth):
			add("%s: %s, %.0f %% done", label, called(p), 100*share(p))
		}
		if p.Event != "" && p.Event != q.Event {
			add("%s: %s", label, clean(p.Event))
		}
	}
	if f := now.Failure; f != nil && (old == nil || old.Failure == nil || old.Failure.Text != f.Text) {
		add("%s FAILED: %s", label, clean(f.Text))
	}
}

// called is a pass in messages.
func called(p *failback.Pass) string {
	if p.Final {
		return fmt.Sprintf("final pass (%d)", p.Number)
	}
	return fmt.Sprintf("pass %d", p.Number)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + clean(reason)
}
