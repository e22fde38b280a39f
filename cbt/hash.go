package cbt

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt/wide"
)

// zeros is a grain of zeros. Nothing writes to it.
var zeros [GrainSize]byte

// zeroGrain is the digest of a whole grain of zeros.
var zeroGrain = sync.OnceValue(func() Digest { return blake3.Sum256(zeros[:]) })

// Hasher computes digests of grains. A worker keeps one for its life: the state
// is 13 KiB, and reusing it makes Sum free of allocations. Not safe for
// concurrent use. Whole grains are hashed best: see package wide.
type Hasher struct {
	h *wide.Hasher
}

// NewHasher is a Hasher ready for Sum.
func NewHasher() *Hasher { return &Hasher{h: wide.New()} }

// Sum sets d to the digest of p.
func (h *Hasher) Sum(p []byte, d *Digest) { h.h.Sum(p, (*[DigestSize]byte)(d)) }

// IsZero reports whether every byte of p is zero. When the first 8 bytes are,
// the rest is if p equals itself shifted by 8, which the runtime compares with
// the widest loads there are: 54 GB/s against 40 for a loop in Go, and BLAKE3's
// 2.4 to 10 (facts/performance.md section 1.2).
func IsZero(p []byte) bool {
	n := len(p)
	if n < 8 {
		return bytes.Equal(p, zeros[:n])
	}
	return binary.NativeEndian.Uint64(p) == 0 && bytes.Equal(p[:n-8], p[8:])
}

// ZeroDigest is the digest of a grain of n zero bytes, n at most GrainSize. That
// of a whole grain is computed once.
func ZeroDigest(n int) Digest {
	if n == GrainSize {
		return zeroGrain()
	}
	return blake3.Sum256(zeros[:n])
}
