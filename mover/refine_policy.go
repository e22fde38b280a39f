package mover

import (
	"sync"
	"time"
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// policy decides when a source asks for pieces. A question costs both ends a
// second read of the grain and its digests, some 3 CPU seconds per GiB; what it
// saves costs the wire, and over QUIC more than that in CPU time. So it is worth
// it while workers wait for the wire, or its limit, and while the answers leave
// something out. Safe for concurrent use.
type policy struct {
	refine  Refine
	workers time.Duration

	mu    sync.Mutex
	since time.Time     // the wire is measured from here
	wrote time.Duration // of all workers, in writes
	bound bool          // the wire was what they waited for

	sent, saved int64 // by answers since the last look
	pause       int   // batches that are not asked for
}

const (
	// measureFor is how long the wire is measured before that counts: some
	// hundred writes on a fast wire, and more than one burst of a limit.
	measureFor = 200 * time.Millisecond
	// paysFrom is how many bytes of grains answers are counted for, payShare
	// which part of them has to be saved: less does not pay for the reads.
	paysFrom, payShare = 8 << 20, 8
	// payPause is how many batches go whole before it is tried again.
	payPause = 512
)

func newPolicy(cfg *Config) policy {
	return policy{refine: cfg.Refine, workers: time.Duration(cfg.Workers)}
}

// now reports whether to ask for the pieces of a batch.
func (p *policy) now() bool {
	if p.refine == RefineOn {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause > 0 {
		p.pause--
		return false
	}
	return p.bound
}

// wait notes that a worker was in a write, or waited for leave to write, from
// began to now.
func (p *policy) wait(began, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = began
	}
	p.wrote += now.Sub(began)
	all := now.Sub(p.since)
	if all < measureFor {
		return
	}
	// Half of the time: the wire. Once pieces are left out the share falls, and
	// that is no reason to stop unless next to nothing is left of it.
	share := 2
	if p.bound {
		share = 10
	}
	p.bound = p.wrote*time.Duration(share) > all*p.workers
	p.since, p.wrote = now, 0
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
