package mover

import (
	"context"
	"time"

	"github.com/haulback/haulback/mover/throttle"
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
}

// gateFor is the gate of one half of a session with the disk of that identity;
// its Disk is to be released at the end. here says that the other half is in this
// process.
func (e *Engine) gateFor(job *throttle.Throttle, identity string, here bool, p *Progress) *throttle.Gate {
	return &throttle.Gate{
		Job: job, Daemon: &e.limits, Disk: e.disks.Open(identity), Here: here, Meter: &p.meter,
		Event: func(text string) {
			e.cfg.Log.Info("storage latency", "reason", text)
			p.event(text)
		},
	}
}

// jobThrottle is what limits job: the caller's, or one of Job.Rate.
func (j *Job) jobThrottle() (*throttle.Throttle, error) {
	if j.Throttle != nil {
		return j.Throttle, nil
	}
	return throttle.New(throttle.Limits{Wire: j.Rate})
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

// began is the time if disk calls are to be measured, else zero.
func (p *pacer) began() (t time.Time) {
	if p != nil && p.gate.Target() > 0 {
		t = time.Now()
	}
	return t
}

// ended notes a disk call for n bytes.
func (p *pacer) ended(began time.Time, n int64) {
	if !began.IsZero() {
		p.gate.Observe(time.Since(began), n)
	}
}
