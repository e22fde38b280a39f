package mover

import (
	"io"

	"github.com/haulback/haulback/cbt"
)

// Disk is a virtual disk opened for reading. The drivers in package vddk
// implement it; movertest.TestDisk is its contract as code.
//
// ReadAt follows io.ReaderAt with bytes, never sectors: it fills p whole or
// returns an error, and returns io.EOF (with the bytes before it) only when p
// reaches beyond Size. It is safe for concurrent use and does not keep p.
type Disk interface {
	io.ReaderAt
	// Size is the length of the disk in bytes, as recorded when it was opened.
	// It need not be a multiple of the grain or of a sector.
	Size() int64
	// Identity is an opaque, printable name of the device or file itself (not
	// of the path that led to it): equal for two opens of one disk, different
	// for two disks. Journals and exclusive holds are keyed by it.
	Identity() string
	// Close releases the disk and its exclusive hold. It is idempotent. For a
	// disk opened for writing its error fails the pass.
	Close() error
}

// WritableDisk is a disk opened, and exclusively held, for writing.
type WritableDisk interface {
	Disk
	// WriteAt follows io.WriterAt: all of p is written or an error is
	// returned. A write that reaches beyond Size is refused whole with
	// ErrBounds: a disk never grows. Safe for concurrent use on disjoint
	// extents. When it returns the data may still be volatile.
	io.WriterAt
	// Flush makes every write that returned before the call durable. After
	// an error nothing written since the last good Flush may be believed, and
	// calling it again proves nothing (reliability rule K3): the disk is to
	// be closed and opened anew.
	Flush() error
}

// Zeroer is the optional ability to make an extent read as zeros without
// sending zeros through WriteAt. Without it zeros are written.
type Zeroer interface {
	// Zero makes e read as zeros. With Deallocate the space is given back
	// where the disk can (a punched hole), else with Keep it stays allocated.
	// Durable only after Flush, like a write.
	Zero(e cbt.Extent, how Allocation) error
}

// Allocation says what Zeroer.Zero does with the space of the extent.
type Allocation = cbt.Allocation

// Mapper is the optional ability to say where a disk has no data. Without it
// every extent is read.
type Mapper interface {
	// NextData returns the first allocated extent whose end is beyond off,
	// clipped to start at or after off, and io.EOF when there is none up to
	// the end of the disk. What lies between is a hole: it reads as zeros.
	// A driver that cannot tell answers "all data", never "hole".
	// Safe for concurrent use.
	NextData(off int64) (cbt.Extent, error)
}

// ColdReader is the optional ability to read what the device holds and not
// what a cache in front of it remembers. Without it ReadAt is used and the
// report says so.
type ColdReader interface {
	// ReadCold is ReadAt past the page cache (O_DIRECT, or the cache of the
	// extent dropped first). p may have any length and alignment; page-aligned
	// memory and extents are the fast path.
	ReadCold(p []byte, off int64) (int, error)
	// Coldness names how: "direct", "dropped", "server" (what a server answers
	// that reads the disk for us, whose own cache cannot be passed) or "cached"
	// (no way found).
	Coldness() string
}

// Checker is the optional ability to notice that the disk changed under its
// open descriptor.
type Checker interface {
	// Check returns an error when the device behind the descriptor no longer
	// has the size or identity recorded at open. It is asked at every flush
	// and at the end of a pass.
	Check() error
}

// Ender is the optional ability to say at the end of a pass whether what was
// written went to the disk: another may have had it meanwhile, whatever the open
// descriptor says.
type Ender interface {
	// End is called once all is durable and proved, and before anybody is told so.
	// It may take its time. Its error fails the pass.
	End() error
}
