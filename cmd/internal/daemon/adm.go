package daemon

import (
	"context"
	"runtime"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// features are stable words that callers test for; append only (docs/api.md).
var features = [...]string{
	"copy", "verify", "jobs", "jobs.pause", "jobs.limits", "jobs.watch", "endpoint.probe", "endpoint.checksum",
	"extents.allocated", "extents.changed", "exports.by-name",
}

// adm is the daemon as the control API sees it.
type adm struct{ d *Daemon }

// Info implements control.Daemon.
func (a adm) Info(ctx context.Context) (*controlv1.GetInfoResponse, error) {
	b, d := build.Current(), a.d
	open, _, _ := d.work.counts(ctx)
	limits := d.cfg.Limits.Engine().Effective()
	active, ended, disks, perHost := d.work.engine.Bounds()
	return &controlv1.GetInfoResponse{
		Version: b.Version, Revision: b.Revision, Modified: b.Modified, GoVersion: b.Go, Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Protocol: "haulback/1", SiteId: d.key.ID().String(), Features: a.features(), Hashes: []string{"blake3-256"}, Compressions: []string{"lz4"},
		Capacity: &controlv1.Capacity{
			MaxJobs: int32(active + ended), RunningDisks: int32(disks), RunningDisksPerHost: int32(perHost), MemoryBytes: limits.Memory, GrainBytes: cbt.GrainSize,
		},
		Draining: d.work.drained.Load(), Started: timestamppb.New(d.started), Jobs: int32(open), Sessions: int32(d.server.Sessions()),
	}, nil
}

// features are those of this daemon.
func (a adm) features() []string {
	list := slices.Clone(features[:])
	if a.d.home.engine != nil {
		list = append(list, "failbacks")
	}
	return list
}

// Drain implements control.Daemon.
func (a adm) Drain(ctx context.Context) (*controlv1.DrainResponse, error) {
	w := &a.d.work
	_, waiting, running := w.counts(ctx)
	if !w.drained.Swap(true) {
		w.log.Info("jobs are drained")
		go func() { // ends with the engine
			if err := w.engine.Drain(context.WithoutCancel(ctx)); err != nil {
				w.log.Warn("jobs did not drain", "err", err)
			}
		}()
	}
	return &controlv1.DrainResponse{RunningDisks: int32(running), WaitingJobs: int32(waiting)}, nil
}

// Reload implements control.Daemon.
func (a adm) Reload(ctx context.Context) ([]string, error) {
	warnings, err := a.d.reload(ctx)
	if err != nil {
		return nil, &job.Failure{Reason: job.ReasonInvalid, Text: report.OneLine(err.Error()), Retry: job.RetryNever, Exit: int(exitcode.Usage)}
	}
	return warnings, nil
}
