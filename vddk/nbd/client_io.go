package nbd

import (
	"errors"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"github.com/haulback/haulback/cbt"
)

const (
	// minPiece and maxPiece bound the length of one request of a larger
	// transfer: long enough that its head costs nothing, short enough that one
	// ReadAt of 1 MiB is more than one. Reading from nbdkit on 2 cores, 512 KiB
	// took a fifth less time than 256 KiB and as long as 1 MiB.
	minPiece = 512 << 10
	maxPiece = 1 << 20
)

func pieceSize(x *Offer) int64 {
	return min(max(minPiece, x.PrefBlock), maxPiece, x.MaxBlock)
}

// ReadAt fills p, or returns an error. It follows io.ReaderAt at the end.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, c.refuse("read", off, len(p), cbt.ErrBounds)
	}
	if c.closed.Load() {
		return 0, c.refuse("read", off, len(p), fs.ErrClosed)
	}
	if off >= c.export.Size || len(p) == 0 {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.export.Size-off))
	if err := c.read(p[:n], off); err != nil {
		return err.done(off, n), err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (c *Client) refuse(op string, off int64, length int, err error) *Error {
	return &Error{Op: op, Extent: cbt.Extent{Off: off, Len: int64(length)}, Err: err}
}

// read does the blocks that p covers in part through a block of its own.
func (c *Client) read(p []byte, off int64) *Error {
	for len(p) > 0 {
		n, whole := c.blocks(off, int64(len(p)))
		var err *Error
		if whole {
			err = c.transfer("read", cmdRead, 0, p[:n], off)
		} else {
			err = c.readPart(p[:n], off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// blocks cuts the head off [off, +length): as many whole blocks of the server's
// minimum as there are, or else the part of the first one. The end of the disk
// ends a block.
func (c *Client) blocks(off, length int64) (n int64, whole bool) {
	least := c.export.MinBlock
	if head := off & (least - 1); head != 0 || length < least && off+length < c.export.Size {
		return min(least-head, length), false
	}
	if off+length == c.export.Size {
		return length, true
	}
	return length &^ (least - 1), true
}

// outward is e with whole blocks.
func (c *Client) outward(e cbt.Extent) cbt.Extent {
	least := c.export.MinBlock
	start := e.Off &^ (least - 1)
	end := min((e.End()+least-1)&^(least-1), c.export.Size)
	return cbt.Extent{Off: start, Len: end - start}
}

// transfer reads or writes whole blocks, in pieces that travel together. A
// piece ends at a multiple of the piece size, so that the next ones are aligned.
func (c *Client) transfer(op string, cmd, flags uint16, p []byte, off int64) *Error {
	call := c.newCall()
	for len(p) > 0 && !call.failed.Load() {
		n := min(int64(len(p)), c.piece-off%c.piece)
		e := cbt.Extent{Off: off, Len: n}
		payload, into := p[:n], []byte(nil)
		if cmd == cmdRead {
			payload, into = into, payload
		}
		if conn := c.pick(); !conn.submit(call, cmd, flags, e, payload, into) {
			call.fail(e, conn.lost, "")
		}
		p, off = p[n:], off+n
	}
	return c.wait(call, op)
}

// pick takes the connections in turn.
func (c *Client) pick() *clientConn {
	if len(c.conns) == 1 {
		return c.conns[0]
	}
	return c.conns[c.next.Add(1)%uint32(len(c.conns))]
}

// sweep sends a command without payload over e, which is whole blocks. Its
// pieces are as long as a payload might be: a disk that has to write the zeros
// of 32 MiB is done with it long before Timeout, with those of 1 GiB maybe not.
func (c *Client) sweep(op string, cmd, flags uint16, e cbt.Extent) *Error {
	call := c.newCall()
	for e.Len > 0 && !call.failed.Load() {
		part := cbt.Extent{Off: e.Off, Len: min(e.Len, c.export.MaxBlock)}
		if conn := c.pick(); !conn.submit(call, cmd, flags, part, nil, nil) {
			call.fail(part, conn.lost, "")
		}
		e.Off, e.Len = e.Off+part.Len, e.Len-part.Len
	}
	return c.wait(call, op)
}

// clientBlock is one block of the largest minimum size that there is.
type clientBlock [maxMinBlock]byte

var clientBlocks = sync.Pool{New: func() any { return new(clientBlock) }}

// readPart reads a part of one block.
func (c *Client) readPart(p []byte, off int64) *Error {
	b := clientBlocks.Get().(*clientBlock)
	defer clientBlocks.Put(b)
	e := c.outward(cbt.Extent{Off: off, Len: int64(len(p))})
	if err := c.transfer("read", cmdRead, 0, b[:e.Len], e.Off); err != nil {
		return err
	}
	copy(p, b[off-e.Off:])
	return nil
}

// WriteAt writes all of p, or refuses it whole when it reaches beyond the end.
// It is durable after Flush.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	return c.writeChecked(p, off, c.writeFlags())
}

// WriteFUA is WriteAt, durable when it returns.
func (c *Client) WriteFUA(p []byte, off int64) (int, error) {
	if c.export.can(txSendFUA) {
		return c.writeChecked(p, off, cmdFlagFUA)
	}
	n, err := c.WriteAt(p, off)
	if err != nil {
		return n, err
	}
	return n, c.Flush()
}

// writeFlags makes every write durable where there is no FLUSH to do it later.
func (c *Client) writeFlags() uint16 {
	if !c.export.can(txSendFlush) && c.export.can(txSendFUA) {
		return cmdFlagFUA
	}
	return 0
}

// mayWrite is every reason to refuse a write before its first byte.
func (c *Client) mayWrite(op string, off, length int64) *Error {
	e := cbt.Extent{Off: off, Len: length}
	switch {
	case c.closed.Load():
		return &Error{Op: op, Extent: e, Err: fs.ErrClosed}
	case !c.writable || c.export.ReadOnly:
		return &Error{Op: op, Extent: e, Err: ErrReadOnly}
	case off < 0 || length < 0 || off > c.export.Size || length > c.export.Size-off:
		return &Error{Op: op, Extent: e, Err: cbt.ErrBounds}
	}
	return c.unflush.Load()
}

func (c *Client) writeChecked(p []byte, off int64, flags uint16) (int, error) {
	if err := c.mayWrite("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	err := c.write(p, off, flags)
	c.cache.wrote(cbt.Extent{Off: off, Len: int64(len(p))})
	if err != nil {
		return err.done(off, len(p)), err
	}
	return len(p), nil
}

// write does the blocks that p covers in part by read, change and write.
func (c *Client) write(p []byte, off int64, flags uint16) *Error {
	for len(p) > 0 {
		n, whole := c.blocks(off, int64(len(p)))
		var err *Error
		if whole {
			err = c.transfer("write", cmdWrite, flags, p[:n], off)
		} else {
			err = c.writePart(p[:n], off, flags)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writePart changes a part of one block. The lock keeps two writers of
// different parts of it from undoing each other.
func (c *Client) writePart(p []byte, off int64, flags uint16) *Error {
	b := clientBlocks.Get().(*clientBlock)
	defer clientBlocks.Put(b)
	e := c.outward(cbt.Extent{Off: off, Len: int64(len(p))})
	c.rmw.Lock()
	defer c.rmw.Unlock()
	if err := c.transfer("write: read the block first", cmdRead, 0, b[:e.Len], e.Off); err != nil {
		return err
	}
	copy(b[off-e.Off:], p)
	return c.transfer("write", cmdWrite, flags, b[:e.Len], e.Off)
}

// Zero makes e read as zeros. Where the server has no command for it zeros are
// written.
func (c *Client) Zero(e cbt.Extent, how cbt.Allocation) error {
	if err := e.Check(c.export.Size); err != nil {
		return &Error{Op: "zero", Extent: e, Err: err}
	}
	if err := c.mayWrite("zero", e.Off, e.Len); err != nil {
		return err
	}
	err := c.zero(e, how)
	c.cache.wrote(e)
	if err != nil {
		return err
	}
	return nil
}

func (c *Client) zero(e cbt.Extent, how cbt.Allocation) *Error {
	flags := c.writeFlags()
	if !c.export.can(txSendWriteZeroes) {
		return c.writeZeros(e, flags)
	}
	inner := c.inward(e)
	command := flags
	if how == cbt.Keep {
		command |= cmdFlagNoHole
	}
	if inner.Len > 0 {
		if err := c.sweep("zero", cmdWriteZeroes, command, inner); err != nil {
			if !errors.Is(err, syscall.EOPNOTSUPP) {
				return err
			}
			return c.writeZeros(e, flags)
		}
	}
	if err := c.writeZeros(cbt.Extent{Off: e.Off, Len: inner.Off - e.Off}, flags); err != nil {
		return err
	}
	return c.writeZeros(cbt.Extent{Off: inner.End(), Len: e.End() - inner.End()}, flags)
}

// inward is the whole blocks of e; Len is 0 and Off its end when there are none.
func (c *Client) inward(e cbt.Extent) cbt.Extent {
	least := c.export.MinBlock
	start := (e.Off + least - 1) &^ (least - 1)
	end := e.End()
	if end < c.export.Size {
		end &^= least - 1
	}
	if start >= end {
		return cbt.Extent{Off: e.End()}
	}
	return cbt.Extent{Off: start, Len: end - start}
}

// clientZeros is what is written where the server cannot zero by itself.
var clientZeros [maxPiece]byte

func (c *Client) writeZeros(e cbt.Extent, flags uint16) *Error {
	for e.Len > 0 {
		n := min(e.Len, int64(len(clientZeros)))
		if err := c.write(clientZeros[:n], e.Off, flags); err != nil {
			return err
		}
		e.Off, e.Len = e.Off+n, e.Len-n
	}
	return nil
}

// Trim tells the server that e is not needed any more. What e reads as
// afterwards is unknown. Where the server has no command for it nothing happens.
func (c *Client) Trim(e cbt.Extent) error {
	if err := e.Check(c.export.Size); err != nil {
		return &Error{Op: "trim", Extent: e, Err: err}
	}
	if err := c.mayWrite("trim", e.Off, e.Len); err != nil {
		return err
	}
	inner := c.inward(e)
	if inner.Len == 0 || !c.export.can(txSendTrim) {
		return nil
	}
	err := c.sweep("trim", cmdTrim, c.writeFlags(), inner)
	c.cache.wrote(inner)
	if err != nil {
		return err
	}
	return nil
}

// Flush makes durable what returned before the call, on every connection: that
// is what a server promises that allows several. Its first error is remembered
// and returned for ever, by writes too. Without FLUSH every write was sent with
// FUA and is durable already.
func (c *Client) Flush() error {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	if err := c.mayWrite("flush", 0, 0); err != nil {
		return err
	}
	if !c.export.can(txSendFlush) {
		if err := c.Alive(); err != nil {
			return err
		}
		return nil
	}
	call := c.newCall()
	if conn := c.conns[0]; !conn.submit(call, cmdFlush, 0, cbt.Extent{}, nil, nil) {
		call.fail(cbt.Extent{}, conn.lost, "")
	}
	if err := c.wait(call, "flush"); err != nil {
		if !c.closed.Load() {
			c.unflush.Store(err)
		}
		return err
	}
	return nil
}
