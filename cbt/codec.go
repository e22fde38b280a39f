package cbt

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrFormat means that bytes are not the encoding of anything: cut off, too
// long, out of bounds, or not in the one form that AppendTo writes.
var ErrFormat = errors.New("cbt: malformed encoding")

// AppendTo appends the encoding of the map to b; package cbt's documentation
// has its layout.
func (m Map) AppendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(m.ext)))
	end := int64(0)
	for i, e := range m.ext {
		b = binary.AppendUvarint(b, uint64(e.Off-end-leastGap(i)))
		b = binary.AppendUvarint(b, uint64(e.Len-1))
		end = e.End()
	}
	return b
}

// ParseMap decodes all of b: a map of at most maxExtents extents within a disk
// of size bytes. Anything else is ErrFormat.
func ParseMap(b []byte, size int64, maxExtents int) (Map, error) {
	d := decoder{b: b}
	// An extent takes two bytes, so the count cannot outgrow the input.
	n := d.uvarint(0, int64(min(maxExtents, len(b)/2)), "extents")
	if d.err != nil {
		return Map{}, d.err
	}
	m := Map{ext: make([]Extent, 0, n)}
	end := int64(0)
	for i := range int(n) {
		off := end + d.uvarint(leastGap(i), size-end, "gap")
		length := d.uvarint(1, size-off, "length")
		if d.err != nil {
			return Map{}, d.err
		}
		m.push(Extent{Off: off, Len: length})
		end = off + length
	}
	return m, d.done()
}

// leastGap is the least distance of extent i from the one before: those that
// touch would have been merged.
func leastGap(i int) int64 { return int64(min(i, 1)) }

// decoder takes values off the front of b and remembers the first fault.
type decoder struct {
	b   []byte
	err error
}

// uvarint decodes a number in [least, most] that is stored less least. After a
// fault it returns 0.
func (d *decoder) uvarint(least, most int64, what string) int64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	switch {
	case n <= 0:
		d.fail("%s: cut off or over 64 bits", what)
	case n > 1 && d.b[n-1] == 0:
		d.fail("%s: not in its shortest form", what)
	case most < least || v > uint64(most-least):
		d.fail("%s: %d and %d exceed %d", what, v, least, most)
	}
	if d.err != nil {
		return 0
	}
	d.b = d.b[n:]
	return int64(v) + least
}

// fail records the first fault.
func (d *decoder) fail(format string, args ...any) {
	d.err = fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
}

// done is the first fault, or that bytes are left.
func (d *decoder) done() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return d.err
}
