package cbt

import (
	"cmp"
	"slices"
)

// FromAreas makes a map of a host's answer: areas in any order, overlapping or
// touching, as hosts do send them. One area that is empty or not within a disk
// of size bytes voids the answer with ErrBounds: what a host says beside such
// an area cannot be believed either (facts/reliability.md, B4).
func FromAreas(areas []Extent, size int64) (Map, error) {
	for _, e := range areas {
		if err := e.Check(size); err != nil {
			return Map{}, err
		}
	}
	sorted := slices.Clone(areas)
	slices.SortFunc(sorted, func(a, b Extent) int { return cmp.Compare(a.Off, b.Off) })
	var m Map
	for _, e := range sorted {
		m.Add(e)
	}
	return m, nil
}

// Union is what is in either map.
func (m Map) Union(o Map) Map {
	var u Map
	a, b := m.ext, o.ext
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].Off <= b[0].Off {
			u.Add(a[0])
			a = a[1:]
		} else {
			u.Add(b[0])
			b = b[1:]
		}
	}
	return u
}

// Intersect is what is in both maps.
func (m Map) Intersect(o Map) Map {
	var x Map
	a, b := m.ext, o.ext
	for len(a) > 0 && len(b) > 0 {
		x.push(a[0].Intersect(b[0]))
		if a[0].End() <= b[0].End() {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return x
}

// Subtract is what is in m and not in o.
func (m Map) Subtract(o Map) Map {
	var d Map
	b := o.ext
	for _, e := range m.ext {
		for len(b) > 0 && b[0].End() <= e.Off {
			b = b[1:]
		}
		lo := e.Off
		for _, f := range b {
			if f.Off >= e.End() {
				break
			}
			d.push(between(lo, f.Off))
			lo = f.End()
		}
		d.push(between(lo, e.End()))
	}
	return d
}

// Complement is what a disk of size bytes has and the map has not.
func (m Map) Complement(size int64) Map {
	var disk Map
	disk.Add(Extent{Len: size})
	return disk.Subtract(m)
}

// Clip is what of the map lies within e.
func (m Map) Clip(e Extent) Map {
	e = onDisk(e)
	var c Map
	for _, f := range m.ext[m.search(e.Off):] {
		if f.Off >= e.End() {
			break
		}
		c.push(f.Intersect(e))
	}
	return c
}

// between is [lo, hi), empty when hi is not beyond lo.
func between(lo, hi int64) Extent { return Extent{Off: lo, Len: max(0, hi-lo)} }
