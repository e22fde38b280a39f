package mover

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cbt"
)

// The policy of Auto. It begins without, measures, and decides at the
// end of each window; two windows in a row have to agree on a change, but for
// the first. What it measures in windows where most grains are compressed says
// little of a wire that has become faster: there it forgets after a while what
// it knows of the wire, which takes one window without to find out.
const (
	firstWindow = 40 * time.Millisecond // 5 MiB at 1 Gbit/s
	window      = 200 * time.Millisecond
	windowLeast = 256 << 10 // bytes of grains without which a window says nothing
	knownFor    = 30 * time.Second
	tryFirst    = 4   // of the grains of the first window, one in so many is compressed
	tryLater    = 128 // of those after, while compression is off: 0.01 CPU s per GiB
)

// compressor is the policy of one source. It lives across links. Safe for
// concurrent use by the workers.
type compressor struct {
	asked Choice
	on    atomic.Bool
	bound atomic.Bool                      // the wire is what the workers wait for, and there are processors to spare
	first atomic.Bool                      // no window of this link is over
	now   func() time.Time                 //
	cpu   func() (own, idle time.Duration) // of this process; of all processors since some time
	procs float64                          // processors that this process may use
	limit func() int64                     // bytes per second that the wire may take; 0: no limit

	mu      sync.Mutex
	here    bool
	facts   situation // what lasts from window to window
	wireAt  time.Time // when facts.wire was measured
	turn    int       // windows in a row that speak for a change
	began   time.Time
	own     time.Duration // cpu() when the window began
	idle    time.Duration //
	raw     int64         // of the window: length of grains sent
	sent    int64         // and of their frames
	writing time.Duration // and what the workers waited in writes

	why                   reason
	grains, packed        int64 // of the run, those with bytes
	packedRaw, packedWire int64 // bytes of packed
	triedRaw, triedOut    int64 // since facts were brought up to date
	tryTime               time.Duration
}

func newCompressor(asked Choice) *compressor {
	c := &compressor{asked: asked, now: time.Now, cpu: processors, procs: float64(runtime.GOMAXPROCS(0)), limit: func() int64 { return 0 }}
	c.on.Store(asked == On)
	c.why = byOrder
	if asked == Auto {
		c.why = undecided
	}
	return c
}

// link begins a link over a transport with so many workers: all that was
// measured of the one before it counts no more. limit tells what rate the wire
// is kept to.
func (c *compressor) link(transport string, workers int, here bool, limit func() int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.here, c.limit = here, limit
	c.facts = situation{workers: float64(workers), send: sendCost(transport), encode: encodeCost, ratio: usualRatio}
	c.bound.Store(false)
	defer c.beginLocked()
	if c.asked != Auto {
		return
	}
	c.first.Store(!here)
	c.on.Store(false)
	c.turn, c.wireAt = 0, time.Time{}
	switch {
	case here:
		c.why = noWire
	case limit() > 0: // the wire is slow by order
		c.decideLocked(true)
	}
}

func (c *compressor) beginLocked() {
	c.began = c.now()
	c.own, c.idle = c.cpu()
	c.raw, c.sent, c.writing = 0, 0, 0
}

// wrote notes a frame of sent bytes that carries grains of raw bytes, and for
// how long its write took; a window that is over ends here.
func (c *compressor) wrote(took time.Duration, raw, sent int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.here {
		return
	}
	c.raw, c.sent, c.writing = c.raw+raw, c.sent+sent, c.writing+took
	length := window
	if c.first.Load() {
		length = firstWindow
	}
	if wall := c.now().Sub(c.began); wall >= length && c.raw >= windowLeast {
		c.measureLocked(wall)
		c.bound.Store(c.facts.wireBound(c.bound.Load()))
		if c.asked == Auto {
			c.decideLocked(c.first.Swap(false))
		}
		c.beginLocked()
	}
}

// measureLocked turns the window's sums into facts.
func (c *compressor) measureLocked(wall time.Duration) {
	f := &c.facts
	own, idle := c.cpu()
	sec := wall.Seconds()
	f.on = c.on.Load()
	f.raw = float64(c.raw) / sec
	f.busy = max((own-c.own).Seconds()/sec, 0.01)
	f.idle = max(0, min((idle-c.idle).Seconds()/sec, c.procs-f.busy))
	f.stalled = min(c.writing.Seconds()/sec/f.workers, 1)
	// What the wire takes: as much as it took while someone waited for it.
	wire := float64(c.sent) / sec / max(f.stalled, 0.001)
	if now := c.now(); !f.on || f.stalled >= stall || now.Sub(c.wireAt) > knownFor {
		f.wire, c.wireAt = wire, now
	}
}

// decideLocked acts on the facts; at once, or when two windows agree.
func (c *compressor) decideLocked(at bool) {
	f := c.facts
	f.on = c.on.Load()
	if n := c.limit(); n > 0 {
		f.limit = float64(n)
	}
	on, why := f.decide()
	if on == f.on {
		c.turn, c.why = 0, why
		return
	}
	if c.turn++; at || c.turn >= 2 {
		c.turn, c.why = 0, why
		c.on.Store(on)
	}
}

// encoded notes what compressing a batch came to: of grains with bytes, packed
// were compressed; tried bytes went through the encoder, came out as out, and
// took so much processor time.
func (c *compressor) encoded(b *packed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.grains += int64(b.grains)
	c.packed += int64(b.packed)
	c.packedRaw, c.packedWire = c.packedRaw+b.raw, c.packedWire+b.wire
	if b.tried == 0 {
		return
	}
	c.triedRaw, c.triedOut, c.tryTime = c.triedRaw+b.tried, c.triedOut+b.out, c.tryTime+b.took
	if c.triedRaw < 4*cbt.GrainSize {
		return
	}
	// Half of what is known is of the last MiB or so.
	f := &c.facts
	f.encode += (c.tryTime.Seconds()/float64(c.triedRaw) - f.encode) / 2
	f.ratio += (float64(c.triedRaw)/float64(c.triedOut) - f.ratio) / 2
	c.triedRaw, c.triedOut, c.tryTime = 0, 0, 0
}

// Compression is what a source has compressed, and why.
type Compression struct {
	Asked  Choice
	Grains int64 // sent with bytes
	Packed int64 // of them: as LZ4
	Raw    int64 // bytes of Packed
	Wire   int64 // bytes that Raw became
	Reason string
}

// Text is c in words, as "lz4: 61 % of grains, ratio 2.1; the wire is the limit".
func (c *Compression) Text() string {
	if c.Packed*100 < c.Grains || c.Packed == 0 {
		return "off: " + c.Reason
	}
	return fmt.Sprintf("lz4: %d %% of grains, ratio %.1f; %s", c.Packed*100/c.Grains, float64(c.Raw)/float64(max(c.Wire, 1)), c.Reason)
}

func (c *compressor) report() Compression {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Compression{Asked: c.asked, Grains: c.grains, Packed: c.packed, Raw: c.packedRaw, Wire: c.packedWire, Reason: c.why.String()}
}
