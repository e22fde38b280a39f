package movertest

import (
	"bytes"
	"io"
	"maps"
	"slices"

	"github.com/haulback/haulback/cbt"
)

// blockSize is the unit in which memory is allocated and holes are told.
const blockSize = 4096

// sparse is a byte array with holes. Callers lock and check bounds.
type sparse struct {
	size   int64
	blocks map[int64]*[blockSize]byte // by block number; absent: a hole
}

func newSparse(size int64) *sparse {
	return &sparse{size: size, blocks: make(map[int64]*[blockSize]byte)}
}

// pieces calls f for the part of [off, off+n) in each block: p[from:to] lies at
// offset within block.
func pieces(n int, off int64, f func(block int64, within, from, to int)) {
	for from := 0; from < n; {
		block, within := (off+int64(from))/blockSize, int((off+int64(from))%blockSize)
		to := min(n, from+blockSize-within)
		f(block, within, from, to)
		from = to
	}
}

func (s *sparse) readAt(p []byte, off int64) {
	pieces(len(p), off, func(block int64, within, from, to int) {
		if b := s.blocks[block]; b != nil {
			copy(p[from:to], b[within:])
		} else {
			clear(p[from:to])
		}
	})
}

func (s *sparse) writeAt(p []byte, off int64) {
	pieces(len(p), off, func(block int64, within, from, to int) {
		b := s.blocks[block]
		if b == nil {
			b = new([blockSize]byte)
			s.blocks[block] = b
		}
		copy(b[within:], p[from:to])
	})
}

// punch frees whole blocks and clears partial ones.
func (s *sparse) punch(e cbt.Extent) {
	for e.Len > 0 {
		block, within := e.Off/blockSize, e.Off%blockSize
		n := min(e.Len, blockSize-within)
		if b := s.blocks[block]; b != nil && n < blockSize {
			clear(b[within : within+n])
		} else {
			delete(s.blocks, block)
		}
		e.Off, e.Len = e.Off+n, e.Len-n
	}
}

func (s *sparse) writeZeros(e cbt.Extent) {
	var zeros [blockSize]byte
	for e.Len > 0 {
		n := min(e.Len, blockSize)
		s.writeAt(zeros[:n], e.Off)
		e.Off, e.Len = e.Off+n, e.Len-n
	}
}

// nextData has the contract of mover.Mapper.
func (s *sparse) nextData(off int64) (cbt.Extent, error) {
	last := (s.size + blockSize - 1) / blockSize
	block := off / blockSize
	if int64(len(s.blocks)) < last-block {
		block = s.nextBlock(block, last)
	}
	for block < last && s.blocks[block] == nil {
		block++
	}
	if off >= s.size || block >= last {
		return cbt.Extent{}, io.EOF
	}
	start := max(off, block*blockSize)
	for block < last && s.blocks[block] != nil {
		block++
	}
	return cbt.Extent{Off: start, Len: min(block*blockSize, s.size) - start}, nil
}

// nextBlock is the first allocated block from block on: on a disk with fewer
// blocks than holes it is cheaper to look at all blocks than at all holes.
func (s *sparse) nextBlock(block, last int64) int64 {
	next := last
	for b := range s.blocks {
		if b >= block && b < next {
			next = b
		}
	}
	return next
}

func (s *sparse) clone() *sparse {
	c := newSparse(s.size)
	for n, b := range s.blocks {
		twin := *b
		c.blocks[n] = &twin
	}
	return c
}

// bytes is the whole content.
func (s *sparse) bytes() []byte {
	p := make([]byte, s.size)
	s.readAt(p, 0)
	return p
}

// firstDifference is the offset of the first block that reads differently, or
// -1. Holes and zeros are equal.
func (s *sparse) firstDifference(o *sparse) int64 {
	if s.size != o.size {
		return min(s.size, o.size)
	}
	var zero [blockSize]byte
	numbers := slices.AppendSeq(slices.Collect(maps.Keys(s.blocks)), maps.Keys(o.blocks))
	slices.Sort(numbers)
	for _, n := range numbers {
		a, b := s.blocks[n], o.blocks[n]
		if a == nil {
			a = &zero
		}
		if b == nil {
			b = &zero
		}
		if !bytes.Equal(a[:], b[:]) {
			return n * blockSize
		}
	}
	return -1
}
