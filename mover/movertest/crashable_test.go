package movertest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func openCrashable(t *testing.T, c *Crashable) *CrashDisk {
	t.Helper()
	d, err := c.Open(ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func writeByte(t *testing.T, d *CrashDisk, b byte, off, length int64) {
	t.Helper()
	if _, err := d.WriteAt(bytes.Repeat([]byte{b}, int(length)), off); err != nil {
		t.Fatal(err)
	}
}

func byteAt(t *testing.T, read func([]byte, int64) (int, error), off int64) byte {
	t.Helper()
	var p [1]byte
	if _, err := read(p[:], off); err != nil {
		t.Fatal(err)
	}
	return p[0]
}

func TestCrashable(t *testing.T) {
	TestDisk(t, Driver{Make: func(_ testing.TB, content []byte) Opener {
		dev := NewCrashableFrom(NewPower(), content)
		return func(mode Mode) (mover.Disk, error) {
			d, err := dev.Open(mode)
			if err != nil {
				return nil, err // not a nil *CrashDisk in an interface
			}
			return d, nil
		}
	}})
}

func TestCrashLosesWhatWasNotFlushed(t *testing.T) {
	for percent, want := range map[int]byte{0: 0, 100: 2} {
		power := NewPower()
		dev := NewCrashable(power, 1<<20)
		d := openCrashable(t, dev)
		writeByte(t, d, 1, 0, 4096)
		if err := d.Flush(); err != nil {
			t.Fatal(err)
		}
		writeByte(t, d, 2, 8192, 4096)
		if got := byteAt(t, d.ReadAt, 8192); got != 2 {
			t.Errorf("before the crash: got %d, want 2", got)
		}
		power.Crash(seeded(1), percent)
		if _, err := d.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrPowerCut) {
			t.Errorf("old handle: got %v, want ErrPowerCut", err)
		}
		if _, err := d.WriteAt([]byte{9}, 0); !errors.Is(err, ErrPowerCut) {
			t.Errorf("old handle: got %v, want ErrPowerCut", err)
		}
		d = openCrashable(t, dev)
		if got := byteAt(t, d.ReadAt, 100); got != 1 {
			t.Errorf("flushed byte: got %d, want 1", got)
		}
		if got := byteAt(t, d.ReadAt, 8192); got != want {
			t.Errorf("unflushed byte at %d %%: got %d, want %d", percent, got, want)
		}
	}
}

// TestCrashDrawsEverySector: at 50 % some sectors are lost, some survive, some
// are torn or hold an earlier version, and a seed is replayed exactly.
func TestCrashDrawsEverySector(t *testing.T) {
	run := func(seed uint64) []byte {
		power := NewPower()
		dev := NewCrashable(power, 1<<20)
		d := openCrashable(t, dev)
		writeByte(t, d, 1, 0, 1<<20)
		writeByte(t, d, 2, 0, 1<<20)
		power.Crash(seeded(seed), 50)
		return dev.Bytes()
	}
	content := run(7)
	count := map[string]int{}
	for p := range slices.Chunk(content, sectorSize) {
		switch {
		case allZero(p):
			count["lost"]++
		case bytes.Count(p, []byte{1}) == sectorSize:
			count["earlier"]++
		case bytes.Count(p, []byte{2}) == sectorSize:
			count["kept"]++
		default:
			count["torn"]++
		}
	}
	for kind, least := range map[string]int{"lost": 800, "kept": 600, "earlier": 50, "torn": 50} {
		if count[kind] < least {
			t.Errorf("%s sectors of 2048: got %d, want at least %d", kind, count[kind], least)
		}
	}
	if !bytes.Equal(content, run(7)) {
		t.Error("the same seed gave another crash")
	}
	if bytes.Equal(content, run(8)) {
		t.Error("another seed gave the same crash")
	}
}

func TestFailFlush(t *testing.T) {
	power := NewPower()
	dev := NewCrashable(power, 1<<20)
	d := openCrashable(t, dev)
	dev.FailFlush(2)
	writeByte(t, d, 1, 0, 512)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	writeByte(t, d, 2, 0, 512)
	if got := byteAt(t, d.ReadCold, 0); got != 2 {
		t.Errorf("cold before the flush: got %d, want 2 (written back first)", got)
	}
	if err := d.Flush(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("flush: got %v, want EIO", err)
	}
	if err := d.Flush(); err != nil {
		t.Fatalf("next flush: got %v, want OK", err)
	}
	if warm, cold := byteAt(t, d.ReadAt, 0), byteAt(t, d.ReadCold, 0); warm != 2 || cold != 1 {
		t.Errorf("after the lost flush: cache %d, device %d, want 2, 1", warm, cold)
	}
	writeByte(t, d, 3, 0, 512)
	if err := d.Flush(); err != nil || byteAt(t, d.ReadCold, 0) != 3 {
		t.Errorf("written again: flush %v, device %d, want 3", err, byteAt(t, d.ReadCold, 0))
	}
}

func TestLieLoseRot(t *testing.T) {
	power := NewPower()
	dev := NewCrashable(power, 1<<20)
	d := openCrashable(t, dev)
	dev.Lie(true)
	writeByte(t, d, 1, 0, 512)
	if err := d.Flush(); err != nil || byteAt(t, d.ReadCold, 0) != 1 {
		t.Errorf("lying flush: %v, device %d", err, byteAt(t, d.ReadCold, 0))
	}
	if got := dev.Durable()[0]; got != 0 {
		t.Errorf("durable after a lie: got %d, want 0", got)
	}
	dev.Lie(false)
	dev.LoseWrite(2)
	writeByte(t, d, 4, 4096, 512)
	writeByte(t, d, 5, 4096, 512)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	if warm, cold := byteAt(t, d.ReadAt, 4096), byteAt(t, d.ReadCold, 4096); warm != 5 || cold != 4 {
		t.Errorf("lost write: cache %d, device %d, want 5, 4", warm, cold)
	}
	dev.Rot(0)
	if warm, cold := byteAt(t, d.ReadAt, 0), byteAt(t, d.ReadCold, 0); warm != 1 || cold != 0 {
		t.Errorf("rot: cache %d, device %d, want 1, 0", warm, cold)
	}
	dev.DropCaches()
	if warm := byteAt(t, d.ReadAt, 0); warm != 0 {
		t.Errorf("rot without a cache: got %d, want 0", warm)
	}
}

func TestCutAt(t *testing.T) {
	for n := 1; n < 10; n++ {
		power := NewPower()
		dev := NewCrashable(power, 1<<20)
		d := openCrashable(t, dev)
		power.CutAt(n)
		err := writeTwice(d)
		if !power.IsCut() {
			if n != 6 || err != nil {
				t.Errorf("%d points to cut at, want 5; run: %v", n-1, err)
			}
			return
		}
		if !errors.Is(err, ErrPowerCut) {
			t.Errorf("cut at %d: got %v, want ErrPowerCut", n, err)
		}
		power.Crash(seeded(uint64(n)), 0)
		wantFirst := n > 2 // the first flush returned
		if got := dev.Bytes()[0] == 1; got != wantFirst {
			t.Errorf("cut at %d: first write is there: %v, want %v", n, got, wantFirst)
		}
	}
	t.Error("no end of points to cut at")
}

// writeTwice has five durable actions.
func writeTwice(d *CrashDisk) error {
	_, err := d.WriteAt([]byte{1}, 0)
	if err == nil {
		err = d.Flush()
	}
	if err == nil {
		_, err = d.WriteAt([]byte{1}, 4096)
	}
	if err == nil {
		err = d.Zero(cbt.Extent{Off: 0, Len: 4096}, cbt.Deallocate)
	}
	if err == nil {
		err = d.Flush()
	}
	return err
}

// TestCutKeepsTheActionPossible: what the last write wrote may survive.
func TestCutKeepsTheActionPossible(t *testing.T) {
	power := NewPower()
	dev := NewCrashable(power, 1<<20)
	d := openCrashable(t, dev)
	power.CutAt(1)
	if _, err := d.WriteAt([]byte{1}, 0); !errors.Is(err, ErrPowerCut) {
		t.Fatalf("write: got %v, want ErrPowerCut", err)
	}
	if _, err := dev.Open(ReadOnly); !errors.Is(err, ErrPowerCut) {
		t.Errorf("open without power: got %v, want ErrPowerCut", err)
	}
	power.Crash(seeded(1), 100)
	if got := dev.Bytes()[0]; got != 1 {
		t.Errorf("byte of the write that was cut: got %d, want 1", got)
	}
}

func TestHookRefuses(t *testing.T) {
	power := NewPower()
	power.Hook = func(op string, e cbt.Extent) error {
		if op == "disk write" && e.Off == 4096 {
			return syscall.EIO
		}
		return nil
	}
	dev := NewCrashable(power, 1<<20)
	d := openCrashable(t, dev)
	writeByte(t, d, 1, 0, 512)
	if _, err := d.WriteAt([]byte{1}, 4096); !errors.Is(err, syscall.EIO) {
		t.Errorf("write that the hook refuses: got %v, want EIO", err)
	}
	if got := dev.Bytes()[4096]; got != 0 {
		t.Errorf("refused write left %d", got)
	}
	if got := power.Actions(); got != 2 {
		t.Errorf("actions: got %d, want 2", got)
	}
}
