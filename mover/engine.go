package mover

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// Access is what a disk is opened for.
type Access uint8

// ReadOnly opens a source, or a disk that is only compared; ReadWrite opens a
// target, exclusively.
const (
	ReadOnly Access = iota
	ReadWrite
)

// OpenDisk opens one disk. Opened with ReadWrite, the disk is a WritableDisk.
type OpenDisk func(ctx context.Context, access Access) (Disk, error)

// patiently opens a disk that may be busy for a moment only: the session before
// is being closed, or a probe looks at it.
func (open OpenDisk) patiently(ctx context.Context, access Access) (Disk, error) {
	disk, err := open(ctx, access)
	for range heldTries {
		if !errors.Is(err, syscall.EBUSY) || ctx.Err() != nil {
			break
		}
		rest(ctx, heldWait)
		disk, err = open(ctx, access)
	}
	return disk, err
}

// Remote is an export of another daemon.
type Remote struct {
	Name   string // for messages: "haulback://dr-proxy:7420/vm1-disk0"
	Export string
	Dial   func(ctx context.Context) (wire.Link, error)
	here   bool       // it is this process
	Ticket TicketFunc // for an export that wants tickets; nil: none is shown
	Hint   *cbt.Hint  // of a source: where it changed, as the caller knows; nil: its own daemon is asked
}

// Endpoint is one side of a job: a disk of this process, or an export.
// Exactly one of Open and Remote is set.
type Endpoint struct {
	Name   string // for messages
	Open   OpenDisk
	Remote *Remote
	Hint   HintFunc // of a source of this process: asks for its changes; nil: the disk itself, if it is a Tracker
}

// Job is one pass of one disk, as an operator asks for it.
type Job struct {
	Run    wire.RunID
	Pass   uint32 // 0 means 1
	Mode   wire.Mode
	Full   bool          // read everything, also what both maps call a hole
	Track  wire.Tracking // whether the source's change tracking may narrow a copy
	Source Endpoint
	Target Endpoint
	// Base is the pass of Run that made the target what the hint counts from. The
	// target believes the hint only if its journal says so too; 0: not said, any
	// disk that is Clean or Verified may be what a hint counts from.
	Base uint32
	// Fence is the epoch of who gives the job: a target of this process refuses a
	// lower one for ever. 0: none. At a target elsewhere the ticket has it.
	Fence uint64
	// Unproved lets a disk be the source that the journal calls a target in the
	// middle of a run. It is for undoing that run.
	Unproved bool
	// Throttle limits the job, at each end by itself. The caller may change it
	// while the job runs, and may give one to several jobs, which share it. Nil
	// means Rate alone.
	Throttle *throttle.Throttle
	Rate     int64 // bytes per second on the wire, without Throttle; 0: no limit
	// Sample is to compare one grain in so many of what a hint calls unchanged; 0:
	// as Config.Sampling says. A comparison takes one grain in so many of the whole
	// disk, at least 64; 0 and 1: all.
	Sample int64
	Retry  time.Duration // how long to go on without progress after the peer was lost; 0: not at all

	stream *streamDisk // of a restore: the source
	grant  *grant      // of an order: the ticket for Source
}

// IncompleteError means that a pass began and did not end: the target is not
// Verified, nothing is lost, and the same job run again goes on.
type IncompleteError struct {
	Err error
}

// Error implements error.
func (e *IncompleteError) Error() string {
	return "incomplete, the target is not verified: " + e.Err.Error()
}

// Unwrap is the cause.
func (e *IncompleteError) Unwrap() error { return e.Err }

// Engine runs passes, as either half, with one bound on memory and one state
// directory. Safe for concurrent use.
type Engine struct {
	cfg     Config
	state   StateDir
	pool    *pool
	targets *holds
	sources *holds
	fails   flushFails
	limits  throttle.Throttle // of all sessions together
	disks   throttle.Disks
}

// NewEngine returns an engine that keeps journals in state.
func NewEngine(cfg Config, state StateDir) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	cfg.tally = newTally()
	e := &Engine{
		cfg: cfg, state: state, pool: newPool(cfg.Memory),
		targets: &holds{m: make(map[string]*hold)}, sources: &holds{m: make(map[string]*hold)},
	}
	return e, e.SetLimits(cfg.Limits)
}

// Close closes disks that linger after a lost link. Sessions have to have
// ended before.
func (e *Engine) Close() error {
	err := errors.Join(e.targets.close(), e.sources.close())
	e.pool.close()
	return err
}

// Run runs the job until it is done or cannot go on. The Report tells how far
// it came in either case. A lost link is picked up again by itself; what ends
// a run is an error of a disk, a refusal, or Job.Retry without progress.
func (e *Engine) Run(ctx context.Context, job Job, p *Progress) (Report, error) {
	p.list.begin(p.Different)
	rep, err := e.run(ctx, job, p)
	return rep, p.list.end(err)
}

func (e *Engine) run(ctx context.Context, job Job, p *Progress) (Report, error) {
	if job.Pass == 0 {
		job.Pass = 1
	}
	if err := job.limit(); err != nil {
		return Report{}, err
	}
	spec := passSpec{run: job.Run, pass: job.Pass, mode: job.Mode, full: job.Full}
	switch {
	case job.Source.Open != nil && job.Target.Remote != nil:
		return e.push(ctx, job, spec, job.Target.Remote, p)
	case job.Source.Remote != nil && job.Target.Open != nil:
		return e.pull(ctx, job, spec, p)
	case job.Source.Open != nil && job.Target.Open != nil:
		return e.local(ctx, job, spec, p)
	}
	return Report{}, wire.Errorf(wire.CodeInternal, "a job needs a disk of this process on one side; use Order for two remote ones")
}

// local runs both halves in this process.
func (e *Engine) local(ctx context.Context, job Job, spec passSpec, p *Progress) (Report, error) {
	srv := NewServer(e, nil)
	srv.here = true
	role := RoleTarget
	if job.Mode == wire.ModeVerify {
		role = RoleSource // a disk that is only read
	}
	name := fmt.Sprintf("local:%x", sumOf(job.Target.Name)) // each target has a hold of its own; a name in a Hello is cut at 256 bytes
	srv.SetExports([]Export{{Name: name, Role: role, Open: job.Target.Open, Peers: []wire.ID{{}}, floor: job.Fence}})
	defer e.targets.dismiss(name, job.Run) // when its last write has returned
	defer srv.wait()
	return e.push(ctx, job, spec, &Remote{Name: job.Target.Name, Export: name, here: true, Dial: func(context.Context) (wire.Link, error) {
		a, b := wire.Pipe(wire.ID{}, wire.ID{})
		srv.start(ctx, b)
		return a, nil
	}}, p)
}

// push is a run with the source half in this process.
func (e *Engine) push(ctx context.Context, job Job, spec passSpec, to *Remote, p *Progress) (_ Report, err error) {
	end := e.cfg.tally.begin(Half{Verify: spec.mode == wire.ModeVerify}, p)
	defer func() { end(err) }()
	disk, err := job.Source.Open.patiently(ctx, ReadOnly)
	if err != nil {
		return Report{}, diskError(wire.CodeOpen, "source", "open", cbt.Extent{}, err)
	}
	if err = job.grant.fits(disk); err == nil {
		err = e.fit(disk, spec, job.Unproved)
	}
	if err != nil {
		_ = disk.Close() // only read
		return Report{}, err
	}
	cfg := e.cfg
	if job.Sample > 0 && spec.mode == wire.ModeCopy {
		cfg.Sampling.Every = job.Sample
	}
	if job.stream != nil {
		cfg.Batches = min(cfg.Batches, streamBatches)
	}
	s := newSource(&cfg, e.pool, disk, spec, p)
	s.base = job.Base
	if spec.mode == wire.ModeVerify {
		s.every = job.Sample
	}
	defer func() { s.disk.Close() }() // a source: nothing can be lost
	by := terms{job: job.Throttle, here: to.here, tells: true}
	s.gate = e.gateFor(by, disk.Identity(), p)
	defer s.gate.Disk.Release()
	if job.stream != nil {
		job.stream.feed(s)
	} else if err := s.narrow(ctx, job.Track, job.Source.Hint); err != nil {
		return Report{Run: spec.run, Pass: spec.pass, Source: disk.Identity(), Track: job.Track, Reason: s.plan.Reason}, err
	}
	s.way = newWay(p, &e.cfg)
	defer s.way.close()
	to = s.way.wrap(to)
	hello := wire.Hello{Op: wire.OpPush, Mode: spec.mode, Run: spec.run, Pass: spec.pass, Export: to.Export, Agent: e.cfg.Agent}
	rep := Report{Run: spec.run, Pass: spec.pass, Source: disk.Identity(), Track: job.Track}
	err = e.retry(ctx, job.Retry, p, func(ctx context.Context) (bool, error) {
		if err := s.ready(ctx, job.Source.Open, job.Source.Hint); err != nil {
			return false, err
		}
		l, err := dial(ctx, to, &hello, nil)
		if err != nil {
			return false, s.way.failed(ctx, false, to.renewed(ctx, err, hello.Ticket))
		}
		s.way.begin(l.link)
		e.cfg.tally.over(p, l.link)
		s.by = by // nobody at the other end of this link was told anything
		opened, v, err := s.session(ctx, l)
		if opened.Epoch > 0 {
			rep.Epoch, rep.Target, rep.Cold = opened.Epoch, opened.Identity, opened.Cold
			rep.Larger = opened.Size - s.size
			rep.over(l.link)
			rep.Control = l.link.Stats().Control
		}
		if err == nil {
			err = s.conclude(&rep, &v)
		}
		l.end(err)
		began := opened.Epoch > 0
		return began, s.way.failed(ctx, began, to.renewed(ctx, s.learn(err), hello.Ticket))
	})
	p.endLink()
	rep.Hinted, rep.Reason = s.hinted(), s.plan.Reason
	rep.Counters, rep.Bad, rep.Compression = p.Counters(), s.bad, s.compress.report()
	return rep, err
}

// conclude checks the target's last word against what this side knows.
func (s *source) conclude(rep *Report, v *wire.Verified) error {
	rep.State, rep.Root = v.State, v.Root
	s.prog.lost.Store(v.Lost)
	own, err := s.root.Sum()
	if err != nil {
		return err
	}
	agreed := s.badN == 0 && own == v.Root && v.Compared > 0
	switch {
	case s.badN > 0 && s.mode == wire.ModeVerify:
		return wire.Errorf(wire.CodeVerify, "the disks differ in %d grains of 64 KiB", s.badN)
	case s.badN > 0:
		return wire.Errorf(wire.CodeUnreadable, unreadable, s.badN)
	case !agreed:
		return wire.Errorf(wire.CodeVerify, "the disks are not proved equal: roots %v and %v over %d grains", own, cbt.Digest(v.Root), v.Compared)
	case v.Skipped != s.skipped || v.Sampled != s.sampled:
		return wire.Errorf(wire.CodeVerify, "the two sides left out different grains: the target %d and sampled %d, the source %d and %d", v.Skipped, v.Sampled, s.skipped, s.sampled)
	case s.mode == wire.ModeCopy && v.State != wire.StateVerified:
		return wire.Errorf(wire.CodeVerify, "the target says %v, not Verified", v.State)
	}
	rep.Equal = s.skipped == 0
	return nil
}

const unreadable = "%d grains of 64 KiB of the source cannot be read; all others are on the target, which is not verified"

// pull is a run with the target half in this process.
func (e *Engine) pull(ctx context.Context, job Job, spec passSpec, p *Progress) (_ Report, err error) {
	end := e.cfg.tally.begin(Half{Target: true, Verify: spec.mode == wire.ModeVerify}, p)
	defer func() { end(err) }()
	from, track := job.Source.Remote, job.Track
	tells := job.tells()
	switch {
	case tells != nil && job.Mode == wire.ModeVerify:
		track = wire.TrackingUse
	case job.Full || job.Mode == wire.ModeVerify:
		track = wire.TrackingOff // everything is read
	}
	hello := wire.Hello{Op: wire.OpPull, Mode: spec.mode, Run: spec.run, Pass: spec.pass, Track: track, Full: job.Full, Export: from.Export, Agent: e.cfg.Agent}
	rep := Report{Run: spec.run, Pass: spec.pass, Track: job.Track}
	if tells != nil {
		hello.Track = track.Tell()
	}
	said := false
	by := newWay(p, &e.cfg)
	defer by.close()
	from = by.wrap(from)
	exp := &Export{Name: job.Target.Name, Open: job.Target.Open, floor: job.Fence}
	if tells != nil {
		exp.base = tells.base
	}
	defer e.targets.dismiss(exp.Name, job.Run)
	exp.track, exp.way = &track, by
	err = e.retry(ctx, job.Retry, p, func(ctx context.Context) (bool, error) {
		now, _, _ := job.Throttle.Now()
		hello.Rate = now.Wire
		l, err := dial(ctx, from, &hello, tells)
		if err != nil {
			return false, by.failed(ctx, false, from.renewed(ctx, err, hello.Ticket))
		}
		by.begin(l.link)
		e.cfg.tally.over(p, l.link)
		o, err := e.receive(ctx, l, exp, spec, terms{job: job.Throttle, tells: true, told: wire.Pace{Wire: hello.Rate}}, p, openWait)
		if o.began && track != wire.TrackingOff && !o.open.Hinted && !said {
			said = true
			p.event("change tracking is not used, everything is compared: " + o.open.Reason)
		}
		if codeOf(err) == wire.CodeDistrust && track == wire.TrackingStrict {
			err = wire.Errorf(wire.CodeHint, "change tracking is dropped: %s%s", oneLine(err), withoutStrict)
		}
		exp.held = max(exp.held, o.opened.Epoch)
		if o.began {
			o.report(&rep, l)
			rep.Control = by.sends()
		}
		l.end(err)
		if err == nil {
			err = o.verdict(spec.mode, p.bad.Load())
		}
		return o.began, by.failed(ctx, o.began, from.renewed(ctx, err, hello.Ticket))
	})
	rep.Counters = p.Counters()
	return rep, err
}

// dial opens a link to r and says hello, and what else there is to tell.
func dial(ctx context.Context, r *Remote, hello *wire.Hello, tells *told) (*lane, error) {
	if err := r.show(ctx, hello); err != nil {
		return nil, err
	}
	link, err := r.Dial(ctx)
	if err != nil {
		return nil, dialError(err)
	}
	l := newLane(link)
	l.unhook = context.AfterFunc(ctx, func() { l.say(context.Cause(ctx)) })
	err = l.send(hello)
	var w wire.Welcome
	if e := l.expect(&w); e != nil { // also after a failed send: the peer has said why
		err = e
	}
	if err == nil && tells != nil {
		err = l.tell(tells)
	}
	if err != nil {
		l.end(err)
		return nil, err
	}
	return l, nil
}

// retry runs attempt until it succeeds, fails for good, or made no progress
// for the time limit. It is the one retry loop of the data plane.
func (e *Engine) retry(ctx context.Context, limit time.Duration, p *Progress, attempt func(context.Context) (began bool, err error)) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 200*time.Millisecond, 5*time.Second
	began, moved := false, time.Now()
	for tries := 1; ; tries++ {
		b, err := attempt(ctx)
		began = began || b
		if err == nil {
			return nil
		}
		// A disk that is lost at the same place again and again makes no
		// progress, however far a target is read again each time.
		if further := p.further(); b && (further || p.advanced() && codeOf(err) != wire.CodeDiskLost) {
			moved = time.Now()
			wait.Reset()
		}
		resumable, patience := retryable(err) || began && waits(err), limit
		if _, ok := errors.AsType[*renewError](err); ok {
			patience = max(limit, renewPatience)
		}
		switch {
		case codeOf(err) == wire.CodeDistrust && ctx.Err() == nil && tries <= maxDistrust:
			p.event(oneLine(err) + "; comparing everything")
			e.cfg.tally.retried(wire.CodeDistrust)
			continue // the next try compares all; there is nothing to wait for
		case codeOf(err) == wire.CodeSwitch && ctx.Err() == nil && tries <= maxSwitch:
			p.switched.Add(1)
			e.cfg.tally.retried(wire.CodeSwitch)
			e.cfg.Log.Info("session goes on over another transport", "reason", oneLine(err))
			continue
		case ctx.Err() != nil:
			err = context.Cause(ctx)
			fallthrough
		case !resumable || patience == 0 || tries > 1 && time.Since(moved) >= patience: // one silent link may take as long
			if began && (resumable || ctx.Err() != nil || codeOf(err) == wire.CodeNoSpace || codeOf(err) == wire.CodeTicket) {
				if _, ok := errors.AsType[*IncompleteError](err); ok {
					return err // of one who did the work for us
				}
				return &IncompleteError{Err: err}
			}
			return err
		}
		e.cfg.tally.retried(codeOf(err))
		d := wait.NextBackOff()
		p.event(oneLine(err) + "; trying again")
		e.cfg.Log.Warn("session interrupted, trying again", "err", err, "dur", d)
		rest(ctx, d)
	}
}

// maxDistrust bounds the tries at once after a hint was dropped. It is dropped
// once per run; a peer that says so again and again gets the usual pauses.
const maxDistrust = 3

// maxSwitch bounds the tries at once after a change of the transport, of which a
// run makes two at most.
const maxSwitch = 8

// remote reports whether the peer said so.
func remote(err error) bool {
	e, ok := errors.AsType[*wire.Error](err)
	return ok && e.Remote
}

// codeOf is the code of err, CodeOK when it has none.
func codeOf(err error) wire.Code {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	return wire.CodeOK
}

// waits reports whether a run that has begun should wait for err to pass: the
// disk is in other hands for a moment, or the daemon has no room.
func waits(err error) bool {
	code := codeOf(err)
	return code == wire.CodeBusy || code == wire.CodeLimit
}
