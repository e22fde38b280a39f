package throttle

import (
	"sync/atomic"
	"time"
)

// Bound is what holds a pass up.
type Bound uint8

// The bounds.
const (
	Unbound   Bound = iota
	ByJob           // the job's rate
	ByDaemon        // the daemon's rate, shared with other jobs
	ByWindow        // the rate of a Window of either
	ByLatency       // the storage is slow, and reading backs off
	bounds    = 5
)

// String is the word for status output; empty when nothing bounds.
func (b Bound) String() string {
	return [...]string{"", "job rate", "daemon rate", "window", "latency"}[b%bounds]
}

// Meter says what a pass waits for. The zero value is ready; safe for
// concurrent use.
type Meter struct {
	by [bounds]struct {
		waiting atomic.Int64 // who waits now
		ended   atomic.Int64 // when the last one stopped, in nanoseconds of the clock
		total   atomic.Int64 // nanoseconds waited
	}
}

// boundFor is how long after a wait a pass still counts as bound: reading what
// was waited for takes a moment, and an operator looks at an average.
const boundFor = time.Second

// Bound is what the pass waits for, or waited for within the last second; where
// there is more than one, what it has waited longest for in all.
func (m *Meter) Bound() (b Bound) {
	now, most := time.Now().UnixNano(), int64(-1)
	for i := range m.by {
		s := &m.by[i]
		ended := s.ended.Load()
		recent := s.waiting.Load() > 0 || ended > 0 && now-ended < int64(boundFor)
		if total := s.total.Load(); recent && total > most {
			b, most = Bound(i), total
		}
	}
	return b
}

// Waited is how long all workers together have waited for b.
func (m *Meter) Waited(b Bound) time.Duration { return time.Duration(m.by[b%bounds].total.Load()) }

// wait notes a wait for b, until the function it returns is called.
func (m *Meter) wait(b Bound) (end func()) {
	if m == nil {
		return func() {}
	}
	began, s := time.Now(), &m.by[b]
	s.waiting.Add(1)
	return func() {
		now := time.Now()
		s.total.Add(int64(now.Sub(began)))
		s.ended.Store(now.UnixNano())
		s.waiting.Add(-1)
	}
}
