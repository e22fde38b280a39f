//go:build !purego

package wide

import (
	"encoding/binary"

	"golang.org/x/sys/cpu"
)

// able says that this processor and its system have what the assembler uses.
// Package cpu asks the system, too, whether it keeps the wide registers.
var able = cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW

// library says that the library has assembler here.
const library = true

const (
	lanes     = 16 // of a register
	chunkLen  = 1024
	runLen    = 2 * lanes * chunkLen // what chunks takes
	grainRuns = GrainSize / runLen
)

// The flags of a parent, table 3 of the paper.
const (
	flagParent = 4
	flagRoot   = 8
)

// values is 16 chaining values, word by word: word w of value i is at [w][i].
type values [8][lanes]uint32

// counters are those of the chunks of a grain.
type counters [grainRuns][2][lanes]uint32

var (
	grainCounters = count(GrainSize / chunkLen)
	pieceCounters = count(PieceSize / chunkLen) // each piece counts from 0
)

// count counts to n, again and again.
func count(n int) (c counters) {
	for i := range GrainSize / chunkLen {
		c[i/(2*lanes)][i/lanes%2][i%lanes] = uint32(i % n)
	}
	return c
}

// chunks sets out to the chaining values of the 32 chunks of p, runLen bytes.
//
//go:noescape
func chunks(p *byte, counters *[2][lanes]uint32, out *[2]values)

// parents2 sets out to the 32 parents of the 64 values of in, none of them a root. out
// may be part of in.
//
//go:noescape
func parents2(in *[4]values, out *[2]values)

// parents sets out to the 16 parents of the 32 values of in. out may be part of in.
//
//go:noescape
func parents(in *[2]values, flags uint32, out *values)

// root sets out to the digest of the tree above the 16 values of in.
//
//go:noescape
func root(in *values, out *[Size]byte)

// scratch is where a grain's tree is built.
type scratch [4]values

// below sets v to the parents of the chunks of the grain p, in its first half.
func (v *scratch) below(p []byte, c *counters) {
	_ = p[GrainSize-1]
	for i := range grainRuns {
		chunks(&p[i*runLen], &c[i], (*[2]values)(v[2*i:]))
	}
	parents2((*[4]values)(v), (*[2]values)(v[:]))
}

// sum sets d to the digest of the grain p.
func (v *scratch) sum(p []byte, d *[Size]byte) {
	v.below(p, &grainCounters)
	parents((*[2]values)(v[:]), flagParent, &v[0])
	root(&v[0], d)
}

// pieces sets sums to the digests of the pieces of the grain p: above its 64 chunks are
// 32 parents and 16 roots, and no lane is ever idle.
func (v *scratch) pieces(p []byte, sums *[GrainPieces][Size]byte) {
	v.below(p, &pieceCounters)
	parents((*[2]values)(v[:]), flagParent|flagRoot, &v[0])
	for w := range v[0] {
		for i, x := range &v[0][w] {
			binary.LittleEndian.PutUint32(sums[i][4*w:], x)
		}
	}
}
