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

// insistWaits are the pauses before a disk call is made again whose driver says
// that it may do better. A server that was short of memory for a moment gets
// over it; one that is being started anew takes longer, and then the disk is
// opened anew, which is dear: a target is read again from its start.
var insistWaits = [...]time.Duration{20 * time.Millisecond, 80 * time.Millisecond, 300 * time.Millisecond}

// insist makes a disk call again whose first try ended with err, while that is
// worth it and stop is not closed.
func (p *pulse) insist(stop <-chan struct{}, err error, again func() error) error {
	for _, wait := range insistWaits {
		if err == nil || !retryable(err) {
			break
		}
		select {
		case <-time.After(wait):
		case <-stop:
		}
		select {
		case <-stop: // also where both have come
			return err
		default:
		}
		err = again()
	}
	return err
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
