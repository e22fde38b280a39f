package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/haulback/haulback/cbt"
)

// worker does pieces until there are no more.
func (c *serverConn) worker() {
	for p := range c.work {
		c.do(p)
		if p.block != nil {
			c.server.blocks.give(p.block, &c.spare)
		}
	}
}

// do does one piece and answers. An error of the answer ends the connection at
// its reader; what is in work goes on, for a change once begun is better ended.
func (c *serverConn) do(p serverPiece) {
	var err error
	switch p.op.cmd {
	case cmdRead:
		err = c.read(p)
	case cmdBlockStatus:
		err = c.blockStatus(p)
	default:
		err = c.change(p)
	}
	if err != nil {
		c.lose(err)
	}
}

// read answers one piece of a read.
func (c *serverConn) read(p serverPiece) error {
	switch {
	case p.Len <= int64(len(p.block.data())):
		if c.mayFragment(p.op) && c.isHole(p.Extent) {
			return c.sendHole(p)
		}
		n, err := c.export.Device.ReadAt(p.block.data()[:p.Len], p.Off)
		if int64(n) == p.Len {
			return c.sendData(p)
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the device is shorter than it said
		}
		return c.sendReadError(p, c.failed(fmt.Errorf("read %v: %w", p.Extent, err)), p.Off+int64(n))
	case c.structured:
		return c.sendReadError(p, errOverflow, p.Off)
	}
	return c.readLong(p)
}

// readLong is a read longer than its block for a client without structured
// replies: one header, then all data in order. An error after the first block
// cannot be told but by hanging up.
func (c *serverConn) readLong(p serverPiece) error {
	defer c.release(p.op)
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	data := p.block.data()
	for e := p.Extent; e.Len > 0; {
		n := min(e.Len, int64(len(data)))
		from := serverHead
		m, err := c.export.Device.ReadAt(data[:n], e.Off)
		if int64(m) < n {
			code := c.failed(fmt.Errorf("read %v: %w", e, err))
			if e.Off == p.Off {
				return c.send(c.simple(p.op.cookie, code))
			}
			return io.ErrUnexpectedEOF
		}
		if e.Off == p.Off {
			from -= simpleLen
			putSimple(p.block.mem[from:], p.op.cookie, 0)
		}
		if err := c.send(p.block.mem[from : serverHead+n]); err != nil {
			return err
		}
		e.Off, e.Len = e.Off+n, e.Len-n
	}
	return nil
}

// isHole reports whether e reads as zeros without being read. The run of data
// that was found last is remembered: a read that follows it is not worth a
// question. That is safe for data only; a hole may have been written since.
func (c *serverConn) isHole(e cbt.Extent) bool {
	if c.export.ReadHoles || c.export.mapper == nil || (e.Off >= c.dataFrom.Load() && e.End() <= c.dataTo.Load()) {
		return false
	}
	run, hole, err := c.export.next(e.Off, math.MaxInt64)
	if err != nil {
		return false // the read itself will tell
	}
	if !hole {
		c.dataTo.Store(0) // no mixture of two runs may look larger than either
		c.dataFrom.Store(run.Off)
		c.dataTo.Store(run.End())
	}
	return hole && run.End() >= e.End()
}

// change does everything that is not answered with data.
func (c *serverConn) change(p serverPiece) error {
	var err error
	x, op := c.export, p.op
	switch op.cmd {
	case cmdWrite:
		_, err = x.Device.WriteAt(p.block.data()[:p.Len], p.Off)
	case cmdTrim:
		err = x.zeroer.Zero(p.Extent, cbt.Deallocate)
	case cmdWriteZeroes:
		how := cbt.Deallocate
		if op.flags&cmdFlagNoHole != 0 {
			how = cbt.Keep
		}
		if op.flags&cmdFlagFastZero != 0 && (!x.FastZero || x.zeroer == nil || how == cbt.Keep) {
			return c.endChange(op, errNotSup)
		}
		err = x.zero(p.Extent, how)
	case cmdFlush:
		err = x.flush()
	}
	code := uint32(0)
	if err != nil {
		code = c.failed(fmt.Errorf("%s %v: %w", serverCommand(op.cmd), p.Extent, err))
	}
	return c.endChange(op, code)
}

// zero makes e read as zeros, by writing where the device has no better way.
func (x *serverExport) zero(e cbt.Extent, how cbt.Allocation) error {
	if x.zeroer != nil {
		return x.zeroer.Zero(e, how)
	}
	for e.Len > 0 {
		n := min(e.Len, int64(len(serverZeros)))
		if _, err := x.Device.WriteAt(serverZeros[:n], e.Off); err != nil {
			return err
		}
		e.Off, e.Len = e.Off+n, e.Len-n
	}
	return nil
}

// serverZeros is only read.
var serverZeros [256 << 10]byte

// blockStatus answers with the extents that one small block holds.
func (c *serverConn) blockStatus(p serverPiece) error {
	b := binary.BigEndian.AppendUint32(p.block.data()[:0], contextID)
	most := (serverSpareSize - 4) / 8
	if p.op.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	lastFlags := uint32(0)
	for off := p.Off; off < p.End(); {
		run, hole, err := c.export.next(off, p.End())
		if err != nil {
			if off == p.Off {
				return c.endChange(p.op, c.failed(fmt.Errorf("map from %d: %w", off, err)))
			}
			break // what is known so far is an answer too
		}
		flags := uint32(0)
		if hole {
			flags = allocationHole | allocationZero
		}
		if n := len(b); n > 4 && flags == lastFlags {
			binary.BigEndian.PutUint32(b[n-8:], binary.BigEndian.Uint32(b[n-8:])+uint32(run.Len)) // within 32 bits: the request is
		} else if (n-4)/8 < most {
			b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, uint32(run.Len)), flags)
		} else {
			break
		}
		lastFlags = flags
		off = run.End()
	}
	return c.sendStatus(p, len(b))
}
