package mover

import (
	"sync"
	"sync/atomic"

	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// Progress is where a run stands. The engine counts, anyone may look at any
// time. Nothing counts as done because it was sent: Durable and Verified are
// what the target has acknowledged.
type Progress struct {
	total, scanned, holes, same, zero, differing atomic.Int64
	sent, wired, durable, verified, readBack     atomic.Int64
	had, bad, redone, lost, reconnects           atomic.Int64
	skipped, sampled, refined                    atomic.Int64

	// Event, when set before the run, is called with what an operator should
	// read: a lost link, a resume. It must not block.
	Event func(text string)
	// Different, when set before the run, is called with every range that stays
	// different, or that could not be read: those of Report.Bad, but all of
	// them, as they are settled. They come in disk order, neighbours as one,
	// each once, whatever happens to the link. Who cannot take them as fast as
	// they come may block; the comparison waits. Not called for an Order.
	Different func(BadRun)
	list      badList

	begun    atomic.Int64 // verified when the link began
	best     atomic.Int64 // the most that was verified on any link
	links    atomic.Int64 // links that began
	switched atomic.Int64 // of them, because the transport was changed

	meter throttle.Meter
	times [NumTimes]durations
	tally atomic.Pointer[tally] // of the engine that counts this

	mu   sync.Mutex
	base int64 // durable, by the Acks of links that have ended
}

// Counters is a snapshot.
func (p *Progress) Counters() wire.Counters {
	return wire.Counters{
		Total: p.total.Load(), Scanned: p.scanned.Load(), Holes: p.holes.Load(), Same: p.same.Load(), Zero: p.zero.Load(),
		Differing: p.differing.Load(), Sent: p.sent.Load(), Wire: p.wired.Load(), Durable: p.durable.Load(),
		Verified: p.verified.Load(), ReadBack: p.readBack.Load(), Had: p.had.Load(), Bad: p.bad.Load(),
		Redone: p.redone.Load(), Lost: p.lost.Load(), Reconnects: p.reconnects.Load(),
		Skipped: p.skipped.Load(), Sampled: p.sampled.Load(), Refined: p.refined.Load(),
	}
}

// set takes over counters that another daemon counted.
func (p *Progress) set(c *wire.Counters) {
	for _, v := range []struct {
		to   *atomic.Int64
		from int64
	}{
		{&p.total, c.Total},
		{&p.scanned, c.Scanned},
		{&p.holes, c.Holes},
		{&p.same, c.Same},
		{&p.zero, c.Zero},
		{&p.differing, c.Differing},
		{&p.sent, c.Sent},
		{&p.wired, c.Wire},
		{&p.durable, c.Durable},
		{&p.verified, c.Verified},
		{&p.readBack, c.ReadBack},
		{&p.had, c.Had},
		{&p.bad, c.Bad},
		{&p.redone, c.Redone},
		{&p.lost, c.Lost},
		{&p.reconnects, c.Reconnects},
		{&p.skipped, c.Skipped},
		{&p.sampled, c.Sampled},
		{&p.refined, c.Refined},
	} {
		v.to.Store(v.from)
	}
}

// rewind takes back the counters of verdicts that have to be found again.
func (p *Progress) rewind() {
	p.step(func() {
		for _, c := range []*atomic.Int64{&p.scanned, &p.holes, &p.same, &p.zero, &p.differing, &p.verified, &p.bad, &p.skipped, &p.sampled} {
			c.Store(0)
		}
	})
	p.list.rewind()
}

// step runs f, after which counters say something else though nothing was done.
func (p *Progress) step(f func()) {
	if t := p.tally.Load(); t != nil {
		t.around(p, f)
		return
	}
	f()
}

func (p *Progress) event(text string) {
	if p.Event != nil {
		p.Event(text)
	}
}

// endLink keeps what the target acknowledged on a link that has ended.
func (p *Progress) endLink() {
	p.mu.Lock()
	p.base = p.durable.Load()
	p.mu.Unlock()
}

// beginLink notes where a link begins; advanced tells whether it came further.
func (p *Progress) beginLink() {
	p.begun.Store(p.verified.Load())
	p.reconnects.Store(max(0, p.links.Add(1)-1-p.switched.Load()))
}

// further tells whether the run came further than ever before.
func (p *Progress) further() bool {
	v := p.verified.Load()
	return v > p.best.Swap(max(v, p.best.Load()))
}

func (p *Progress) advanced() bool { return p.verified.Load() > p.begun.Load() }

// ack takes over the target's statement. durable counts from the start of the
// link, the others from the start of the session.
func (p *Progress) ack(a *wire.Ack) {
	p.mu.Lock()
	p.durable.Store(p.base + a.Durable)
	p.mu.Unlock()
	p.verified.Store(a.Verified)
	p.readBack.Store(a.ReadBack)
}

// Report is what a pass came to.
type Report struct {
	Run       wire.RunID
	Pass      uint32
	State     wire.State // of the target disk; StateVerified is the only success of a copy
	Equal     bool       // every grain of both disks was compared and none differs
	Epoch     uint64
	Root      [32]byte // manifest root of both sides, when Equal
	Counters  wire.Counters
	Track     wire.Tracking // what was asked for
	Hinted    bool          // what was done: a hint left grains out; Counters have how many
	Reason    string        // why
	Transport string        // "quic", "tls", "pipe"; of the last link
	Why       string        // why it is that one; empty: nothing else was allowed
	Conns     int           // connections under the last link; 0: not known
	Control   string        // congestion control of the end that sends: "reno", "cubic", "bbr"; empty: not known
	Cold      string        // how the target's device was read past its cache: "direct", "dropped" or "cached"
	Source    string        // identities of the disks
	Target    string
	Larger    int64    // bytes by which the target is longer than the source; they were left alone
	Bad       []BadRun // ranges that differ (verify) or could not be read (copy), at most 1000; Progress.Different gets all
	// Compression is what the source did, when it was of this engine.
	Compression Compression
}

// BadRun is a range of bytes that stays different.
type BadRun = wire.Bad

// maxBadRuns bounds the list in a Report; the count is never cut.
const maxBadRuns = 1000

// addBad adds the grains in mask of batch b to list, as runs; those in unread
// could not be read.
func addBad(list []BadRun, l layout, b int64, mask, unread wire.Mask) []BadRun {
	for r := range badRuns(l, b, mask, unread) {
		if n := len(list); n > 0 && touches(list[n-1], r) {
			list[n-1].Len += r.Len
		} else if n < maxBadRuns {
			list = append(list, r)
		}
	}
	return list
}
