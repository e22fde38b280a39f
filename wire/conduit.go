package wire

import (
	"io"
	"os"
	"sync"
	"time"
)

// conduit is one direction of an in-memory stream: a bounded ring of bytes
// with deadlines. One goroutine reads and one writes at a time. It waits on
// channels only, so it is durably blocked in a synctest bubble.
type conduit struct {
	limit int
	done  <-chan struct{} // closed when the link has ended

	mu   sync.Mutex
	ring []byte // grows to limit
	head int    // of the first byte to read
	n    int    // bytes to read
	eof  bool

	// readable and writable have capacity 1: a wake-up that nobody waits for
	// is kept for the next wait, more are not needed.
	readable, writable chan struct{}
	readBy, writeBy    deadline
}

func newConduit(limit int, done <-chan struct{}) *conduit {
	return &conduit{
		limit: limit, done: done,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		readBy: newDeadline(), writeBy: newDeadline(),
	}
}

// minRing is the first allocation of a ring; most control streams need no more.
const minRing = 4 << 10

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits for a wake-up on c, the deadline or the end of the link.
func (c *conduit) await(woken chan struct{}, by *deadline) error {
	select {
	case <-woken:
		return nil
	case <-by.passed():
		return os.ErrDeadlineExceeded
	case <-c.done:
		return ErrClosed
	}
}

// usable fails when a call may not even begin.
func (c *conduit) usable(by *deadline) error {
	select {
	case <-c.done:
		return ErrClosed
	case <-by.passed():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

func (c *conduit) Read(p []byte) (int, error) {
	for {
		if err := c.usable(&c.readBy); err != nil {
			return 0, err
		}
		if n, eof := c.take(p); n > 0 || len(p) == 0 {
			wake(c.writable)
			return n, nil
		} else if eof {
			return 0, io.EOF
		}
		if err := c.await(c.readable, &c.readBy); err != nil {
			return 0, err
		}
	}
}

func (c *conduit) take(p []byte) (n int, eof bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 && c.n > 0 {
		k := copy(p, c.ring[c.head:min(c.head+c.n, len(c.ring))])
		c.head = (c.head + k) % len(c.ring)
		p, c.n, n = p[k:], c.n-k, n+k
	}
	return n, c.eof
}

func (c *conduit) Write(p []byte) (int, error) {
	written := 0
	for {
		if err := c.usable(&c.writeBy); err != nil {
			return written, err
		}
		n, eof := c.put(p[written:])
		if eof {
			return written, io.ErrClosedPipe
		}
		if n > 0 {
			wake(c.readable)
		}
		if written += n; written == len(p) {
			return written, nil
		}
		if err := c.await(c.writable, &c.writeBy); err != nil {
			return written, err
		}
	}
}

func (c *conduit) put(p []byte) (n int, eof bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.eof {
		return 0, true
	}
	c.growLocked(len(p))
	for len(p) > 0 && c.n < len(c.ring) {
		tail := (c.head + c.n) % len(c.ring)
		end := len(c.ring)
		if tail < c.head {
			end = c.head
		}
		k := copy(c.ring[tail:end], p)
		p, c.n, n = p[k:], c.n+k, n+k
	}
	return n, false
}

// growLocked makes room for more bytes, up to the limit.
func (c *conduit) growLocked(more int) {
	if len(c.ring) == c.limit || c.n+more <= len(c.ring) {
		return
	}
	ring := make([]byte, min(c.limit, max(2*len(c.ring), c.n+more, minRing)))
	k := copy(ring, c.ring[c.head:min(c.head+c.n, len(c.ring))])
	copy(ring[k:], c.ring[:c.n-k])
	c.ring, c.head = ring, 0
}

func (c *conduit) CloseWrite() error {
	c.mu.Lock()
	c.eof = true
	c.mu.Unlock()
	wake(c.readable)
	return nil
}

func (c *conduit) SetReadDeadline(t time.Time) error  { c.readBy.set(t); return nil }
func (c *conduit) SetWriteDeadline(t time.Time) error { c.writeBy.set(t); return nil }

// deadline is a moment that may be moved while others wait for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	gone  chan struct{} // closed when the moment has passed
}

func newDeadline() deadline { return deadline{gone: make(chan struct{})} }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gone
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.gone // the timer fires right now: let it close the channel first
	}
	d.timer = nil
	passed := false
	select {
	case <-d.gone:
		passed = true
	default:
	}
	wait := time.Until(t)
	past := !t.IsZero() && wait <= 0
	if passed && !past {
		d.gone = make(chan struct{})
	}
	switch {
	case past && !passed:
		close(d.gone)
	case !past && !t.IsZero():
		gone := d.gone
		d.timer = time.AfterFunc(wait, func() { close(gone) })
	}
}
