package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/control"
	"github.com/haulback/haulback/cmd/internal/jobs"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store/bolt"
)

// jobsFile is the store of the jobs in the state directory.
const jobsFile = "jobs.db"

// work is what serves backup servers: the job engine and the control API.
type work struct {
	store   *bolt.DB
	engine  *job.Engine
	control *control.Server // nil: neither a socket nor a port
	disks   atomic.Pointer[jobs.Disks]
	log     *slog.Logger
	ended   chan struct{} // closed when the engine's Run has returned
	drained atomic.Bool
}

// openWork opens the job store and listens for callers. A store that cannot be
// used keeps the daemon from starting: without it jobs would silently not run,
// and a job that is submitted anew under its ID would be another one.
func (d *Daemon) openWork(ctx context.Context) (err error) {
	w := &d.work
	w.log, w.ended = d.log, make(chan struct{})
	if w.store, err = bolt.Open(bolt.Config{Path: filepath.Join(d.cfg.Site.Dir(), jobsFile)}); err != nil {
		return err
	}
	runner := &jobs.Runner{Engine: d.engine, Reach: reach{d}, Disks: w.disks.Load, Log: d.log}
	if w.engine, err = job.Open(ctx, job.Config{
		Store: w.store, Queue: w.store, Lease: w.store, Transfer: runner.Transfer, Hosts: jobs.Hosts, Log: d.log,
		MaxDisks: d.cfg.Jobs.Disks, MaxPerHost: d.cfg.Jobs.PerHost, KeepEnded: d.cfg.Jobs.Keep,
	}); err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	if d.cfg.Control.Socket == "" && d.cfg.Control.Listen == "" {
		return nil
	}
	look := &looker{d: d, disks: w.disks.Load}
	api := control.Config{
		Access: access(&d.cfg.Control), Socket: d.cfg.Control.Socket, Passed: d.passed.control, Listen: d.cfg.Control.Listen,
		Jobs: &checkedJobs{Engine: w.engine, disks: w.disks.Load}, Daemon: adm{d}, Endpoint: look, Extents: look,
		Log: d.log, Audit: d.recordCall, GracePeriod: drainTime / 2, Metrics: d.meters.handler,
	}
	d.home.serve(&api, &w.drained)
	if w.control, err = control.Listen(ctx, api); err != nil {
		return exitcode.Port(err)
	}
	return nil
}

// access is who may call.
func access(c *config.Control) control.Access {
	a := control.Access{Group: c.Group, TLS: control.TLS{Cert: c.Cert, Key: c.Key, CA: c.CA}}
	for _, name := range c.Admins {
		a.TLS.Allow = append(a.TLS.Allow, control.Caller{Name: name, Role: control.Admin})
	}
	for _, name := range c.Viewers {
		a.TLS.Allow = append(a.TLS.Allow, control.Caller{Name: name, Role: control.Viewer})
	}
	return a
}

// recordCall records what callers change, and who was refused.
func (d *Daemon) recordCall(ctx context.Context, e control.Entry) {
	out := audit.Entry{Actor: e.Caller, Action: "control." + path.Base(e.Method), Object: e.Object, Outcome: "ok", Details: map[string]string{"call": e.Method}}
	if e.From != "" {
		out.Details["addr"] = e.From
	}
	if e.Missed > 0 {
		out.Details["missed"] = strconv.Itoa(e.Missed)
	}
	if e.Code != "ok" {
		out.Outcome, out.Details["reason"], out.Details["err"] = "failed", e.Reason, e.Text
	}
	if e.Reason == job.ReasonAuth {
		out.Outcome = "refused"
		d.record.refused(ctx, out)
		return
	}
	d.record.note(ctx, out)
}

// controlAddrs are where callers come in, for the log.
func (d *Daemon) controlAddrs() []string {
	list := []string{}
	if d.work.control != nil {
		for _, a := range d.work.control.Addrs() {
			list = append(list, a.String())
		}
	}
	return list
}

// run lets the jobs run and answers callers until ctx is done. An engine that
// may not go on ends the daemon: somebody else has its store, or it is gone.
func (w *work) run(ctx context.Context) error {
	failed := make(chan error, 1) // 1: nobody may be there to hear it
	go func() {
		defer close(w.ended)
		failed <- w.engine.Run(ctx)
	}()
	served := make(chan error, 1)
	if w.control != nil {
		go func() { served <- w.control.Serve(ctx) }()
	} else {
		served <- nil
	}
	for {
		select {
		case err := <-failed:
			if err != nil {
				return fmt.Errorf("jobs: %w", err)
			}
			failed = nil // drained by a caller, who may still look
		case err := <-served:
			if err != nil || ctx.Err() != nil {
				return err
			}
			served = nil
		case <-ctx.Done():
			if served != nil {
				return <-served // within its grace period
			}
			return nil
		}
	}
}

// close releases what was opened; the engine's Run has returned, or never began.
func (w *work) close() (err error) {
	if w.control != nil {
		err = w.control.Close()
	}
	if w.engine != nil {
		err = errors.Join(err, w.engine.Close())
	}
	if w.store != nil {
		err = errors.Join(err, w.store.Close())
	}
	return err
}

// use takes over what a configuration says about the disks of jobs.
func (w *work) use(cfg *config.Config) {
	w.disks.Store(&jobs.Disks{Exports: cfg.Exports, Allow: cfg.Jobs.Allow})
}

// countTime bounds how long a status may wait for the job store.
const countTime = 2 * time.Second

// counts are the jobs that have not ended, and their disks that run.
func (w *work) counts(ctx context.Context) (open, waiting, running int) {
	open, waiting, running, _ = w.progress(ctx)
	return open, waiting, running
}

// progress is counts, and how far those disks are.
func (w *work) progress(ctx context.Context) (open, waiting, running int, sum job.Counters) {
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	_ = w.open(ctx, func(j *job.Job) { // what it did not come to is left out
		open++
		if j.Phase == job.New || j.Phase == job.Accepted {
			waiting++
		}
		for _, d := range j.Disks {
			if moves(d.Phase) {
				running++
				sum.Total += d.Outcome.Counters.Total
				sum.Scanned += d.Outcome.Counters.Scanned
			}
		}
	})
	return open, waiting, running, sum
}

// open calls each with every job that has not ended.
func (w *work) open(ctx context.Context, each func(j *job.Job)) error {
	f := job.Filter{Phases: []job.Phase{job.New, job.Accepted, job.Prepared, job.InProgress, job.Canceling, job.Paused}}
	for page := (job.Page{Size: 1000}); ; {
		list, next, err := w.engine.List(ctx, f, page)
		if err != nil {
			return err
		}
		for i := range list {
			each(&list[i])
		}
		if page.Token = next; next == "" {
			return nil
		}
	}
}

// moves reports whether a disk in phase p has a slot.
func moves(p job.Phase) bool {
	return p == job.Prepared || p == job.InProgress || p == job.Canceling
}

// checkedJobs refuses a job at once when its names show that it cannot run. One
// that is there already is not looked at again: it is what it was.
type checkedJobs struct {
	*job.Engine
	disks func() *jobs.Disks
}

// Submit implements control.Jobs.
func (c *checkedJobs) Submit(ctx context.Context, id, owner string, s job.Spec, tickets map[string][]byte) (job.Job, bool, error) {
	if err := job.Validate(s); err != nil {
		return job.Job{}, false, err
	}
	if _, err := c.Get(ctx, id); err != nil {
		if f, ok := errors.AsType[*job.Failure](err); ok && f.Reason == job.ReasonNotFound {
			if err := c.disks().Check(&s); err != nil {
				return job.Job{}, false, err
			}
		}
	}
	return c.Engine.Submit(ctx, id, owner, s, tickets)
}
