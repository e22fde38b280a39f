package wide

import (
	"github.com/zeebo/blake3"
	"golang.org/x/sys/cpu"
)

const (
	// Size is the length of a digest in bytes.
	Size = 32
	// GrainSize is the length that is hashed here: 64 chunks, twice the 32 lanes.
	GrainSize = 64 << 10
	// PieceSize is the length of what Pieces hashes by itself.
	PieceSize = 4 << 10
	// GrainPieces is the number of pieces of a grain.
	GrainPieces = GrainSize / PieceSize
)

// on is able, unless a test wants to see the other way.
var on = able

// Name is what hashes whole grains here: "AVX-512" is this package; "AVX2", "SSE4.1"
// and "portable" are what the library takes, as far as the processor tells.
func Name() string {
	switch {
	case on:
		return "AVX-512"
	case library && cpu.X86.HasAVX2:
		return "AVX2"
	case library && cpu.X86.HasSSE41:
		return "SSE4.1"
	}
	return "portable"
}

// Hasher computes BLAKE3-256. It keeps 13 KiB of state, so that no call allocates. Not
// safe for concurrent use.
type Hasher struct {
	h    *blake3.Hasher
	tree scratch
}

// New is a Hasher ready for use.
func New() *Hasher { return &Hasher{h: blake3.New()} }

// Sum sets d to the digest of p, of any length.
func (h *Hasher) Sum(p []byte, d *[Size]byte) {
	if on && len(p) == GrainSize {
		h.tree.sum(p, d)
		return
	}
	h.h.Reset()
	_, _ = h.h.Write(p) // never fails
	h.h.Sum(d[:0])
}

// Pieces sets sums to the digests of the pieces of p, a grain or the shorter last one
// of a disk, whose last piece may be shorter as well. What p has no bytes for is zero.
func (h *Hasher) Pieces(p []byte, sums *[GrainPieces][Size]byte) {
	if on && len(p) == GrainSize {
		h.tree.pieces(p, sums)
		return
	}
	for i := range sums {
		if lo := i * PieceSize; lo < len(p) {
			h.Sum(p[lo:min(lo+PieceSize, len(p))], &sums[i])
		} else {
			sums[i] = [Size]byte{}
		}
	}
}
