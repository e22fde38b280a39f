package movertest

import (
	"errors"
	"io"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
)

func memoryDriver() Driver {
	return Driver{Make: func(_ testing.TB, content []byte) Opener {
		m := NewMemoryFrom(content)
		m.Close()
		return func(mode Mode) (mover.Disk, error) { return m.Reopen(mode) }
	}}
}

func TestMemory(t *testing.T) { TestDisk(t, memoryDriver()) }

func TestFaultyWithoutFaults(t *testing.T) {
	plain := memoryDriver()
	TestDisk(t, Driver{Make: func(t testing.TB, content []byte) Opener {
		open := plain.Make(t, content)
		return func(mode Mode) (mover.Disk, error) {
			disk, err := open(mode)
			if err != nil {
				return nil, err
			}
			return NewFaulty(disk.(mover.WritableDisk)), nil
		}
	}})
}

// bare hides the optional abilities of a disk.
type bare struct{ mover.WritableDisk }

func TestFaultyFallsBack(t *testing.T) {
	plain := memoryDriver()
	TestDisk(t, Driver{Make: func(t testing.TB, content []byte) Opener {
		open := plain.Make(t, content)
		return func(mode Mode) (mover.Disk, error) {
			disk, err := open(mode)
			if err != nil {
				return nil, err
			}
			return NewFaulty(bare{disk.(mover.WritableDisk)}), nil
		}
	}})
}

func TestMemorySparse(t *testing.T) {
	m := NewMemory(1 << 40)
	if _, err := m.WriteAt([]byte("x"), 1<<39); err != nil {
		t.Fatal(err)
	}
	if e, err := m.NextData(0); err != nil || e != (cbt.Extent{Off: 1 << 39, Len: blockSize}) {
		t.Errorf("NextData(0): got %v, %v", e, err)
	}
	if e, err := m.NextData(1<<39 + blockSize); err != io.EOF {
		t.Errorf("NextData behind the block: got %v, %v, want EOF", e, err)
	}
	if err := m.Zero(cbt.Extent{Off: 1 << 39, Len: 1 << 20}, cbt.Deallocate); err != nil {
		t.Fatal(err)
	}
	if got := m.Allocated(); got != 0 {
		t.Errorf("allocated after punch: got %d, want 0", got)
	}
}

func TestMemoryDifference(t *testing.T) {
	a, b := NewMemory(1<<20), NewMemory(1<<20)
	if got := a.FirstDifference(b); got != -1 {
		t.Errorf("two empty disks: got %d, want -1", got)
	}
	if err := a.Zero(cbt.Extent{Off: 0, Len: 8192}, cbt.Keep); err != nil {
		t.Fatal(err)
	}
	if got := a.FirstDifference(b); got != -1 {
		t.Errorf("zeros and a hole: got %d, want -1", got)
	}
	if _, err := b.WriteAt([]byte{1}, 70_000); err != nil {
		t.Fatal(err)
	}
	if got := a.FirstDifference(b); got != 17*blockSize {
		t.Errorf("one byte at 70000: got %d, want %d", got, 17*blockSize)
	}
	if got := a.FirstDifference(NewMemory(1 << 19)); got != 1<<19 {
		t.Errorf("shorter disk: got %d, want %d", got, 1<<19)
	}
}

func TestMemoryOutlivesClose(t *testing.T) {
	m := NewMemory(4096)
	if _, err := m.WriteAt([]byte("abc"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Reopen(ReadWrite); err == nil {
		t.Error("second writer: no error")
	}
	if err := errors.Join(m.Close()); err != nil {
		t.Fatal(err)
	}
	if got := string(m.Bytes()[:3]); got != "abc" {
		t.Errorf("bytes after close: got %q", got)
	}
}
