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

// on says that grains go through the assembler. Tests set it to see the other way.
var on = able && sane(new(scratch).sum, new(scratch).pieces)

// sane says whether sum and pieces agree with the library on a grain, which takes 0.1
// ms when the program begins: a processor that cannot be relied upon, or what imitates
// one, must not be the reason that two disks seem equal.
func sane(sum func([]byte, *[Size]byte), pieces func([]byte, *[GrainPieces][Size]byte)) bool {
	p := make([]byte, GrainSize)
	for i, x := 0, uint32(1); i < len(p); i++ {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	var d [Size]byte
	sum(p, &d)
	ok := d == blake3.Sum256(p)
	var all [GrainPieces][Size]byte
	pieces(p, &all)
	for i := range all {
		ok = ok && all[i] == blake3.Sum256(p[i*PieceSize:(i+1)*PieceSize])
	}
	return ok
}

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
