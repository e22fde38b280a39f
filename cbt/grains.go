package cbt

import "iter"

// Grains yields every grain of a disk of size bytes that the map touches:
// whole grains, the last one clipped at the end of the disk, in disk order,
// each once however many extents touch it. Extents beyond the disk yield
// nothing.
func (m Map) Grains(size int64) iter.Seq[Extent] {
	return func(yield func(Extent) bool) {
		for lo, hi := range m.grainRuns(size) {
			for ; lo < hi; lo++ {
				if !yield(Grain(lo, size)) {
					return
				}
			}
		}
	}
}

// AlignGrains is the map of the grains that Grains yields.
func (m Map) AlignGrains(size int64) Map {
	var a Map
	for lo, hi := range m.grainRuns(size) {
		a.push(grainRun(lo, hi, size))
	}
	return a
}

// widen is the map with every extent widened to multiples of unit bytes, the
// last clipped at the end of the disk.
func (m Map) widen(unit, size int64) (w Map) {
	for _, e := range m.ext {
		w.Add(between(e.Off/unit*unit, min(size, (e.End()-1)/unit*unit+unit)))
	}
	return w
}

// AtMost is the map widened until it has at most n extents, n being 1 or more:
// what is told of a disk in that many pieces is coarse and never less than m.
func (m Map) AtMost(n int, size int64) Map {
	for unit := int64(GrainSize); m.Count() > n; unit *= 2 {
		m = m.widen(unit, size)
	}
	return m
}

// grainRuns yields runs [lo, hi) of grain numbers: ascending, disjoint, of at
// least one grain. Two runs may touch.
func (m Map) grainRuns(size int64) iter.Seq2[int64, int64] {
	return func(yield func(lo, hi int64) bool) {
		next, n := int64(0), Grains(size)
		for _, e := range m.ext {
			lo := max(next, e.Off/GrainSize)
			next = min(n, (e.End()-1)/GrainSize+1)
			if lo < next && !yield(lo, next) {
				return
			}
			if next == n {
				return
			}
		}
	}
}

// grainRun is the extent of grains [lo, hi), of which there is at least one.
func grainRun(lo, hi, size int64) Extent {
	return between(lo*GrainSize, Grain(hi-1, size).End())
}
