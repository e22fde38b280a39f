package screen

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
)

// Lines are what is drawn while somebody watches: the sentence, the step, a bar
// for each disk, and what comes next. They fit into height rows of width columns.
func Lines(s *failback.Status, now time.Time, width, height int) []string {
	foot := footer(s, now)
	if !NeedsYou(s) && !Ended(s) {
		foot = append(foot, "  Ctrl-C ends the watching, the failback goes on")
	}
	out := lines(s, now, width, height, foot)
	for i := range out {
		out[i] = cut(out[i], width)
	}
	return out
}

// lines are those of Lines, of which some may be wider.
func lines(s *failback.Status, now time.Time, width, height int, foot []string) []string {
	var out []string
	add := func(text string) { out = append(out, strings.TrimRight(text, " ")) }
	for i, line := range wrap(Sentence(s, now), width) {
		if i < 3 {
			add(line)
		}
	}
	if row := current(s); row != nil {
		text := stepText(row)
		add(fmt.Sprintf("  step %d  %s, since %s", row.Number, text, Span(now.Sub(row.Began))))
	}
	room := height - 1 - len(out) - len(foot)
	n := labelWidth(s.Disks)
	for i := range s.Disks {
		if i+1 >= room && len(s.Disks) > i+1 {
			add(fmt.Sprintf("  and %s more", plural(len(s.Disks)-i, "disk")))
			break
		}
		add(diskLine(&s.Disks[i], n, width))
	}
	for _, line := range foot {
		add(line)
	}
	return out[:max(min(len(out), height-1), 1)]
}

// stepText is what a step does, for people.
func stepText(row *failback.Step) string {
	if row.Text == "" {
		return clean(row.Name)
	}
	return clean(row.Text)
}

// current is the step that is being done.
func current(s *failback.Status) *failback.Step {
	for i := len(s.Steps) - 1; i >= 0; i-- {
		if st := s.Steps[i].State; st == failback.Intent || st == failback.Compensating {
			return &s.Steps[i]
		}
	}
	return nil
}

func footer(s *failback.Status, now time.Time) []string {
	var out []string
	if text := downtime(s, now); text != "" && !Ended(s) {
		out = append(out, "  downtime "+text)
	}
	if s.Wait != "" {
		out = append(out, "  waits "+waits(s))
	} else if s.Next != "" {
		out = append(out, "  next "+clean(s.Next))
	}
	return out
}

// Region is the part of a terminal that is drawn again and again, below what
// scrolls by. It is for one goroutine.
type Region struct {
	out   io.Writer
	drawn []string // as they are on the terminal
}

// NewRegion draws to a terminal.
func NewRegion(out io.Writer) *Region { return &Region{out: out} }

// Draw replaces what was drawn by lines. Width is that of the terminal now: one
// that became narrower has broken the lines that are there into more rows.
func (r *Region) Draw(width int, lines []string) {
	var b strings.Builder
	b.WriteString(r.back(width))
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	r.drawn = lines
	_, _ = io.WriteString(r.out, b.String()) // a terminal that is gone is nobody's loss
}

// Say writes a line above the region; Draw has to follow.
func (r *Region) Say(width int, text string) {
	_, _ = io.WriteString(r.out, r.back(width)+text+"\n")
	r.drawn = nil
}

// Close takes the region away.
func (r *Region) Close(width int) {
	_, _ = io.WriteString(r.out, r.back(width))
	r.drawn = nil
}

// back goes to the first row of what was drawn and empties all below.
func (r *Region) back(width int) string {
	rows := 0
	for _, line := range r.drawn {
		rows += max((columns(line)+width-1)/max(width, 1), 1)
	}
	if rows == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", rows)
}

// Brief is a failback in one line, among others.
func Brief(s *failback.Status, now time.Time, width int) string {
	return cut(Sentence(s, now), width)
}
