package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// defaultRetry is how long a disk goes on without progress.
const defaultRetry = 5 * time.Minute

// defaultSample is the job engine's, and the mover's.
const defaultSample = 256

// statusEvery is how often counters are handed to the job engine; it decides
// who hears them.
const statusEvery = 500 * time.Millisecond

// Runner does disks of jobs. Safe for concurrent use.
type Runner struct {
	Engine *mover.Engine
	Reach  transfer.Reach
	Disks  func() *Disks // by the configuration of now
	Log    *slog.Logger

	shares Shares
}

// Transfer is a job.Transfer.
func (r *Runner) Transfer(ctx context.Context, task *job.Task) (job.Outcome, error) {
	log := r.Log.With("job", task.Job, "disk", task.Disk.Name, "run", task.Run)
	log.Info("disk begins", "source", task.Disk.Source, "target", task.Disk.Target)
	began := time.Now()
	rep, err := r.transfer(ctx, task)
	out := Outcome(&rep, err)
	if err != nil {
		f := Classify(err)
		log.Warn("disk ends without success", "dur", time.Since(began), "reason", f.Reason, "err", f.Text)
		return out, f
	}
	log.Info("disk done", "dur", time.Since(began), "verified", out.Counters.Verified, "sent", out.Counters.Sent)
	return out, nil
}

// errStopped is what a run is ended with; the job engine knows why.
var errStopped = wire.Errorf(wire.CodeCanceled, "stopped with its job")

func (r *Runner) transfer(parent context.Context, task *job.Task) (rep mover.Report, err error) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	defer cancel(nil)
	defer context.AfterFunc(parent, func() { cancel(errStopped) })()
	run, err := uuid.Parse(task.Run)
	if err != nil {
		return rep, fmt.Errorf("run %q: %w", task.Run, err)
	}
	spec, err := r.Disks().spec(task.Spec, task.Disk, wire.RunID(run))
	if err != nil {
		return rep, err
	}
	spec.SourceTicket = func(context.Context) ([]byte, error) { return task.Ticket(), nil }
	spec.TargetTicket = spec.SourceTicket // of two exports the one that wants a ticket
	th, drop, err := r.shares.Throttled(ctx, task.Job, task.Spec.Priority, task.Limits, task.Warning)
	if err != nil {
		return rep, err
	}
	defer drop()
	spec.Throttle = th
	t, err := transfer.New(spec)
	if err != nil {
		return rep, err
	}
	if err := t.Pin(r.Reach); err != nil {
		return rep, err
	}
	return t.Run(ctx, r.Engine, &sink{task: task}, statusEvery)
}
