package cbt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/zeebo/blake3"
)

// ErrIncomplete means that a root or manifest has not exactly one digest for
// each grain of its disk.
var ErrIncomplete = errors.New("cbt: not one digest per grain")

// rootContext separates roots from every other use of BLAKE3.
const rootContext = "haulback 2026 manifest root v1"

// zeroLeaves is the digest of a zero grain many times over. 1024 of them are
// 32 KiB, which stays in the first-level cache while it is hashed.
var zeroLeaves = sync.OnceValue(func() *[1024 * DigestSize]byte {
	d := zeroGrain()
	var b [1024 * DigestSize]byte
	for i := 0; i < len(b); i += DigestSize {
		copy(b[i:], d[:])
	}
	return &b
})

// Root folds the digests of one disk, in disk order, into one. It identifies
// the contents of the disk: two disks have the same root when their bytes, and
// so their sizes, are the same. Package cbt's documentation has the definition.
//
// Not safe for concurrent use; NewRoot makes one.
type Root struct {
	h     *blake3.Hasher
	size  int64
	n     int64 // grains folded
	wrong bool  // more grains were offered than the disk has

	skipped int64 // of n: the last ones, not written yet
}

// NewRoot is a root of a disk of size bytes with nothing folded.
func NewRoot(size int64) *Root {
	r := &Root{h: blake3.NewDeriveKey(rootContext), size: size, wrong: size < 0}
	var head [16]byte
	binary.BigEndian.PutUint64(head[:], uint64(size))
	binary.BigEndian.PutUint64(head[8:], GrainSize)
	r.h.Write(head[:]) // never fails
	return r
}

// Add folds the digest of the next grain. A digest beyond the last grain is not
// folded and makes Sum fail.
func (r *Root) Add(d *Digest) {
	if r.take(1) {
		r.writeSkipped()
		r.h.Write(d[:])
	}
}

// AddZeros folds the next n grains as ones that read as zeros, the short last
// grain as what it is. More grains than the disk has left, or fewer than none,
// are not folded and make Sum fail.
func (r *Root) AddZeros(n int64) {
	if !r.take(n) || n == 0 {
		return
	}
	r.writeSkipped()
	short := r.size % GrainSize
	if r.n < Grains(r.size) {
		short = 0
	}
	if short > 0 {
		n--
	}
	for leaves := zeroLeaves(); n > 0; {
		k := min(n, int64(len(leaves)/DigestSize))
		r.h.Write(leaves[:k*DigestSize])
		n -= k
	}
	if short > 0 {
		d := ZeroDigest(int(short))
		r.h.Write(d[:])
	}
}

// skippedContext is what the leaf of grains that were not compared is derived
// from: no digest of contents can be equal to it.
const skippedContext = "haulback 2026 skipped grains v1"

var skippedLeaf = sync.OnceValue(func() (d Digest) {
	blake3.DeriveKey(skippedContext, nil, d[:])
	return d
})

// AddSkipped folds the next n grains as ones that a plan left out. A root with
// such grains identifies what was compared and where, not the whole contents.
// A run of them costs the same however long it is: a hint of a 64 TiB disk
// leaves out a billion grains.
func (r *Root) AddSkipped(n int64) {
	if r.take(n) {
		r.skipped += n
	}
}

// writeSkipped folds the run of skipped grains that ends here.
func (r *Root) writeSkipped() {
	if r.skipped == 0 {
		return
	}
	leaf := skippedLeaf()
	b := binary.BigEndian.AppendUint64(leaf[:], uint64(r.skipped))
	r.h.Write(b)
	r.skipped = 0
}

// take counts n grains, or refuses them and remembers that.
func (r *Root) take(n int64) bool {
	if n < 0 || n > Grains(r.size)-r.n {
		r.wrong = true
		return false
	}
	r.n += n
	return true
}

// Grains is the number of grains folded.
func (r *Root) Grains() int64 { return r.n }

// Sum is the root. It is ErrIncomplete unless exactly the grains of the disk
// were folded.
func (r *Root) Sum() (Digest, error) {
	if n := Grains(r.size); r.wrong || r.n != n {
		return Digest{}, fmt.Errorf("%w: root over %d of %d grains (more offered: %t)",
			ErrIncomplete, r.n, n, r.wrong)
	}
	return r.Prefix(), nil
}

// Prefix is the digest over what was folded so far: equal prefixes of equally
// long disks have equal ones. Folding may go on.
func (r *Root) Prefix() (d Digest) {
	c := r.Clone() // blake3 rearranges the state it sums
	c.writeSkipped()
	c.h.Sum(d[:0])
	return d
}

// Clone is a second root with the same grains folded, independent of r.
func (r *Root) Clone() *Root {
	c := *r
	c.h = r.h.Clone()
	return &c
}
