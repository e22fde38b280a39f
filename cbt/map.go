package cbt

import (
	"iter"
	"math"
	"slices"
	"sort"
)

// Map is a set of bytes of one disk: sorted, disjoint extents that do not
// touch. The zero value is empty and ready to use.
//
// A copy made by assignment shares extents with the original and must not be
// changed; the methods that return a Map return one of its own.
type Map struct {
	ext []Extent
	len int64 // sum of the lengths
}

// Add puts the bytes of e into the map. Adding in disk order is an append; in
// any other place it is a search and a shift. Bytes below offset 0 or beyond
// the largest offset do not exist and are left out.
func (m *Map) Add(e Extent) {
	e = onDisk(e)
	if e.Len == 0 {
		return
	}
	i := len(m.ext)
	if i > 0 && m.ext[i-1].End() >= e.Off {
		i = m.search(e.Off - 1) // also an extent that only touches e
	}
	j := i
	for ; j < len(m.ext) && m.ext[j].Off <= e.End(); j++ {
		e = hull(e, m.ext[j])
		m.len -= m.ext[j].Len
	}
	m.len += e.Len
	m.replace(i, j, e)
}

// Remove takes the bytes of e out of the map.
func (m *Map) Remove(e Extent) {
	e = onDisk(e)
	if e.Len == 0 {
		return
	}
	i := m.search(e.Off)
	j := i
	for ; j < len(m.ext) && m.ext[j].Off < e.End(); j++ {
		m.len -= m.ext[j].Intersect(e).Len
	}
	if i == j {
		return
	}
	var rest [2]Extent
	n := 0
	if first := m.ext[i]; first.Off < e.Off {
		rest[n] = Extent{Off: first.Off, Len: e.Off - first.Off}
		n++
	}
	if last := m.ext[j-1]; last.End() > e.End() {
		rest[n] = Extent{Off: e.End(), Len: last.End() - e.End()}
		n++
	}
	m.replace(i, j, rest[:n]...)
}

// Len is the number of bytes in the map.
func (m Map) Len() int64 { return m.len }

// Count is the number of extents.
func (m Map) Count() int { return len(m.ext) }

// Empty reports whether the map has no bytes.
func (m Map) Empty() bool { return len(m.ext) == 0 }

// Equal reports whether both maps have the same bytes.
func (m Map) Equal(o Map) bool { return slices.Equal(m.ext, o.ext) }

// At is the extent that has the byte at off, if one does.
func (m Map) At(off int64) (Extent, bool) {
	i := m.search(off)
	if i == len(m.ext) || m.ext[i].Off > off {
		return Extent{}, false
	}
	return m.ext[i], true
}

// Next is the first extent that ends beyond off, its start not before off.
func (m Map) Next(off int64) (Extent, bool) {
	i := m.search(off)
	if i == len(m.ext) {
		return Extent{}, false
	}
	return between(max(off, m.ext[i].Off), m.ext[i].End()), true
}

// Covers reports whether every byte of e is in the map. It is true of an empty
// extent and false of one that is not within any disk.
func (m Map) Covers(e Extent) bool {
	if e.Len == 0 {
		return true
	}
	f, ok := m.At(e.Off)
	return ok && e.Len > 0 && e.Len <= f.End()-e.Off
}

// All yields the extents in disk order.
func (m Map) All() iter.Seq[Extent] { return slices.Values(m.ext) }

// search is the index of the first extent that ends beyond off.
func (m Map) search(off int64) int {
	return sort.Search(len(m.ext), func(i int) bool { return m.ext[i].End() > off })
}

// replace puts with in the place of extents i to j. It is slices.Replace with
// the two cases of a map that is built in order, which must not shift.
func (m *Map) replace(i, j int, with ...Extent) {
	switch {
	case i == len(m.ext):
		m.ext = append(m.ext, with...)
	case j-i == len(with):
		copy(m.ext[i:j], with)
	default:
		m.ext = slices.Replace(m.ext, i, j, with...)
	}
}

// push appends e, which does not start before the end of the last extent.
func (m *Map) push(e Extent) {
	if e.Len == 0 {
		return
	}
	m.len += e.Len
	if i := len(m.ext) - 1; i >= 0 && m.ext[i].End() == e.Off {
		m.ext[i].Len += e.Len
		return
	}
	m.ext = append(m.ext, e)
}

// onDisk is the part of e that can exist on a disk, however wild e is.
func onDisk(e Extent) Extent {
	if e.Len <= 0 {
		return Extent{}
	}
	if e.Off < 0 {
		if e.Len += e.Off; e.Len <= 0 {
			return Extent{}
		}
		e.Off = 0
	}
	e.Len = min(e.Len, math.MaxInt64-e.Off)
	return e
}

// hull is the smallest extent that contains both.
func hull(e, f Extent) Extent {
	lo := min(e.Off, f.Off)
	return Extent{Off: lo, Len: max(e.End(), f.End()) - lo}
}
