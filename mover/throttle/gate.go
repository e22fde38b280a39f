package throttle

import (
	"context"
	"time"
)

// Gate is what one half of one session asks before it reads, writes or sends.
// Its fields are set before its first use and stay. Safe for concurrent use.
type Gate struct {
	Job    *Throttle // of this end of the job
	Daemon *Throttle // nil: none
	Disk   *Disk     // nil: never backs off
	Here   bool      // the other half is in this process: no network is used
	Meter  *Meter    // nil: nobody asks
	// Event, when set, gets what an operator should read. It must not block.
	Event func(text string)
}

// Open reports whether nothing at all is limited: two or three atomic loads,
// which is all that a piece costs then.
func (g *Gate) Open() bool {
	return !g.Job.on.Load() && (g.Daemon == nil || !g.Daemon.on.Load()) && (g.Disk == nil || !g.Disk.active.Load())
}

// Read waits until n bytes may be read.
func (g *Gate) Read(ctx context.Context, n int64) error {
	if err := g.take(ctx, read, n, true); err != nil {
		return err
	}
	return g.Write(ctx, n)
}

// Write waits until the disk may be given n bytes to write: it is asked for
// less while it backs off, no rate counts writes.
func (g *Gate) Write(ctx context.Context, n int64) error {
	if g.Disk == nil || !g.Disk.active.Load() {
		return nil
	}
	if g.Target() == 0 {
		return nil // it is others that asked for that
	}
	return g.Disk.rate.take(ctx, read, g.Job, n, g.Meter, ByLatency)
}

// Wire waits until n bytes may be sent, or taken from the link.
func (g *Gate) Wire(ctx context.Context, n int64) error { return g.take(ctx, wire, n, !g.Here) }

func (g *Gate) take(ctx context.Context, k kind, n int64, daemon bool) error {
	if g.Job.on.Load() {
		if err := g.Job.take(ctx, k, nil, n, g.Meter, ByJob); err != nil {
			return err
		}
	}
	if daemon && g.Daemon != nil && g.Daemon.on.Load() {
		return g.Daemon.take(ctx, k, g.Job, n, g.Meter, ByDaemon)
	}
	return nil
}

// WireRate is the lowest rate that the wire is kept to, in bytes per second; 0:
// none.
func (g *Gate) WireRate() int64 {
	job, _, _ := g.Job.Now()
	if g.Daemon == nil || g.Here {
		return job.Wire
	}
	daemon, _, _ := g.Daemon.Now()
	if job.Wire == 0 || daemon.Wire > 0 && daemon.Wire < job.Wire {
		return daemon.Wire
	}
	return job.Wire
}

// Target is the latency that is wanted; 0: none.
func (g *Gate) Target() time.Duration {
	t := g.Job.latency.Load()
	if g.Daemon != nil {
		t = lower(t, g.Daemon.latency.Load())
	}
	return time.Duration(t)
}

// Observe notes a call to the disk that took so long.
func (g *Gate) Observe(took time.Duration, n int64) {
	target := g.Target()
	if g.Disk == nil || target == 0 {
		return
	}
	if event := g.Disk.Observe(took, n, target); event != "" && g.Event != nil {
		g.Event(event)
	}
}
