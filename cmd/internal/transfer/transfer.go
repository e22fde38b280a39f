package transfer

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// Reach is how this process gets to paired daemons. It is asked only when an
// endpoint is an export of one.
type Reach interface {
	// Self is the identity of this process.
	Self() (wire.ID, error)
	Peers() (site.Peers, error)
	// Dial makes a link to the peer id at address.
	Dial(ctx context.Context, transport, address string, id wire.ID) (wire.Link, error)
}

// Transfer is one copy or verify. Run it once.
type Transfer struct {
	Spec
	// Different, when set before Run, gets every range that differs, as
	// mover.Progress.Different does. Not of two exports.
	Different func(mover.BadRun)
	src, dst  *Endpoint

	reach        Reach
	srcID, dstID wire.ID // of the daemons, when they are exports
	engine       *mover.Engine
	out          report.Output
	every        time.Duration // between two statuses

	size     int64 // of the source, 0: not known
	create   int64 // bytes of the target file to make; 0: none
	phases   []report.Phase
	started  report.Start
	warnings []string // of the disks of this machine
}

// New checks everything that can be checked without opening a disk.
func New(spec Spec) (*Transfer, error) {
	t, err := parse(spec)
	if err != nil {
		return nil, err
	}
	return t, t.checkMissing()
}

// Check says what is wrong with spec itself, whatever is there or not. The error
// is a usage error.
func Check(spec Spec) error {
	_, err := parse(spec)
	return err
}

func parse(spec Spec) (*Transfer, error) {
	t := &Transfer{Spec: spec}
	if err := t.check(); err != nil {
		return nil, err
	}
	var err error
	if t.src, err = spec.SourcePlace.endpoint(spec.Source); err != nil {
		return nil, err
	}
	if t.dst, err = spec.TargetPlace.endpoint(spec.Target); err != nil {
		return nil, err
	}
	if sameDisk(t.src, t.dst) {
		return nil, usage("%s and %s are the same disk; name two different ones", t.src.Text, t.dst.Text)
	}
	switch {
	case t.want() == wire.TrackingOff, t.Hint != nil:
	case t.src.Remote() && t.driver() != "":
		return nil, usage("--cbt %s: the source's daemon opens the disk; write cbt = %q into its export %q there, and use --cbt export", t.Tracking, t.Tracking, t.src.Export)
	case t.src.Remote() && t.Sample != 0:
		return nil, usage("--sample: the source's daemon draws the sample; leave it out")
	case !t.src.Remote() && t.driver() == "":
		return nil, usage("--cbt export: the source %s is no export of a daemon; use bitmap:NAME or fiemap:PATH", t.src.Text)
	}
	return t, t.checkCreate()
}

// checkMissing says which disk of this machine is not there, and what helps.
func (t *Transfer) checkMissing() error {
	for _, e := range []*Endpoint{t.src, t.dst} {
		switch {
		case !e.Missing():
		case e == t.dst && t.Mode == wire.ModeCopy && t.Create && t.want() != wire.TrackingOff:
			return usage("target %s: there is no such file, so it cannot be what the source was when %s began; leave out --cbt to copy everything", e.Text, t.Tracking)
		case e == t.dst && t.Mode == wire.ModeCopy && t.Create:
		case e == t.dst && t.Mode == wire.ModeCopy && e.Disk.CanCreate():
			return usage("target %s: there is no such file; add --create to make it as large as the source", e.Text)
		default:
			return usage("%s: there is no such file or device; check the path", e.Text)
		}
	}
	return nil
}

// checkCreate says what cannot be made here.
func (t *Transfer) checkCreate() error {
	if t.Create && t.dst.Remote() {
		return usage("--create: makes files of this machine only; make the file of the export %q at its daemon", t.dst.Export)
	}
	if t.Create && !t.dst.Disk.CanCreate() {
		return usage("--create: makes raw files and VMDKs only; make %s where it lives, as large as the source", t.dst.Text)
	}
	return nil
}

// Pin finds the peers that have to be at the addresses.
func (t *Transfer) Pin(reach Reach) (err error) {
	t.reach = reach
	if t.srcID, err = t.src.Pin(reach); err != nil {
		return err
	}
	t.dstID, err = t.dst.Pin(reach)
	return err
}

// Run does it all on engine and tells out how it goes, a status every so often.
// The Report says how far it came, whatever the error is.
func (t *Transfer) Run(ctx context.Context, engine *mover.Engine, out report.Output, every time.Duration) (mover.Report, error) {
	t.engine, t.out, t.every = engine, out, every
	if err := t.preflight(ctx); err != nil {
		return mover.Report{}, err
	}
	t.started = report.Start{Tracking: t.asked(), Mode: t.modeText(), Run: uuid.UUID(t.Spec.Run).String(), Source: t.src.Text, Target: t.dst.Text}
	if t.src.Remote() || t.dst.Remote() {
		t.started.Transport = t.Transport
	}
	t.out.Started(t.started)
	for _, w := range t.warnings {
		t.out.Remark(report.Warning, w)
	}
	rep, err := t.pass(ctx, "pass", max(t.Spec.Pass, 1), false)
	if err == nil && t.Full {
		rep, err = t.again(ctx, rep)
	}
	if t.Different != nil {
		rep.Bad = nil // all of it was told
	}
	if rep.Epoch > 0 || rep.Counters.Scanned > 0 {
		t.out.Summary(report.Result{Start: t.started, Report: rep, Verify: t.Mode == wire.ModeVerify, Phases: t.phases})
	}
	return rep, t.explain(err)
}
