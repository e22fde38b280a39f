package lz4block

import (
	"encoding/binary"
	"math/bits"
)

// MaxInput is the longest input, in bytes: what a position of 16 bits reaches.
const MaxInput = 64 << 10

// The block format, as its description has it.
const (
	minMatch    = 4  // what a match length of 0 stands for
	lastLits    = 5  // bytes at the end that are always literals
	matchMargin = 12 // the last match begins so far before the end, or earlier
	nibble      = 15 // a length of so much or more goes on in bytes of their own
)

const (
	tableBits = 13 // 8192 positions of 2 bytes: a third of an L1 cache
	skipBits  = 6  // after so many tries (64) without a match, steps grow by one
	hashMul   = 0x9E3779B185EBCA87
	// room is what a short sequence may take: its token, 16 bytes copied for
	// its literals however few they are, its distance.
	room = 24
)

// input is the source with room behind it for loads of 16 bytes: a position of
// 16 bits is always in it, which the compiler sees.
type input [MaxInput + 16]byte

// Encoder is the memory of one encoder, 80 KiB. The zero value works. It is
// for one goroutine.
type Encoder struct {
	table [1 << tableBits]uint16 // by hash: where it was seen last; 0 for never, or at 0
	in    input
}

// Encode writes src, at most MaxInput bytes, as one LZ4 block to the begin of
// dst and returns the length of the block. It returns 0 when src is too long, or
// dst too short: a block that leaves less than 24 bytes of dst may count as too
// long already. What dst holds behind the block is undefined. dst and src must
// not overlap. It does not allocate.
func (e *Encoder) Encode(dst, src []byte) int {
	if len(src) > MaxInput {
		return 0
	}
	var d, anchor int
	if len(src) > matchMargin {
		clear(e.table[:])
		copy(e.in[:], src)
		if d, anchor = e.matches(dst, len(src)); d < 0 {
			return 0
		}
	}
	return finish(dst, d, src[anchor:])
}

// matches writes all sequences of the first n bytes of e.in that end in a
// match. It returns the length written, or -1 when dst is too short, and where
// the literals behind begin.
func (e *Encoder) matches(dst []byte, n int) (d, anchor int) {
	in, t := &e.in, &e.table
	last, limit := n-matchMargin, n-lastLits // where the last match may begin, and has to end
	for s := 1; ; {
		m := 0
		// Two positions for each load; steps grow where nothing is found.
		for tries := 2 << skipBits; ; tries += 2 {
			if s > last {
				return d, anchor
			}
			v := in.load(s)
			h0, h1 := hash(v), hash(v>>8)
			m = int(t[h0])
			t[h0] = uint16(s)
			next := int(t[h1])
			t[h1] = uint16(s + 1)
			if in.load32(m) == uint32(v) {
				break
			}
			if in.load32(next) == uint32(v>>8) && s < last {
				s, m = s+1, next
				break
			}
			s += tries >> skipBits
		}
		for m > 0 && s > anchor && in.at(m-1) == in.at(s-1) {
			m, s = m-1, s-1
		}
		for {
			more := in.match(m+minMatch, s+minMatch, limit)
			if lits := s - anchor; lits < nibble && more < nibble && d+room <= len(dst) {
				to := dst[d : d+room]
				to[0] = byte(lits<<4 | more)
				*(*[16]byte)(to[1:]) = *in.load128(anchor)
				to[1+lits], to[2+lits] = byte(s-m), byte((s-m)>>8)
				d += lits + 3
			} else if d = in.sequence(dst, d, anchor, s, s-m, more); d < 0 {
				return d, 0
			}
			s += minMatch + more
			if anchor = s; s > last {
				return d, anchor
			}
			// What comes right behind a match is often one too.
			t[hash(in.load(s-2))] = uint16(s - 2)
			v := in.load(s)
			h := hash(v)
			m = int(t[h])
			t[h] = uint16(s)
			if in.load32(m) != uint32(v) {
				s++
				break
			}
		}
	}
}

// hash mixes the low six bytes of v. Four or five find more matches, which are
// short and cost more time than they save bytes.
func hash(v uint64) uint64 { return v << 16 * hashMul >> (64 - tableBits) }

// The loads take positions below MaxInput.
func (in *input) at(i int) byte { return in[uint(i)&(MaxInput-1)] }

func (in *input) load(i int) uint64 {
	j := uint(i) & (MaxInput - 1)
	return binary.LittleEndian.Uint64(in[j : j+8])
}

func (in *input) load32(i int) uint32 {
	j := uint(i) & (MaxInput - 1)
	return binary.LittleEndian.Uint32(in[j : j+4])
}

func (in *input) load128(i int) *[16]byte {
	j := uint(i) & (MaxInput - 1)
	return (*[16]byte)(in[j : j+16])
}

// match is how many bytes from s on, before limit, are as those from m on.
func (in *input) match(m, s, limit int) int {
	begin := s
	for s+8 <= limit {
		if x := in.load(m) ^ in.load(s); x != 0 {
			return s - begin + bits.TrailingZeros64(x)>>3
		}
		m, s = m+8, s+8
	}
	for s < limit && in.at(m) == in.at(s) {
		m, s = m+1, s+1
	}
	return s - begin
}

// sequence writes the literals [from, to) and a match of minMatch+more bytes at
// distance off to dst[d:], and returns where it ends, or -1.
func (in *input) sequence(dst []byte, d, from, to, off, more int) int {
	lits := to - from
	if d+1+lits+lits/255+1+2+more/255+1 > len(dst) {
		return -1
	}
	d = literals(dst, d, in[from:to])
	token := d - lits - 1
	if lits >= nibble {
		token -= 1 + (lits-nibble)/255
	}
	dst[d], dst[d+1] = byte(off), byte(off>>8)
	d += 2
	if more < nibble {
		dst[token] |= byte(more)
		return d
	}
	dst[token] |= nibble
	return length(dst, d, more-nibble)
}

// finish writes the last literals and returns the length of the block, or 0.
func finish(dst []byte, d int, lits []byte) int {
	if d+1+len(lits)+len(lits)/255+1 > len(dst) {
		return 0
	}
	return literals(dst, d, lits)
}

// literals writes a token without a match and lits.
func literals(dst []byte, d int, lits []byte) int {
	if n := len(lits); n < nibble {
		dst[d] = byte(n << 4)
		d++
	} else {
		dst[d] = nibble << 4
		d = length(dst, d+1, n-nibble)
	}
	return d + copy(dst[d:], lits)
}

// length writes what a nibble could not say of a length.
func length(dst []byte, d, n int) int {
	for ; n >= 255; n -= 255 {
		dst[d] = 255
		d++
	}
	dst[d] = byte(n)
	return d + 1
}
