package archive

import (
	"encoding/binary"

	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
)

// sumContext separates these sums from every other use of BLAKE3.
const sumContext = "haulback 2026 archive v1"

// chain makes the sums of frames, each over the one before.
type chain struct {
	h    *blake3.Hasher
	last cbt.Digest
}

func newChain() chain { return chain{h: blake3.NewDeriveKey(sumContext)} }

// next is the sum of the frame whose bytes up to its sum are p.
func (c *chain) next(p []byte) *cbt.Digest {
	c.h.Reset()
	_, _ = c.h.Write(c.last[:]) // never fails
	_, _ = c.h.Write(p)
	c.h.Sum(c.last[:0])
	return &c.last
}

// appendFrame appends the twelve bytes before a head.
func appendFrame(b []byte, t byte, head, payload int) []byte {
	b = append(b, t, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(head))
	return binary.BigEndian.AppendUint32(b, uint32(payload))
}

// cursor walks the map: Data and Zero frames have to cover it in order. Both
// ends use it, so that a writer cannot write what no reader takes. It also folds
// the root.
type cursor struct {
	size int64
	kind Kind
	left cbt.Map // extents not begun yet, by at
	at   int64   // everything below is done
	root *cbt.Root
}

func newCursor(h *Header) cursor {
	return cursor{size: h.Size, kind: h.Kind, left: h.Map, root: cbt.NewRoot(h.Size)}
}

// accept says whether e may come next; and jumps what the map leaves out.
func (c *cursor) accept(e cbt.Extent, within int64) error {
	if err := onGrains(e, c.size); err != nil {
		return err
	}
	next, ok := c.left.Next(c.at)
	switch {
	case !ok:
		return errorf("%v after the end of the map", e)
	case e.Off != max(next.Off, c.at):
		return errorf("%v where %d has to come", e, max(next.Off, c.at))
	case e.End() > next.End():
		return errorf("%v leaves %v of the map", e, next)
	case within > 0 && e.Off/within != (e.End()-1)/within:
		return errorf("%v crosses a batch", e)
	}
	c.skip(e.Off)
	c.at = e.End()
	return nil
}

// skip folds what the map leaves out up to off.
func (c *cursor) skip(off int64) {
	if n := cbt.Grains(off) - cbt.Grains(c.at); n > 0 {
		if c.kind == Full {
			c.root.AddZeros(n)
		} else {
			c.root.AddSkipped(n)
		}
	}
	c.at = off
}

// end is the root, when all of the map was covered.
func (c *cursor) end() (cbt.Digest, error) {
	if next, ok := c.left.Next(c.at); ok {
		return cbt.Digest{}, errorf("%d bytes of the map from %d on are missing", next.Len, max(next.Off, c.at))
	}
	c.skip(c.size)
	return c.root.Sum()
}
