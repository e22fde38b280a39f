package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// transfer is one copy or verify of this command line.
type transfer struct {
	g     *global
	flags *flags
	settings
	mode     wire.Mode
	src, dst *endpoint

	engine   *mover.Engine
	journals *mover.StateRoot
	key      *wire.Key // nil when both disks are here
	srcID    wire.ID   // of the daemon, when src is an export
	dstID    wire.ID
	size     int64 // of the source, 0: not known
	create   int64 // bytes of the target file to make; 0: none
	out      report.Output
	phases   []report.Phase
	started  report.Start
	warnings []string // of the disks of this machine
}

// newTransfer checks everything that can be checked without touching a disk.
func newTransfer(g *global, f *flags, mode wire.Mode, src, dst string) (*transfer, error) {
	t := &transfer{g: g, flags: f, mode: mode}
	var err error
	if t.settings, err = f.parse(); err != nil {
		return nil, err
	}
	if t.src, err = parseEndpoint(src); err != nil {
		return nil, err
	}
	if t.dst, err = parseEndpoint(dst); err != nil {
		return nil, err
	}
	if sameDisk(t.src, t.dst) {
		return nil, usage("%s and %s are the same disk; name two different ones", src, dst)
	}
	if t.src.remote() && t.dst.remote() && t.src.address == t.dst.address {
		return nil, usage("both exports belong to one daemon; run haulback on that host with the two paths")
	}
	switch {
	case t.want == wire.TrackingOff:
	case t.src.remote() && t.cbt != "":
		return nil, usage("--cbt %s: the source's daemon opens the disk; write cbt = %q into its export %q there, and use --cbt export", t.cbt, t.cbt, t.src.export)
	case t.src.remote() && f.sample != 0:
		return nil, usage("--sample: the source's daemon draws the sample; leave it out")
	case !t.src.remote() && t.cbt == "":
		return nil, usage("--cbt export: the source %s is no export of a daemon; use bitmap:NAME or fiemap:PATH", src)
	}
	return t, t.checkMissing()
}

// checkMissing says which disk of this machine is not there, and what helps.
func (t *transfer) checkMissing() error {
	for _, e := range []*endpoint{t.src, t.dst} {
		switch {
		case !e.missing():
		case e == t.dst && t.mode == wire.ModeCopy && t.flags.create && t.want != wire.TrackingOff:
			return usage("target %s: there is no such file, so it cannot be what the source was when %s began; leave out --cbt to copy everything", e.text, t.flags.cbt)
		case e == t.dst && t.mode == wire.ModeCopy && t.flags.create:
		case e == t.dst && t.mode == wire.ModeCopy && e.disk.CanCreate():
			return usage("target %s: there is no such file; add --create to make it as large as the source", e.text)
		default:
			return usage("%s: there is no such file or device; check the path", e.text)
		}
	}
	if t.flags.create && t.dst.remote() {
		return usage("--create: makes files of this machine only; make the file of the export %q at its daemon", t.dst.export)
	}
	if t.flags.create && !t.dst.disk.CanCreate() {
		return usage("--create: makes raw files and VMDKs only; make %s where it lives, as large as the source", t.dst.text)
	}
	return nil
}

// run does it all and tells how it went.
func (t *transfer) run(ctx context.Context) error {
	stop, err := t.prepare(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := t.preflight(ctx); err != nil {
		return err
	}
	t.started = report.Start{Tracking: t.flags.asked(), Mode: t.modeText(), Run: uuid.UUID(t.settings.run).String(), Source: t.src.text, Target: t.dst.text}
	if t.src.remote() || t.dst.remote() {
		t.started.Transport = t.flags.transport
	}
	t.out = t.g.output()
	t.out.Started(t.started)
	for _, w := range t.warnings {
		t.out.Remark(report.Warning, w)
	}
	rep, err := t.pass(ctx, "pass", 1, false)
	if err == nil && t.full {
		rep, err = t.again(ctx, rep)
	}
	if rep.Epoch > 0 || rep.Counters.Scanned > 0 {
		t.out.Summary(report.Result{Start: t.started, Report: rep, Verify: t.mode == wire.ModeVerify, Phases: t.phases})
	}
	return t.explain(err)
}

func (t *transfer) modeText() string {
	switch {
	case t.mode == wire.ModeVerify:
		return "verify"
	case t.full:
		return "copy, then read everything again"
	}
	return "copy"
}

// prepare opens the site and an engine, and finds the keys to expect.
func (t *transfer) prepare(ctx context.Context) (stop func(), err error) {
	s, err := t.g.site()
	if err != nil {
		return nil, err
	}
	if err := t.pin(s); err != nil {
		return nil, err
	}
	if t.journals, err = s.Journals(); err != nil {
		return nil, err
	}
	t.engine, err = mover.NewEngine(mover.Config{Agent: build.Agent("haulback"), Sampling: cbt.Sampling{Every: t.flags.sample}}, t.journals)
	if err != nil {
		t.journals.Close()
		return nil, err
	}
	return func() {
		if err := errors.Join(t.engine.Close(), t.journals.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "haulback: close: "+report.OneLine(err.Error()))
		}
	}, nil
}

// pin finds the peers that have to be at the addresses.
func (t *transfer) pin(s *site.Site) error {
	if !t.src.remote() && !t.dst.remote() {
		return nil
	}
	var err error
	if t.key, err = s.Key(); err != nil {
		return err
	}
	peers, err := s.Peers()
	if err != nil {
		return peersError(err)
	}
	if t.srcID, err = t.src.pinned(peers, t.key.ID()); err != nil {
		return err
	}
	t.dstID, err = t.dst.pinned(peers, t.key.ID())
	return err
}

// preflight asks both sides how large they are before anything is opened for
// writing: a peer that cannot be reached, or a target that is too small, is
// told at once and not after --retry.
func (t *transfer) preflight(ctx context.Context) error {
	from, err := t.sizeOf(ctx, t.src, t.srcID)
	if err != nil {
		return err
	}
	t.size = from
	if t.dst.missing() {
		t.create = from
		if from <= 0 {
			return usage("target %s: cannot be made, because the size of the source %s is not known or zero", t.dst.text, t.src.text)
		}
		if w := t.dst.rawWarning(); w != "" {
			t.warnings = append(t.warnings, w)
		}
		return nil
	}
	if t.src.remote() && t.dst.remote() {
		return nil // the target may be open to the source only; the order will tell
	}
	to, err := t.sizeOf(ctx, t.dst, t.dstID)
	if err != nil {
		return err
	}
	if t.mode == wire.ModeVerify && from > 0 && to > 0 && from != to {
		return t.sizesDiffer(from, to, "nothing was compared")
	}
	if from > to && to > 0 {
		return wire.Errorf(wire.CodeTooSmall, "target %s has %d bytes, source %s has %d: make the target at least as large", t.dst.text, to, t.src.text, from)
	}
	return nil
}

// sizesDiffer is the verdict of a verify of disks that cannot be equal.
func (t *transfer) sizesDiffer(a, b int64, compared string) error {
	return wire.Errorf(wire.CodeVerify, "the disks differ in size: %s has %d bytes, %s has %d; %s", t.src.text, a, t.dst.text, b, compared)
}

// sizeOf is the size of the disk, or 0 when its daemon cannot open it right
// now. It may be held by the session that this run goes on with.
func (t *transfer) sizeOf(ctx context.Context, e *endpoint, id wire.ID) (int64, error) {
	if !e.remote() {
		d, err := e.describe(ctx)
		warnings := []string{d.Warning}
		if e == t.src || t.mode == wire.ModeVerify {
			warnings = append(warnings, d.SourceWarning)
		}
		for _, w := range warnings {
			if w != "" {
				t.warnings = append(t.warnings, e.text+": "+w)
			}
		}
		return d.Size, err
	}
	p, err := t.engine.Probe(ctx, e.access(t.key, id, t.flags.transport))
	if we, ok := errors.AsType[*wire.Error](err); ok && we.Remote {
		switch we.Code {
		case wire.CodeOpen, wire.CodeBusy, wire.CodeJournal, wire.CodeRead:
			return 0, nil
		}
	}
	return p.Size, unreachable(e, err, t.flags.transport)
}

// unreachable says whose fault err is, and what to look at first.
func unreachable(e *endpoint, err error, transport string) error {
	if err == nil {
		return nil
	}
	if we, ok := errors.AsType[*wire.Error](err); ok && we.Remote {
		return &told{e.text + ": " + we.Text, err}
	}
	if exitcode.Of(err) == exitcode.Unavailable {
		return fmt.Errorf("%s: %w; is haulbackd running there, and does the network let %s through?", e.text, err,
			map[string]string{site.QUIC: "UDP", site.TLS: "TCP"}[transport])
	}
	return fmt.Errorf("%s: %w", e.text, err)
}

// pass is one pass, told while it runs.
func (t *transfer) pass(ctx context.Context, name string, n uint32, full bool) (mover.Report, error) {
	p := &mover.Progress{Event: func(text string) { t.out.Remark(report.Event, t.voice(text)) }}
	counters := func() wire.Counters { return t.whole(p.Counters()) }
	stop := report.Follow(t.out, counters, t.g.every())
	began := time.Now()
	rep, err := t.start(ctx, n, full, p)
	stop()
	rep.Counters = t.whole(rep.Counters)
	if we, ok := errors.AsType[*wire.Error](err); ok && t.mode == wire.ModeVerify && we.Code == wire.CodeTooSmall {
		err = wire.Errorf(wire.CodeVerify, "the disks differ in size: %s", we.Text)
	}
	if err == nil {
		err = t.judge(&rep)
	}
	t.phases = append(t.phases, report.Phase{Name: name, Dur: time.Since(began)})
	return rep, err
}

// voice drops the peer from what one half of a pass says of the other, when both
// are in this process.
func (t *transfer) voice(text string) string {
	if t.speaker() != "" {
		return text
	}
	return strings.TrimPrefix(text, "peer: ")
}

// judge does not take the absence of an error for a success.
func (t *transfer) judge(rep *mover.Report) error {
	switch {
	case t.mode == wire.ModeVerify && rep.Larger > 0:
		rep.Equal = false
		return t.sizesDiffer(rep.Counters.Total, rep.Counters.Total+rep.Larger,
			fmt.Sprintf("%d grains of 64 KiB differ in what both have", rep.Counters.Bad))
	case t.mode == wire.ModeCopy && rep.State == wire.StateVerified && rep.Hinted && rep.Counters.Bad == 0:
		return nil // as far as it was compared; the report says how far that is
	case !rep.Equal && rep.Counters.Bad > 0:
		return wire.Errorf(wire.CodeVerify, "the disks differ in %d grains of 64 KiB", rep.Counters.Bad)
	case !rep.Equal:
		return wire.Errorf(wire.CodeVerify, "the disks are not proved equal")
	case t.mode == wire.ModeCopy && rep.State != wire.StateVerified:
		return wire.Errorf(wire.CodeVerify, "the target is %v and not Verified", rep.State)
	}
	return nil
}

// whole fills in the size, which the target half of a pull does not count.
func (t *transfer) whole(c wire.Counters) wire.Counters {
	if c.Total == 0 {
		c.Total = t.size
	}
	return c
}

func (t *transfer) start(ctx context.Context, n uint32, full bool, p *mover.Progress) (mover.Report, error) {
	job := mover.Job{Run: t.settings.run, Pass: n, Mode: t.mode, Full: full, Track: t.want, Rate: t.rate, Retry: t.flags.retry}
	if full {
		job.Track = wire.TrackingOff
	}
	job.Source, job.Target = t.side(t.src, t.srcID, 0, t.cbt), t.side(t.dst, t.dstID, t.create, "")
	if job.Source.Remote == nil || job.Target.Remote == nil {
		return t.engine.Run(ctx, job, p)
	}
	rep, err := t.engine.Order(ctx, job.Source.Remote, job, wire.Order{
		Address: t.dst.address, Peer: t.dstID, Export: t.dst.export, Transport: t.flags.transport,
		Rate: t.rate, Retry: uint32(t.flags.retry.Seconds()), Full: full,
	}, p)
	if rep.Transport != "" {
		rep.Transport = t.flags.transport // nothing else was allowed, and the report does not say
	}
	return rep, err
}

func (t *transfer) side(e *endpoint, id wire.ID, create int64, track string) mover.Endpoint {
	if e.remote() {
		return mover.Endpoint{Name: e.text, Remote: e.access(t.key, id, t.flags.transport)}
	}
	return mover.Endpoint{Name: e.text, Open: site.Disk{URI: e.text, Create: create, Track: track, Log: report.NewLog(t.out)}.Opener()}
}

// again reads everything once more. That it finds something to send is no
// failure of this run, but somebody has to know.
func (t *transfer) again(ctx context.Context, first mover.Report) (mover.Report, error) {
	t.create = 0
	second, err := t.pass(ctx, "full verify", 2, true)
	if n := second.Counters.Differing; n > 0 {
		t.out.Remark(report.Warning, fmt.Sprintf("the full read found %d bytes that differ from what was proved before, and sent them again: "+
			"a program writes to one of the disks, or a device does not keep what it is given; the first pass sent %d bytes", n, first.Counters.Sent))
	}
	if err == nil {
		second.Counters = sum(first.Counters, second.Counters)
	}
	if t.want != wire.TrackingOff {
		how := "not used: "
		if first.Hinted {
			how = "used: "
		}
		second.Reason = how + first.Reason + "; then everything was read again"
	}
	return second, err
}

// sum is what both passes did; sizes and verdicts are those of the second.
func sum(a, b wire.Counters) wire.Counters {
	b.Differing, b.Zero, b.Sent, b.Wire = a.Differing+b.Differing, a.Zero+b.Zero, a.Sent+b.Sent, a.Wire+b.Wire
	b.Durable, b.ReadBack, b.Had = a.Durable+b.Durable, a.ReadBack+b.ReadBack, a.Had+b.Had
	b.Redone, b.Lost, b.Reconnects = a.Redone+b.Redone, a.Lost+b.Lost, a.Reconnects+b.Reconnects
	return b
}
