package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/haulback/haulback/cbt"
)

const (
	// clientDepth is the number of requests in flight on one connection. 16
	// pieces keep a server busy; the rest is for small requests. qemu-nbd reads
	// 16 and leaves the others in the socket.
	clientDepth = 64
	// usualFragments is how many there is room for from the start: a reply in a
	// few chunks, out of order.
	usualFragments = 4
	// clientReadBuffer holds the heads of replies. What a read of it takes of
	// the payload is copied once more, so it is small.
	clientReadBuffer = 4096
)

// clientRequest is one slot for a request in flight. Whoever makes the cookie
// 0 (the reader at the end of the reply, or the sender that finds the
// connection dead) owns the slot and gives it back.
type clientRequest struct {
	cookie atomic.Uint64 // 0: not in flight
	born   atomic.Int64  // tick of the watchdog when it was sent
	uses   uint64        // makes each cookie new
	index  uint64
	call   *clientCall
	cmd    uint16
	extent cbt.Extent
	buf    []byte // of a read: where the data goes
	reply  clientReply
}

// clientConn is one connection in transmission. Any number of goroutines send;
// one goroutine reads and puts data where it belongs.
type clientConn struct {
	addr       string
	raw        net.Conn // what is closed
	stream     net.Conn // raw, or TLS on it
	r          *bufio.Reader
	structured bool
	contexts   []clientContext

	slots [clientDepth]clientRequest
	free  chan *clientRequest // capacity clientDepth: giving back never blocks

	wmu  sync.Mutex // one request is written at a time
	head [requestLen]byte
	vec  [2][]byte
	out  net.Buffers

	tick     atomic.Int64          // moved by the watchdog
	progress atomic.Uint64         // bytes received
	unsent   atomic.Pointer[error] // the first write that failed
	broken   atomic.Bool           // set before dead is closed
	dead     chan struct{}         // closed when the reader has ended
	lost     error                 // why; set before dead is closed
}

func newClientConn(h *clientHandshake, raw net.Conn, addr string) *clientConn {
	c := &clientConn{
		addr: addr, raw: raw, stream: h.conn, structured: h.structured, contexts: h.contexts,
		free: make(chan *clientRequest, clientDepth), dead: make(chan struct{}),
	}
	c.r = bufio.NewReaderSize(&countingReader{h.conn, h.r, &c.progress}, clientReadBuffer)
	for i := range c.slots {
		c.slots[i].index = uint64(i)
		c.slots[i].reply.covered = make([]cbt.Extent, 0, usualFragments)
		c.free <- &c.slots[i]
	}
	return c
}

// countingReader reads what the handshake left in its buffer, then the
// connection, and counts: whatever arrives is a sign of life.
type countingReader struct {
	conn net.Conn
	left *bufio.Reader
	n    *atomic.Uint64
}

func (r *countingReader) Read(p []byte) (n int, err error) {
	if r.left != nil && r.left.Buffered() > 0 {
		n, err = r.left.Read(p[:min(len(p), r.left.Buffered())])
	} else {
		r.left = nil
		n, err = r.conn.Read(p)
	}
	r.n.Add(uint64(n))
	return n, err
}

// submit sends one request and adds it to call. payload is written with it;
// into is where the data of a read goes. It returns when the request is
// written, and leaves it to call to say how it ended. false: there was no slot
// because the connection is dead.
func (c *clientConn) submit(call *clientCall, cmd, flags uint16, e cbt.Extent, payload, into []byte) bool {
	var r *clientRequest
	select {
	case r = <-c.free:
	case <-c.dead:
		return false
	}
	call.begin()
	r.uses++
	cookie := r.uses<<8 | r.index
	r.call, r.cmd, r.extent, r.buf = call, cmd, e, into
	r.reply.reset()
	r.born.Store(c.tick.Load())
	r.cookie.Store(cookie)
	if c.broken.Load() { // the reader may have looked before the cookie was there
		if r.cookie.CompareAndSwap(cookie, 0) {
			c.finish(r, c.deathCause())
		}
		return true
	}
	if err := c.write(cmd, flags, cookie, e, payload); err != nil {
		c.notSent(err)
	}
	return true
}

// notSent ends the connection: half a request may be on the wire. The reader
// ends, and with it every request. (In submit itself err would be on the heap
// for every request.)
func (c *clientConn) notSent(err error) {
	c.unsent.CompareAndSwap(nil, &err)
	c.raw.Close()
}

// deathCause waits for the reader, which is about to end.
func (c *clientConn) deathCause() error {
	<-c.dead
	return c.lost
}

// write puts one request on the wire, header and payload in one system call.
func (c *clientConn) write(cmd, flags uint16, cookie uint64, e cbt.Extent, payload []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	h := c.head[:]
	binary.BigEndian.PutUint32(h, magicRequest)
	binary.BigEndian.PutUint16(h[4:], flags)
	binary.BigEndian.PutUint16(h[6:], cmd)
	binary.BigEndian.PutUint64(h[8:], cookie)
	binary.BigEndian.PutUint64(h[16:], uint64(e.Off))
	binary.BigEndian.PutUint32(h[24:], uint32(e.Len))
	if len(payload) == 0 {
		_, err := c.stream.Write(h)
		return err
	}
	c.vec[0], c.vec[1] = h, payload
	c.out = c.vec[:]
	_, err := c.out.WriteTo(c.stream)
	c.vec[1] = nil
	return err
}

// finish ends a request whose cookie the caller took away.
func (c *clientConn) finish(r *clientRequest, err error) {
	call, start, e, text := r.call, r.extent.Off, r.extent, ""
	if err == nil && r.reply.err != 0 {
		err, text = clientErrno(r.reply.err), r.reply.text
		if r.reply.at.Len > 0 {
			e = r.reply.at
		}
	}
	r.call, r.buf = nil, nil
	c.free <- r
	call.end(start, e, err, text)
}

// run reads replies until the connection ends, tells tell why, and fails what is
// in flight. Only here do requests end, so nobody touches a buffer after its
// call returned.
func (c *clientConn) run(tell func(error)) {
	err := c.readReplies()
	c.raw.Close()
	if unsent := c.unsent.Load(); unsent != nil && errors.Is(err, net.ErrClosed) {
		err = *unsent
	}
	if _, broke := err.(*ProtocolError); !broke {
		err = &LostError{c.addr, lostCause(err)}
	}
	tell(err) // before any call returns: the next one must know
	c.lost = err
	c.broken.Store(true)
	close(c.dead)
	for i := range c.slots {
		r := &c.slots[i]
		if cookie := r.cookie.Load(); cookie != 0 && r.cookie.CompareAndSwap(cookie, 0) {
			c.finish(r, err)
		}
	}
}

// inFlight counts requests, and the ticks that the oldest has waited.
func (c *clientConn) inFlight() (n int, oldest int64) {
	now := c.tick.Load()
	for i := range c.slots {
		if c.slots[i].cookie.Load() != 0 {
			n++
			oldest = max(oldest, now-c.slots[i].born.Load())
		}
	}
	return n, oldest
}
