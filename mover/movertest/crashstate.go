package movertest

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
)

// CrashableState is a directory of state files that loses, in a power cut, what
// was not synced: bytes of files per sector, names from some change on. What a
// new block shows instead is zeros, or bytes of a file that was removed before:
// a journal must not take them for its own records.
//
// The directory outlives its mounts and crashes.
type CrashableState struct {
	power *Power

	// Guarded by power.mu.
	names    map[string]*inode // as seen now
	synced   map[string]*inode // as of the last Sync of the directory
	pending  []change          // what came since, in order
	graves   [][]byte          // sectors of removed files
	syncs    countdown
	space    int64 // 0: no limit
	lieSyncs bool
}

// change is one change of the directory.
type change func(names map[string]*inode)

// inode is one file, under whatever name.
type inode struct {
	cache   []byte // what ReadAt shows
	durable []byte
	dirty   unsynced
	resized bool // truncated since the last Sync
	held    bool
}

// maxGraves bounds the memory for bytes of removed files.
const maxGraves = 256

// NewCrashableState plugs an empty directory into power.
func NewCrashableState(power *Power) *CrashableState {
	s := &CrashableState{power: power, names: map[string]*inode{}, synced: map[string]*inode{}}
	power.mu.Lock()
	defer power.mu.Unlock()
	power.plugged = append(power.plugged, s)
	return s
}

// Mount opens the directory for one life of a program: after a crash it and
// its files return ErrPowerCut.
func (s *CrashableState) Mount() mover.StateDir {
	s.power.mu.Lock()
	defer s.power.mu.Unlock()
	return &stateMount{s, s.power.boot}
}

// FailSync makes the n-th Sync of a file from now return EIO, once, and drop
// what it was to write, like Crashable.FailFlush.
func (s *CrashableState) FailSync(n int) { s.set(func() { s.syncs = countdown(n) }) }

// Lie makes every Sync of files and of the directory say OK and do nothing.
func (s *CrashableState) Lie(on bool) { s.set(func() { s.lieSyncs = on }) }

// SetSpace limits the sum of all files to n bytes: what grows beyond it gets
// ENOSPC. 0 takes the limit away.
func (s *CrashableState) SetSpace(n int64) { s.set(func() { s.space = n }) }

// Rot turns over one bit of the byte at off of the file, durably and in the
// cache. It panics when there is no such byte: the test would prove nothing.
func (s *CrashableState) Rot(name string, off int64) {
	s.set(func() {
		node := s.names[name]
		node.cache[off] ^= 1 << (off % 8)
		if off < int64(len(node.durable)) {
			node.durable[off] ^= 1 << (off % 8)
		}
	})
}

func (s *CrashableState) set(change func()) {
	s.power.mu.Lock()
	defer s.power.mu.Unlock()
	change()
}

// crashLocked keeps a prefix of the changes of the directory, as a journaling
// file system does, and draws the bytes of each file that still has a name.
func (s *CrashableState) crashLocked(rng *rand.Rand, survivePercent int) {
	kept := len(s.pending)
	switch {
	case survivePercent <= 0:
		kept = 0
	case survivePercent < 100:
		kept = rng.IntN(len(s.pending) + 1)
	}
	for _, change := range s.pending[:kept] {
		change(s.synced)
	}
	s.names, s.pending = map[string]*inode{}, nil
	for _, name := range slices.Sorted(maps.Keys(s.synced)) {
		content := s.synced[name].crash(rng, survivePercent, s.garbage(rng))
		s.names[name] = &inode{cache: content, durable: slices.Clone(content), dirty: unsynced{}}
	}
	s.synced = maps.Clone(s.names)
}

// garbage makes what a block shows that was allocated and never written.
func (s *CrashableState) garbage(rng *rand.Rand) func() []byte {
	return func() []byte {
		switch {
		case rng.IntN(2) == 0:
			return make([]byte, sectorSize)
		case len(s.graves) > 0:
			return s.graves[rng.IntN(len(s.graves))]
		}
		return randomSector(rng)
	}
}

// buryLocked keeps the bytes of a file that lost its name.
func (s *CrashableState) buryLocked(node *inode) {
	if node == nil {
		return
	}
	for p := range slices.Chunk(node.cache, sectorSize) {
		if len(p) == sectorSize && !allZero(p) && len(s.graves) < maxGraves {
			s.graves = append(s.graves, slices.Clone(p))
		}
	}
}

// crash draws the content of a file: first its size, then sector by sector.
func (n *inode) crash(rng *rand.Rand, survivePercent int, garbage func() []byte) []byte {
	size := len(n.durable)
	if len(n.cache) != size && rng.IntN(100) < survivePercent {
		size = len(n.cache)
	}
	content := make([]byte, size)
	copy(content, n.durable)
	for _, sector := range n.dirty.sectors() {
		off := int(sector * sectorSize)
		if off >= size {
			continue
		}
		old := make([]byte, sectorSize)
		if off < len(n.durable) {
			copy(old, n.durable[off:])
		} else {
			old = garbage()
		}
		copy(content[off:], draw(rng, survivePercent, n.dirty[sector], old, garbage))
	}
	return content
}

// read fills p from the cache, zeros beyond its end.
func (n *inode) read(p []byte, off int64) {
	clear(p)
	if off < int64(len(n.cache)) {
		copy(p, n.cache[off:])
	}
}

func (n *inode) resize(size int64) {
	if size < int64(len(n.cache)) {
		n.cache = n.cache[:size:size]
		n.resized = true
		maps.DeleteFunc(n.dirty, func(sector int64, _ [][]byte) bool { return sector*sectorSize >= size })
		return
	}
	n.cache = append(n.cache, make([]byte, size-int64(len(n.cache)))...)
}

// sync makes the file durable. After a cut the whole of it is taken over: what
// lies behind the cut is not among the dirty sectors.
func (n *inode) sync() {
	if n.resized {
		n.durable = slices.Clone(n.cache)
	}
	n.durable = append(n.durable, make([]byte, len(n.cache)-len(n.durable))...)
	for sector := range n.dirty {
		copy(n.durable[sector*sectorSize:], n.dirty.newest(sector))
	}
	n.dirty, n.resized = unsynced{}, false
}

// roomLocked returns ENOSPC when the files may not grow by n bytes.
func (s *CrashableState) roomLocked(n int64) error {
	if s.space == 0 || n <= 0 {
		return nil
	}
	for _, node := range s.names {
		n += int64(len(node.cache))
	}
	if n > s.space {
		return syscall.ENOSPC
	}
	return nil
}

// stateMount is a CrashableState in one life of a program.
type stateMount struct {
	s    *CrashableState
	boot int
}

func (m *stateMount) use(f func() error) error {
	m.s.power.mu.Lock()
	defer m.s.power.mu.Unlock()
	if err := m.s.power.aliveLocked(m.boot); err != nil {
		return err
	}
	return f()
}

func (m *stateMount) act(op string, e cbt.Extent, do func(cut bool) error) error {
	return m.s.power.act(m.boot, "state "+op, e, do)
}

// alter is a change of the directory: seen at once, durable after Sync.
func (m *stateMount) alter(op string, c change) error {
	return m.act(op, cbt.Extent{}, func(bool) error {
		c(m.s.names)
		m.s.pending = append(m.s.pending, c)
		return nil
	})
}

// Open implements mover.StateDir.
func (m *stateMount) Open(name string) (mover.StateFile, error) {
	if name == "" {
		return nil, fs.ErrInvalid
	}
	node, err := m.find(name)
	if err == nil && node == nil {
		created := &inode{dirty: unsynced{}}
		err = m.alter("create", func(names map[string]*inode) {
			if names[name] == nil { // two may create at once
				names[name] = created
			}
		})
	}
	if err != nil {
		return nil, err
	}
	err = m.use(func() error {
		node = m.s.names[name]
		if node == nil || node.held {
			return fmt.Errorf("state %s: %w", name, mover.ErrHeld)
		}
		node.held = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &crashFile{m: m, node: node}, nil
}

// find returns the file of that name or nil.
func (m *stateMount) find(name string) (node *inode, err error) {
	err = m.use(func() error {
		node = m.s.names[name]
		return nil
	})
	return node, err
}

// Rename implements mover.StateDir.
func (m *stateMount) Rename(old, new string) error {
	node, err := m.find(old)
	if err != nil {
		return err
	}
	if node == nil {
		return fmt.Errorf("rename state %s: %w", old, fs.ErrNotExist)
	}
	return m.alter("rename", func(names map[string]*inode) {
		if names[new] != node {
			m.s.buryLocked(names[new])
		}
		delete(names, old)
		names[new] = node
	})
}

// Remove implements mover.StateDir.
func (m *stateMount) Remove(name string) error {
	node, err := m.find(name)
	if err != nil {
		return err
	}
	if node == nil {
		return fmt.Errorf("remove state %s: %w", name, fs.ErrNotExist)
	}
	return m.alter("remove", func(names map[string]*inode) {
		m.s.buryLocked(node)
		delete(names, name)
	})
}

// Sync implements mover.StateDir.
func (m *stateMount) Sync() error {
	return m.act("dirsync", cbt.Extent{}, func(cut bool) error {
		if !cut && !m.s.lieSyncs {
			m.s.synced, m.s.pending = maps.Clone(m.s.names), nil
		}
		return nil
	})
}

// List implements mover.StateDir.
func (m *stateMount) List() (names []string, err error) {
	err = m.use(func() error {
		names = slices.Sorted(maps.Keys(m.s.names))
		return nil
	})
	return names, err
}

// crashFile is an open file of a CrashableState.
type crashFile struct {
	m      *stateMount
	node   *inode
	closed bool // guarded by power.mu
}

func (f *crashFile) use(do func() error) error {
	return f.m.use(func() error {
		if f.closed {
			return fs.ErrClosed
		}
		return do()
	})
}

func (f *crashFile) act(op string, e cbt.Extent, do func(cut bool) error) error {
	if err := f.use(func() error { return nil }); err != nil {
		return err
	}
	return f.m.act(op, e, do)
}

func (f *crashFile) ReadAt(p []byte, off int64) (n int, err error) {
	failed := f.use(func() error {
		n, err = clip(p, off, int64(len(f.node.cache)))
		f.node.read(p[:n], off)
		return nil
	})
	if failed != nil {
		return 0, failed
	}
	return n, err
}

func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, cbt.ErrBounds
	}
	e := cbt.Extent{Off: off, Len: int64(len(p))}
	err := f.act("write", e, func(bool) error {
		grown := e.End() - int64(len(f.node.cache))
		if err := f.m.s.roomLocked(grown); err != nil {
			return err
		}
		if grown > 0 {
			f.node.resize(e.End())
		}
		copy(f.node.cache[off:], p)
		f.node.dirty.note(e, f.node.read)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *crashFile) Sync() error {
	return f.act("sync", cbt.Extent{}, func(cut bool) error {
		failed := f.m.s.syncs.hit()
		switch {
		case cut || f.m.s.lieSyncs:
			return nil
		case failed:
			f.node.dirty = unsynced{}
			return fmt.Errorf("sync: %w", syscall.EIO)
		}
		f.node.sync()
		return nil
	})
}

func (f *crashFile) Allocate(size int64) error {
	if size <= 0 {
		return fs.ErrInvalid
	}
	return f.act("allocate", cbt.Extent{Len: size}, func(bool) error { return f.grow(size) })
}

func (f *crashFile) grow(size int64) error {
	grown := size - int64(len(f.node.cache))
	if grown <= 0 {
		return nil
	}
	if err := f.m.s.roomLocked(grown); err != nil {
		return err
	}
	f.node.resize(size)
	return nil
}

func (f *crashFile) Truncate(size int64) error {
	if size < 0 {
		return fs.ErrInvalid
	}
	return f.act("truncate", cbt.Extent{Len: size}, func(bool) error {
		if size >= int64(len(f.node.cache)) {
			return f.grow(size)
		}
		f.node.resize(size)
		if tail := size % sectorSize; tail > 0 {
			f.node.dirty.note(cbt.Extent{Off: size - tail, Len: tail}, f.node.read)
		}
		return nil
	})
}

func (f *crashFile) Size() (size int64, err error) {
	err = f.use(func() error {
		size = int64(len(f.node.cache))
		return nil
	})
	return size, err
}

func (f *crashFile) Close() error {
	f.m.s.power.mu.Lock()
	defer f.m.s.power.mu.Unlock()
	if !f.closed && f.m.boot == f.m.s.power.boot {
		f.node.held = false
	}
	f.closed = true
	return nil
}
