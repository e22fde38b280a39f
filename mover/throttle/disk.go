package throttle

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Disks are the disks that sessions of a daemon use: all sessions of one disk
// back off together. The zero value is ready; safe for concurrent use.
type Disks struct {
	mu sync.Mutex
	m  map[string]*Disk
}

// Disk is one disk that may back off. Release it when it is closed.
type Disk struct {
	rate   Throttle // Read: while it backs off; reads and writes alike
	active atomic.Bool

	of       *Disks
	identity string
	users    int // guarded by of.mu

	mu      sync.Mutex
	target  time.Duration // the lowest of those who observed in this interval
	began   time.Time
	last    time.Time
	bytes   int64
	samples [maxSamples]time.Duration
	n       int
	limit   float64   // bytes per second; 0: does not back off
	peak    float64   // fastest interval since it does
	told    time.Time // when an event was last given
}

// How a disk is judged. The interval is long against a disk call and short
// against what users of the storage put up with; four samples are the least of
// which a percentile means anything.
const (
	interval   = 500 * time.Millisecond
	minSamples = 4
	maxSamples = 128
	idle       = 2 * time.Second // without a call, what went before does not count
	floor      = 1 << 20         // bytes per second: backing off never stops a copy
	down       = 0.7
	up         = 1.0 / 16 // of peak
	calm       = 0.8      // of the target: below it the rate rises
	tellEvery  = 30 * time.Second
	unitIO     = 256 << 10 // what the target is for; longer calls count in proportion
)

// Open returns the disk with that identity.
func (d *Disks) Open(identity string) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil {
		d.m = make(map[string]*Disk)
	}
	x := d.m[identity]
	if x == nil {
		x = &Disk{of: d, identity: identity}
		d.m[identity] = x
	}
	x.users++
	return x
}

// Release ends a use that Open began.
func (d *Disk) Release() {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	if d.users--; d.users == 0 && d.of.m[d.identity] == d {
		delete(d.of.m, d.identity)
	}
}

// Observe notes a call for n bytes that took so long, where target is the
// latency that is wanted. It returns what an operator should know, or "".
func (d *Disk) Observe(took time.Duration, n int64, target time.Duration) (event string) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n == 0 && d.bytes == 0 || now.Sub(d.last) > idle+took {
		d.resetLocked(now.Add(-took))
	}
	d.last = now
	if n > unitIO {
		took = took * unitIO / time.Duration(n)
	}
	d.target = lower(d.target, target)
	d.samples[d.n%maxSamples] = took
	d.n++
	d.bytes += n
	if age := now.Sub(d.began); age < interval || d.n < minSamples {
		return ""
	}
	event = d.judgeLocked(now)
	d.resetLocked(now)
	return event
}

func (d *Disk) resetLocked(now time.Time) {
	d.began, d.bytes, d.n, d.target = now, 0, 0, 0
}

// judgeLocked ends an interval.
func (d *Disk) judgeLocked(now time.Time) (event string) {
	got := float64(d.bytes) / now.Sub(d.began).Seconds()
	list := d.samples[:min(d.n, maxSamples)]
	slices.Sort(list)
	slow := list[(len(list)*9-1)/10]
	before := d.limit
	switch {
	case slow > d.target:
		if before == 0 {
			d.peak, d.limit = 0, got
		}
		d.limit = max(floor, min(d.limit, got)*down)
	case before == 0 || float64(slow) > calm*float64(d.target):
	default:
		d.limit += max(floor, d.peak*up)
		if d.limit > 2*got && d.limit > d.peak { // it does not bind
			d.limit = 0
		}
	}
	d.peak = max(d.peak, got)
	if d.limit != before {
		d.rate.setRead(int64(d.limit))
		d.active.Store(d.limit > 0)
	}
	return d.tellLocked(now, before, slow)
}

// tellLocked says when backing off begins and ends, not more than once in a
// while.
func (d *Disk) tellLocked(now time.Time, before float64, slow time.Duration) string {
	if (before == 0) == (d.limit == 0) || !d.told.IsZero() && now.Sub(d.told) < tellEvery {
		return ""
	}
	d.told = now
	if d.limit == 0 {
		return fmt.Sprintf("storage %s: latency is %v, below the target of %v; reading does not back off any more",
			d.identity, slow.Round(100*time.Microsecond), d.target)
	}
	return fmt.Sprintf("storage %s: latency is %v, above the target of %v; reading backs off to %.1f MiB/s",
		d.identity, slow.Round(100*time.Microsecond), d.target, d.limit/(1<<20))
}

// setRead is Set for a rate that was computed.
func (t *Throttle) setRead(rate int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limits.Read = rate
	t.applyLocked()
}
