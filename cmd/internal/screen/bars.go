package screen

import (
	"fmt"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// last is the pass that a disk is in, or has ended.
func last(d *failback.Disk) *failback.Pass {
	if len(d.Passes) == 0 {
		return nil
	}
	return &d.Passes[len(d.Passes)-1]
}

// share is how much of a pass has been settled as equal on both sides, never what
// was merely sent.
func share(p *failback.Pass) float64 {
	if p.Verified {
		return 1
	}
	return part(&p.Counters)
}

// part is how much of a total is settled, within 0 and 1 whatever was told.
func part(c *job.Counters) float64 {
	if c.Total <= 0 {
		return 0
	}
	return max(min((float64(c.Verified)+float64(c.Skipped))/float64(c.Total), 1), 0)
}

// total is all disks of a failback together, of the passes that they are in.
type total struct {
	pass  uint32
	share float64
	rate  float64       // bytes a second
	left  time.Duration // 0: not known
	any   bool
	busy  bool // one has not ended
}

func totalOf(s *failback.Status) (t total) {
	var done, all float64
	known := true
	for i := range s.Disks {
		d := &s.Disks[i]
		p := last(d)
		if d.Excluded || p == nil {
			continue
		}
		bytes := float64(d.Replica.Size)
		done, all = done+share(p)*bytes, all+bytes
		t.pass = max(t.pass, p.Number)
		if p.Ended.IsZero() {
			t.busy = true
			if t.rate += p.Rate; p.Rate < 0 {
				t.rate = Unknown
			}
			t.left = max(t.left, p.Left)
			known = known && p.Left > 0
		}
	}
	if !known {
		t.left = 0
	}
	if t.any = all > 0; t.any {
		t.share = done / all
	}
	return t
}

// progress is all disks together: "pass 2, 43.0 % done, about 3m10s left".
func progress(s *failback.Status) string {
	t := totalOf(s)
	if !t.any {
		return "the first bytes are waited for"
	}
	out := fmt.Sprintf("pass %d, %.1f %% done", t.pass, 100*t.share)
	if t.left > 0 {
		out += ", about " + Span(t.left) + " left"
	}
	return out
}

// barWidth is in characters; the numbers matter more.
const barWidth = 20

// bar draws a share.
func bar(share float64, width int) string {
	full := min(max(int(share*float64(width)), 0), width)
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "]"
}

// diskLine is a disk while its pass runs, or how it ended. What does not fit is
// left out, the least important first; no number is cut. A text of others may be
// longer than width.
func diskLine(d *failback.Disk, labels, width int) string {
	head := "  " + pad(label(d.Label), labels)
	if over := verdict(d); over != "" {
		return head + short(over, width-columns(head))
	}
	p := last(d)
	if p == nil {
		return head + "waits, " + bytes(d.Replica.Size)
	}
	c := &p.Counters
	kind := fmt.Sprintf("pass %d ", p.Number)
	if p.Final {
		kind = "final  "
	}
	number := fmt.Sprintf(" %5.1f%%", 100*share(p))
	speed := "         --/s"
	if p.Rate >= 0 {
		speed = fmt.Sprintf("  %9s/s", bytes(int64(p.Rate)))
	}
	eta := "  ETA --"
	if p.Left > 0 {
		eta = "  ETA " + Span(p.Left)
	}
	line := head + kind
	if len(line)+barWidth+2+len(number)+len(speed)+len(eta) <= width {
		line += bar(share(p), barWidth)
	}
	line += number
	for _, part := range []string{
		speed, eta, "  differing " + bytes(c.Differing), "  sent " + bytes(c.Sent), "  of " + bytes(c.Total),
	} {
		if columns(line)+len(part) > width {
			break
		}
		line += part
	}
	return line
}

// verdict is how it stands with a disk of which nothing runs, or empty.
func verdict(d *failback.Disk) string {
	p := last(d)
	switch {
	case d.Excluded:
		return "left out, as asked"
	case d.Failure != nil:
		return "FAILED: " + clean(d.Failure.Text)
	case p != nil && !p.Ended.IsZero():
		return ended(d, p)
	}
	return ""
}

// short leaves parts out that do not fit, so that no number is cut.
func short(text string, width int) string {
	end := 0
	for i, used := 0, 0; i < len(text); {
		n := strings.Index(text[i:], ", ")
		if n < 0 {
			n = len(text) - i
		}
		if used += columns(text[i : i+n]); end > 0 && used > width {
			break
		}
		end = i + n
		i, used = end+len(", "), used+len(", ")
	}
	return text[:end]
}

// ended says what a pass that is over came to. What a hint left out is said
// wherever it is called Verified.
func ended(d *failback.Disk, p *failback.Pass) string {
	c := &p.Counters
	numbers := fmt.Sprintf("%s, %s differed, %s sent", bytes(c.Total), bytes(c.Differing), bytes(c.Sent))
	if p.Final && len(d.Passes) > 1 {
		numbers = together(d)
	}
	switch {
	case d.Verified && p.Final && d.Sampled != "":
		return fmt.Sprintf("Verified (%s): %s", clean(d.Sampled), numbers)
	case d.Verified && p.Final:
		return "Verified: " + numbers
	case p.Verified || d.Verified:
		return fmt.Sprintf("pass %d done: %s", p.Number, numbers)
	}
	return fmt.Sprintf("pass %d ended, NOT verified: %s", p.Number, numbers)
}

// together is all passes of a disk, which brought it home together.
func together(d *failback.Disk) string {
	var differing, sent int64
	for i := range d.Passes {
		c := &d.Passes[i].Counters
		differing, sent = differing+c.Differing, sent+c.Sent
	}
	return fmt.Sprintf("%s, in %d passes %s differed, %s sent", bytes(d.Replica.Size), len(d.Passes), bytes(differing), bytes(sent))
}

// maxLabel is more than any host calls a place for a disk.
const maxLabel = 20

func label(text string) string { return cut(clean(text), maxLabel) }

// labelWidth is the column that the labels of disks need.
func labelWidth(list []failback.Disk) int {
	n := 6
	for i := range list {
		n = max(n, columns(label(list[i].Label)))
	}
	return n + 2
}
