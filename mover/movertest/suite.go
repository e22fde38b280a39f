package movertest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/haulback/haulback/mover"
)

// Driver is what TestDisk needs to know about a driver.
type Driver struct {
	// Make prepares a disk of its own that holds content, cleans it up with
	// t.Cleanup, and returns how to open it. A disk opened with ReadWrite must
	// be a mover.WritableDisk.
	Make func(t testing.TB, content []byte) Opener
	// Granule is what sizes are a multiple of: the sector of a device. 0 means
	// that any number of bytes will do, and odd ones are tried.
	Granule int64
	// NoHold says that the driver does not keep a second writer out.
	NoHold bool
}

// Opener opens the disk that Make prepared.
type Opener func(Mode) (mover.Disk, error)

// check is one clause of the contract.
type check struct {
	name string
	run  func(t testing.TB, d Driver)
}

// checks are in the order of the contract in mover's disk.go.
var checks = []check{
	{"identity", checkIdentity},
	{"read", checkRead},
	{"read at the end", checkEnd},
	{"write", checkWrite},
	{"write beyond the end", checkWriteBeyond},
	{"flush", checkFlush},
	{"concurrent", checkConcurrent},
	{"zero", checkZero},
	{"zero beyond the end", checkZeroBeyond},
	{"map", checkMap},
	{"map after zero", checkMapAfterZero},
	{"read cold", checkCold},
	{"read cold after write", checkColdAfterWrite},
	{"check", checkCheck},
	{"read only", checkReadOnly},
	{"hold", checkHold},
	{"close", checkClose},
}

// TestDisk is the contract of mover.Disk, mover.WritableDisk and the optional
// abilities as tests. Abilities that the driver lacks are skipped.
func TestDisk(t *testing.T, d Driver) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.run(t, d) })
	}
}

// size is about 5 MiB, and odd where the driver can.
func (d Driver) size() int64 {
	size := int64(5<<20 + 777)
	if d.Granule > 1 {
		size = (size + d.Granule - 1) / d.Granule * d.Granule
	}
	return size
}

// content is noise with zeros from 1 to 2 MiB, a few zero grains after it, and
// one byte in the midst of zeros.
func (d Driver) content() []byte {
	p := make([]byte, d.size())
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p) // never fails
	clear(p[1<<20 : 2<<20])
	clear(p[3<<20+65536 : 3<<20+4*65536])
	p[1<<20+300_000] = 0xA5
	return p
}

// fixture is a disk that holds content, open for writing, and how to open it.
type fixture struct {
	disk    mover.WritableDisk
	open    Opener
	content []byte // what it must read as; checks keep it up to date
}

func setUp(t testing.TB, d Driver) *fixture {
	t.Helper()
	f := &fixture{content: d.content()}
	f.open = d.Make(t, bytes.Clone(f.content))
	f.disk = f.mustOpen(t)
	return f
}

func (f *fixture) mustOpen(t testing.TB) mover.WritableDisk {
	t.Helper()
	disk, err := f.open(ReadWrite)
	if err != nil {
		t.Fatalf("open for writing: %v", err)
	}
	t.Cleanup(func() { disk.Close() })
	w, ok := disk.(mover.WritableDisk)
	if !ok {
		t.Fatalf("open for writing: %T is no mover.WritableDisk", disk)
	}
	return w
}

// reopen flushes, closes and opens again.
func (f *fixture) reopen(t testing.TB) {
	t.Helper()
	if err := errors.Join(f.disk.Flush(), f.disk.Close()); err != nil {
		t.Fatalf("flush and close: %v", err)
	}
	f.disk = f.mustOpen(t)
}

// equal compares the whole disk with the content.
func (f *fixture) equal(t testing.TB, when string) {
	t.Helper()
	wantBytes(t, when, f.disk.ReadAt, 0, f.content)
}

// wantBytes reads len(want) bytes at off, which lie on the disk, and compares.
func wantBytes(t testing.TB, when string, read func([]byte, int64) (int, error), off int64, want []byte) {
	t.Helper()
	got := bytes.Repeat([]byte{0x5A}, len(want))
	n, err := read(got, off)
	if n != len(want) || err != nil {
		t.Errorf("%s: read %d bytes at %d: got %d, %v", when, len(want), off, n, err)
		return
	}
	if i := firstDifference(got, want); i >= 0 {
		t.Errorf("%s: read %d bytes at %d: byte %d is %#02x, want %#02x", when, len(want), off, off+int64(i), got[i], want[i])
	}
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// spans are offsets and lengths around every boundary that matters: sector,
// page, grain, batch, and the tail of a disk of size bytes.
func spans(size int64) [][2]int64 {
	all := [][2]int64{
		{0, 1},
		{0, 512},
		{0, 4096},
		{0, 65536},
		{0, 1 << 20},
		{1, 1},
		{511, 2},
		{512, 512},
		{513, 511},
		{4095, 2},
		{4096, 4096},
		{4097, 8191},
		{12345, 67890},
		{65535, 65538},
		{1<<20 - 1, 2},
		{1 << 20, 1 << 20},
		{1<<20 + 300_000, 1},
		{2<<20 - 3, 1<<20 + 6},
		{3 << 20, 256 << 10},
		{3<<20 + 4096, 512 << 10},
	}
	for _, n := range []int64{1, 2, 511, 512, 513, 777, 4095, 4096, 4097, 65536, 100_000, 1 << 20} {
		all = append(all, [2]int64{size - n, n})
	}
	return append(all, [2]int64{0, size}, [2]int64{1, size - 1}, [2]int64{0, size - 1})
}

func checkIdentity(t testing.TB, d Driver) {
	f, other := setUp(t, d), setUp(t, d)
	if got := f.disk.Size(); got != d.size() {
		t.Errorf("size: got %d, want %d", got, d.size())
	}
	first := f.disk.Identity()
	f.reopen(t)
	if second := f.disk.Identity(); second != first || first == "" {
		t.Errorf("identity: got %q, then %q for the same disk", first, second)
	}
	if got := other.disk.Identity(); got == first {
		t.Errorf("identity: two disks are both %q", got)
	}
	for _, r := range first {
		if r <= ' ' || r > '~' {
			t.Errorf("identity %q: not one printable word", first)
		}
	}
}

func checkRead(t testing.TB, d Driver) {
	f := setUp(t, d)
	for _, s := range spans(d.size()) {
		wantBytes(t, "read", f.disk.ReadAt, s[0], f.content[s[0]:s[0]+s[1]])
	}
}

func checkEnd(t testing.TB, d Driver) {
	f := setUp(t, d)
	wantEnd(t, "ReadAt", f.disk.ReadAt, f.content)
}

// wantEnd: io.EOF exactly when the read reaches beyond the end.
func wantEnd(t testing.TB, op string, read func([]byte, int64) (int, error), content []byte) {
	t.Helper()
	size := int64(len(content))
	for _, c := range []struct {
		off, length int64
		n           int
		err         error
	}{
		{size - 100, 100, 100, nil},
		{size - 100, 101, 100, io.EOF},
		{size - 1, 4096, 1, io.EOF},
		{size - 5000, 1 << 20, 5000, io.EOF},
		{size, 1, 0, io.EOF},
		{size + 1, 1, 0, io.EOF},
		{size + 1<<40, 4096, 0, io.EOF},
		{0, 0, 0, nil},
		{size, 0, 0, nil},
	} {
		p := make([]byte, c.length)
		n, err := read(p, c.off)
		if n != c.n || err != c.err {
			t.Errorf("%s of %d bytes at size%+d: got %d, %v, want %d, %v", op, c.length, c.off-size, n, err, c.n, c.err)
		} else if n > 0 && !bytes.Equal(p[:n], content[c.off:c.off+int64(n)]) {
			t.Errorf("%s of %d bytes at size%+d: wrong bytes", op, c.length, c.off-size)
		}
	}
	if n, err := read(make([]byte, 10), -1); n != 0 || err == nil || err == io.EOF {
		t.Errorf("%s at -1: got %d, %v, want an error", op, n, err)
	}
}
