package screen

import (
	"fmt"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// Mood is how a line is coloured: a second signal, the first one is in its words.
type Mood int

// The moods.
const (
	Plain Mood = iota
	Title
	Alarm // it stands still, or is lost
	Word  // it waits for the operator
	Good
	Faint
)

// Line is one row of a terminal.
type Line struct {
	Text   string
	Mood   Mood
	Chosen bool // what keys are about
}

// sign is the mark before an item that needs somebody.
func (it Item) sign() (string, Mood) {
	switch it.urgency() {
	case standsStill, hasFailed:
		return "!", Alarm
	case wantsYou:
		return "?", Word
	case isOver:
		return " ", Faint
	}
	return " ", Plain
}

// state is one word.
func (it Item) state() string {
	if s := it.Failback; s != nil {
		switch {
		case s.Halted != nil:
			return "HALTED"
		case NeedsYou(s):
			return "YOUR WORD"
		case s.Activity == failback.Switching:
			return "SWITCHING"
		case s.Activity == failback.Standing:
			return "ready"
		}
		return clean(string(s.Activity))
	}
	j := &it.Job.Job
	switch {
	case j.Wanted == job.Paused && !j.Phase.Ended():
		return "pausing"
	case j.Phase == job.Failed:
		return "FAILED"
	case j.Phase == job.New, j.Phase == job.Accepted:
		return "waiting"
	case j.Phase == job.Prepared:
		return "opening"
	case j.Phase == job.InProgress:
		return "running"
	case j.Phase == job.Completed:
		return "done"
	}
	return strings.ToLower(clean(j.Phase.String()))
}

// stateWidth is that of the longest word of state.
const stateWidth = 10

// row is an item in one line.
func (b *Board) row(it Item, now time.Time, names, width int, chosen bool) Line {
	sign, mood := it.sign()
	mark := " "
	if chosen {
		mark = ">"
	}
	kind := "VM "
	if it.Job != nil {
		kind = "job"
	}
	head := mark + sign + " " + kind + " " + pad(clip(it.Name(), names), names+2) + pad(it.state(), stateWidth+1)
	return Line{head + b.doing(it, now, width-columns(head)), mood, chosen}
}

// names is the width of the column with the names.
func names(list []Item, width int) int {
	n := 8
	for _, it := range list {
		n = max(n, columns(it.Name()))
	}
	return min(n, max(width/3-5, 8))
}

// doing is what an item does, as far as it fits.
func (b *Board) doing(it Item, now time.Time, width int) string {
	if it.Job != nil {
		return b.jobDoing(it.Job, now, width)
	}
	s := it.Failback
	var text string
	switch t := totalOf(s); {
	case s.Halted != nil:
		text = fmt.Sprintf("step %d (%s): %s", s.Halted.Number, clean(s.Halted.Step), sentence(s.Halted.Text))
	case t.busy && (s.Activity == failback.Syncing || s.Activity == failback.Switching):
		text = fmt.Sprintf("pass %d ", t.pass) + b.moving(t.share, t.rate, t.left, width-columns("pass 9 "))
	case current(s) != nil:
		text = fmt.Sprintf("step %d: %s", current(s).Number, stepText(current(s)))
	case s.Activity == failback.Standing:
		text = "ready to switch" + until(s)
		if s.Forecast.Downtime > 0 {
			text += "; downtime about " + Span(s.Forecast.Downtime)
		}
	case s.Activity == failback.Deciding:
		text = "home" + served(s) + ": commit or undo"
	case s.Wait != "":
		text = "waits " + waits(s)
	case Ended(s) && !s.Ended.IsZero():
		text = Span(now.Sub(s.Ended)) + " ago: " + where(s, now)
	default:
		text = where(s, now)
	}
	if flow := "  " + name(s.Replica) + " --> " + name(s.Target); !Ended(s) && columns(text)+columns(flow) <= width {
		text += strings.Repeat(" ", width-columns(text)-columns(flow)) + flow
	}
	return text
}

// fit adds more to text where it has room.
func fit(text, more string, width int) string {
	if columns(text)+columns(more) > width {
		return text
	}
	return text + more
}

// moving is how far something is and how fast. Of a daemon that does not answer
// nobody knows how fast.
func (b *Board) moving(share, rate float64, left time.Duration, width int) string {
	speed, eta := fmt.Sprintf("%11s", bytes(int64(rate))+"/s"), "  ETA --"
	if rate < 0 {
		speed = fmt.Sprintf("%11s", "--/s")
	}
	switch {
	case b.Daemon.Lost != nil:
		speed, eta = "", "  when last heard of"
	case left > 0:
		eta = "  ETA " + Span(left)
	}
	text := fmt.Sprintf("%5.1f%%", 100*share)
	if n := barWidth + 3; columns(text)+n+columns(speed)+columns(eta)+2 <= width {
		text = bar(share, barWidth) + " " + text
	}
	return fit(fit(text, "  "+speed, width), eta, width)
}

// jobSum is all disks of a job together.
type jobSum struct {
	verified, begun int
	share           float64 // of the disks that have begun
	rate            float64
	left            time.Duration
}

func sumOf(j *Job) (t jobSum) {
	var done, all float64
	known := true
	for i := range j.Disks {
		d := &j.Disks[i]
		c := &d.Outcome.Counters
		if d.Outcome.Verified {
			t.verified++
		}
		if c.Total > 0 {
			t.begun++
			done, all = done+jobShare(d)*float64(c.Total), all+float64(c.Total)
		}
		if d.Phase == job.InProgress {
			r := j.rate(d.Name)
			known = known && r.Left > 0
			if r.Scan < 0 {
				t.rate = float64(r.Scan)
			} else if t.rate >= 0 {
				t.rate += float64(r.Scan)
			}
			t.left = max(t.left, r.Left)
		}
	}
	if !known || t.begun < len(j.Disks) {
		t.left = 0
	}
	if all > 0 {
		t.share = done / all
	}
	return t
}

// rate is that of a disk. Before it was told twice nobody knows it.
func (j *Job) rate(disk string) Rate {
	if r, ok := j.Rates[disk]; ok {
		return r
	}
	return Rate{Scan: Unknown, Wire: Unknown}
}

// jobShare is how much of a disk has been settled as equal on both sides.
func jobShare(d *job.DiskStatus) float64 {
	if d.Outcome.Verified {
		return 1
	}
	return part(&d.Outcome.Counters)
}

func (b *Board) jobDoing(j *Job, now time.Time, width int) string {
	t := sumOf(j)
	disks := plural(len(j.Disks), "disk")
	switch {
	case j.Phase == job.Failed:
		text := "no disk Verified: "
		if t.verified > 0 {
			text = fmt.Sprintf("%d of %s Verified: ", t.verified, disks)
		}
		if f := j.Failure; f != nil {
			text += clean(f.Reason) + ": " + sentence(f.Text)
		}
		return Span(now.Sub(j.Ended)) + " ago, " + text
	case j.Phase.Ended():
		return fmt.Sprintf("%s ago, %d of %s Verified, %s moved", Span(now.Sub(j.Ended)), t.verified, disks, bytes(j.sent()))
	case t.begun == 0:
		return disks + ", submitted " + Span(now.Sub(j.Created)) + " ago by " + clean(j.Owner)
	}
	head := disks + " "
	if t.begun < len(j.Disks) {
		head = fmt.Sprintf("%d of %s ", t.begun, disks)
	}
	if j.Phase != job.InProgress { // paused, or on its way there
		return fmt.Sprintf("%s%5.1f%%", head, 100*t.share)
	}
	return head + b.moving(t.share, t.rate, t.left, width-columns(head))
}

// sent is what a job has sent, by raw length.
func (j *Job) sent() (n int64) {
	for i := range j.Disks {
		n += j.Disks[i].Outcome.Counters.Sent
	}
	return n
}
