package vix

import (
	"io"
	"math/bits"
	"sync"

	"github.com/haulback/haulback/cbt"
)

const (
	// chunkSize is what QueryAllocatedBlocks is asked to tell apart, in bytes:
	// the smallest that it takes, 128 sectors.
	chunkSize = 64 << 10
	// windowChunks is how many chunks one call may cover.
	windowChunks = 512 << 10
	windowSize   = windowChunks * chunkSize
)

// allocation remembers which chunks of a disk have data: one bit a chunk, in
// windows of 32 GiB, filled by one query each when they are first needed.
//
// It may say "data" where there is none, never the other way round: what was
// written since the disk was opened counts as data whatever the library says,
// and so does the tail of the disk that is no whole chunk, which the library
// leaves out. When a query fails (on many hosts it does, and slowly), all is data
// from then on.
type allocation struct {
	size int64

	asking sync.Mutex // one query at a time
	mu     sync.Mutex // guards what follows; never held during a query
	window map[int64]*chunks
	failed bool
}

// chunks are the bits of one window.
type chunks struct {
	known bool
	bits  [windowChunks / 64]uint64
}

// query asks for the allocated blocks of e, whole chunks, and calls mark for each.
type query func(e cbt.Extent, mark func(cbt.Extent)) error

func (a *allocation) init(size int64) {
	a.size = size
	a.window = map[int64]*chunks{}
}

// wrote takes note of a write, before it is made.
func (a *allocation) wrote(off int64, length int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.failed {
		a.markLocked(cbt.Extent{Off: off, Len: int64(length)})
	}
}

// markLocked sets every chunk that e touches, as far as e is on the disk.
func (a *allocation) markLocked(e cbt.Extent) {
	first, last := e.Off/chunkSize, (min(e.End(), a.size)-1)/chunkSize
	for c := first; c <= last; c++ {
		a.windowLocked(c / windowChunks).bits[c%windowChunks/64] |= 1 << (c % 64)
	}
}

func (a *allocation) windowLocked(i int64) *chunks {
	w := a.window[i]
	if w == nil {
		w = &chunks{}
		a.window[i] = w
	}
	return w
}

// next is NextData of a disk: off is on it.
func (a *allocation) next(off int64, ask query) (cbt.Extent, error) {
	for at := off; at < a.size; at = (at/windowSize + 1) * windowSize {
		w := a.ready(at/windowSize, ask)
		if w == nil {
			return cbt.Extent{Off: at, Len: a.size - at}, nil
		}
		a.mu.Lock()
		start, end := w.run(int(at % windowSize / chunkSize))
		a.mu.Unlock()
		if start < end {
			base := at / windowSize * windowSize
			from := max(at, base+int64(start)*chunkSize)
			return cbt.Extent{Off: from, Len: min(a.size, base+int64(end)*chunkSize) - from}, nil
		}
	}
	return cbt.Extent{}, io.EOF
}

// ready returns window i filled, or nil when the library cannot tell.
func (a *allocation) ready(i int64, ask query) *chunks {
	w, done := a.look(i)
	if done {
		return w
	}
	a.asking.Lock()
	defer a.asking.Unlock()
	if w, done = a.look(i); done {
		return w
	}
	e := cbt.Extent{Off: i * windowSize, Len: min(a.size-i*windowSize, windowSize) / chunkSize * chunkSize}
	var err error
	if e.Len > 0 {
		err = ask(e, func(data cbt.Extent) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.markLocked(data)
		})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.failed, a.window = true, map[int64]*chunks{}
		return nil
	}
	if tail := a.size % chunkSize; tail != 0 && e.End() == a.size-tail {
		a.markLocked(cbt.Extent{Off: a.size - tail, Len: tail})
	}
	w = a.windowLocked(i)
	w.known = true
	return w
}

func (a *allocation) look(i int64) (w *chunks, done bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed {
		return nil, true
	}
	w = a.windowLocked(i)
	return w, w.known
}

// run is the first run of set bits at or after bit i; empty when there is none.
func (w *chunks) run(i int) (start, end int) {
	start = w.find(i, 0)
	return start, w.find(start, ^uint64(0))
}

// find is the first bit at or after i that differs from those of same, or
// windowChunks.
func (w *chunks) find(i int, same uint64) int {
	for i < windowChunks {
		if rest := (w.bits[i/64] ^ same) >> (i % 64); rest != 0 {
			return min(i+bits.TrailingZeros64(rest), windowChunks)
		}
		i = (i/64 + 1) * 64
	}
	return windowChunks
}
