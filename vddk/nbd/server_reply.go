package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/haulback/haulback/cbt"
)

// serverSmall is room for every reply without data: the longest is an error
// with its text.
const serverSmall = 256

// send writes one reply or chunk. The header of data is in the block, in front
// of it: one write, and one record on TLS. writeMu is held.
func (c *serverConn) send(b []byte) error {
	c.writeSoon()
	_, err := c.conn.Write(b)
	return err
}

func putSimple(b []byte, cookie uint64, code uint32) {
	binary.BigEndian.PutUint32(b, magicSimpleReply)
	binary.BigEndian.PutUint32(b[4:], code)
	binary.BigEndian.PutUint64(b[8:], cookie)
}

func putChunk(b []byte, last bool, kind uint16, cookie uint64, length int) {
	flags := uint16(0)
	if last {
		flags = chunkFlagDone
	}
	binary.BigEndian.PutUint32(b, magicStructuredReply)
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint32(b[16:], uint32(length))
}

// ended counts a piece off and reports whether it was the op's last. Under
// writeMu, so that the chunk with the last flag is the last that is sent.
func (op *serverOp) ended() bool { return op.left.Add(-1) == 0 }

// release gives an op that was answered back.
func (c *serverConn) release(op *serverOp) { c.ops <- op }

// sendData answers a piece of a read with what is in its block.
func (c *serverConn) sendData(p serverPiece) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	last := p.op.ended()
	from := serverHead - simpleLen
	if c.structured {
		from = serverHead - structuredLen - 8
		putChunk(p.block.mem[from:], last, chunkOffsetData, p.op.cookie, int(8+p.Len))
		binary.BigEndian.PutUint64(p.block.mem[serverHead-8:], uint64(p.Off))
	} else {
		putSimple(p.block.mem[from:], p.op.cookie, 0)
	}
	err := c.send(p.block.mem[from : serverHead+p.Len])
	if last {
		c.release(p.op)
	}
	return err
}

// sendHole answers a piece of a read that is zeros.
func (c *serverConn) sendHole(p serverPiece) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	last := p.op.ended()
	b := c.small[:structuredLen+12]
	putChunk(b, last, chunkOffsetHole, p.op.cookie, 12)
	binary.BigEndian.PutUint64(b[structuredLen:], uint64(p.Off))
	binary.BigEndian.PutUint32(b[structuredLen+8:], uint32(p.Len))
	err := c.send(b)
	if last {
		c.release(p.op)
	}
	return err
}

// sendStatus answers BLOCK_STATUS with the n bytes of its block.
func (c *serverConn) sendStatus(p serverPiece, n int) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	putChunk(p.block.mem[serverHead-structuredLen:], true, chunkBlockStatus, p.op.cookie, n)
	err := c.send(p.block.mem[serverHead-structuredLen : serverHead+n])
	c.release(p.op)
	return err
}

// sendReadError answers a piece of a read that failed at the offset at.
func (c *serverConn) sendReadError(p serverPiece, code uint32, at int64) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	last := p.op.ended()
	if last {
		defer c.release(p.op)
	}
	if !c.structured {
		return c.send(c.simple(p.op.cookie, code))
	}
	text := serverErrorText(code)
	b := c.small[:structuredLen+6+len(text)+8]
	putError(b, last, chunkErrorOffset, p.op.cookie, code, text)
	binary.BigEndian.PutUint64(b[len(b)-8:], uint64(at))
	return c.send(b)
}

// endChange ends a piece of a request that is answered without data, and
// answers when it was the last one. code is NBD's number of its error, or 0.
func (c *serverConn) endChange(op *serverOp, code uint32) error {
	if code != 0 {
		op.err.CompareAndSwap(0, code)
	}
	if !op.ended() {
		return nil
	}
	defer c.release(op)
	code = op.err.Load()
	if code == 0 && op.flags&cmdFlagFUA != 0 && op.cmd != cmdFlush {
		if err := c.export.flush(); err != nil {
			code = c.failed(fmt.Errorf("flush after %s: %w", serverCommand(op.cmd), err))
		}
	}
	return c.sendCode(&op.serverRequest, code)
}

// sendCode answers a request as a whole, without data.
func (c *serverConn) sendCode(r *serverRequest, code uint32) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if code == 0 || !c.structured {
		return c.send(c.simple(r.cookie, code))
	}
	text := serverErrorText(code)
	b := c.small[:structuredLen+6+len(text)]
	putError(b, true, chunkError, r.cookie, code, text)
	return c.send(b)
}

func (c *serverConn) simple(cookie uint64, code uint32) []byte {
	b := c.small[:simpleLen]
	putSimple(b, cookie, code)
	return b
}

func putError(b []byte, last bool, kind uint16, cookie uint64, code uint32, text string) {
	putChunk(b, last, kind, cookie, len(b)-structuredLen)
	binary.BigEndian.PutUint32(b[structuredLen:], code)
	binary.BigEndian.PutUint16(b[structuredLen+4:], uint16(len(text)))
	copy(b[structuredLen+6:], text)
}

// failed logs an error of the device and returns its number for the client. A
// bad disk would fill the log: after the first of a connection they are details.
func (c *serverConn) failed(err error) uint32 {
	if c.warned.Swap(true) {
		c.log.Debug("device failed again", "err", err)
	} else {
		c.log.Warn("device failed", "err", err)
	}
	return serverErrno(err)
}

func serverCommand(cmd uint16) string {
	return [...]string{"read", "write", "disconnect", "flush", "trim", "cache", "write zeroes", "block status"}[cmd]
}

// serverErrorText is what people at the client may be shown. It says nothing
// of this machine.
func serverErrorText(code uint32) string {
	switch code {
	case errPerm:
		return "the export is read-only, or the disk refused a change"
	case errNoMem:
		return "the server's disk ran out of memory"
	case errInval:
		return "beyond the end of the export, not aligned, too long, or not known here"
	case errNoSpc:
		return "beyond the end of the export, or no space left on the server's disk"
	case errOverflow:
		return "too long to be answered unfragmented"
	case errNotSup:
		return "not supported, or not fast, on this disk"
	case errShutdown:
		return "the disk is not available just now; connect anew and try again"
	}
	return "the server's disk failed; its log says how"
}

// serverErrno is NBD's number for an error of a Device.
func serverErrno(err error) uint32 {
	if e, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err); ok && e.Retryable() {
		return errShutdown
	}
	for _, m := range []struct {
		is   error
		code uint32
	}{
		{syscall.ENOSPC, errNoSpc},
		{syscall.EDQUOT, errNoSpc},
		{syscall.EFBIG, errNoSpc},
		{syscall.EPERM, errPerm},
		{syscall.EROFS, errPerm},
		{syscall.ENOMEM, errNoMem},
		{syscall.EINVAL, errInval},
		{syscall.EOVERFLOW, errOverflow},
		{syscall.EOPNOTSUPP, errNotSup},
		{syscall.ESHUTDOWN, errShutdown},
		{cbt.ErrBounds, errInval},
		{io.ErrShortWrite, errIO},
	} {
		if errors.Is(err, m.is) {
			return m.code
		}
	}
	return errIO
}
