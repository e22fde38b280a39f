package nbd

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"syscall"

	"github.com/haulback/haulback/cbt"
)

const (
	// maxFragments is how many separate ranges of one request may be answered
	// before the gaps between them: a piece of 1 MiB, every other sector.
	maxFragments = 1024
	// maxErrorChunks bounds a reply that consists of errors.
	maxErrorChunks = 4096
)

// clientReply is what has arrived of the reply to a request.
type clientReply struct {
	covered []cbt.Extent // sorted, disjoint, never touching
	err     uint32       // the first error, 0 for none
	text    string
	at      cbt.Extent // where, or Len 0
	errors  int
	status  bool // the wanted context's extents have come
	seen    uint64
}

func (p *clientReply) reset() {
	*p = clientReply{covered: p.covered[:0]}
}

// cover takes note that e is answered. Ranges normally come in order; then this
// is one comparison.
func (p *clientReply) cover(e cbt.Extent) error {
	if n := len(p.covered); n > 0 && p.covered[n-1].End() == e.Off {
		p.covered[n-1].Len += e.Len
		return nil
	}
	i, _ := slices.BinarySearchFunc(p.covered, e.Off, func(f cbt.Extent, off int64) int {
		if f.Off < off {
			return -1
		}
		return 1
	})
	if i > 0 && p.covered[i-1].End() > e.Off || i < len(p.covered) && e.End() > p.covered[i].Off {
		return violation("reply has %v twice", e)
	}
	left := i > 0 && p.covered[i-1].End() == e.Off
	right := i < len(p.covered) && e.End() == p.covered[i].Off
	switch {
	case left && right:
		p.covered[i-1].Len += e.Len + p.covered[i].Len
		p.covered = slices.Delete(p.covered, i, i+1)
	case left:
		p.covered[i-1].Len += e.Len
	case right:
		p.covered[i].Off, p.covered[i].Len = e.Off, p.covered[i].Len+e.Len
	case len(p.covered) >= maxFragments:
		return violation("reply scattered over more than %d fragments", maxFragments)
	default:
		p.covered = slices.Insert(p.covered, i, e)
	}
	return nil
}

// all reports whether exactly e is answered.
func (p *clientReply) all(e cbt.Extent) bool { return len(p.covered) == 1 && p.covered[0] == e }

func (p *clientReply) fail(code uint32, text string, at cbt.Extent) {
	if p.err == 0 {
		p.err, p.text, p.at = code, text, at
	}
}

// readReplies is the one reader of a connection. It returns why it ended: a
// *ProtocolError, or what the connection said.
func (c *clientConn) readReplies() error {
	for {
		b, err := c.r.Peek(simpleLen) // the shorter of the two heads
		if err != nil {
			return err
		}
		switch magic := binary.BigEndian.Uint32(b); magic {
		case magicSimpleReply:
			err = c.simpleReply(binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:]))
		case magicStructuredReply:
			if !c.structured {
				return violation("structured reply, but none was agreed on")
			}
			err = c.structuredReply()
		default:
			return violation("reply starts with %#x", magic)
		}
		if err != nil {
			return err
		}
	}
}

// request finds what a reply answers.
func (c *clientConn) request(cookie uint64) (*clientRequest, error) {
	if i := cookie & 0xff; i < clientDepth && cookie != 0 && c.slots[i].cookie.Load() == cookie {
		return &c.slots[i], nil
	}
	return nil, violation("reply to cookie %#x, which is not in flight", cookie)
}

func (c *clientConn) simpleReply(code uint32, cookie uint64) error {
	r, err := c.request(cookie)
	if err != nil {
		return err
	}
	c.discard(simpleLen)
	switch {
	case c.structured && (r.cmd == cmdRead || r.cmd == cmdBlockStatus && code == 0):
		return violation("simple reply to a command of type %d, though structured replies were agreed on", r.cmd)
	case len(r.reply.covered) > 0 || r.reply.errors > 0 || r.reply.seen != 0:
		return violation("simple reply after chunks of a structured one")
	case code != 0:
		r.reply.fail(code, "", cbt.Extent{})
	case r.cmd == cmdRead:
		if _, err := io.ReadFull(c.r, r.buf); err != nil {
			return err
		}
	}
	c.complete(r)
	return nil
}

// complete hands a request back whose reply is whole.
func (c *clientConn) complete(r *clientRequest) {
	r.cookie.Store(0)
	c.finish(r, nil)
}

// discard drops what was peeked, which cannot fail.
func (c *clientConn) discard(n int) { _, _ = c.r.Discard(n) }

// chunk is the head of a structured reply.
type chunk struct {
	done   bool
	kind   uint16
	length uint32
}

func (c *clientConn) structuredReply() error {
	b, err := c.r.Peek(structuredLen)
	if err != nil {
		return err
	}
	k := chunk{binary.BigEndian.Uint16(b[4:])&chunkFlagDone != 0, binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint32(b[16:])}
	r, err := c.request(binary.BigEndian.Uint64(b[8:]))
	if err != nil {
		return err
	}
	c.discard(structuredLen)
	if err := c.chunk(r, k); err != nil {
		return err
	}
	if !k.done {
		return nil
	}
	if err := r.complete(); err != nil {
		return err
	}
	c.complete(r)
	return nil
}

// complete judges a reply that says it is done.
func (r *clientRequest) complete() error {
	switch {
	case r.reply.err != 0:
		return nil
	case r.cmd == cmdRead && !r.reply.all(r.extent):
		return violation("reply to the read of %v ends with %v answered", r.extent, r.reply.covered)
	case r.cmd == cmdBlockStatus && !r.reply.status:
		return violation("reply to a status request ends without the context asked for")
	}
	return nil
}

func (c *clientConn) chunk(r *clientRequest, k chunk) error {
	switch {
	case k.kind&chunkFlagError != 0:
		return c.errorChunk(r, k)
	case k.kind == chunkNone:
		if k.length != 0 || !k.done {
			return violation("chunk of type NONE with %d bytes, done %v", k.length, k.done)
		}
		return nil
	case k.kind == chunkOffsetData && r.cmd == cmdRead:
		return c.dataChunk(r, k)
	case k.kind == chunkOffsetHole && r.cmd == cmdRead:
		return c.holeChunk(r, k)
	case k.kind == chunkBlockStatus && r.cmd == cmdBlockStatus:
		return c.statusChunk(r, k)
	}
	return violation("chunk of type %d in reply to a command of type %d", k.kind, r.cmd)
}

func (c *clientConn) dataChunk(r *clientRequest, k chunk) error {
	if k.length < 9 {
		return violation("data chunk of %d bytes", k.length)
	}
	b, err := c.r.Peek(8)
	if err != nil {
		return err
	}
	p, err := r.part(binary.BigEndian.Uint64(b), int64(k.length)-8)
	if err != nil {
		return err
	}
	c.discard(8)
	_, err = io.ReadFull(c.r, p)
	return err
}

func (c *clientConn) holeChunk(r *clientRequest, k chunk) error {
	if k.length != 12 {
		return violation("hole chunk of %d bytes, not 12", k.length)
	}
	b, err := c.r.Peek(12)
	if err != nil {
		return err
	}
	p, err := r.part(binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint32(b[8:])))
	if err != nil {
		return err
	}
	c.discard(12)
	clear(p)
	return nil
}

// part is the piece of the caller's buffer that a chunk is for. It must lie in
// the request, and no byte may come twice.
func (r *clientRequest) part(off uint64, length int64) ([]byte, error) {
	e := cbt.Extent{Off: int64(off), Len: length}
	if off > maxExportSize || length <= 0 || e.Off < r.extent.Off || e.Off > r.extent.End() || length > r.extent.End()-e.Off {
		return nil, violation("chunk at %d, +%d outside the read of %v", off, length, r.extent)
	}
	if err := r.reply.cover(e); err != nil {
		return nil, err
	}
	from := e.Off - r.extent.Off
	return r.buf[from : from+length], nil
}

// errorChunk takes in an error of any type: those to come have the same start.
func (c *clientConn) errorChunk(r *clientRequest, k chunk) error {
	tail := 0
	if k.kind == chunkErrorOffset {
		tail = 8
	}
	if int(k.length) < 6+tail || k.length > maxOptionLen {
		return violation("error chunk of %d bytes", k.length)
	}
	if r.reply.errors++; r.reply.errors > maxErrorChunks {
		return violation("more than %d errors in one reply", maxErrorChunks)
	}
	p := make([]byte, k.length)
	if _, err := io.ReadFull(c.r, p); err != nil {
		return err
	}
	code, n := binary.BigEndian.Uint32(p), int(binary.BigEndian.Uint16(p[4:]))
	switch {
	case code == 0:
		return violation("error chunk with error 0")
	case n > maxStringLen || n > len(p)-6-tail:
		return violation("error chunk of %d bytes with a message of %d", len(p), n)
	}
	var at cbt.Extent
	if k.kind == chunkErrorOffset {
		off := binary.BigEndian.Uint64(p[6+n:])
		if off < uint64(r.extent.Off) || off >= uint64(r.extent.End()) {
			return violation("error at %d outside the request %v", off, r.extent)
		}
		at = cbt.Extent{Off: int64(off), Len: 1}
	}
	r.reply.fail(code, printable(p[6:6+n]), at)
	return nil
}

// lostCause turns the end of a stream, which io.EOF would mistake for the end
// of the disk, into an error.
func lostCause(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errHungUp
	}
	return dialCause(err)
}

var errHungUp = hungUp{}

type hungUp struct{}

func (hungUp) Error() string { return "server hung up" }
func (hungUp) Unwrap() error { return syscall.ECONNRESET }
