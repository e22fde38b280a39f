package screen

import (
	"fmt"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl/job"
)

// Text is the board for a file or a pipe: one line for each thing, whose first
// words are what it is and its name.
func (b *Board) Text(now time.Time) string {
	var out strings.Builder
	line := func(format string, args ...any) {
		out.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
	}
	line("daemon %s: %s", clean(b.Daemon.Where), b.Daemon.text(now))
	for _, it := range b.Items(ShowAll, now) {
		if it.Job != nil {
			b.jobText(line, it.Job, now)
			continue
		}
		s := it.Failback
		line("failback %s %s: %s (%s)", it.Name(), it.state(), Sentence(s, now), clean(s.ID))
		if h := s.Halted; h != nil {
			line("remedy %s: %s", it.Name(), sentence(h.Remedy))
		}
		for _, c := range Next(s) {
			if NeedsYou(s) && c.Line != "" {
				line("type %s: %s   # %s", it.Name(), c.Line, clean(c.Why))
			}
		}
		if Ended(s) {
			continue
		}
		for i := range s.Disks {
			line("disk %s %s", it.Name(), strings.TrimSpace(diskLine(&s.Disks[i], 0, wideText)))
		}
	}
	return out.String()
}

// wideText is wider than any number needs: nothing is left out.
const wideText = 200

func (b *Board) jobText(line func(string, ...any), j *Job, now time.Time) {
	it := Item{Job: j}
	line("job %s %s: %s", it.Name(), it.state(), jobSentence(j, now))
	if f := j.Failure; f != nil {
		line("reason %s: %s (%s)", it.Name(), sentence(f.Text), clean(f.Reason))
	}
	if j.Phase == job.Completed || j.Phase == job.Canceled {
		return
	}
	for i := range j.Disks {
		line("disk %s %s %s", it.Name(), clean(j.Disks[i].Name), strings.TrimSpace(b.jobDisk(j, i, wideText)))
	}
}
