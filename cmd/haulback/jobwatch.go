package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// awayPause is between two tries to reach a daemon that has gone.
const awayPause = time.Second

// watcher tells one job as copy tells of itself.
type watcher struct {
	out      report.Output
	id       string
	after    uint64 // the last revision that was seen
	job      *job.Job
	started  map[string]bool
	ended    map[string]bool
	counters map[string]job.Counters
	paused   bool
}

// watchJob tells a job until it ends. It goes on by revision when the daemon
// was away, for as long as that takes.
func watchJob(ctx context.Context, g *global, c *caller, id string) error {
	w := &watcher{out: g.output(), id: id, started: map[string]bool{}, ended: map[string]bool{}, counters: map[string]job.Counters{}}
	defer w.out.Close()
	err := c.call(ctx, func(ctx context.Context) error { // whether it is there at all
		_, err := c.jobs.Get(ctx, &controlv1.GetRequest{Id: id})
		return err
	})
	if err != nil {
		return err
	}
	for gone := false; ; {
		ended, err := w.follow(ctx, c, func() {
			if gone {
				w.out.Remark(report.Event, "the daemon is back")
			}
			gone = false
		})
		switch {
		case ended:
			return w.verdict()
		case ctx.Err() != nil:
			return fmt.Errorf("%w; the job goes on, haulback job cancel %s stops it", context.Cause(ctx), id)
		case err != nil && !away(err):
			return c.explain(ctx, err)
		}
		if !gone {
			gone = true
			w.out.Remark(report.Event, fmt.Sprintf("the daemon at %s is away; waiting for it, the job goes on when it is back", c.where))
		}
		select {
		case <-time.After(awayPause):
		case <-ctx.Done():
		}
	}
}

// follow reads events until the job has ended or the stream has.
func (w *watcher) follow(ctx context.Context, c *caller, back func()) (ended bool, err error) {
	stream, err := c.jobs.Watch(ctx, &controlv1.WatchRequest{AfterRevision: w.after, JobId: w.id})
	if err != nil {
		return false, err
	}
	defer stream.Close()
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		back()
		if ended, err = w.event(m); ended || err != nil {
			return ended, err
		}
		w.after = max(w.after, m.Revision)
	}
}

// event tells one event.
func (w *watcher) event(m *controlv1.WatchResponse) (ended bool, err error) {
	switch e := m.Event.(type) {
	case *controlv1.WatchResponse_Job:
		j, err := jobpb.ToJob(e.Job)
		if err != nil {
			return false, err
		}
		w.job = j
		w.disks()
		return j.Phase.Ended(), nil
	case *controlv1.WatchResponse_Progress:
		for _, d := range e.Progress.Disks {
			w.counters[d.Name] = jobpb.ToCounters(d.Counters)
		}
		w.out.Status(w.sum(), "")
	case *controlv1.WatchResponse_Notice:
		kind := report.Event
		if e.Notice.Warning {
			kind = report.Warning
		}
		w.out.Remark(kind, w.of(e.Notice.Disk)+e.Notice.Text)
	case *controlv1.WatchResponse_Reset_:
		w.after = 0
	case *controlv1.WatchResponse_Removed:
		return false, &exitcode.Said{Code: exitcode.Failed, Text: "job " + w.id + " was removed"}
	}
	return false, nil
}

// of names a disk where there are several.
func (w *watcher) of(disk string) string {
	if disk == "" || w.job != nil && len(w.job.Disks) < 2 {
		return ""
	}
	return disk + ": "
}

// disks tells what is new with each disk.
func (w *watcher) disks() {
	if paused := w.job.Phase == job.Paused; paused != w.paused {
		if w.paused = paused; paused {
			w.out.Remark(report.Event, "the job is paused; haulback job resume "+w.id+" goes on")
		}
	}
	for i := range w.job.Disks {
		d := &w.job.Disks[i]
		w.counters[d.Name] = d.Outcome.Counters
		if d.Starts > 0 && !w.started[d.Name] {
			w.started[d.Name] = true
			w.out.Started(w.start(i))
		}
		if !d.Phase.Ended() {
			w.ended[d.Name] = false // it was resumed
			continue
		}
		if w.ended[d.Name] {
			continue
		}
		w.ended[d.Name] = true
		if d.Failure != nil && w.of(d.Name) != "" {
			w.out.Remark(report.Warning, w.of(d.Name)+d.Failure.Text)
		}
		if o := &d.Outcome; o.Epoch > 0 || o.Counters.Scanned > 0 {
			w.out.Summary(report.Result{
				Start: w.start(i), Report: reportOf(d), Verify: w.job.Spec.Mode == job.Verify,
				Phases: []report.Phase{{Name: "job", Dur: d.Ended.Sub(d.Started)}},
			})
		}
	}
}

func (w *watcher) start(i int) report.Start {
	spec, d := &w.job.Spec, &w.job.Disks[i]
	mode := string(spec.Mode)
	if spec.Full && spec.Mode == job.Copy {
		mode = "copy, then read everything again"
	}
	out := report.Start{Mode: mode, Run: d.Run, Source: spec.Disks[i].Source, Target: spec.Disks[i].Target, Tracking: spec.Disks[i].Tracking}
	if strings.HasPrefix(out.Source, "haulback:") || strings.HasPrefix(out.Target, "haulback:") {
		out.Transport = spec.Transport
	}
	return out
}

// sum is all disks together.
func (w *watcher) sum() (c wire.Counters) {
	for _, d := range w.counters {
		one := countersOf(&d)
		c.Total += one.Total
		c.Scanned += one.Scanned
		c.Holes += one.Holes
		c.Same += one.Same
		c.Zero += one.Zero
		c.Differing += one.Differing
		c.Sent += one.Sent
		c.Wire += one.Wire
		c.Durable += one.Durable
		c.Verified += one.Verified
		c.ReadBack += one.ReadBack
		c.Had += one.Had
		c.Bad += one.Bad
		c.Redone += one.Redone
		c.Lost += one.Lost
		c.Reconnects += one.Reconnects
		c.Skipped += one.Skipped
		c.Sampled += one.Sampled
	}
	return c
}

// verdict is the error of a job that has ended.
func (w *watcher) verdict() error {
	f := w.job.Failure
	switch {
	case w.job.Phase == job.Completed:
		return nil
	case f == nil: // a daemon of another version
		return &exitcode.Said{Code: exitcode.Failed, Text: "job " + w.id + " is " + w.job.Phase.String()}
	case w.job.Phase == job.Canceled:
		return &exitcode.Said{Code: exitcode.Canceled, Text: "job " + w.id + " was canceled"}
	}
	code := exitcode.Code(f.Exit)
	if code == exitcode.Done {
		code = exitcode.Failed
	}
	return &exitcode.Said{Code: code, Text: "job " + w.id + ": " + f.Reason + ": " + f.Text}
}

func countersOf(c *job.Counters) wire.Counters {
	return wire.Counters{
		Total: c.Total, Scanned: c.Scanned, Holes: c.Holes, Same: c.Same, Zero: c.Zero, Differing: c.Differing,
		Sent: c.Sent, Wire: c.Wire, Durable: c.Durable, Verified: c.Verified, ReadBack: c.ReadBack, Had: c.Had,
		Bad: c.BadGrains, Redone: c.RedoneGrains, Lost: c.LostGrains, Reconnects: c.Reconnects, Skipped: c.Skipped, Sampled: c.Sampled,
	}
}

// reportOf is an outcome in the words of a run. Whether it is a success is the
// daemon's word, which the outcome has.
func reportOf(d *job.DiskStatus) mover.Report {
	o := &d.Outcome
	r := mover.Report{
		Equal: o.Equal, Epoch: o.Epoch, Root: o.Root, Counters: countersOf(&o.Counters), Hinted: o.ActualTracking == "hint", Reason: o.TrackingReason,
		Transport: o.ActualTransport, Why: o.TransportReason, Conns: o.Connections, Control: o.Congestion, Cold: o.Cold, Source: o.SourceIdentity, Target: o.TargetIdentity, Larger: o.Larger,
	}
	for s := wire.StateClean; s <= wire.StatePoisoned; s++ {
		if s.String() == o.State && (o.Verified || s != wire.StateVerified) {
			r.State = s
		}
	}
	for _, e := range o.Bad {
		r.Bad = append(r.Bad, mover.BadRun{Off: e.Off, Len: e.Len, Unreadable: e.Unreadable})
	}
	return r
}
