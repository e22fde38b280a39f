package mover

import (
	"sync"
	"sync/atomic"
	"time"
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// policy decides when a source asks for pieces. A question costs both ends a
// second read of the grain and its digests, some 3 CPU seconds per GiB; what it
// saves costs the wire, and over QUIC more than that in CPU time. So it is worth
// it while workers wait for the wire, or its limit, with processors to spare, and
// while the answers leave something out. Safe for concurrent use.
type policy struct {
	refine Choice
	bound  *atomic.Bool // what compression has measured: the wire is the limit

	mu          sync.Mutex
	sent, saved int64 // by answers since the last look
	pause       int   // batches that are not asked for
}

const (
	// paysFrom is how many bytes of grains answers are counted for, payShare
	// which part of them has to be saved: less does not pay for the reads.
	paysFrom, payShare = 8 << 20, 8
	// payPause is how many batches go whole before it is tried again.
	payPause = 512
)

// now reports whether to ask for the pieces of a batch.
func (p *policy) now() bool {
	if p.refine == On {
		return true
	}
	if !p.bound.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause > 0 {
		p.pause--
		return false
	}
	return true
}

// saw notes what an answer has come to: bytes sent, and left out.
func (p *policy) saw(sent, saved int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent, p.saved = p.sent+sent, p.saved+saved
	if p.sent+p.saved < paysFrom {
		return
	}
	if p.saved*payShare < p.sent+p.saved {
		p.pause = payPause
	}
	p.sent, p.saved = 0, 0
}
