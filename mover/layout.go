package mover

import (
	"io"
	"sync"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// layout is how a disk of a given size is cut.
type layout struct{ size int64 }

// batches is the number of batches, the last of which may be short.
func (l layout) batches() int64 { return (l.size + cbt.BatchSize - 1) / cbt.BatchSize }

// batch is the extent of batch b.
func (l layout) batch(b int64) cbt.Extent {
	off := b * cbt.BatchSize
	return cbt.Extent{Off: off, Len: min(cbt.BatchSize, l.size-off)}
}

// grains is the number of grains of batch b.
func (l layout) grains(b int64) int {
	return int((l.batch(b).Len + cbt.GrainSize - 1) / cbt.GrainSize)
}

// grain is the extent of grain g of batch b.
func (l layout) grain(b int64, g int) cbt.Extent {
	off := b*cbt.BatchSize + int64(g)*cbt.GrainSize
	return cbt.Extent{Off: off, Len: min(cbt.GrainSize, l.size-off)}
}

// span is the extent of grains [lo, hi) of batch b.
func (l layout) span(b int64, lo, hi int) cbt.Extent {
	off := b*cbt.BatchSize + int64(lo)*cbt.GrainSize
	return cbt.Extent{Off: off, Len: min(int64(hi-lo)*cbt.GrainSize, l.size-off)}
}

// extent is what a run of batches covers.
func (l layout) extent(r wire.Run) cbt.Extent {
	off := r.First * cbt.BatchSize
	return cbt.Extent{Off: off, Len: min(r.Count*cbt.BatchSize, l.size-off)}
}

// maskBytes is the number of bytes the grains of mask have in batch b.
func (l layout) maskBytes(b int64, mask wire.Mask) (n int64) {
	for lo, hi := range spans(mask) {
		n += l.span(b, lo, hi).Len
	}
	return n
}

// addMask adds the grains of mask to m.
func (l layout) addMask(m *cbt.Map, b int64, mask wire.Mask) {
	for lo, hi := range spans(mask) {
		m.Add(l.span(b, lo, hi))
	}
}

// edge reports whether b is the first or last batch. These are always read:
// a comparison of a disk that is all holes then still has compared something.
func (l layout) edge(b int64) bool { return b == 0 || b == l.batches()-1 }

// spans yields the ranges [lo, hi) of set bits.
func spans(m wire.Mask) func(yield func(lo, hi int) bool) {
	return func(yield func(int, int) bool) {
		for g := 0; g < cbt.BatchGrains; {
			if !m.Has(g) {
				g++
				continue
			}
			lo := g
			for g < cbt.BatchGrains && m.Has(g) {
				g++
			}
			if !yield(lo, g) {
				return
			}
		}
	}
}

// holes asks a disk's Mapper, remembering the last answer: a sequential pass
// then asks once per extent of the file and not once per batch. Safe for
// concurrent use.
type holes struct {
	m Mapper // nil: the disk cannot tell, all is data

	mu   sync.Mutex
	from int64      // there is nothing but a hole in [from, data.Off)
	data cbt.Extent // the next data extent, empty at the end of the disk
	ok   bool
}

// newHoles asks disk, or with full treats all as data.
func newHoles(disk Disk, full bool) *holes {
	h := &holes{}
	if m, ok := disk.(Mapper); ok && !full {
		h.m = m
	}
	return h
}

// next returns the first data extent that ends beyond off, its start not
// before off; Len is 0 when there is none below size.
func (h *holes) next(off, size int64) (cbt.Extent, error) {
	if h.m == nil {
		return cbt.Extent{Off: off, Len: size - off}, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ok && off >= h.from && (off < h.data.End() || h.data.Len == 0) {
		start := max(off, h.data.Off)
		return cbt.Extent{Off: start, Len: max(0, h.data.End()-start)}, nil
	}
	e, err := h.m.NextData(off)
	if err == io.EOF {
		e, err = cbt.Extent{Off: size}, nil
	}
	if err != nil {
		return e, err
	}
	e.Len = max(0, min(e.End(), size)-e.Off)
	h.from, h.data, h.ok = off, e, true
	return e, nil
}

// mask is the grains of batch b that lie in holes. A disk that cannot say has
// none.
func (h *holes) mask(l layout, b int64) (m wire.Mask) {
	if h.m == nil || l.edge(b) {
		return 0
	}
	all := wire.FullMask(l.grains(b))
	for end, off := l.batch(b).End(), l.batch(b).Off; off < end; {
		e, err := h.next(off, l.size)
		if err != nil {
			return 0
		}
		if e.Len == 0 || e.Off >= end {
			break
		}
		lo := int(e.Off-l.batch(b).Off) / cbt.GrainSize
		hi := int((min(e.End(), end) - l.batch(b).Off + cbt.GrainSize - 1) / cbt.GrainSize)
		all &^= wire.FullMask(hi) &^ wire.FullMask(lo)
		off = e.End()
	}
	return all
}

// holeRun is the number of batches from b, at most n, that are holes whole.
func (h *holes) holeRun(l layout, b, n int64) int64 {
	if h.m == nil || l.edge(b) {
		return 0
	}
	e, err := h.next(b*cbt.BatchSize, l.size)
	if err != nil {
		return 0
	}
	end := l.batches() - 1 // the last batch is always read
	if e.Len > 0 {
		end = min(end, e.Off/cbt.BatchSize)
	}
	return max(0, min(n, end-b))
}
