package mover

import (
	"fmt"
	"math"
	"time"

	"github.com/haulback/haulback/wire"
)

// What a judge goes by. docs/performance.md, and facts of a measured link of 1 Gbit/s
// and 50 ms: one connection of QUIC, which has NewReno, fills it without loss, and
// carries 16 Mbit/s of it at 0.1 %; 64 carry 613; one of TCP with BBR 877.
const (
	// boundShare is the share of the time that its writers wait for a data stream
	// from which on the network holds the copy up. Below it is the disks, the
	// processor, or a limit that somebody has set.
	boundShare = 0.5
	// boundFor is how long that has to have been so before anything is changed.
	boundFor = time.Second
	// fair is how long a new route is given before it is compared with the old.
	fair = 4 * time.Second
	// worth is how long the rest has to take, as it goes now, for a change to be
	// worth it: that costs about a second.
	worth = 3 * time.Second
	// remember is in which time half of what was counted is forgotten.
	remember = 10 * time.Second
	// fewTimes is how often packets have to be lost, at different looks: one burst
	// is the end of a slow start. It is less than 3 because of what is forgotten.
	fewTimes = 2.5
	// renoRoom is how many times what Reno's law allows a copy may move and still be
	// held up by it: it has begun faster, and the law is of the long run.
	renoRoom = 3
	// slower is how much of the old rate a new route has to give to be kept.
	slower = 0.8
	// fastCPU is a rate in bytes per second from which on the processor of QUIC
	// matters.
	fastCPU = 64 << 20
	// segment is what a packet of QUIC carries.
	segment = 1400
	// fillRate is what a route of many connections is made for, 1 Gbit/s.
	fillRate = 125 << 20
	// mostConnections is where another costs more processor than it brings.
	mostConnections = 64
)

// seen is what the end that sends has seen of a link. All but rtt counts from when
// the session on it began.
type seen struct {
	at            time.Duration
	rtt           time.Duration
	waited        time.Duration // by a writer, on the average
	bytes         int64         // sent, as the link carries them
	packets, lost int64
	bbr           bool
}

// judge decides what the next link of a run goes over, by what the end that sends
// has seen of the links so far. It has no clock and does no I/O. It is for one
// goroutine.
type judge struct {
	may   func(Route) bool
	route Route // of the link now
	noTCP bool  // TLS was tried and not to be had
	done  bool  // nothing is changed any more

	was    Route   // before the last change
	before float64 // its rate, bytes per second; 0: there was none

	last     seen
	least    time.Duration // round trip with empty queues
	standing bool          // a queue stood at the last look
	bound    time.Duration // in which the network held the copy up, on this link
	rate     float64       // bytes per second while it did, of about the last second
	packets  float64       // sent while no queue stood, forgetting
	lost     float64
	times    float64 // looks at which packets were lost while no queue stood, forgetting
}

// begin is for a link over route whose session begins.
func (j *judge) begin(route Route) {
	j.route = route
	j.last, j.least, j.standing, j.bound, j.rate, j.packets, j.lost, j.times = seen{}, 0, false, 0, 0, 0, 0, 0
}

// look takes what was seen until now; left is how many bytes there may be to move
// at most. It says what the next link is to go over and why, ok if there is to be
// one, and the link now is to be ended.
func (j *judge) look(s *seen, left int64) (to Route, why string, ok bool) {
	share := j.count(s)
	if j.done || float64(left) < j.rate*worth.Seconds() {
		return Route{}, "", false
	}
	switch {
	case j.before > 0:
		return j.compare()
	case j.route.Transport == "tls":
		return Route{}, "", false // with what there is to be had on the way
	case j.least < wire.LongPath:
		return j.near()
	}
	if share < boundShare || j.bound < boundFor || j.times < fewTimes {
		return Route{}, "", false
	}
	return j.lossy(s)
}

// count takes s into account, and gives the share of the time since the last that
// the network held the copy up.
func (j *judge) count(s *seen) (share float64) {
	dur := s.at - j.last.at
	packets, lost, bytes := s.packets-j.last.packets, s.lost-j.last.lost, s.bytes-j.last.bytes
	waited := s.waited - j.last.waited
	if dur <= 0 || packets < 0 || lost < 0 || bytes < 0 || waited < 0 {
		return 0 // nonsense of a peer counts for nothing
	}
	j.last = *s
	if s.rtt > 0 && (j.least == 0 || s.rtt < j.least) {
		j.least = s.rtt
	}
	// Who loses packets because the line is full sees the queue before it first:
	// then it is used, and no other route would do better.
	stood := j.standing
	j.standing = s.rtt > j.least*5/4+wire.LongPath
	share = min(1, waited.Seconds()/dur.Seconds())
	if share < boundShare {
		return share
	}
	j.bound += dur
	part := min(1, dur.Seconds())
	j.rate += (float64(bytes)/dur.Seconds() - j.rate) * max(part, min(1, dur.Seconds()/j.bound.Seconds()))
	keep := math.Exp2(-dur.Seconds() / remember.Seconds())
	j.packets, j.lost, j.times = j.packets*keep, j.lost*keep, j.times*keep
	if !j.standing && !stood {
		j.packets, j.lost = j.packets+float64(packets), j.lost+float64(lost)
		if lost > 0 {
			j.times++
		}
	}
	return share
}

// near takes TLS on a short path, where it did not answer in time at first.
func (j *judge) near() (to Route, why string, ok bool) {
	to = Route{Transport: "tls"}
	if j.bound < boundFor || j.rate < fastCPU || j.noTCP || !j.may(to) {
		return to, "", false
	}
	return to, fmt.Sprintf("round trip %v, TCP costs less CPU than QUIC", short(j.least)), true
}

// lossy leaves Reno where losses without a queue keep it below what a line could
// carry.
func (j *judge) lossy(s *seen) (to Route, why string, ok bool) {
	p := j.lost / max(j.packets, 1)
	one := reno(s.rtt, p)
	n := max(j.route.Connections, 1)
	if j.rate > renoRoom*one*float64(n) {
		return to, "", false
	}
	why = fmt.Sprintf("%.2g %% of the packets are lost at a round trip of %v, which holds QUIC's Reno to %s", 100*p, short(s.rtt), rateText(j.rate))
	if to = (Route{Transport: "tls"}); s.bbr && !j.noTCP && j.may(to) {
		return to, why + "; TCP has BBR", true
	}
	more := min(mostConnections, max(4, int(math.Ceil(fillRate/one))))
	for ; more > n; more /= 2 {
		if to = (Route{Transport: "quic", Connections: more}); j.may(to) {
			return to, fmt.Sprintf("%s; %d connections", why, more), true
		}
	}
	return to, "", false
}

// reno is what one connection of NewReno with quic-go's constants moves, in bytes per
// second, when of its packets p are lost at random.
func reno(rtt time.Duration, p float64) float64 {
	return 1.68 * segment / (rtt.Seconds() * math.Sqrt(p))
}

// compare goes back, once, if the route that was changed to is slower.
func (j *judge) compare() (to Route, why string, ok bool) {
	if j.bound < fair {
		return to, "", false
	}
	j.done = true
	if j.rate >= slower*j.before {
		return to, "", false
	}
	return j.was, fmt.Sprintf("%s moved %s, before it was %s", j.route, rateText(j.rate), rateText(j.before)), true
}

// changed is for a change that look has asked for and that is done: the link now is
// about to end.
func (j *judge) changed(to Route) {
	if j.before > 0 {
		j.done = true
	}
	j.was, j.before, j.route = j.route, max(j.rate, 1), to
}

// refused is for a route that look has asked for and that is not to be had.
func (j *judge) refused(to Route) {
	if to.Transport == "tls" && !j.noTCP {
		j.noTCP = true
		return
	}
	j.done = true
}

// String is the route in messages.
func (r Route) String() string {
	if r.Connections > 1 {
		return fmt.Sprintf("%s with %d connections", r.Transport, r.Connections)
	}
	return r.Transport
}

func rateText(bytes float64) string { return fmt.Sprintf("%.3g Mbit/s", bytes*8/1e6) }

func short(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return max(d.Round(100*time.Microsecond), 100*time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
