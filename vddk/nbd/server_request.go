package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cbt"
)

// serverRequest is the header of a request.
type serverRequest struct {
	flags  uint16
	cmd    uint16
	cookie uint64
	off    uint64
	length uint32
}

// parseRequest reads requestLen bytes.
func parseRequest(b []byte) (r serverRequest, err error) {
	if m := binary.BigEndian.Uint32(b); m != magicRequest {
		return r, fmt.Errorf("request begins with %#x", m)
	}
	return serverRequest{
		flags:  binary.BigEndian.Uint16(b[4:]),
		cmd:    binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]),
		off:    binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}, nil
}

// serverOp is a request in work. It is used again.
type serverOp struct {
	serverRequest
	left atomic.Int32  // pieces that have not ended, and the reader's hold
	err  atomic.Uint32 // NBD's number of the first error of a change
}

// serverPiece is a part of a request that carries data, or a whole one that
// does not. It goes to a worker, which then owns the block.
type serverPiece struct {
	op    *serverOp
	block *serverBlock // nil when the command needs none
	cbt.Extent
}

// request takes one request and hands its pieces to the workers.
func (c *serverConn) request() error {
	b, err := c.br.Peek(requestLen)
	if err != nil {
		if err == io.EOF && len(b) > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	r, err := parseRequest(b)
	if err != nil {
		return err
	}
	_, _ = c.br.Discard(requestLen) // it was peeked
	if r.cmd == cmdDisconnect {
		return errServerEnd
	}
	if refused := c.check(&r); refused != 0 {
		return c.refuse(&r, refused)
	}
	op := <-c.ops // there is one: each worker holds one at most, and gives it back first
	op.serverRequest = r
	op.left.Store(1)
	op.err.Store(0)
	switch r.cmd {
	case cmdRead, cmdWrite:
		return c.cut(op)
	case cmdBlockStatus:
		c.work <- serverPiece{op, c.server.blocks.take(&c.spare), r.extent()}
	default:
		c.work <- serverPiece{op, nil, r.extent()}
	}
	return nil
}

// extent is for a request that was checked.
func (r *serverRequest) extent() cbt.Extent {
	return cbt.Extent{Off: int64(r.off), Len: int64(r.length)}
}

// cut hands a read or write over in pieces of a block. The last one takes over
// the reader's hold on the op.
func (c *serverConn) cut(op *serverOp) error {
	rest := op.extent()
	for {
		b := c.server.blocks.take(&c.spare)
		e := cbt.Extent{Off: rest.Off, Len: min(rest.Len, int64(len(b.data())))}
		if op.cmd == cmdRead && !c.mayFragment(op) {
			e.Len = rest.Len // in one go; read checks that it can
		}
		if op.cmd == cmdWrite {
			if err := c.receive(b.data()[:e.Len]); err != nil {
				c.server.blocks.give(b, &c.spare)
				return err // the op is lost with the connection
			}
		}
		rest.Off, rest.Len = rest.Off+e.Len, rest.Len-e.Len
		if rest.Len > 0 {
			op.left.Add(1)
		}
		c.work <- serverPiece{op, b, e}
		if rest.Len == 0 {
			return nil
		}
	}
}

// mayFragment reports whether a read may be answered by several chunks.
func (c *serverConn) mayFragment(op *serverOp) bool {
	return c.structured && op.flags&cmdFlagDF == 0
}

// receive reads a write's data. It may be slow, but not for ever.
func (c *serverConn) receive(p []byte) error {
	if len(p) <= c.br.Buffered() {
		_, err := io.ReadFull(c.br, p)
		return err
	}
	if err := c.readBy(time.Now().Add(c.server.cfg.StallTimeout)); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.br, p); err != nil {
		return fmt.Errorf("data of a write: %w", err)
	}
	return c.readBy(time.Time{})
}

// serverFlags are the flags that each command may have. FUA may come with all.
var serverFlags = [...]uint16{
	cmdRead:        cmdFlagDF,
	cmdWriteZeroes: cmdFlagNoHole | cmdFlagFastZero,
	cmdBlockStatus: cmdFlagReqOne,
}

// check is every reason to refuse a request before it is begun, as NBD's number
// of an error; 0 for none.
func (c *serverConn) check(r *serverRequest) uint32 {
	if r.cmd > cmdBlockStatus || r.cmd == cmdCache || r.flags&^(serverFlags[r.cmd]|cmdFlagFUA) != 0 {
		return errInval
	}
	if r.cmd == cmdFlush {
		if r.off != 0 || r.length != 0 {
			return errInval
		}
		return 0
	}
	if e := c.checkRange(r); e != 0 {
		return e
	}
	switch r.cmd {
	case cmdRead:
		if r.flags&cmdFlagDF != 0 && !c.structured {
			return errInval
		}
	case cmdTrim:
		if c.export.zeroer == nil || c.export.NoTrim {
			return errInval
		}
	case cmdBlockStatus:
		if c.status == nil || *c.status != c.export.Name {
			return errInval
		}
	}
	return 0
}

func (c *serverConn) checkRange(r *serverRequest) uint32 {
	x := c.export
	changes := r.cmd == cmdWrite || r.cmd == cmdTrim || r.cmd == cmdWriteZeroes
	if changes && x.ReadOnly {
		return errPerm
	}
	size, min := uint64(x.size), uint64(x.MinBlock)
	switch {
	case r.length == 0, r.off%min != 0, uint64(r.length)%min != 0:
		return errInval
	case (r.cmd == cmdRead || r.cmd == cmdWrite) && int64(r.length) > x.MaxRequest:
		return errInval
	case r.off > size || uint64(r.length) > size-r.off:
		if r.cmd == cmdWrite || r.cmd == cmdWriteZeroes {
			return errNoSpc
		}
		return errInval
	}
	return 0
}

// refuse answers a request that was not begun, and skips the data that came
// with it; where that is more than a client may send, it is the end.
func (c *serverConn) refuse(r *serverRequest, code uint32) error {
	if r.cmd == cmdWrite && int64(r.length) <= c.export.MaxRequest {
		if err := c.skip(int(r.length)); err != nil {
			return err
		}
	}
	err := c.sendCode(r, code)
	if err == nil && r.cmd == cmdWrite && int64(r.length) > c.export.MaxRequest {
		return fmt.Errorf("write of %d bytes; at most %d are taken", r.length, c.export.MaxRequest)
	}
	return err
}

func (c *serverConn) skip(n int) error {
	if err := c.readBy(time.Now().Add(c.server.cfg.StallTimeout)); err != nil {
		return err
	}
	if _, err := c.br.Discard(n); err != nil {
		return err
	}
	return c.readBy(time.Time{})
}
