package failbacks

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/jobs"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// defaultRetry is how long a pass goes on without progress.
const defaultRetry = 5 * time.Minute

// statusEvery is how often counters are handed out.
const statusEvery = 500 * time.Millisecond

// Mover is a failback.Mover. Safe for concurrent use.
type Mover struct {
	Engine    *mover.Engine
	Reach     transfer.Reach
	Key       *wire.Key // of this daemon: it signs the tickets
	Hosts     func() map[string]Host
	Exports   func() []config.Export // of this daemon, by the configuration of now
	Transport string                 // "auto", "quic" or "tls"; empty: auto
	Retry     time.Duration          // how long a pass goes on without progress; 0: 5 min, negative: not at all
	Log       *slog.Logger
	// Here says why the endpoint of an OpenStorage profile does not attach volumes
	// to this machine. Needed where an export of this daemon has such a profile.
	Here func(ctx context.Context, profile string) error

	shares  jobs.Shares
	volumes volumes
}

func (m *Mover) transport() string {
	if m.Transport == "" {
		return site.Auto
	}
	return m.Transport
}

func (m *Mover) retry() time.Duration {
	if m.Retry == 0 {
		return defaultRetry
	}
	return max(m.Retry, 0)
}

// Move implements failback.Mover.
func (m *Mover) Move(ctx context.Context, mv *failback.Move) (job.Outcome, error) {
	log := m.Log.With("run", mv.Run, "pass", mv.Pass, "vm", mv.VM)
	log.Info("pass begins", "source", mv.Source.Disk.File, "target", mv.Target.Disk.File, "hint", mv.Hint != nil)
	began := time.Now()
	rep, err := m.move(ctx, mv)
	out := jobs.Outcome(&rep, err)
	if err != nil {
		f := jobs.Classify(err)
		log.Warn("pass ends without success", "dur", time.Since(began), "reason", f.Reason, "err", f.Text)
		return out, f
	}
	log.Info("pass done", "dur", time.Since(began), "verified", out.Counters.Verified, "skipped", out.Counters.Skipped, "sent", out.Counters.Sent)
	return out, nil
}

func (m *Mover) move(ctx context.Context, mv *failback.Move) (rep mover.Report, err error) {
	run, err := uuid.Parse(mv.Run)
	if err != nil || run == uuid.Nil || mv.Pass == 0 {
		return rep, &exitcode.UsageError{Err: fmt.Errorf("pass %d of run %q: the run is a UUID, and passes count from 1", mv.Pass, mv.Run)}
	}
	spec := transfer.Spec{
		Mode: wire.ModeCopy, Run: wire.RunID(run), Pass: mv.Pass, Full: mv.Full, Fence: mv.Fence, Unproved: mv.Unproved,
		Hint: mv.Hint, Sample: mv.Sample, GoOn: "continue the failback",
	}
	if spec.Hint != nil && volumeOf(&mv.Target) != "" {
		spec.Hint = nil
		(&sink{mv}).event("the hint is not used, everything is compared: the target is an OpenStorage volume, which anybody may attach between two passes without a trace")
	}
	if spec.Hint == nil {
		spec.Sample = 0
	} else if mv.Pass > 1 {
		spec.Base = mv.Pass - 1
	}
	return m.transfer(ctx, mv, &spec)
}

// errStopped is what a pass is ended with; the engine knows why.
var errStopped = wire.Errorf(wire.CodeCanceled, "stopped with its failback")

// transfer does what spec says with the disks of mv.
func (m *Mover) transfer(parent context.Context, mv *failback.Move, spec *transfer.Spec) (rep mover.Report, err error) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	defer cancel(nil)
	defer context.AfterFunc(parent, func() { cancel(errStopped) })()
	defer m.volumes.hold(volumeOf(&mv.Target))()
	out := &sink{mv}
	if err := m.open(ctx, mv, spec); err != nil {
		return rep, err
	}
	if mv.Limits != nil {
		th, drop, err := m.shares.Throttled(ctx, mv.VM, mv.Priority, mv.Limits, out.event)
		if err != nil {
			return rep, err
		}
		defer drop()
		spec.Throttle = th
	}
	t, err := transfer.New(*spec)
	if err != nil {
		return rep, err
	}
	if err := t.Pin(m.Reach); err != nil {
		return rep, err
	}
	return t.Run(ctx, m.Engine, out, statusEvery)
}

// open finds the two disks and what opens them.
func (m *Mover) open(ctx context.Context, mv *failback.Move, spec *transfer.Spec) error {
	src, err := m.place(&mv.Source)
	if err != nil {
		return err
	}
	dst, err := m.place(&mv.Target)
	if err != nil {
		return err
	}
	if spec.Mode == wire.ModeCopy && mv.Target.Snapshot != "" {
		return wrong(job.ReasonEndpoint, exitcode.Usage, "%s is a snapshot's disk and is never written", dst.Text)
	}
	self, err := m.Reach.Self()
	if err != nil {
		return err
	}
	a := &ask{run: spec.Run, pass: spec.Pass, epoch: mv.Fence, mode: spec.Mode, source: self, target: self}
	if !src.here {
		a.source = src.peer.ID
	}
	if !dst.here {
		a.target = dst.peer.ID
	}
	if spec.SourceTicket, err = m.ticketsFor(ctx, src, wire.TicketRead, a); err != nil {
		return err
	}
	if spec.TargetTicket, err = m.ticketsFor(ctx, dst, wire.TicketWrite, a); err != nil {
		return err
	}
	spec.SourcePlace, spec.TargetPlace = src.Place, dst.Place
	spec.Transport, spec.Retry = m.transport(), m.retry()
	return nil
}
