package mover

import (
	"sync"
	"sync/atomic"
	"time"
)

// kick wakes one waiter, at most once until it has woken: many kicks while it
// is busy are one.
type kick chan struct{}

func newKick() kick { return make(kick, 1) } // 1: the wake-up that waits for its waiter

func (k kick) wake() {
	select {
	case k <- struct{}{}:
	default:
	}
}

// pulse remembers when something last moved, for the progress watchdog, and
// which disk calls are in progress.
type pulse struct {
	last atomic.Int64 // nanoseconds since start
	at   time.Time

	mu    sync.Mutex
	calls map[int]time.Time
	next  int
}

func newPulse() *pulse { return &pulse{at: time.Now(), calls: make(map[int]time.Time)} }

// beat says that there was progress.
func (p *pulse) beat() { p.last.Store(int64(time.Since(p.at))) }

// quiet is how long there was none.
func (p *pulse) quiet() time.Duration { return time.Since(p.at) - time.Duration(p.last.Load()) }

// enter says that a disk call begins; leave takes its number.
func (p *pulse) enter() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	p.calls[p.next] = time.Now()
	return p.next
}

func (p *pulse) leave(n int) {
	p.mu.Lock()
	delete(p.calls, n)
	p.mu.Unlock()
}

// slowest is the age of the oldest disk call in progress.
func (p *pulse) slowest() (d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.calls {
		d = max(d, time.Since(t))
	}
	return d
}
