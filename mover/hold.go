package mover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/haulback/haulback/wire"
)

// hold is a disk in the hands of one session. It outlives the session's links:
// when one is lost the disk stays open, and exclusively held, for the linger
// time, so that the next link goes on where this one ended.
type hold struct {
	key     string
	run     wire.RunID
	fence   uint64                     // of the ticket that opened it; 0: none
	active  bool                       // a link works with it, or it is being closed
	closing bool                       // of active: it is being closed
	cancel  context.CancelCauseFunc    // ends that link's session
	alive   func(context.Context) bool // asks its peer for a sign of life; nil: not yet
	done    chan struct{}              // closed when its last write has returned
	timer   *time.Timer                // while it lingers
	res     io.Closer                  // *target or *source; nil until opened
}

// holds are all disks in use, by export. One writer per disk.
type holds struct {
	mu     sync.Mutex
	m      map[string]*hold
	closed bool
}

var errSuperseded = wire.Errorf(wire.CodeSuperseded, "a new link of the same run took over")

// acquire takes the disk key for run. A link of the same run that is still
// there is ended first, and acquire waits until its writes have returned
// (fencing F1). One of another run keeps the disk, unless its peer is dead: a
// source that was killed does not say so, and who starts it again shall not
// wait for a time-out.
//
// A ticket of a later epoch of the disk's controller takes the disk from any
// session, and one of an earlier epoch from none.
func (h *holds) acquire(ctx context.Context, key string, run wire.RunID, fence uint64, cancel context.CancelCauseFunc, b bug) (*hold, error) {
	for {
		h.mu.Lock()
		cur := h.m[key]
		if h.closed {
			h.mu.Unlock()
			return nil, wire.Errorf(wire.CodeDraining, "the daemon is about to stop")
		}
		if cur == nil {
			cur = &hold{key: key}
			h.m[key] = cur
		}
		if !cur.active && fence < cur.fence {
			h.mu.Unlock()
			return nil, fencedOff(fence, cur.fence)
		}
		if !cur.active {
			cur.use(run, cancel)
			cur.fence = fence
			h.mu.Unlock()
			return cur, nil
		}
		x := *cur // what is in it may change without the lock
		h.mu.Unlock()
		if !x.closing {
			switch {
			case fence < x.fence:
				return nil, fencedOff(fence, x.fence)
			case fence > x.fence:
				x.cancel(fencedOff(x.fence, fence))
			case x.run != run && (x.alive == nil || x.alive(ctx)):
				return nil, inUse(x.run)
			default:
				x.cancel(errSuperseded)
			}
		}
		if b == bugNoDrain {
			h.forget(cur)
			continue
		}
		select {
		case <-x.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// fill notes what x holds: held may ask for it at any time.
func (h *holds) fill(x *hold, res io.Closer) {
	h.mu.Lock()
	x.res = res
	h.mu.Unlock()
}

// held returns the target that a session holds as key, and whose it is in words.
func (h *holds) held(key string) (*target, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.m[key]
	if x == nil || x.closing {
		return nil, ""
	}
	t, _ := x.res.(*target)
	if x.active {
		return t, fmt.Sprintf("in use by run %v", x.run)
	}
	return t, fmt.Sprintf("kept for run %v, whose link is lost, for a while", x.run)
}

func inUse(run wire.RunID) error {
	return wire.Errorf(wire.CodeBusy, "the disk is in use by run %v; wait for it or cancel it", run)
}

// use makes x the caller's. The lock is held.
func (x *hold) use(run wire.RunID, cancel context.CancelCauseFunc) {
	if x.timer != nil {
		x.timer.Stop()
		x.timer = nil
	}
	x.run, x.active, x.cancel, x.alive, x.done = run, true, cancel, nil, make(chan struct{})
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
func (h *holds) release(x *hold, linger time.Duration) error {
	h.mu.Lock()
	if linger > 0 && !h.closed && x.res != nil && h.m[x.key] == x {
		x.active, x.cancel, x.alive = false, nil, nil
		close(x.done)
		done := x.done
		x.timer = time.AfterFunc(linger, func() { h.expire(x, done) })
		h.mu.Unlock()
		return nil
	}
	x.closing = true
	h.mu.Unlock()
	return h.shut(x)
}

// shut closes x, which is active and closing, without the lock: the last close
// of a device flushes it, and no other disk shall wait for that.
func (h *holds) shut(x *hold) (err error) {
	if x.res != nil {
		err = x.res.Close()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m[x.key] == x {
		delete(h.m, x.key)
	}
	close(x.done)
	return err
}

// expire closes what nobody came back for. done tells whether x is still the
// use that the timer was set for.
func (h *holds) expire(x *hold, done chan struct{}) {
	h.mu.Lock()
	if x.active || x.done != done || h.m[x.key] != x {
		h.mu.Unlock()
		return
	}
	x.use(x.run, nil)
	x.closing = true
	h.mu.Unlock()
	_ = h.shut(x) // nothing was written since the last checkpoint that counts
}

// expireIdle closes what lingers for readers of the export name, and waits.
func (h *holds) expireIdle(name string) {
	h.mu.Lock()
	type idle struct {
		x    *hold
		done chan struct{}
	}
	var list []idle
	for k, x := range h.m {
		if !x.active && strings.HasPrefix(k, name+" ") {
			list = append(list, idle{x, x.done})
		}
	}
	h.mu.Unlock()
	for _, i := range list {
		h.expire(i.x, i.done)
	}
}

// dismiss closes what lingers for a run of this process that has returned: nobody
// comes back for it, and the next one to want the disk may be another program.
func (h *holds) dismiss(key string, run wire.RunID) {
	for _, k := range []string{key, verifyKey(key, run)} {
		h.mu.Lock()
		x := h.m[k]
		idle := x != nil && !x.active && x.run == run
		var done chan struct{}
		if idle {
			done = x.done
		}
		h.mu.Unlock()
		if idle {
			h.expire(x, done)
		}
	}
}

// verifyKey is the key of a disk that is only read: as many as like to.
func verifyKey(key string, run wire.RunID) string { return key + " " + run.String() }

// close closes what lingers and refuses what comes. Active sessions have ended
// before.
func (h *holds) close() (err error) {
	h.mu.Lock()
	h.closed = true
	var list []*hold
	for _, x := range h.m {
		if !x.active {
			x.use(x.run, nil)
			x.closing = true
			list = append(list, x)
		}
	}
	h.mu.Unlock()
	for _, x := range list {
		err = errors.Join(err, h.shut(x))
	}
	return err
}

// Close implements io.Closer for holds.
func (t *target) Close() error { return t.close() }

// Close implements io.Closer for holds.
func (s *source) Close() error { return s.disk.Close() }
