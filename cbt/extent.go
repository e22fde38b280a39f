package cbt

import (
	"errors"
	"fmt"
)

// The sizes at which disks are cut. Both are part of the protocol: two daemons
// that disagree about them refuse each other.
const (
	// GrainSize is the unit of hashing and of sending: 64 KiB. Smaller grains
	// cost digests, larger ones make a 4 KiB change cost 256 KiB and more on
	// the wire (facts/performance.md section 4, write amplification).
	GrainSize = 64 << 10
	// BatchGrains is the number of grains that travel together.
	BatchGrains = 16
	// BatchSize is one batch in bytes: 1 MiB.
	BatchSize = GrainSize * BatchGrains
)

// ErrBounds means that an extent does not lie within its disk.
var ErrBounds = errors.New("cbt: extent outside the disk")

// Extent is the byte range [Off, Off+Len) of one disk.
type Extent struct {
	Off int64 // bytes from the start of the disk
	Len int64 // bytes
}

// End is the first byte after the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// Check returns ErrBounds (wrapped, with the numbers) unless the extent lies
// within a disk of size bytes and is not empty. It cannot overflow, whatever
// the values are: they may come from a peer.
func (e Extent) Check(size int64) error {
	if e.Off < 0 || e.Len <= 0 || e.Off > size || e.Len > size-e.Off {
		return fmt.Errorf("%w: [%d, +%d) of %d bytes", ErrBounds, e.Off, e.Len, size)
	}
	return nil
}

// Intersect is what both extents cover; its Len is 0 when that is nothing.
func (e Extent) Intersect(f Extent) Extent {
	lo, hi := max(e.Off, f.Off), min(e.End(), f.End())
	if hi <= lo {
		return Extent{Off: lo}
	}
	return Extent{Off: lo, Len: hi - lo}
}

// Contains reports whether f lies within e.
func (e Extent) Contains(f Extent) bool { return f.Off >= e.Off && f.End() <= e.End() }

// String is the form used in messages: "[1048576, +65536)".
func (e Extent) String() string { return fmt.Sprintf("[%d, +%d)", e.Off, e.Len) }

// Grains is the number of grains of a disk of size bytes; the last may be short.
func Grains(size int64) int64 {
	if size <= 0 {
		return 0
	}
	return (size-1)/GrainSize + 1
}

// Grain is the extent of grain i of a disk of size bytes. The last grain ends
// with the disk; i must lie in [0, Grains(size)).
func Grain(i, size int64) Extent {
	off := i * GrainSize
	return Extent{Off: off, Len: min(GrainSize, size-off)}
}

// Allocation says whether zeros keep their space on the disk.
type Allocation uint8

const (
	// Keep leaves the space of a zeroed extent allocated.
	Keep Allocation = iota
	// Deallocate gives it back: the extent becomes a hole where the disk can.
	Deallocate
)
