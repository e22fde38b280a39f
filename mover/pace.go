package mover

import (
	"context"
	"time"

	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// SetLimits replaces the limits that all sessions of this engine share. They
// are in force at once, also for who waits already.
func (e *Engine) SetLimits(l throttle.Limits) error { return e.limits.Set(l) }

// Bound is what holds the run up at this end now: "job rate", "daemon rate",
// "window", "latency", or "" for nothing but disks, processor and network.
func (p *Progress) Bound() string { return p.meter.Bound().String() }

// pacer is the gate of one half of a session, and its watchdog's view of it.
type pacer struct {
	gate  *throttle.Gate
	pulse *pulse
	times *[NumTimes]durations
}

// terms are what one half of a session is limited by.
type terms struct {
	job   *throttle.Throttle
	here  bool      // the other half is in this process
	tells bool      // the job began at this end, which tells the other its limits
	told  wire.Pace // what the other end of this link knows already
	heard bool      // the other end has said what is to be kept to
}

// limit makes sure that the job has a Throttle.
func (j *Job) limit() (err error) {
	if j.Throttle == nil {
		j.Throttle, err = throttle.New(throttle.Limits{Wire: j.Rate})
	}
	return err
}

// gateFor is the gate of one half of a session before the disk of that
// identity; its Disk is to be released at the end.
func (e *Engine) gateFor(by terms, identity string, p *Progress) *throttle.Gate {
	return &throttle.Gate{
		Job: by.job, Daemon: &e.limits, Disk: e.disks.Open(identity), Here: by.here, Meter: &p.meter,
		Event: func(text string) {
			e.cfg.Log.Info("storage latency", "reason", text)
			p.event(text)
		},
	}
}

// paceOf is what of l the other end is told.
func paceOf(l throttle.Limits) wire.Pace {
	return wire.Pace{Wire: l.Wire, Read: l.Read, Latency: l.Latency.Truncate(time.Microsecond), Priority: int8(l.Priority)}
}

// atLeast is a rate from a frame that may say less than a Pace may.
func atLeast(rate int64) int64 {
	if rate <= 0 {
		return 0
	}
	return max(rate, throttle.Least)
}

// begin tells the other end the limits of the job before it opens its disk: a
// job that begins at full speed is what its limits are there to prevent.
func (by *terms) begin(l *lane) error {
	if !by.tells {
		return nil
	}
	now, _, _ := by.job.Now()
	f := paceOf(now)
	if f == by.told {
		return nil
	}
	by.told = f
	return l.send(&f)
}

// tellPace tells the other end the limits of the job whenever they change.
func (by *terms) tellPace(ctx context.Context, l *lane, finished <-chan struct{}) error {
	for last := by.told; ; {
		now, changed, until := by.job.Now()
		if f := paceOf(now); f != last {
			if err := l.send(&f); err != nil {
				return err
			}
			last = f
		}
		if !await(ctx, changed, until, finished) {
			return ctx.Err()
		}
	}
}

// await waits until limits may have changed; false when there is no more need.
func await(ctx context.Context, changed <-chan struct{}, until time.Time, finished <-chan struct{}) bool {
	var due <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(max(time.Until(until), time.Millisecond))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-changed:
	case <-due:
	case <-finished:
		return false
	case <-ctx.Done():
		return false
	}
	return true
}

// takePace takes over what the other end asks for, which it may if the job began
// there. The other half of this process has the job's own word on its priority.
func (by *terms) takePace(body []byte) error {
	if by.tells {
		return wire.Errorf(wire.CodeFrame, "a Pace from the end that was dialed")
	}
	var f wire.Pace
	if err := wire.Parse(&f, body); err != nil {
		return err
	}
	l := throttle.Limits{Wire: f.Wire, Read: f.Read, Latency: f.Latency, Priority: throttle.Priority(f.Priority)}
	by.heard = true
	set := by.job.SetPeer
	if by.here {
		set = by.job.Set
	}
	if err := set(l); err != nil {
		return wire.Errorf(wire.CodeFrame, "pace: %w", err)
	}
	return nil
}

// read waits until n bytes may be read.
func (p *pacer) read(ctx context.Context, n int64) error {
	if p == nil || p.gate.Open() {
		return nil
	}
	defer p.pulse.leave(p.pulse.enter()) // waiting on purpose is no stall
	return p.gate.Read(ctx, n)
}

// write waits until the disk may be given n bytes.
func (p *pacer) write(ctx context.Context, n int64) error {
	if p.gate.Open() {
		return nil
	}
	defer p.pulse.leave(p.pulse.enter())
	return p.gate.Write(ctx, n)
}

// wire waits until n bytes may be sent or taken.
func (p *pacer) wire(ctx context.Context, n int64) error {
	if p.gate.Open() {
		return nil
	}
	defer p.pulse.leave(p.pulse.enter())
	return p.gate.Wire(ctx, n)
}

// began is the time if disk calls are measured, else zero. To read the clock
// twice takes a thousandth of what the shortest of them does.
func (p *pacer) began() (t time.Time) {
	if p != nil {
		t = time.Now()
	}
	return t
}

// ended notes a disk call, TimeRead or TimeWrite, for n bytes.
func (p *pacer) ended(what int, began time.Time, n int64) {
	if began.IsZero() {
		return
	}
	took := time.Since(began)
	p.times[what].add(took)
	if p.gate.Target() > 0 {
		p.gate.Observe(took, n)
	}
}
