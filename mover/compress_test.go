package mover

import (
	"math"
	"strings"
	"testing"
	"time"
)

// TestDecide has the situations that the policy is made for. Costs are per GiB.
func TestDecide(t *testing.T) {
	const gib, mib = 1 << 30, 1 << 20
	lan := math.Inf(1)
	for _, c := range []struct {
		name string
		s    situation
		on   bool
		why  reason
	}{
		{"TLS over loopback, both ends on two processors", situation{workers: 1, raw: 700 * mib, stalled: 0.4, busy: 0.9, idle: 0.05, send: 0.8, ratio: 1.8, wire: 1700 * mib}, false, byProcessor},
		{"the same, and compressed by mistake", situation{on: true, workers: 1, raw: 350 * mib, stalled: 0.1, busy: 0.97, idle: 0.03, send: 0.8, ratio: 1.8, wire: 1700 * mib}, false, byProcessor},
		{"QUIC over loopback", situation{workers: 2, raw: 400 * mib, stalled: 0.7, busy: 1, idle: 0, send: 1.8, ratio: 1.8, wire: 570 * mib}, false, byProcessor},
		{"QUIC, and data that shrinks to a twentieth", situation{workers: 2, raw: 500 * mib, stalled: 0.7, busy: 1, idle: 0, send: 1.8, ratio: 20, wire: 570 * mib}, true, cheaper},
		{"1 Gbit/s with processors to spare", situation{workers: 2, raw: 115 * mib, stalled: 0.9, busy: 0.2, idle: 1.8, send: 1.8, ratio: 1.8, wire: 120 * mib}, true, byWire},
		{"the same, on", situation{on: true, workers: 2, raw: 205 * mib, stalled: 0.8, busy: 0.5, idle: 1.5, send: 1.8, ratio: 1.8, wire: 120 * mib}, true, byWire},
		{"100 Mbit/s on one busy processor", situation{workers: 1, raw: 12 * mib, stalled: 0.97, busy: 0.03, idle: 0.2, send: 0.8, ratio: 1.8, wire: 12 * mib}, true, byWire},
		{"1 Gbit/s, nothing compresses", situation{workers: 2, raw: 115 * mib, stalled: 0.9, busy: 0.2, idle: 1.8, send: 1.8, ratio: 1.01, wire: 120 * mib}, false, noGain},
		{"10 Gbit/s, and the wire takes what comes", situation{workers: 4, raw: 900 * mib, stalled: 0.1, busy: 1.5, idle: 2.5, send: 0.8, ratio: 1.8, wire: 9000 * mib}, false, notWire},
		{"a slow disk", situation{workers: 4, raw: 80 * mib, stalled: 0.01, busy: 0.2, idle: 3, send: 0.8, ratio: 1.8, wire: 8000 * mib}, false, notWire},
		{"on, full speed, and it is not known what the wire would take", situation{on: true, workers: 1, raw: 400 * mib, stalled: 0.05, busy: 1, idle: 0, send: 0.8, ratio: 1.8, wire: lan}, false, byProcessor},
		{"on, full speed, and the wire takes less without", situation{on: true, workers: 1, raw: 400 * mib, stalled: 0.05, busy: 1, idle: 0, send: 0.8, ratio: 1.8, wire: 250 * mib}, true, byWire},
		{"a rate, before anything was sent", situation{workers: 1, send: 0.8, ratio: 1.8, limit: 50 * mib}, true, byRate},
		{"a rate that is none", situation{workers: 1, send: 0.8, ratio: 1.8, limit: 5 * gib}, false, byProcessor},
		{"a rate on a fast wire", situation{workers: 2, raw: 50 * mib, stalled: 0.95, busy: 0.1, idle: 1, send: 0.8, ratio: 1.8, wire: 900 * mib, limit: 50 * mib}, true, byRate},
		{"little gain: stay off", situation{workers: 1, raw: 300 * mib, stalled: 0.5, busy: 0.4, idle: 0.3, send: 0.8, ratio: 1.8, wire: 600 * mib}, false, byProcessor},
	} {
		c.s.encode, c.s.send = 1.3/gib, c.s.send/gib
		on, why := c.s.decide()
		if on != c.on || on && why != c.why || !on && why != c.why && c.s.raw > 0 {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, on, why, c.on, c.why)
		}
	}
}

// model is a machine and a wire: one worker's batches take what they cost, and
// the wire is a queue that holds 4 MiB.
type model struct {
	c         *compressor
	at        time.Time
	own, idle time.Duration
	wire      float64 // bytes per second
	cpu       float64 // processor seconds per byte, without compressing or sending
	procs     float64 // what the other end leaves of the machine
	queue     float64 // bytes in it
	switches  int
	bytes     int64
}

func newModel(transport string, wire float64) *model {
	m := &model{c: newCompressor(Auto), at: time.Unix(1000, 0), wire: wire, cpu: 0.5 * perGiB, procs: 2}
	m.c.now = func() time.Time { return m.at }
	m.c.cpu = func() (time.Duration, time.Duration) { return m.own, m.idle }
	m.c.procs = 2
	m.c.link(transport, 1, false, func() int64 { return 0 })
	return m
}

func (m *model) pass(d time.Duration, busy bool) {
	m.at = m.at.Add(d)
	if m.queue = m.queue - m.wire*d.Seconds(); m.queue < 0 {
		m.queue = 0
	}
	if busy {
		m.own += d
		m.idle += time.Duration(float64(d) * (m.procs - 1))
	} else {
		m.idle += time.Duration(float64(d) * m.procs)
	}
}

// run sends for so long, batches of 1 MiB that compress to a part of 1/ratio.
func (m *model) run(d time.Duration, transport string, ratio float64) {
	cost := func(perByte float64, n float64) { m.pass(time.Duration(perByte*n*1e9), true) }
	for end := m.at.Add(d); m.at.Before(end); m.bytes += 1 << 20 {
		const n = 1 << 20
		on := m.c.on.Load()
		cost(m.cpu, n)
		b := packed{grains: 16}
		if b.tried = n / 4; on {
			b.tried, b.packed, b.raw, b.wire = n, 16, n, int64(n/ratio)
		}
		b.out, b.took = int64(float64(b.tried)/ratio), time.Duration(1.3*perGiB*float64(b.tried)*1e9)
		m.pass(b.took, true)
		m.c.encoded(&b)
		sent := float64(n)
		if on {
			sent /= ratio
		}
		began := m.at
		cost(sendCost(transport), sent)
		if m.queue += sent; m.queue > 4<<20 {
			m.pass(time.Duration((m.queue-4<<20)/m.wire*1e9), false)
		}
		m.c.wrote(m.at.Sub(began), n, int64(sent))
		if m.c.on.Load() != on {
			m.switches++
		}
	}
}

// TestPolicy runs the policy against the model: it finds what is right within
// the first MiB, keeps to it, and notices a wire that has changed.
func TestPolicy(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name      string
		transport string
		wire      float64
		procs     float64
		ratio     float64
		on        bool
		why       reason
	}{
		{"1 Gbit/s, QUIC", "quic", 112 * mib, 2, 1.8, true, byWire},
		{"1 Gbit/s, TLS", "tls", 112 * mib, 2, 1.8, true, byWire},
		{"20 Mbit/s", "tls", 2.2 * mib, 2, 1.8, true, byWire},
		{"1 Gbit/s, noise", "tls", 112 * mib, 2, 1, false, noGain},
		{"loopback, TLS", "tls", 5000 * mib, 1, 1.8, false, byProcessor},
		{"loopback, QUIC", "quic", 5000 * mib, 1, 1.8, false, byProcessor},
		{"processors to spare, and a fast wire", "tls", 5000 * mib, 2, 1.8, false, byProcessor},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newModel(c.transport, c.wire)
			m.procs = c.procs
			for m.c.first.Load() {
				m.run(time.Millisecond, c.transport, c.ratio)
			}
			if m.c.on.Load() != c.on || c.wire < 1000*mib && m.bytes > 12*mib {
				t.Errorf("after %d bytes: %v, facts %+v", m.bytes, m.c.on.Load(), m.c.facts)
			}
			m.run(5*time.Minute, c.transport, c.ratio)
			if m.c.on.Load() != c.on || m.switches > 1 {
				t.Errorf("after 5 min: %v, %d changes, facts %+v", m.c.on.Load(), m.switches, m.c.facts)
			}
			if r := m.c.report(); !strings.Contains(r.Text(), c.why.String()) && c.why != byProcessor {
				t.Errorf("says %q, want %q", r.Text(), c.why)
			}
		})
	}
}

// TestPolicyFollows changes the wire under it.
func TestPolicyFollows(t *testing.T) {
	const fast, slow = 5000 << 20, 50 << 20
	m := newModel("tls", fast)
	m.procs = 1.2
	for i, wire := range []float64{fast, slow, fast, slow} {
		m.wire = wire
		m.run(2*knownFor, "tls", 1.8)
		if on := m.c.on.Load(); on != (wire == slow) {
			t.Errorf("step %d, wire of %.0f: %v, facts %+v", i, wire, on, m.c.facts)
		}
	}
	if m.switches > 9 { // and a look now and then
		t.Errorf("%d changes", m.switches)
	}
}

func TestIdleTime(t *testing.T) {
	const stat = "cpu  10 20 30 400 50 60 70 0 0 0\ncpu0 1 2 3 4 5\n"
	for text, want := range map[string]time.Duration{stat: 4500 * time.Millisecond, "cpu 1 2": 0, "": 0, "cpu  1 2 3 4": 0, "\n": 0} {
		if got := idleTime([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
