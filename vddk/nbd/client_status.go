package nbd

import (
	"context"
	"encoding/binary"

	"github.com/haulback/haulback/cbt"
)

const (
	// statusStep is how much one status request asks about: few round trips,
	// and a length that fits 32 bits.
	statusStep = 1 << 30
	// maxStatusExtents is how many extents of one reply are kept (256 KiB). The
	// rest is asked for again.
	maxStatusExtents = 16384
	// maxStatusChunk bounds a chunk: nbdkit sends up to 2^20 extents.
	maxStatusChunk = 4 + 8<<20
	// maxDirtyExtents bounds a bitmap in memory (16 MiB). Beyond it extents
	// are rounded out to coarser ones: more is marked, never less.
	maxDirtyExtents = 1 << 20
)

// StatusExtent is an extent with the flags of one metadata context.
type StatusExtent struct {
	cbt.Extent
	Flags uint32
}

// clientStatus is where the reader puts the answer to a status request.
type clientStatus struct {
	id      uint32
	extents []StatusExtent
}

// statusChunk takes in the extents of one context, checking all, keeping those
// of the context that was asked for.
func (c *clientConn) statusChunk(r *clientRequest, k chunk) error {
	if k.length < 12 || (k.length-4)%8 != 0 || k.length > maxStatusChunk {
		return violation("status chunk of %d bytes", k.length)
	}
	b, err := c.r.Peek(4)
	if err != nil {
		return err
	}
	id := binary.BigEndian.Uint32(b)
	i := c.contextIndex(id)
	switch {
	case i < 0:
		return violation("status of context %d, which is not active", id)
	case r.reply.seen&(1<<i) != 0:
		return violation("status of context %q twice in one reply", c.contexts[i].name)
	}
	r.reply.seen |= 1 << i
	c.discard(4)
	wanted := r.call.status.id == id
	r.reply.status = r.reply.status || wanted
	return c.statusExtents(r, int(k.length-4)/8, wanted)
}

func (c *clientConn) contextIndex(id uint32) int {
	for i := range c.contexts {
		if c.contexts[i].id == id {
			return i
		}
	}
	return -1
}

// statusExtents reads n extents. The last may reach beyond the request and is
// cut; one that starts beyond it is wrong.
func (c *clientConn) statusExtents(r *clientRequest, n int, keep bool) error {
	into := r.call.status
	for off := r.extent.Off; n > 0; n-- {
		b, err := c.r.Peek(8)
		if err != nil {
			return err
		}
		length, flags := int64(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])
		c.discard(8)
		switch {
		case length == 0:
			return violation("status extent of 0 bytes at %d", off)
		case off >= r.extent.End():
			return violation("status extent at %d, beyond the request %v", off, r.extent)
		}
		length = min(length, r.extent.End()-off)
		if keep && len(into.extents) < maxStatusExtents {
			into.extents = append(into.extents, StatusExtent{cbt.Extent{Off: off, Len: length}, flags})
		}
		off += length
	}
	return nil
}

// Context returns nil when the metadata context name was asked for and is
// there, and a [*ContextError] otherwise.
func (c *Client) Context(name string) error {
	for _, active := range c.conns[0].contexts {
		if active.name == name {
			return nil
		}
	}
	return &ContextError{c.export.Name, name, c.export.Contexts}
}

// Status asks for the flags of an active context from e.Off on. The extents
// start there, follow each other without a gap and stay within e; they may end
// before it does, but there is at least one. They are whole blocks of the
// server's minimum: where it told less, data wins over ZERO, and in any other
// context the larger flags. Contexts other than those of
// Config and base:allocation are a [*ContextError].
func (c *Client) Status(ctx context.Context, name string, e cbt.Extent) ([]StatusExtent, error) {
	return c.status(ctx, name, e, nil)
}

// status appends to into, whose memory is used again.
func (c *Client) status(ctx context.Context, name string, e cbt.Extent, into []StatusExtent) ([]StatusExtent, error) {
	if err := c.Context(name); err != nil {
		return nil, err
	}
	if err := e.Check(c.export.Size); err != nil {
		return nil, &Error{Op: "status", Extent: e, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: "status", Extent: e, Err: err}
	}
	conn := c.conns[0] // the only one with contexts
	asked := c.outward(cbt.Extent{Off: e.Off, Len: min(e.Len, statusStep)})
	answer := clientStatus{extents: into[:0]}
	for _, active := range conn.contexts {
		if active.name == name {
			answer.id = active.id
		}
	}
	call := c.newCall()
	call.status = &answer
	if !conn.submit(call, cmdBlockStatus, 0, asked, nil, nil) {
		call.fail(e, conn.lost, "")
	}
	if err := c.wait(call, "status"); err != nil {
		return nil, err
	}
	whole := wholeStatus(answer.extents, name, c.export.MinBlock, c.export.Size)
	if len(whole) == 0 || whole[len(whole)-1].End() <= e.Off {
		return nil, &Error{Op: "status", Extent: e, Err: violation("the status of %v does not reach %d", asked, e.Off)}
	}
	return clipStatus(whole, e), nil
}

// wholeStatus rounds extents to whole blocks, in place. The protocol wants them
// so, but a filter that only enlarges the least block (nbdkit's
// blocksize-policy) passes on what is below it. A block that several extents
// share goes to the one whose flags promise least. What a reply tells of its
// last block in part is left for the next question, unless there is nothing
// else: then the block counts as data, or as dirty.
func wholeStatus(found []StatusExtent, name string, least, size int64) []StatusExtent {
	if least == 1 || len(found) == 0 {
		return found
	}
	told, last := found[len(found)-1].End(), found[len(found)-1].Flags
	out := found[:0]
	for _, e := range found {
		start, end := e.Off&^(least-1), min((e.End()+least-1)&^(least-1), size)
		for n := len(out); n > 0 && out[n-1].End() > start; n = len(out) {
			if !promisesLess(name, e.Flags, out[n-1].Flags) {
				start = out[n-1].End()
				break
			}
			if out[n-1].Len = start - out[n-1].Off; out[n-1].Len <= 0 {
				out = out[:n-1]
			}
		}
		if start < end {
			out = append(out, StatusExtent{cbt.Extent{Off: start, Len: end - start}, e.Flags})
		}
	}
	if told == size || told&(least-1) == 0 {
		return out
	}
	tail := &out[len(out)-1]
	switch known := told &^ (least - 1); {
	case known > out[0].Off:
		if tail.Len = known - tail.Off; tail.Len == 0 {
			out = out[:len(out)-1]
		}
	case name == contextAllocation:
		tail.Flags = 0
	default:
		tail.Flags |= last | dirtyBitmapDirty
	}
	return out
}

// promisesLess reports whether a block with flags a is worth less trust than one
// with b: it may have data, or it is marked.
func promisesLess(name string, a, b uint32) bool {
	if name == contextAllocation {
		return a&allocationZero < b&allocationZero
	}
	return a > b
}

// clipStatus cuts what was asked for only because of the block size.
func clipStatus(found []StatusExtent, e cbt.Extent) []StatusExtent {
	for len(found) > 1 && found[0].End() <= e.Off {
		found = found[1:]
	}
	if cut := e.Off - found[0].Off; cut > 0 {
		found[0].Off, found[0].Len = found[0].Off+cut, found[0].Len-cut
	}
	for i := range found {
		if found[i].End() >= e.End() {
			found[i].Len = e.End() - found[i].Off
			return found[:i+1]
		}
	}
	return found
}

// DirtyBitmap reads QEMU's dirty bitmap name of the whole disk: the extents
// that are marked, in order, neighbours joined. A bitmap that is not there is a
// [*ContextError]. A bitmap of more than a million extents is coarsened: it
// then marks more than the server did, never less.
func (c *Client) DirtyBitmap(ctx context.Context, name string) ([]cbt.Extent, error) {
	var dirty []cbt.Extent
	var reply []StatusExtent
	grain := int64(1)
	for off := int64(0); off < c.export.Size; {
		var err error
		reply, err = c.status(ctx, contextDirtyBitmap+name, cbt.Extent{Off: off, Len: c.export.Size - off}, reply)
		if err != nil {
			return nil, err
		}
		for _, e := range reply {
			if e.Flags&^dirtyBitmapDirty != 0 {
				return nil, &Error{Op: "bitmap " + name, Extent: e.Extent, Err: violation("unknown flags %#x", e.Flags)}
			}
			if e.Flags&dirtyBitmapDirty != 0 {
				dirty = appendDirty(dirty, e.Extent, grain, c.export.Size)
			}
			if len(dirty) > maxDirtyExtents {
				grain = max(cbt.GrainSize, grain*2)
				dirty = coarser(dirty, grain, c.export.Size)
			}
		}
		off = reply[len(reply)-1].End() // beyond off: status sees to it
	}
	return dirty, nil
}

// appendDirty adds e, rounded out to grain, and joins it with its neighbour.
func appendDirty(dirty []cbt.Extent, e cbt.Extent, grain, size int64) []cbt.Extent {
	start := e.Off &^ (grain - 1)
	end := min((e.End()+grain-1)&^(grain-1), size)
	if n := len(dirty); n > 0 && dirty[n-1].End() >= start {
		dirty[n-1].Len = max(dirty[n-1].End(), end) - dirty[n-1].Off
		return dirty
	}
	return append(dirty, cbt.Extent{Off: start, Len: end - start})
}

func coarser(dirty []cbt.Extent, grain, size int64) []cbt.Extent {
	out := dirty[:0]
	for _, e := range dirty {
		out = appendDirty(out, e, grain, size)
	}
	return out
}
