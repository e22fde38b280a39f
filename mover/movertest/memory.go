package movertest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
)

// Mode says what a disk of this kit is opened for.
type Mode uint8

const (
	// ReadOnly shares the disk with other readers.
	ReadOnly Mode = iota
	// ReadWrite holds it alone.
	ReadWrite
)

// Compile-time proof that the disks of the kit have every ability.
var (
	_ fullDisk = (*Memory)(nil)
	_ fullDisk = (*Faulty)(nil)
	_ fullDisk = (*CrashDisk)(nil)
)

// fullDisk is a disk with every ability.
type fullDisk interface {
	mover.WritableDisk
	mover.Zeroer
	mover.Mapper
	mover.ColdReader
	mover.Checker
}

// Memory is an open sparse disk in memory, with every ability that package
// mover knows and no faults. Safe for concurrent use. Its bytes outlive Close:
// Reopen opens them again, and Bytes shows them at any time.
type Memory struct {
	medium   *medium
	readOnly bool
	closed   atomic.Bool
}

// medium is what the opens of one memory disk share.
type medium struct {
	id   int64
	mu   sync.RWMutex // guards data and hold
	data *sparse
	hold hold
}

// lastID numbers the media, so that two disks never have one identity.
var lastID atomic.Int64

// NewMemory opens a new disk of size bytes, all hole, for writing.
func NewMemory(size int64) *Memory {
	m := &medium{id: lastID.Add(1), data: newSparse(size)}
	_ = m.hold.take(ReadWrite) // of a new disk: cannot be held
	return &Memory{medium: m}
}

// NewMemoryFrom is NewMemory with content. Blocks of zeros become holes.
func NewMemoryFrom(content []byte) *Memory {
	m := NewMemory(int64(len(content)))
	m.medium.data.fill(content)
	return m
}

// fill writes all blocks of content but those of zeros.
func (s *sparse) fill(content []byte) {
	for off := 0; off < len(content); off += blockSize {
		if p := content[off:min(off+blockSize, len(content))]; !allZero(p) {
			s.writeAt(p, int64(off))
		}
	}
}

// Reopen opens the disk once more. Like a driver it refuses a second writer,
// and a writer beside readers, with syscall.EBUSY.
func (m *Memory) Reopen(mode Mode) (*Memory, error) {
	m.medium.mu.Lock()
	defer m.medium.mu.Unlock()
	if err := m.medium.hold.take(mode); err != nil {
		return nil, err
	}
	return &Memory{medium: m.medium, readOnly: mode == ReadOnly}, nil
}

// Bytes is a copy of the content; it works after Close too.
func (m *Memory) Bytes() []byte {
	m.medium.mu.RLock()
	defer m.medium.mu.RUnlock()
	return m.medium.data.bytes()
}

// Allocated is the number of bytes that are not holes.
func (m *Memory) Allocated() int64 {
	m.medium.mu.RLock()
	defer m.medium.mu.RUnlock()
	return int64(len(m.medium.data.blocks)) * blockSize
}

// FirstDifference is the offset of the first 4 KiB block in which the two disks
// read differently, and -1 when they are equal. It is fast on sparse disks.
func (m *Memory) FirstDifference(o *Memory) int64 {
	if m.medium == o.medium {
		return -1
	}
	m.medium.mu.RLock()
	a := m.medium.data.clone()
	m.medium.mu.RUnlock()
	o.medium.mu.RLock()
	defer o.medium.mu.RUnlock()
	return a.firstDifference(o.medium.data)
}

// ReadAt implements mover.Disk.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	if m.closed.Load() {
		return 0, fs.ErrClosed
	}
	m.medium.mu.RLock()
	defer m.medium.mu.RUnlock()
	n, err := clip(p, off, m.medium.data.size)
	m.medium.data.readAt(p[:n], off)
	return n, err
}

// WriteAt implements mover.WritableDisk.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	if err := m.mayWrite(off, int64(len(p))); err != nil {
		return 0, err
	}
	m.medium.mu.Lock()
	defer m.medium.mu.Unlock()
	m.medium.data.writeAt(p, off)
	return len(p), nil
}

// Zero implements mover.Zeroer.
func (m *Memory) Zero(e cbt.Extent, how mover.Allocation) error {
	if err := m.mayWrite(e.Off, e.Len); err != nil {
		return err
	}
	if err := e.Check(m.Size()); err != nil {
		return err
	}
	m.medium.mu.Lock()
	defer m.medium.mu.Unlock()
	if how == cbt.Deallocate {
		m.medium.data.punch(e)
	} else {
		m.medium.data.writeZeros(e)
	}
	return nil
}

// mayWrite is every reason to refuse a write whole.
func (m *Memory) mayWrite(off, length int64) error {
	if m.closed.Load() {
		return fs.ErrClosed
	}
	if m.readOnly {
		return fs.ErrPermission
	}
	return inside(off, length, m.Size())
}

// NextData implements mover.Mapper with blocks of 4 KiB.
func (m *Memory) NextData(off int64) (cbt.Extent, error) {
	if m.closed.Load() {
		return cbt.Extent{}, fs.ErrClosed
	}
	if off < 0 {
		return cbt.Extent{}, cbt.ErrBounds
	}
	m.medium.mu.RLock()
	defer m.medium.mu.RUnlock()
	return m.medium.data.nextData(off)
}

// ReadCold implements mover.ColdReader: there is no cache to get past.
func (m *Memory) ReadCold(p []byte, off int64) (int, error) { return m.ReadAt(p, off) }

// Coldness is "direct".
func (m *Memory) Coldness() string { return "direct" }

// Flush implements mover.WritableDisk.
func (m *Memory) Flush() error { return m.mayWrite(0, 0) }

// Check implements mover.Checker: a memory disk never changes by itself.
func (m *Memory) Check() error {
	if m.closed.Load() {
		return fs.ErrClosed
	}
	return nil
}

// Size implements mover.Disk.
func (m *Memory) Size() int64 { return m.medium.data.size }

// Identity implements mover.Disk.
func (m *Memory) Identity() string { return fmt.Sprintf("memory:%d", m.medium.id) }

// Close implements mover.Disk.
func (m *Memory) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.medium.mu.Lock()
	defer m.medium.mu.Unlock()
	m.medium.hold.release(m.readOnly)
	return nil
}

// hold is the exclusive hold of a disk: one writer or many readers.
type hold struct {
	writer  bool
	readers int
}

func (h *hold) take(mode Mode) error {
	if h.writer || (mode == ReadWrite && h.readers > 0) {
		return fmt.Errorf("disk is held: %w", syscall.EBUSY)
	}
	if mode == ReadWrite {
		h.writer = true
	} else {
		h.readers++
	}
	return nil
}

func (h *hold) release(reader bool) {
	if reader {
		h.readers--
	} else {
		h.writer = false
	}
}

// clip says how much of p lies on the disk, and io.EOF when not all does.
func clip(p []byte, off, size int64) (int, error) {
	switch {
	case off < 0:
		return 0, cbt.ErrBounds
	case len(p) == 0:
		return 0, nil
	case off >= size:
		return 0, io.EOF
	case int64(len(p)) > size-off:
		return int(size - off), io.EOF
	}
	return len(p), nil
}

// inside is the bounds check of a write, which may be empty.
func inside(off, length, size int64) error {
	if off < 0 || length < 0 || off > size || length > size-off {
		return fmt.Errorf("%w: [%d, +%d) of %d bytes", cbt.ErrBounds, off, length, size)
	}
	return nil
}

func allZero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}
