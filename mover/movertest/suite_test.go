package movertest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
)

// recorder is a testing.TB that fails by itself and not the test.
type recorder struct {
	testing.TB
	mu       sync.Mutex // guards what follows
	failures []string
	cleanups []func()
}

func (r *recorder) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, text)
}

func (r *recorder) Helper()                   {}
func (r *recorder) Error(args ...any)         { r.note(fmt.Sprint(args...)) }
func (r *recorder) Errorf(f string, a ...any) { r.note(fmt.Sprintf(f, a...)) }
func (r *recorder) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }

// stop ends the check's goroutine, as Fatal and Skip do.
type stop struct{}

func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...); panic(stop{}) }
func (r *recorder) Skip(...any)               { panic(stop{}) }

// failed runs the check and returns what it found.
func failed(t *testing.T, c check, d Driver) []string {
	r := &recorder{TB: t}
	func() {
		defer func() {
			if v := recover(); v != nil && v != (stop{}) {
				panic(v)
			}
		}()
		c.run(r, d)
	}()
	for _, f := range r.cleanups {
		f()
	}
	return r.failures
}

// broken is a memory disk with one defect.
type broken struct {
	*Memory
	size     func(int64) int64
	identity func(string) string
	readAt   func(*Memory, []byte, int64) (int, error)
	cold     func(*Memory, []byte, int64) (int, error)
	writeAt  func(*Memory, []byte, int64) (int, error)
	zero     func(*Memory, cbt.Extent, mover.Allocation) error
	next     func(*Memory, int64) (cbt.Extent, error)
	flush    func(*Memory) error
	check    func(*Memory) error
	close    func(*Memory) error
}

func (b *broken) ReadAt(p []byte, off int64) (int, error) {
	if b.readAt != nil {
		return b.readAt(b.Memory, p, off)
	}
	return b.Memory.ReadAt(p, off)
}

func (b *broken) ReadCold(p []byte, off int64) (int, error) {
	if b.cold != nil {
		return b.cold(b.Memory, p, off)
	}
	return b.Memory.ReadCold(p, off)
}

func (b *broken) WriteAt(p []byte, off int64) (int, error) {
	if b.writeAt != nil {
		return b.writeAt(b.Memory, p, off)
	}
	return b.Memory.WriteAt(p, off)
}

func (b *broken) Zero(e cbt.Extent, how mover.Allocation) error {
	if b.zero != nil {
		return b.zero(b.Memory, e, how)
	}
	return b.Memory.Zero(e, how)
}

func (b *broken) NextData(off int64) (cbt.Extent, error) {
	if b.next != nil {
		return b.next(b.Memory, off)
	}
	return b.Memory.NextData(off)
}

func (b *broken) Flush() error {
	if b.flush != nil {
		return b.flush(b.Memory)
	}
	return b.Memory.Flush()
}

func (b *broken) Check() error {
	if b.check != nil {
		return b.check(b.Memory)
	}
	return b.Memory.Check()
}

func (b *broken) Close() error {
	if b.close != nil {
		return b.close(b.Memory)
	}
	return b.Memory.Close()
}

func (b *broken) Size() int64 {
	if b.size != nil {
		return b.size(b.Memory.Size())
	}
	return b.Memory.Size()
}

func (b *broken) Identity() string {
	if b.identity != nil {
		return b.identity(b.Memory.Identity())
	}
	return b.Memory.Identity()
}

// TestSuiteBites: each defect is found by the clause that is about it.
func TestSuiteBites(t *testing.T) {
	errAny := errors.New("defect")
	for _, c := range []struct {
		clause, defect string
		broken         broken
	}{
		{"identity", "all disks have one name", broken{identity: func(string) string { return "disk" }}},
		{"identity", "name with a space", broken{identity: func(s string) string { return s + " x" }}},
		{"identity", "size in sectors", broken{size: func(n int64) int64 { return n / 512 }}},
		{"read", "short read without an error", broken{readAt: func(m *Memory, p []byte, off int64) (int, error) {
			return m.ReadAt(p[:min(len(p), 65536)], off)
		}}},
		{"read", "offset rounded to a sector", broken{readAt: func(m *Memory, p []byte, off int64) (int, error) {
			return m.ReadAt(p, off/512*512)
		}}},
		{"read at the end", "no EOF", broken{readAt: func(m *Memory, p []byte, off int64) (int, error) {
			n, _ := m.ReadAt(p, off)
			return n, nil
		}}},
		{"read at the end", "fills up with zeros", broken{readAt: func(m *Memory, p []byte, off int64) (int, error) {
			_, _ = m.ReadAt(p, off)
			return len(p), nil
		}}},
		{"write", "tail is lost", broken{writeAt: func(m *Memory, p []byte, off int64) (int, error) {
			_, err := m.WriteAt(p[:len(p)/512*512], off)
			return len(p), err
		}}},
		{"write", "neighbours are rounded over", broken{writeAt: func(m *Memory, p []byte, off int64) (int, error) {
			padded := make([]byte, min((len(p)+511)/512*512, int(m.Size()-off)))
			copy(padded, p)
			_, err := m.WriteAt(padded, off)
			return len(p), err
		}}},
		{"write beyond the end", "a part is written", broken{writeAt: func(m *Memory, p []byte, off int64) (int, error) {
			if off >= 0 && off < m.Size() {
				n, _ := m.WriteAt(p[:min(int64(len(p)), m.Size()-off)], off)
				if n < len(p) {
					return n, cbt.ErrBounds
				}
			}
			return m.WriteAt(p, off)
		}}},
		{"write beyond the end", "another error", broken{writeAt: func(m *Memory, p []byte, off int64) (int, error) {
			if _, err := m.WriteAt(p, off); err != nil {
				return 0, errAny
			}
			return len(p), nil
		}}},
		{"flush", "fails when nothing is dirty", broken{flush: func(*Memory) error { return errAny }}},
		{"zero", "only whole sectors are zeroed", broken{zero: func(m *Memory, e cbt.Extent, how mover.Allocation) error {
			if e.Len = e.Len / 512 * 512; e.Len == 0 {
				return nil
			}
			return m.Zero(e, how)
		}}},
		{"zero", "deallocate does nothing", broken{zero: func(m *Memory, e cbt.Extent, how mover.Allocation) error {
			if how == cbt.Deallocate {
				return nil
			}
			return m.Zero(e, how)
		}}},
		{"zero beyond the end", "extent is clipped", broken{zero: func(m *Memory, e cbt.Extent, how mover.Allocation) error {
			e.Off = max(e.Off, 0)
			e.Len = min(e.Len, m.Size()-e.Off)
			if e.Len <= 0 {
				return nil
			}
			return m.Zero(e, how)
		}}},
		{"map", "data is called a hole", broken{next: func(m *Memory, off int64) (cbt.Extent, error) {
			e, err := m.NextData(off)
			return cbt.Extent{Off: e.Off + 1, Len: e.Len - 1}, err
		}}},
		{"map", "extent starts before the question", broken{next: func(m *Memory, off int64) (cbt.Extent, error) {
			e, err := m.NextData(off)
			return cbt.Extent{Off: e.Off / 4096 * 4096, Len: e.End() - e.Off/4096*4096}, err
		}}},
		{"map after zero", "what was a hole stays one", broken{next: rememberHoles()}},
		{"concurrent", "one write in a hundred is lost", broken{writeAt: loseSome()}},
		{"read cold", "tail is cut", broken{cold: func(m *Memory, p []byte, off int64) (int, error) {
			return m.ReadAt(p[:len(p)/512*512], off)
		}}},
		{"read cold after write", "a cache in front", broken{cold: staleReader()}},
		{"check", "always says changed", broken{check: func(*Memory) error { return errAny }}},
		{"close", "second close fails", broken{close: func(m *Memory) error {
			if m.closed.Load() {
				return errAny
			}
			return m.Close()
		}}},
		{"close", "reads go on", broken{readAt: func(m *Memory, p []byte, off int64) (int, error) {
			m.medium.data.readAt(p, off)
			return len(p), nil
		}}},
	} {
		t.Run(c.clause+"/"+strings.ReplaceAll(c.defect, " ", "_"), func(t *testing.T) {
			for _, clause := range checks {
				if clause.name != c.clause {
					continue
				}
				if found := failed(t, clause, brokenDriver(c.broken)); len(found) == 0 {
					t.Errorf("the clause %q did not find: %s", c.clause, c.defect)
				}
			}
		})
	}
}

// rememberHoles calls a block a hole for ever once it was one.
func rememberHoles() func(*Memory, int64) (cbt.Extent, error) {
	var hole cbt.Extent
	return func(m *Memory, off int64) (cbt.Extent, error) {
		e, err := m.NextData(off)
		if err == nil && e.Off > off && e.Off > 2<<20 && hole.Len == 0 {
			hole = cbt.Extent{Off: off, Len: e.Off - off}
		}
		if err == nil && hole.Intersect(e).Len > 0 {
			return m.NextData(hole.End())
		}
		return e, err
	}
}

func loseSome() func(*Memory, []byte, int64) (int, error) {
	var calls atomic.Int64
	return func(m *Memory, p []byte, off int64) (int, error) {
		if calls.Add(1)%100 == 0 {
			return len(p), nil
		}
		return m.WriteAt(p, off)
	}
}

// staleReader shows, for each offset, what was there when it was first asked
// after the disk was warmed.
func staleReader() func(m *Memory, p []byte, off int64) (int, error) {
	var before []byte
	return func(m *Memory, p []byte, off int64) (int, error) {
		if before == nil {
			before = m.Bytes()
		}
		return copy(p, before[off:]), nil
	}
}

func brokenDriver(defect broken) Driver {
	good := memoryDriver()
	return Driver{Make: func(t testing.TB, content []byte) Opener {
		open := good.Make(t, content)
		return func(mode Mode) (mover.Disk, error) {
			disk, err := open(mode)
			if err != nil {
				return nil, err
			}
			b := defect
			b.Memory = disk.(*Memory)
			return &b, nil
		}
	}}
}

// TestSuiteBitesOpener: defects of opening, not of the open disk.
func TestSuiteBitesOpener(t *testing.T) {
	for clause, open := range map[string]func(m *Memory, mode Mode) (mover.Disk, error){
		"hold": func(m *Memory, mode Mode) (mover.Disk, error) {
			return &Memory{medium: m.medium, readOnly: mode == ReadOnly}, nil
		},
		"read only": func(m *Memory, _ Mode) (mover.Disk, error) { return m.Reopen(ReadWrite) },
	} {
		d := Driver{Make: func(_ testing.TB, content []byte) Opener {
			m := NewMemoryFrom(content)
			m.Close()
			return func(mode Mode) (mover.Disk, error) { return open(m, mode) }
		}}
		for _, c := range checks {
			if c.name == clause && len(failed(t, c, d)) == 0 {
				t.Errorf("the clause %q found nothing", clause)
			}
		}
	}
}
