package wan

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Path is what happens to packets in one direction. The zero Path passes all
// of them at once.
type Path struct {
	Rate  int64         // bits of IP packets a second; 0: no limit
	Delay time.Duration // from the end of sending to the arrival
	Queue time.Duration // how long a packet may wait for the line; in bytes that is Rate/8 times so many seconds
	Loss  float64       // share of the packets that the line loses, 0 to 1
}

func (p Path) validate() error {
	switch {
	case p.Rate < 0 || p.Rate > 100e9:
		return fmt.Errorf("wan: rate of %d bit/s: 0 to 100e9 wanted", p.Rate)
	case p.Delay < 0 || p.Delay > 10*time.Second:
		return fmt.Errorf("wan: delay of %v: 0 to 10s wanted", p.Delay)
	case p.Queue < 0 || p.Queue > 10*time.Second:
		return fmt.Errorf("wan: queue of %v: 0 to 10s wanted", p.Queue)
	case !(p.Loss >= 0 && p.Loss <= 1): // NaN too
		return fmt.Errorf("wan: loss of %v: 0 to 1 wanted", p.Loss)
	}
	return nil
}

// fate is what becomes of a packet.
type fate uint8

const (
	delivered fate = iota
	full           // the queue had no room
	lost           // the line lost it
)

// line is the virtual time of one direction: it knows when it will have sent
// what it has taken, and holds no packet. Times are nanoseconds from any start.
type line struct {
	path Path
	free int64 // when all that was taken is sent
	rest int64 // part of a nanosecond beyond free, in 1/Rate ns
	rand *rand.Rand
}

func newLine(p Path, seed, direction uint64) *line {
	return &line{path: p, rand: rand.New(rand.NewPCG(seed, direction))}
}

// take gives a packet of size bytes that arrives at now its fate, and the time
// of its delivery. A lost packet takes its time on the line like others.
func (l *line) take(now int64, size int) (due int64, f fate) {
	if l.path.Rate > 0 {
		if l.free < now {
			l.free, l.rest = now, 0
		}
		if l.free-now > int64(l.path.Queue) {
			return 0, full
		}
		l.rest += int64(size) * 8 * int64(time.Second)
		l.free += l.rest / l.path.Rate
		l.rest %= l.path.Rate
		due = l.free
	} else {
		due = now
	}
	if l.path.Loss > 0 && l.rand.Float64() < l.path.Loss {
		return 0, lost
	}
	return due + int64(l.path.Delay), delivered
}
