package wire

import (
	"context"
	"sync"
)

// valid reports whether protocol 1 has a stream of this name.
func (id StreamID) valid() bool {
	switch id.Kind {
	case StreamManifest, StreamPlan, StreamRefine, StreamParts:
		return id.Index == 0
	case StreamData:
		return id.Index < MaxDataStreams
	}
	return false
}

// check is the error for an id that the caller must not use.
func (id StreamID) check() error {
	if !id.valid() {
		return Errorf(CodeFrame, "wire: no stream %d/%d in protocol %d", id.Kind, id.Index, Version)
	}
	return nil
}

func (id StreamID) again() *Error {
	return Errorf(CodeFrame, "wire: stream %d/%d opened twice", id.Kind, id.Index)
}

// claims is the set of streams that this end has opened.
type claims struct {
	mu    sync.Mutex
	taken map[StreamID]bool
}

// take fails for an id that is not valid or was taken before.
func (c *claims) take(id StreamID) error {
	if err := id.check(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[id] {
		return id.again()
	}
	if c.taken == nil {
		c.taken = map[StreamID]bool{}
	}
	c.taken[id] = true
	return nil
}

// drop undoes take after a failure that leaves nothing open.
func (c *claims) drop(id StreamID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.taken, id)
}

// arrivals brings together the streams that the peer opens and the calls that
// wait for them, in either order. Only valid ids get in, so it is bounded.
type arrivals struct {
	claims claims // the waiting side
	came   claims // the arriving side
	mu     sync.Mutex
	ready  map[StreamID]chan Stream
}

// slot is where id is handed over; capacity 1 because an id comes once.
func (a *arrivals) slot(id StreamID) chan Stream {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ready == nil {
		a.ready = map[StreamID]chan Stream{}
	}
	if a.ready[id] == nil {
		a.ready[id] = make(chan Stream, 1)
	}
	return a.ready[id]
}

// arrive takes a stream of the peer's. An error means that the peer broke the
// protocol.
func (a *arrivals) arrive(id StreamID, s Stream) error {
	if err := a.came.take(id); err != nil {
		return err
	}
	a.slot(id) <- s
	return nil
}

// wait returns the stream id once it is there.
func (a *arrivals) wait(ctx context.Context, id StreamID, link *ending) (Stream, error) {
	if err := a.claims.take(id); err != nil {
		return nil, err
	}
	select {
	case s := <-a.slot(id):
		return s, nil
	case <-link.done:
		return nil, link.Err()
	case <-ctx.Done():
		a.claims.drop(id)
		return nil, ctx.Err()
	}
}
