package screen

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// Board is what one daemon does: what haulback status shows.
type Board struct {
	Daemon    Daemon
	Failbacks []*failback.Status
	Jobs      []*Job
}

// Daemon is what a board says of the daemon itself.
type Daemon struct {
	Where      string // the socket or the URL
	Version    string
	Site       string // the daemon's identity, as peers pin it
	Started    time.Time
	Draining   bool
	Controller bool // it brings VMs home
	Open       int  // jobs that have not ended
	Sessions   int  // of peers, that are open
	AtOnce     int  // disks of jobs
	Reading    bool // it has not told yet all that there is
	Lost       *Lost
}

// Lost is a daemon that does not answer. What a board shows is as it was then.
type Lost struct {
	Since time.Time
	Why   string
}

// Job is a job with what its daemon tells and does not keep.
type Job struct {
	job.Job
	Rates map[string]Rate // by disk; those that run
	Notes []string        // the last things to read
}

// Rate is how fast a disk of a job is.
type Rate struct {
	Scan, Wire int64         // bytes a second, lately: compared, and sent; or Unknown
	Left       time.Duration // expected; 0: not known
}

// Unknown is a rate that is not known: it takes two looks.
const Unknown = -1

// Item is a row of a board: a failback or a job.
type Item struct {
	Failback *failback.Status
	Job      *Job
}

// Key names the item among all others.
func (it Item) Key() string {
	if it.Failback != nil {
		return "failback/" + it.Failback.ID
	}
	return "job/" + it.Job.ID
}

// Find is the item of a key, whether it is shown or not.
func (b *Board) Find(key string) (Item, bool) {
	for _, s := range b.Failbacks {
		if it := (Item{Failback: s}); it.Key() == key {
			return it, true
		}
	}
	for _, j := range b.Jobs {
		if it := (Item{Job: j}); it.Key() == key {
			return it, true
		}
	}
	return Item{}, false
}

// SamePlace reports whether what was confirmed of o still holds of it.
func (it Item) SamePlace(o Item) bool {
	if it.Failback != nil {
		return SamePlace(it.Failback, o.Failback)
	}
	return it.Job.Phase == o.Job.Phase && it.Job.Wanted == o.Job.Wanted && it.Job.Digest == o.Job.Digest && it.Job.Created.Equal(o.Job.Created)
}

// Sentence says in one sentence where the item stands.
func (it Item) Sentence(now time.Time) string {
	if it.Failback != nil {
		return Sentence(it.Failback, now)
	}
	return jobSentence(it.Job, now)
}

// Name is what people call it, fit to print.
func (it Item) Name() string {
	if it.Failback != nil {
		return clean(it.Failback.Spec.VM)
	}
	return clean(it.Job.ID)
}

// urgency orders the rows of a board.
type urgency int

const (
	standsStill urgency = iota // a failback that is halted
	wantsYou                   // a failback that waits for a word
	outage                     // its replica is off and nobody is home yet
	hasFailed                  // a job that ended badly
	atWork
	inLine // waits for its turn, or is paused
	isOver
)

func (it Item) urgency() urgency {
	if s := it.Failback; s != nil {
		switch {
		case s.Halted != nil:
			return standsStill
		case NeedsYou(s):
			return wantsYou
		case Ended(s):
			return isOver
		case s.Activity == failback.Waiting:
			return inLine
		case s.State != failback.Failback && Switched(s):
			return outage
		}
		return atWork
	}
	switch it.Job.Phase {
	case job.Failed:
		return hasFailed
	case job.Canceled, job.Completed:
		return isOver
	case job.New, job.Accepted, job.Paused:
		return inLine
	}
	return atWork
}

// last is when it ended, or else was made.
func (it Item) last() (ended, created time.Time) {
	if s := it.Failback; s != nil {
		return s.Ended, s.Created
	}
	return it.Job.Ended, it.Job.Created
}

// Lately is how long something that has ended stays on a board.
const Lately = 24 * time.Hour

// Filter says which rows are shown.
type Filter int

// The filters, in the order in which a key goes through them.
const (
	ShowAll Filter = iota
	ShowOpen
	ShowUrgent
	ShowFailbacks
	ShowJobs
	filters
)

// Next is the filter after f.
func (f Filter) Next() Filter { return (f + 1) % filters }

func (f Filter) String() string {
	return [...]string{"all", "open only", "what needs you", "failbacks only", "jobs only"}[f]
}

func (f Filter) shows(it Item) bool {
	switch f {
	case ShowOpen:
		return it.urgency() < isOver
	case ShowUrgent:
		return it.urgency() <= hasFailed
	case ShowFailbacks:
		return it.Failback != nil
	case ShowJobs:
		return it.Job != nil
	}
	return true
}

// Items are the rows, the most urgent first. What waits stands in its order; of
// what has ended the last one is first.
func (b *Board) Items(f Filter, now time.Time) []Item {
	var all []Item
	add := func(it Item) {
		if ended, _ := it.last(); f.shows(it) && (ended.IsZero() || now.Sub(ended) < Lately) {
			all = append(all, it)
		}
	}
	for _, s := range b.Failbacks {
		add(Item{Failback: s})
	}
	for _, j := range b.Jobs {
		add(Item{Job: j})
	}
	slices.SortFunc(all, func(x, y Item) int {
		if c := cmp.Compare(x.urgency(), y.urgency()); c != 0 {
			return c
		}
		ex, cx := x.last()
		ey, cy := y.last()
		return cmp.Or(ey.Compare(ex), cx.Compare(cy), strings.Compare(x.Key(), y.Key()))
	})
	return all
}

// Now is the time that a board is of: a daemon that is lost stands still.
func (b *Board) Now(now time.Time) time.Time {
	if l := b.Daemon.Lost; l != nil {
		return l.Since
	}
	return now
}
