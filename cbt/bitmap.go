package cbt

import (
	"fmt"
	"iter"
	"math/bits"
)

// Bitmap has one bit per grain of one disk: 2 MiB for 1 TiB. Grain numbers out
// of range are a bug of the caller and panic, as with a slice; check numbers
// that come from a peer first.
type Bitmap struct {
	size  int64    // of the disk, in bytes
	words []uint64 // grain i is bit i%64 of word i/64; bits past the end are 0
}

// NewBitmap is a bitmap with all bits clear, for a disk of size bytes.
func NewBitmap(size int64) *Bitmap {
	return &Bitmap{size: size, words: make([]uint64, (Grains(size)+63)/64)}
}

// Grains is the number of bits.
func (b *Bitmap) Grains() int64 { return Grains(b.size) }

// Set sets bit i.
func (b *Bitmap) Set(i int64) {
	b.check(i, i+1)
	b.words[i/64] |= 1 << (i % 64)
}

// Clear clears bit i.
func (b *Bitmap) Clear(i int64) {
	b.check(i, i+1)
	b.words[i/64] &^= 1 << (i % 64)
}

// Get reports whether bit i is set.
func (b *Bitmap) Get(i int64) bool {
	b.check(i, i+1)
	return b.words[i/64]>>(i%64)&1 != 0
}

// SetRange sets bits lo to hi-1.
func (b *Bitmap) SetRange(lo, hi int64) {
	b.check(lo, hi)
	for lo < hi {
		n := min(64-lo%64, hi-lo)
		b.words[lo/64] |= ^uint64(0) >> (64 - n) << (lo % 64)
		lo += n
	}
}

// Count is the number of set bits.
func (b *Bitmap) Count() int64 {
	n := 0
	for _, w := range b.words {
		n += bits.OnesCount64(w)
	}
	return int64(n)
}

// NextSet is the first set bit at or after i, and Grains() when there is none.
func (b *Bitmap) NextSet(i int64) int64 { return b.next(i, 0) }

// NextClear is the first clear bit at or after i, and Grains() when there is
// none.
func (b *Bitmap) NextClear(i int64) int64 { return b.next(i, ^uint64(0)) }

// next finds a bit that is set after its word was xored with flip.
func (b *Bitmap) next(i int64, flip uint64) int64 {
	n := b.Grains()
	i = max(i, 0)
	for i < n {
		if w := (b.words[i/64] ^ flip) >> (i % 64); w != 0 {
			// The bits past the end are clear, so a clear bit is found at n.
			return i + int64(bits.TrailingZeros64(w))
		}
		i = (i/64 + 1) * 64
	}
	return n
}

// Runs yields the runs [lo, hi) of set bits in order, each as long as can be.
func (b *Bitmap) Runs() iter.Seq2[int64, int64] {
	return func(yield func(lo, hi int64) bool) {
		for hi := int64(0); ; {
			lo := b.NextSet(hi)
			if lo == b.Grains() {
				return
			}
			if hi = b.NextClear(lo); !yield(lo, hi) {
				return
			}
		}
	}
}

// Map is the map of the grains whose bits are set.
func (b *Bitmap) Map() Map {
	var m Map
	for lo, hi := range b.Runs() {
		m.push(grainRun(lo, hi, b.size))
	}
	return m
}

// check panics unless [lo, hi) is a range of this bitmap.
func (b *Bitmap) check(lo, hi int64) {
	if lo < 0 || lo > hi || hi > b.Grains() {
		panic(fmt.Sprintf("cbt: grains [%d, %d) of a bitmap of %d", lo, hi, b.Grains()))
	}
}
