package screen

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// brief is what stands of the chosen item below the list, in height lines.
func (b *Board) brief(it Item, now time.Time, width, height int) []string {
	if it.Job != nil {
		lines := b.jobLines(it.Job, now, width)
		return lines[:min(len(lines), height)]
	}
	s := it.Failback
	if b.Daemon.Lost != nil {
		s = Resting(s)
	}
	foot := footer(s, now)
	if h := s.Halted; h != nil {
		remedy := wrap("remedy "+sentence(h.Remedy), width-2)
		for i := range remedy {
			remedy[i] = "  " + remedy[i]
		}
		foot = append(remedy, foot...)
	}
	return lines(s, now, width, height+1, foot)
}

// whole is all that there is to say of an item.
func (b *Board) whole(it Item, now time.Time, width int) []string {
	if it.Job != nil {
		return append(b.jobLines(it.Job, now, width), jobHistory(it.Job, width)...)
	}
	s := it.Failback
	p := newPage(width)
	standing(p, s, now)
	if b.Daemon.Lost != nil {
		s = Resting(s)
	}
	disks(p, s)
	passList(p, s)
	proofs(p, s)
	steps(p, s)
	decided(p, s)
	return splitLines(p.String())
}

// Resting is a failback without what is true of a moment only: the rates of its
// passes, and when they end.
func Resting(s *failback.Status) *failback.Status {
	c := *s
	c.Disks = append([]failback.Disk(nil), s.Disks...)
	for i := range c.Disks {
		list := append([]failback.Pass(nil), c.Disks[i].Passes...)
		for k := range list {
			list[k].Rate, list[k].Left = Unknown, 0
		}
		c.Disks[i].Passes = list
	}
	return &c
}

func splitLines(text string) []string { return strings.Split(strings.TrimRight(text, "\n"), "\n") }

// passList is what each pass came to.
func passList(p *page, s *failback.Status) {
	begun := false
	for i := range s.Disks {
		d := &s.Disks[i]
		for k := range d.Passes {
			q := &d.Passes[k]
			if !begun {
				begun = true
				p.head("Passes")
			}
			c := &q.Counters
			text := fmt.Sprintf("%s%s%s; %s compared, %s differing, %s sent", called(q), mode(q), because(q.Reason), bytes(c.Scanned), bytes(c.Differing), bytes(c.Sent))
			if c.Reconnects > 0 {
				text += fmt.Sprintf(", %s", plural(int(c.Reconnects), "reconnect"))
			}
			switch {
			case q.Ended.IsZero():
				text += ", at work since " + moment(q.Began)
			case q.Verified:
				text += ", Verified in " + Span(q.Ended.Sub(q.Began))
			default:
				text += ", NOT verified, ended after " + Span(q.Ended.Sub(q.Began))
			}
			if q.Event != "" {
				text += "; last: " + q.Event
			}
			p.say("  "+pad(label(d.Label), labelWidth(s.Disks)), text)
		}
	}
}

// proofs are the digests of the disks.
func proofs(p *page, s *failback.Status) {
	begun := false
	for i := range s.Disks {
		d := &s.Disks[i]
		var zero [32]byte
		if d.Root == zero && d.Before == zero && d.Matched == "" {
			continue
		}
		if !begun {
			begun = true
			p.head("Proof (BLAKE3 roots)")
		}
		head := "  " + pad(label(d.Label), labelWidth(s.Disks))
		if d.Matched != "" {
			p.say(head, "paired by "+d.Matched)
		}
		if d.Root != zero {
			p.say(head, "both sides "+hex.EncodeToString(d.Root[:]))
		}
		if d.Before != zero {
			p.say(head, "home before "+hex.EncodeToString(d.Before[:]))
		}
	}
}

// decided is who said what.
func decided(p *page, s *failback.Status) {
	if len(s.Decisions) == 0 {
		return
	}
	p.head("Decided")
	for _, d := range s.Decisions {
		text := clean(d.What) + " by " + clean(d.By)
		if d.Text != "" {
			text += ": " + d.Text
		}
		p.say("  "+moment(d.At)+"  ", text)
	}
}

// jobLines are the sentence of a job, its disks, and what it last said.
func (b *Board) jobLines(j *Job, now time.Time, width int) []string {
	p := newPage(width)
	p.say("", jobSentence(j, now))
	if f := j.Failure; f != nil {
		p.row("reason", f.Text+" ("+f.Reason+")")
	}
	n := 6
	for i := range j.Disks {
		n = max(n, columns(label(j.Disks[i].Name))+2)
	}
	for i := range j.Disks {
		p.line(clip("  "+pad(label(j.Disks[i].Name), n)+b.jobDisk(j, i, width-n-2), width))
		if i < len(j.Spec.Disks) {
			p.line(clip("    "+strings.Repeat(" ", n)+clean(j.Spec.Disks[i].Source)+" --> "+clean(j.Spec.Disks[i].Target), width))
		}
	}
	for i := len(j.Notes) - 1; i >= 0; i-- {
		p.row("said", j.Notes[i])
	}
	return splitLines(p.String())
}

func jobSentence(j *Job, now time.Time) string {
	what := "copies"
	if j.Spec.Mode == job.Verify {
		what = "compares"
	}
	text := fmt.Sprintf("Job %s of %s %s %s", clean(j.ID), clean(j.Owner), what, plural(len(j.Disks), "disk"))
	switch {
	case j.Phase == job.Failed && j.Failure != nil && j.Failure.Retry != job.RetryNever:
		return text + ": FAILED " + Span(now.Sub(j.Ended)) + " ago. Resume tries again what has failed."
	case j.Phase == job.Failed:
		return text + ": FAILED " + Span(now.Sub(j.Ended)) + " ago, and the same again will fail again."
	case j.Phase.Ended():
		return text + ": " + j.Phase.String() + " " + Span(now.Sub(j.Ended)) + " ago, after " + Span(j.Ended.Sub(j.Created)) + "."
	case j.Phase == job.Paused:
		return text + ": Paused. Resume goes on where it was."
	case j.Wanted != 0:
		return text + ": " + j.Phase.String() + ", on its way to " + j.Wanted.String() + "."
	case j.Phase == job.New, j.Phase == job.Accepted:
		return text + ": waits for its turn since " + Span(now.Sub(j.Created)) + ", priority " + Priority(j.Spec.Priority) + "."
	}
	return text + ": " + j.Phase.String() + " since " + Span(now.Sub(j.Started)) + "."
}

// jobDisk is one disk of a job, as it runs or as it ended.
func (b *Board) jobDisk(j *Job, i, width int) string {
	d := &j.Disks[i]
	c := &d.Outcome.Counters
	switch {
	case d.Failure != nil:
		return "FAILED: " + clean(d.Failure.Text)
	case d.Outcome.Verified:
		return short(fmt.Sprintf("Verified: %s, %s differed, %s sent", bytes(c.Total), bytes(c.Differing), bytes(c.Sent)), width)
	case c.Total == 0:
		return d.Phase.String()
	case d.Phase != job.InProgress:
		return fmt.Sprintf("%s, %.1f%% of %s", d.Phase, 100*jobShare(d), bytes(c.Total))
	}
	r := j.rate(d.Name)
	text := b.moving(jobShare(d), float64(r.Scan), r.Left, width)
	if r.Wire >= 0 {
		text = fit(text, "  wire "+bytes(r.Wire)+"/s", width)
	}
	for _, more := range []string{"  differing " + bytes(c.Differing), "  sent " + bytes(c.Sent), "  of " + bytes(c.Total)} {
		text = fit(text, more, width)
	}
	return text
}

// jobHistory is what of a job matters afterwards.
func jobHistory(j *Job, width int) []string {
	p := newPage(width)
	p.head("More")
	p.row("created", moment(j.Created)+", started "+moment(j.Started)+", ended "+moment(j.Ended))
	for i := range j.Disks {
		d := &j.Disks[i]
		o := &d.Outcome
		p.head("Disk " + label(d.Name))
		p.row("run", fmt.Sprintf("%s, begun %s", d.Run, plural(d.Starts, "time")))
		if o.State != "" {
			p.row("target", o.State)
		}
		if o.ActualTracking != "" {
			p.row("tracking", o.ActualTracking+because(o.TrackingReason))
		}
		if o.ActualTransport != "" {
			p.row("transport", o.ActualTransport+because(o.TransportReason))
		}
		if o.Equal {
			p.row("root", hex.EncodeToString(o.Root[:]))
		}
		c := &o.Counters
		p.row("numbers", fmt.Sprintf("%s compared, %s sent (%s on the wire), %s durable from before, %s", bytes(c.Scanned), bytes(c.Sent), bytes(c.Wire), bytes(c.Had), plural(int(c.Reconnects), "reconnect")))
		for _, e := range o.Bad {
			what := "different"
			if e.Unreadable {
				what = "unreadable"
			}
			p.row("BAD", fmt.Sprintf("%s at %s: %s", bytes(e.Len), bytes(e.Off), what))
		}
	}
	return splitLines(p.String())
}
