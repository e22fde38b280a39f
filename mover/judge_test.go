package mover

import (
	"testing"
	"time"
)

// scene is a link as its sender sees it, four looks a second.
type scene struct {
	name     string
	route    Route
	only     string // the one transport that may be used
	rtt      time.Duration
	queue    time.Duration // that stands while the network is full
	rate     float64       // Mbit/s
	loss     float64       // share
	share    float64       // of the time that writers wait
	bbr      bool
	left     int64
	want     Route // after some seconds; zero: none
	atMost   int   // looks until then
	overshot int64 // packets that the end of slow start loses, in the second look
}

func TestJudge(t *testing.T) {
	t.Parallel()
	quic, tls := Route{Transport: "quic", Connections: 1}, Route{Transport: "tls"}
	const big = 1 << 40
	ms := time.Millisecond
	for _, c := range []scene{
		{name: "LAN, TCP late", route: quic, rtt: ms / 5, rate: 2000, share: .9, left: big, want: tls, atMost: 8},
		{name: "LAN, slow disk", route: quic, rtt: ms / 5, rate: 2000, share: .2, left: big},
		{name: "LAN, quic asked for", route: quic, only: "quic", rtt: ms / 5, rate: 2000, share: .9, left: big},
		{name: "1 Gbit/s, 50 ms, no loss", route: quic, rtt: 50 * ms, queue: 30 * ms, rate: 900, share: .9, bbr: true, left: big, overshot: 1400},
		{name: "no loss, no queue", route: quic, rtt: 50 * ms, rate: 900, share: .9, bbr: true, left: big, overshot: 1400},
		{name: "0.01 %", route: quic, rtt: 50 * ms, rate: 100, loss: .0001, share: .9, bbr: true, left: big, want: tls, atMost: 30},
		{name: "0.1 %", route: quic, rtt: 50 * ms, rate: 16, loss: .001, share: .9, bbr: true, left: big, want: tls, atMost: 24},
		{name: "0.1 %, after slow start", route: quic, rtt: 50 * ms, rate: 30, loss: .001, share: .9, bbr: true, left: big, want: tls, atMost: 12},
		{name: "1 %", route: quic, rtt: 50 * ms, rate: 5, loss: .01, share: .9, bbr: true, left: big, want: tls, atMost: 12},
		{name: "0.1 %, no BBR", route: quic, rtt: 50 * ms, rate: 16, loss: .001, share: .9, left: big, want: Route{"quic", 64}, atMost: 24},
		{name: "0.1 %, quic asked for", route: quic, only: "quic", rtt: 50 * ms, rate: 16, loss: .001, share: .9, bbr: true, left: big, want: Route{"quic", 64}, atMost: 24},
		{name: "0.1 %, over TLS already", route: tls, rtt: 50 * ms, rate: 16, loss: .001, share: .9, bbr: true, left: big},
		{name: "10 Mbit/s, its queue is full", route: quic, rtt: 50 * ms, queue: 40 * ms, rate: 10, loss: .0004, share: .95, bbr: true, left: big},
		{name: "held up by the processor", route: quic, rtt: 50 * ms, rate: 16, loss: .001, share: .1, bbr: true, left: big},
		{name: "a limit of 16 Mbit/s", route: quic, rtt: 50 * ms, rate: 16, loss: .0005, share: .05, bbr: true, left: big},
		{name: "little to move", route: quic, rtt: 50 * ms, rate: 16, loss: .001, share: .9, bbr: true, left: 4 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := judge{may: func(r Route) bool { return c.only == "" || r.Transport == c.only }}
			j.begin(c.route)
			got, at := c.run(&j, 120)
			if got != c.want || c.want != (Route{}) && at > c.atMost {
				t.Errorf("after %d looks %v, want %v within %d; %+v", at, got, c.want, c.atMost, j)
			}
		})
	}
}

// run shows the scene to j until it decides.
func (c *scene) run(j *judge, looks int) (Route, int) {
	s := seen{rtt: c.rtt, bbr: c.bbr}
	var lost float64
	for i := 1; i <= looks; i++ {
		s.at += pathEvery
		s.waited += time.Duration(c.share * float64(pathEvery))
		bytes := int64(c.rate / 8 * 1e6 * pathEvery.Seconds())
		s.bytes += bytes
		s.packets += bytes / segment
		lost += c.loss * float64(bytes/segment)
		s.lost = int64(lost)
		if i > 1 {
			s.lost += c.overshot
			s.rtt = c.rtt + c.queue
		}
		if to, why, ok := j.look(&s, c.left); ok {
			if why == "" {
				panic("a change without a reason")
			}
			return to, i
		}
	}
	return Route{}, looks
}

// TestJudgeChanges: what is slower is left again, once; what is not to be had is
// not asked for again.
func TestJudgeChanges(t *testing.T) {
	t.Parallel()
	lossy := scene{rtt: 50 * time.Millisecond, rate: 16, loss: .001, share: .9, bbr: true, left: 1 << 40}
	quic, tls := Route{Transport: "quic", Connections: 1}, Route{Transport: "tls"}
	start := func() *judge {
		j := &judge{may: func(Route) bool { return true }}
		j.begin(quic)
		if to, _ := lossy.run(j, 40); to != tls {
			t.Fatalf("%v, want tls", to)
		}
		return j
	}
	for rate, want := range map[float64]Route{800: {}, 16: {}, 2: quic} {
		j := start()
		j.changed(tls)
		j.begin(tls)
		after := lossy
		after.rate = rate
		got, _ := after.run(j, 200)
		if got != want {
			t.Errorf("%v Mbit/s over tls: goes to %v, want %v", rate, got, want)
		}
		j.changed(got)
		j.begin(quic)
		if got, _ := lossy.run(j, 200); got != (Route{}) {
			t.Errorf("%v Mbit/s over tls: changes a third time, to %v", rate, got)
		}
	}
	j := start()
	j.refused(tls)
	lossy.run(j, 0)
	j.begin(quic)
	to, _ := lossy.run(j, 40)
	if to != (Route{"quic", 64}) {
		t.Errorf("TCP is blocked: %v, want 64 connections", to)
	}
	j.refused(to)
	j.begin(quic)
	if to, _ = lossy.run(j, 100); to != (Route{}) {
		t.Errorf("nothing is to be had: %v", to)
	}
}

// TestJudgeNonsense: a source that lies about its path decides nothing worse than
// another link, and breaks nothing.
func TestJudgeNonsense(t *testing.T) {
	t.Parallel()
	j := judge{may: func(Route) bool { return true }}
	j.begin(Route{Transport: "quic"})
	for _, s := range []seen{{}, {at: -1}, {at: 1, packets: -1}, {at: 2, lost: 5}, {at: 3}, {at: 1 << 62, waited: 1 << 62, bytes: 1 << 62, lost: 1 << 62}, {at: 4}} {
		j.look(&s, 1<<62)
	}
}
