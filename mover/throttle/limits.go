package throttle

import (
	"fmt"
	"slices"
	"time"
)

// Limits bound how much a job, or a daemon, takes. Zero means no limit.
type Limits struct {
	Wire     int64         // bytes per second on the network
	Read     int64         // bytes per second read and hashed, at each end
	Latency  time.Duration // what the storage may take for 256 KiB before reading backs off
	Windows  []Window      // the first that holds now replaces Wire and Read
	Priority Priority      // of a job, among those that share a daemon's limits
}

// Window is a time of the week with limits of its own, by the daemon's clock
// and time zone.
type Window struct {
	Days       [7]bool // by time.Weekday, on which it begins; none set means every day
	From, To   int     // minutes since midnight, 0 to 1440; To <= From crosses midnight
	Wire, Read int64   // bytes per second; 0: no limit in this window
}

// Priority weighs jobs that share a daemon's limits.
type Priority int8

// The priorities: 1, 4 and 16 parts.
const (
	Low    Priority = -1
	Normal Priority = 0
	High   Priority = 1
)

const (
	// Least is the lowest rate: a grain per second. With less nothing moves
	// before a peer takes the silence for a lost link.
	Least = 64 << 10
	// LeastLatency is the lowest latency target: below it the clock and the
	// scheduler are measured, not the storage.
	LeastLatency = 100 * time.Microsecond
	// MaxWindows bounds the list that is gone through at each change.
	MaxWindows = 64
	maxLatency = time.Minute // a disk call of that age is taken for a dead disk
	day        = 24 * 60
)

// Validate returns an error that names the first limit out of its range.
func (l *Limits) Validate() error {
	if err := checkRates(l.Wire, l.Read); err != nil {
		return err
	}
	switch {
	case l.Latency < 0 || l.Latency > 0 && l.Latency < LeastLatency || l.Latency > maxLatency:
		return fmt.Errorf("latency %v: %v to %v, or 0 for none", l.Latency, LeastLatency, maxLatency)
	case l.Priority < Low || l.Priority > High:
		return fmt.Errorf("priority %d: -1, 0 or 1", l.Priority)
	case len(l.Windows) > MaxWindows:
		return fmt.Errorf("%d windows, at most %d may be", len(l.Windows), MaxWindows)
	}
	for i := range l.Windows {
		w := &l.Windows[i]
		if w.From < 0 || w.From >= day || w.To < 0 || w.To > day {
			return fmt.Errorf("window %d: from minute %d to %d, a day has 0 to %d", i, w.From, w.To, day)
		}
		if err := checkRates(w.Wire, w.Read); err != nil {
			return fmt.Errorf("window %d: %w", i, err)
		}
	}
	return nil
}

func checkRates(wire, read int64) error {
	for _, r := range []struct {
		name string
		rate int64
	}{{"wire", wire}, {"read", read}} {
		if r.rate < 0 || r.rate > 0 && r.rate < Least {
			return fmt.Errorf("%s rate of %d bytes per second: at least %d, one grain of 64 KiB, or 0 for none", r.name, r.rate, Least)
		}
	}
	return nil
}

// rates are what of Limits holds at a moment.
type rates struct {
	limit  [kinds]int64
	window bool // a Window says so
}

// at is what holds at now, in now's zone.
func (l *Limits) at(now time.Time) rates {
	minute, today := now.Hour()*60+now.Minute(), now.Weekday()
	for i := range l.Windows {
		if w := &l.Windows[i]; w.holds(minute, today) {
			return rates{limit: [kinds]int64{wire: w.Wire, read: w.Read}, window: true}
		}
	}
	return rates{limit: [kinds]int64{wire: l.Wire, read: l.Read}}
}

// holds goes by the day on which the window begins: after midnight, yesterday.
func (w *Window) holds(minute int, today time.Weekday) bool {
	if w.From < w.To {
		return w.on(today) && w.From <= minute && minute < w.To
	}
	return w.on(today) && minute >= w.From || w.on((today+6)%7) && minute < w.To
}

func (w *Window) on(d time.Weekday) bool { return w.Days[d] || w.Days == [7]bool{} }

// clone is l with windows of its own.
func (l *Limits) clone() Limits {
	c := *l
	c.Windows = slices.Clone(l.Windows)
	return c
}

// unlimited reports whether l never limits anything.
func (l *Limits) unlimited() bool {
	return l.Wire == 0 && l.Read == 0 && l.Latency == 0 && len(l.Windows) == 0
}

// lower is the lower of two limits of which 0 is none.
func lower[T int64 | time.Duration](a, b T) T {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// weight is the job's share. All divide unit.
func (p Priority) weight() int64 {
	switch {
	case p < Normal:
		return 1
	case p > Normal:
		return unit
	}
	return 4
}

// unit makes virtual time whole numbers: n * unit / weight.
const unit = 16
