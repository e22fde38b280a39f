package throttle

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Throttle holds Limits that may change while they are in force: those of a
// job, or those that the jobs of a daemon share. The zero value limits nothing.
// Safe for concurrent use; not to be copied.
type Throttle struct {
	on      atomic.Bool  // something may be limited
	latency atomic.Int64 // target in force; 0: none
	weight  atomic.Int64 // as a job; 0: of Normal

	mu      sync.Mutex
	limits  Limits
	peer    Limits // what the other daemon asks for as well: no Windows
	zone    *time.Location
	window  bool      // the rates in force are those of a Window
	until   time.Time // when the rates in force have to be looked at again; zero: at a change
	queues  [kinds]queue
	timer   *time.Timer
	changed chan struct{} // closed at the next change; nil: nobody asked
}

// New returns a Throttle with limits l.
func New(l Limits) (*Throttle, error) {
	t := new(Throttle)
	return t, t.Set(l)
}

// Set replaces the limits. Who waits goes by the new ones at once.
func (t *Throttle) Set(l Limits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limits = l.clone()
	t.applyLocked()
	return nil
}

// SetPeer replaces what the peer asks for on top of the limits of this end: of
// each the lower counts. Windows of a peer stay with the peer.
func (t *Throttle) SetPeer(l Limits) error {
	l.Windows = nil
	if err := l.Validate(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peer = l
	t.applyLocked()
	return nil
}

// Limits are those that were Set.
func (t *Throttle) Limits() Limits {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limits.clone()
}

// Now is what is in force at this moment, without Windows, and a channel that
// is closed when Limits are Set again. With Windows it may change by itself at
// until; else until is zero.
func (t *Throttle) Now() (l Limits, changed <-chan struct{}, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refreshLocked(time.Now())
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	l = Limits{
		Wire: t.queues[wire].rate, Read: t.queues[read].rate, Latency: time.Duration(t.latency.Load()),
		Priority: t.priorityLocked(),
	}
	return l, t.changed, t.until
}

// applyLocked puts new limits in force.
func (t *Throttle) applyLocked() {
	t.until = time.Time{}
	t.latency.Store(int64(lower(t.limits.Latency, t.peer.Latency)))
	t.weight.Store(t.priorityLocked().weight())
	now := time.Now()
	t.ratesLocked(now)
	t.on.Store(!t.limits.unlimited() || !t.peer.unlimited())
	t.serveLocked(now)
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// priorityLocked lets a peer lower its job and nobody raise one from afar: the
// others' share is at stake.
func (t *Throttle) priorityLocked() Priority {
	if t.peer.Priority < Normal {
		return Low
	}
	return t.limits.Priority
}

// ratesLocked puts the rates of now in force.
func (t *Throttle) ratesLocked(now time.Time) {
	zone := t.zone
	if zone == nil {
		zone = time.Local
	}
	r := t.limits.at(now.In(zone))
	t.window = r.window
	r.limit[wire], r.limit[read] = lower(r.limit[wire], t.peer.Wire), lower(r.limit[read], t.peer.Read)
	for k := range t.queues {
		t.queues[k].setRate(r.limit[k], now)
	}
	if len(t.limits.Windows) > 0 {
		// Every minute is looked at, not only those in the list: when daylight
		// saving begins or ends a window may begin at any of them.
		t.until = now.Truncate(time.Minute).Add(time.Minute)
	}
}

// refreshLocked follows the clock.
func (t *Throttle) refreshLocked(now time.Time) {
	if len(t.limits.Windows) > 0 && (!now.Before(t.until) || t.until.Sub(now) > time.Minute) {
		t.ratesLocked(now)
	}
}

// longestSleep is how late a clock that is put forward may be noticed.
const longestSleep = 10 * time.Second

// serveLocked grants what may go and sets the timer for the rest.
func (t *Throttle) serveLocked(now time.Time) {
	sleep, any := longestSleep, false
	for k := range t.queues {
		q := &t.queues[k]
		q.fill(now)
		for len(q.waiting) > 0 && q.open() {
			q.grant()
		}
		if len(q.waiting) > 0 {
			any, sleep = true, min(sleep, q.wait())
		}
	}
	if !any {
		return
	}
	if len(t.limits.Windows) > 0 {
		sleep = min(sleep, max(t.until.Sub(now), time.Millisecond))
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(sleep, t.tick)
		return
	}
	t.timer.Reset(sleep)
}

// tick serves those who wait when time has passed.
func (t *Throttle) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.refreshLocked(now)
	t.serveLocked(now)
}

// take waits until n bytes of kind k may go for job. m hears of a wait, as one
// for b.
func (t *Throttle) take(ctx context.Context, k kind, job *Throttle, n int64, m *Meter, b Bound) error {
	t.mu.Lock()
	now := time.Now()
	t.refreshLocked(now)
	q := &t.queues[k]
	if q.rate == 0 {
		t.mu.Unlock()
		return ctx.Err()
	}
	q.fill(now)
	f, weight := q.flowOf(job), job.share()
	if len(q.waiting) == 0 && q.open() {
		q.pass(f, n, weight)
		t.mu.Unlock()
		return ctx.Err()
	}
	if t.window {
		b = ByWindow
	}
	r := &request{n: n, weight: weight, ready: make(chan struct{})}
	q.add(f, r)
	t.serveLocked(now)
	t.mu.Unlock()
	defer m.wait(b)()
	select {
	case <-r.ready:
		return ctx.Err()
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !r.done {
		q.remove(f, r)
	}
	return ctx.Err()
}

// share is the weight of job; nil: where there is but one.
func (t *Throttle) share() int64 {
	if t == nil {
		return Normal.weight()
	}
	if w := t.weight.Load(); w > 0 {
		return w
	}
	return Normal.weight()
}
