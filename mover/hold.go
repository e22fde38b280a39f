package mover

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/haulback/haulback/wire"
)

// hold is a disk in the hands of one session. It outlives the session's links:
// when one is lost the disk stays open, and exclusively held, for the linger
// time, so that the next link goes on where this one ended.
type hold struct {
	key    string
	run    wire.RunID
	active bool                       // a link works with it
	cancel context.CancelCauseFunc    // ends that link's session
	alive  func(context.Context) bool // asks its peer for a sign of life; nil: not yet
	done   chan struct{}              // closed when its last write has returned
	timer  *time.Timer                // while it lingers
	res    io.Closer                  // *target or *source; nil until opened
}

// holds are all disks in use, by export. One writer per disk.
type holds struct {
	mu     sync.Mutex
	m      map[string]*hold
	closed bool
}

var errSuperseded = errors.New("a new link of the same run took over")

// acquire takes the disk key for run. A link of the same run that is still
// there is ended first, and acquire waits until its writes have returned
// (fencing F1). One of another run keeps the disk, unless its peer is dead: a
// source that was killed does not say so, and who starts it again shall not
// wait for a time-out.
func (h *holds) acquire(ctx context.Context, key string, run wire.RunID, cancel context.CancelCauseFunc, b bug) (*hold, error) {
	for {
		h.mu.Lock()
		cur := h.m[key]
		switch {
		case h.closed:
			h.mu.Unlock()
			return nil, wire.Errorf(wire.CodeDraining, "the daemon is about to stop")
		case cur == nil:
			cur = &hold{key: key}
			h.m[key] = cur
			fallthrough
		case !cur.active:
			if cur.timer != nil {
				cur.timer.Stop()
				cur.timer = nil
			}
			cur.run, cur.active, cur.cancel, cur.done, cur.alive = run, true, cancel, make(chan struct{}), nil
			h.mu.Unlock()
			return cur, nil
		}
		other, alive, stop, done := cur.run, cur.alive, cur.cancel, cur.done
		h.mu.Unlock()
		if other != run && (alive == nil || alive(ctx)) {
			return nil, wire.Errorf(wire.CodeBusy, "the disk is in use by run %v; wait for it or cancel it", other)
		}
		stop(errSuperseded)
		if b == bugNoDrain {
			h.forget(cur)
			continue
		}
		select {
		case <-done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// asks sets how x's peer is asked for a sign of life.
func (h *holds) asks(x *hold, alive func(context.Context) bool) {
	h.mu.Lock()
	x.alive = alive
	h.mu.Unlock()
}

func (h *holds) forget(x *hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m[x.key] == x {
		delete(h.m, x.key)
	}
}

// release ends a link's use of x. It is closed at once, or after linger.
func (h *holds) release(x *hold, linger time.Duration) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(x.done)
	x.active, x.cancel, x.alive = false, nil, nil
	if linger > 0 && !h.closed && x.res != nil && h.m[x.key] == x {
		done := x.done
		x.timer = time.AfterFunc(linger, func() { h.expire(x, done) })
		return nil
	}
	if h.m[x.key] == x {
		delete(h.m, x.key)
	}
	if x.res != nil {
		err = x.res.Close()
	}
	return err
}

// expire closes what nobody came back for. done tells whether x is still the
// use that the timer was set for.
func (h *holds) expire(x *hold, done chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x.active || x.done != done || h.m[x.key] != x {
		return
	}
	delete(h.m, x.key)
	_ = x.res.Close() // nothing was written since the last checkpoint that counts
}

// close closes what lingers and refuses what comes.
func (h *holds) close() (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for k, x := range h.m {
		if !x.active {
			x.timer.Stop()
			delete(h.m, k)
			err = errors.Join(err, x.res.Close())
		}
	}
	return err
}

// Close implements io.Closer for holds.
func (t *target) Close() error { return t.close() }

// Close implements io.Closer for holds.
func (s *source) Close() error { return s.disk.Close() }
