package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// feed keeps a board of what a daemon does, over its restarts. It is safe for
// concurrent use; what a board holds is never changed.
type feed struct {
	c    *caller
	news chan struct{} // has one when the board has changed
	// anew is how long a watch lasts before it is begun anew, patience how long it may
	// say nothing before it has told all that there is.
	anew, patience time.Duration

	mu        sync.Mutex
	heard     time.Time // when the daemon said something last
	daemon    screen.Daemon
	failbacks known[*failback.Status]
	jobs      known[*screen.Job]
}

func newFeed(c *caller) *feed {
	return &feed{
		c: c, news: make(chan struct{}, 1), anew: watchTime, patience: toldTime, daemon: screen.Daemon{Where: c.where, Reading: true},
		failbacks: known[*failback.Status]{all: map[string]*failback.Status{}, revision: func(s *failback.Status) uint64 { return s.Revision }},
		jobs:      known[*screen.Job]{all: map[string]*screen.Job{}, revision: func(j *screen.Job) uint64 { return j.Revision }},
	}
}

// with changes the board as the daemon has told.
func (f *feed) with(change func()) {
	f.mu.Lock()
	f.heard = time.Now()
	change()
	f.mu.Unlock()
	f.tidings()
}

// tidings wakes who shows the board.
func (f *feed) tidings() {
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// board is what is known now.
func (f *feed) board() screen.Board {
	f.mu.Lock()
	defer f.mu.Unlock()
	return screen.Board{
		Daemon: f.daemon, Failbacks: slices.Collect(maps.Values(f.failbacks.all)), Jobs: slices.Collect(maps.Values(f.jobs.all)),
	}
}

// Times of a feed. A daemon whose machine is gone, or that hangs, says nothing:
// asking it is how that is found out.
const (
	infoEvery = 2 * time.Second
	infoTime  = 3 * time.Second
	firstWait = 500 * time.Millisecond // before the first try after a loss; doubled up to lastWait
	lastWait  = 5 * time.Second
	watchTime = 10 * time.Minute
	toldTime  = 30 * time.Second // without a word, before all that there is was told
)

// info asks what the daemon is.
func (f *feed) info(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	r, err := f.c.daemon.GetInfo(ctx, &controlv1.GetInfoRequest{})
	if err != nil {
		return err
	}
	f.with(func() {
		d := &f.daemon
		d.Version, d.Site, d.Started, d.Draining = r.Version, r.SiteId, jobpb.ToTime(r.Started), r.Draining
		d.Controller = slices.Contains(r.Features, "failbacks")
		d.Open, d.Sessions, d.AtOnce = int(r.Jobs), int(r.Sessions), int(r.GetCapacity().GetRunningDisks())
	})
	return nil
}

// run follows the daemon until ctx is done, and comes back to it when it was away.
func (f *feed) run(ctx context.Context) {
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, lastWait) {
		err := f.connected(ctx, func() {
			wait = firstWait
			f.with(func() { f.daemon.Lost, f.daemon.Reading = nil, false })
		})
		if c, ok := errors.AsType[*crash](err); ok {
			panic(c)
		}
		if ctx.Err() != nil {
			return
		}
		f.lost(f.c.explain(ctx, err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// lost says so, and takes the numbers back that were true of a moment. It began
// when the daemon was heard last, which is before somebody noticed.
func (f *feed) lost(err error) {
	f.mu.Lock()
	since := f.heard
	if f.daemon.Lost != nil { // it may answer, and not tell
		since = f.daemon.Lost.Since
	}
	f.daemon.Lost = &screen.Lost{Since: since, Why: err.Error()}
	for id, s := range f.failbacks.all {
		f.failbacks.all[id] = screen.Resting(s)
	}
	f.rateless()
	f.mu.Unlock()
	f.tidings()
}

// rateless forgets how fast the jobs are. It is called with mu held.
func (f *feed) rateless() {
	for id, j := range f.jobs.all {
		c := *j
		c.Rates = nil
		f.jobs.all[id] = &c
	}
}

// connected follows the daemon until something of it fails, and calls told once
// all is told that was when it began. The error is never nil.
func (f *feed) connected(ctx context.Context, told func()) error {
	if err := f.info(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	parts := []func(context.Context, func(bool)) error{f.watchJobs}
	if f.board().Daemon.Controller {
		parts = append(parts, f.watchFailbacks)
	} else {
		f.with(func() { clear(f.failbacks.all) }) // it was one
	}
	synced := make(chan struct{}, len(parts))
	for _, watch := range parts {
		g.Go(func() error {
			return f.watched(ctx, watch, sync.OnceFunc(func() { synced <- struct{}{} }))
		})
	}
	g.Go(func() error {
		for range parts {
			select {
			case <-synced:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		told()
		return nil
	})
	g.Go(func() error {
		tick := time.NewTicker(infoEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := f.info(ctx); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// errSilent is a watch that did not tell what there is.
var errSilent = errors.New("it answers, and does not say what it does")

// watched is watch, begun anew every now and then: what has ended long ago goes, and
// a watch that hangs is found out.
func (f *feed) watched(ctx context.Context, watch func(context.Context, func(all bool)) error, synced func()) error {
	over := errors.New("the watch is begun anew")
	for {
		once, cancel := context.WithCancelCause(ctx) // no deadline: the daemon would be told of it
		hangs := time.AfterFunc(f.patience, func() { cancel(errSilent) })
		renew := time.AfterFunc(f.anew, func() { cancel(over) })
		done := false
		err := caught(func() error {
			return watch(once, func(all bool) {
				switch {
				case all:
					done = true
					hangs.Stop()
					synced()
				case !done:
					hangs.Reset(f.patience)
				}
			})
		})
		cause := context.Cause(once)
		hangs.Stop()
		renew.Stop()
		cancel(nil)
		switch _, crashed := errors.AsType[*crash](err); {
		case crashed || ctx.Err() != nil || cause == nil:
			return err
		case !errors.Is(cause, over):
			return cause
		}
	}
}

// crash is a panic on its way to a goroutine that can put the terminal back first.
type crash struct {
	value any
	stack []byte
}

func (c *crash) Error() string { return fmt.Sprintf("%v\n\n%s", c.value, c.stack) }

func caught(work func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *crash:
			err = r
		default:
			err = &crash{r, debug.Stack()}
		}
	}()
	return work()
}

// watchJobs follows the jobs. It calls told at each word, and says when what was is
// told.
func (f *feed) watchJobs(ctx context.Context, told func(all bool)) error {
	stream, err := f.c.jobs.Watch(ctx, &controlv1.WatchRequest{})
	if err != nil {
		return err
	}
	defer stream.Close()
	f.with(func() {
		f.jobs.begin()
		f.rateless() // the first rate of a watch is none
	})
	return follow(stream, func(m *controlv1.WatchResponse) error {
		if err := f.jobEvent(m); err != nil {
			return err
		}
		if _, ok := m.Event.(*controlv1.WatchResponse_Synced); ok {
			f.with(f.jobs.end)
			told(true)
			return nil
		}
		told(false)
		return nil
	})
}

// maxNotes is how many of the last remarks of a job are kept.
const maxNotes = 5

func (f *feed) jobEvent(m *controlv1.WatchResponse) error {
	switch e := m.Event.(type) {
	case *controlv1.WatchResponse_Job:
		j, err := jobpb.ToJob(e.Job)
		if err != nil {
			return err
		}
		f.heardJob(j)
	case *controlv1.WatchResponse_Removed:
		f.with(func() { delete(f.jobs.all, e.Removed.Id) })
	case *controlv1.WatchResponse_Progress:
		f.change(e.Progress.Id, func(j *screen.Job) { progressed(j, e.Progress) })
	case *controlv1.WatchResponse_Notice:
		f.change(e.Notice.Id, func(j *screen.Job) {
			text := jobpb.ToTime(m.Time).Local().Format("15:04:05 ") + e.Notice.Text
			if e.Notice.Disk != "" {
				text = jobpb.ToTime(m.Time).Local().Format("15:04:05 ") + e.Notice.Disk + ": " + e.Notice.Text
			}
			j.Notes = append(slices.Clone(j.Notes), text)
			j.Notes = j.Notes[max(len(j.Notes)-maxNotes, 0):]
		})
	case *controlv1.WatchResponse_Reset_:
		f.with(f.jobs.begin)
	}
	return nil
}

// heardJob is tookJob of what a watch tells.
func (f *feed) heardJob(j *job.Job) {
	f.with(func() {
		f.jobs.hear(j.ID, j.Revision)
		f.keepJobLocked(j)
	})
}

// tookJob keeps a job as it is now.
func (f *feed) tookJob(j *job.Job) { f.with(func() { f.keepJobLocked(j) }) }

func (f *feed) keepJobLocked(j *job.Job) {
	switch {
	case f.jobs.newer(j.ID, j.Revision): // told late
		return
	case j.Phase.Ended() && time.Since(j.Ended) > screen.Lately:
		delete(f.jobs.all, j.ID)
		return
	}
	next := &screen.Job{Job: *j}
	if old := f.jobs.all[j.ID]; old != nil {
		next.Notes = old.Notes
		if j.Phase == job.InProgress {
			next.Rates = old.Rates
		}
	}
	f.jobs.all[j.ID] = next
}

// change replaces a job by a copy that is changed.
func (f *feed) change(id string, change func(*screen.Job)) {
	f.with(func() {
		old := f.jobs.all[id]
		if old == nil {
			return
		}
		next := *old
		change(&next)
		f.jobs.all[id] = &next
	})
}

func progressed(j *screen.Job, p *controlv1.Progress) {
	before := j.Rates
	j.Disks = slices.Clone(j.Disks)
	j.Rates = make(map[string]screen.Rate, len(p.Disks))
	for _, d := range p.Disks {
		j.Rates[d.Name] = screen.Rate{Scan: screen.Unknown, Wire: screen.Unknown}
		if _, again := before[d.Name]; again { // a rate takes two looks: the first one is told as 0
			j.Rates[d.Name] = screen.Rate{Scan: d.ScanRateBytes, Wire: d.WireRateBytes, Left: d.Remaining.AsDuration()}
		}
		for i := range j.Disks {
			if j.Disks[i].Name == d.Name {
				j.Disks[i].Outcome.Counters = jobpb.ToCounters(d.Counters)
			}
		}
	}
}

// watchFailbacks is watchJobs for failbacks.
func (f *feed) watchFailbacks(ctx context.Context, told func(all bool)) error {
	stream, err := f.c.failbacks.Watch(ctx, &controlv1.WatchFailbacksRequest{})
	if err != nil {
		return err
	}
	defer stream.Close()
	f.with(f.failbacks.begin)
	return follow(stream, func(m *controlv1.WatchFailbacksResponse) error {
		var body *controlv1.Failback
		switch e := m.Event.(type) {
		case *controlv1.WatchFailbacksResponse_Failback:
			body = e.Failback
		case *controlv1.WatchFailbacksResponse_Progress:
			body = e.Progress
		case *controlv1.WatchFailbacksResponse_Reset_:
			f.with(f.failbacks.begin)
		case *controlv1.WatchFailbacksResponse_Synced:
			f.with(f.failbacks.end)
			told(true)
		}
		told(false)
		if body == nil {
			return nil
		}
		s, err := failbackpb.ToStatus(body)
		if err == nil {
			f.heardFailback(s)
		}
		return err
	})
}

// heardFailback is heardJob for failbacks.
func (f *feed) heardFailback(s *failback.Status) {
	f.with(func() {
		f.failbacks.hear(s.ID, s.Revision)
		f.keepFailbackLocked(s)
	})
}

// tookFailback keeps a failback as it is now.
func (f *feed) tookFailback(s *failback.Status) { f.with(func() { f.keepFailbackLocked(s) }) }

func (f *feed) keepFailbackLocked(s *failback.Status) {
	switch {
	case f.failbacks.newer(s.ID, s.Revision): // told late
	case screen.Ended(s) && time.Since(s.Ended) > screen.Lately:
		delete(f.failbacks.all, s.ID)
	default:
		f.failbacks.all[s.ID] = s
	}
}

// once is the board of a daemon at one moment.
func (f *feed) once(ctx context.Context) (screen.Board, error) {
	err := f.c.call(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		told := false
		err := f.connected(ctx, func() {
			told = true
			f.counted(ctx)
			cancel()
		})
		if told {
			return nil
		}
		return err
	})
	return f.board(), err
}

// firstCounters is how long a job that runs may take to tell how far it is; it
// does so every second.
const firstCounters = 1500 * time.Millisecond

// counted waits for the counters of the jobs that run, not for long.
func (f *feed) counted(ctx context.Context) {
	late := time.After(firstCounters)
	for {
		waits := false
		for _, j := range f.board().Jobs {
			waits = waits || j.Phase == job.InProgress && j.Rates == nil
		}
		if !waits {
			return
		}
		select {
		case <-f.news:
		case <-late:
			return
		case <-ctx.Done():
			return
		}
	}
}
