package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/control"
	"github.com/haulback/haulback/cmd/internal/extents"
	"github.com/haulback/haulback/cmd/internal/jobs"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// looker is control.Endpoint and control.Extents: it looks at one disk and
// changes nothing. Disks are named, and allowed, as in jobs.
type looker struct {
	d     *Daemon
	disks func() *jobs.Disks
}

// endpoint finds what a caller names.
func (l *looker) endpoint(text string) (*transfer.Endpoint, error) {
	uri, err := l.disks().Resolve(text)
	if err != nil {
		return nil, err
	}
	return transfer.ParseEndpoint(uri)
}

// fail classes what went wrong; nil stays nil.
func fail(err error) error {
	if f := jobs.Classify(err); f != nil {
		return f
	}
	return nil
}

func transport(name string) string {
	if name == "" {
		return site.Auto
	}
	return name
}

// Probe implements control.Endpoint.
func (l *looker) Probe(ctx context.Context, req *controlv1.ProbeRequest) (*controlv1.ProbeResponse, error) {
	e, err := l.endpoint(req.Uri)
	if err != nil {
		return nil, fail(err)
	}
	p, err := transfer.Probe(ctx, l.d.engine, l.d.journal, reach{l.d}, e, transport(req.Transport))
	if err != nil {
		return nil, fail(err)
	}
	return probeResponse(req.Uri, p), nil
}

func probeResponse(uri string, p *transfer.Probed) *controlv1.ProbeResponse {
	r := &controlv1.ProbeResponse{
		Uri: uri, Kind: p.Kind, SizeBytes: p.Size, Identity: p.Identity, MinimumBlockBytes: p.SectorSize, PreferredBlockBytes: cbt.BatchSize,
		KnowsHoles: p.Holes, ColdReads: p.Cold, Transport: p.Transport, Detail: p.Detail, Use: p.Use,
	}
	if p.Holes != nil && *p.Holes {
		r.ExtentsSource = p.Kind
	}
	for _, b := range p.Tracking {
		r.Tracking = append(r.Tracking, "bitmap:"+strings.TrimPrefix(b, "bitmap:"))
	}
	if p.Warning != "" {
		r.Warnings = []string{report.OneLine(p.Warning)}
	}
	switch p.Role {
	case "source":
		r.Role = controlv1.Role_ROLE_SOURCE
	case "target":
		r.Role = controlv1.Role_ROLE_TARGET
	}
	if p.State != "" || p.Reason != "" {
		r.Target = &controlv1.TargetState{
			State: p.State, Run: p.Run, Pass: int32(p.Pass), Epoch: p.Epoch, DurableBytes: p.Durable, Root: p.Root,
			SkippedGrains: p.Skipped, SampledGrains: p.Sampled, Reason: p.Reason,
		}
	}
	return r
}

// open opens a disk that this daemon can open, to read it.
func (l *looker) open(ctx context.Context, text, track string) (vddk.Disk, error) {
	e, err := l.endpoint(text)
	if err != nil {
		return nil, err
	}
	if e.Remote() {
		return nil, &job.Failure{
			Reason: job.ReasonInvalid, Retry: job.RetryNever, Exit: 10,
			Text: fmt.Sprintf("%s: this daemon would have to move all of the disk to read it; ask the daemon that has the export", text),
		}
	}
	disk, err := vddk.Open(ctx, e.Text, vddk.Options{Track: track, Log: l.d.log})
	if err != nil {
		return nil, fmt.Errorf("open %w", err)
	}
	return disk, nil
}

// Checksum implements control.Endpoint.
func (l *looker) Checksum(ctx context.Context, req *controlv1.ChecksumRequest, progress func(read, total int64)) (*controlv1.ChecksumResult, error) {
	disk, err := l.open(ctx, req.Uri, "")
	if err != nil {
		return nil, fail(err)
	}
	defer disk.Close() // only read
	s, err := newSummer(disk, req, progress)
	if err != nil {
		return nil, fail(err)
	}
	out, err := s.run(ctx)
	return out, fail(err)
}

// Allocated implements control.Extents.
func (l *looker) Allocated(ctx context.Context, req *controlv1.AllocatedRequest, head func(control.ExtentHead) error, each func(cbt.Extent) error) error {
	disk, err := l.open(ctx, req.Uri, "")
	if err != nil {
		return fail(err)
	}
	defer disk.Close() // only read
	if err := head(control.ExtentHead{Size: disk.Size()}); err != nil || req.StartingOffset >= disk.Size() {
		return err
	}
	for e, err := range extents.Allocated(ctx, disk, req.StartingOffset) {
		if err != nil {
			return fail(err)
		}
		if e.Kind != extents.Data {
			continue
		}
		if err := each(cbt.Extent{Off: e.Off, Len: e.Len}); err != nil {
			return err
		}
	}
	return nil
}

// Changed implements control.Extents. The base is a point of change tracking, or
// another disk.
func (l *looker) Changed(ctx context.Context, req *controlv1.ChangedRequest, head func(control.ExtentHead) error, each func(cbt.Extent) error) error {
	track, isTrack, err := l.disks().Track(req.Base, req.Target)
	switch {
	case err != nil:
		return fail(err)
	case !isTrack:
		return l.compared(ctx, req, head, each)
	}
	disk, err := l.open(ctx, req.Target, track)
	if err != nil {
		return fail(err)
	}
	defer disk.Close() // only read
	t, ok := disk.(extents.Tracker)
	if !ok {
		return untrusted(errors.New("the disk has no change tracking"))
	}
	a, err := extents.Changed(ctx, t, disk.Size())
	if errors.Is(err, extents.ErrUntrusted) {
		return untrusted(err)
	}
	if err != nil {
		return fail(err)
	}
	if err := head(control.ExtentHead{Size: disk.Size(), Tracking: a.Provider, Trust: a.Trust.String()}); err != nil {
		return err
	}
	for e := range a.From(req.StartingOffset) {
		if err := each(cbt.Extent{Off: e.Off, Len: e.Len}); err != nil {
			return err
		}
	}
	return nil
}

func untrusted(err error) error {
	return &job.Failure{Reason: job.ReasonCBT, Text: report.OneLine(err.Error()) + "; take all of the disk", Retry: job.RetryAfterReconcile, Exit: 14}
}

// compared reads both disks and lists where they differ.
func (l *looker) compared(ctx context.Context, req *controlv1.ChangedRequest, head func(control.ExtentHead) error, each func(cbt.Extent) error) error {
	base, err := l.endpoint(req.Base)
	if err != nil {
		return fail(err)
	}
	target, err := l.endpoint(req.Target)
	if err != nil {
		return fail(err)
	}
	run, err := uuid.NewV7()
	if err != nil {
		return err
	}
	t, err := transfer.New(transfer.Spec{
		Mode: wire.ModeVerify, Source: target.Text, Target: base.Text, Run: wire.RunID(run), Transport: transport(req.Transport), Retry: time.Minute,
	})
	if err == nil {
		err = t.Pin(reach{l.d})
	}
	if err != nil {
		return fail(err)
	}
	p, err := transfer.Probe(ctx, l.d.engine, l.d.journal, reach{l.d}, target, transport(req.Transport))
	if err != nil {
		return fail(err)
	}
	if err := head(control.ExtentHead{Size: p.Size, Fixed: false, Tracking: "compare", Trust: "exact"}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.Different = func(r mover.BadRun) {
		if err := each(cbt.Extent{Off: r.Off, Len: r.Len}); err != nil {
			cancel(err)
		}
	}
	rep, err := t.Run(ctx, l.d.engine, silent{}, time.Minute)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	we, ok := errors.AsType[*wire.Error](err)
	switch c := &rep.Counters; {
	case !ok || we.Code != wire.CodeVerify:
		return fail(err)
	case rep.Larger == 0 && c.Bad > 0 && c.Scanned == c.Total:
		return nil // they differ, and all of it was told: that is the answer
	}
	return &job.Failure{Reason: job.ReasonBase, Text: report.OneLine(err.Error()) + "; take all of the disk", Retry: job.RetryNever, Exit: 4}
}

// silent is report.Output that tells nobody.
type silent struct{}

func (silent) Started(report.Start)         {}
func (silent) Status(wire.Counters, string) {}
func (silent) Remark(report.Kind, string)   {}
func (silent) Summary(report.Result)        {}
func (silent) Close()                       {}
