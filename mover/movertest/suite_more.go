package movertest

import (
	"errors"
	"io"
	"syscall"
	"testing"
	"unsafe"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
)

func checkMap(t testing.TB, d Driver) {
	f := setUp(t, d)
	m, ok := f.disk.(mover.Mapper)
	if !ok {
		t.Skip("no mover.Mapper")
	}
	wantMap(t, m, f.content)
	size := d.size()
	for _, off := range []int64{size, size + 1, 1<<63 - 1} {
		if e, err := m.NextData(off); err != io.EOF {
			t.Errorf("NextData(%d) of %d bytes: got %v, %v, want EOF", off, size, e, err)
		}
	}
	if e, err := m.NextData(-1); err == nil || err == io.EOF {
		t.Errorf("NextData(-1): got %v, %v, want an error", e, err)
	}
	if e, err := m.NextData(4097); err != nil || e.Off != 4097 {
		t.Errorf("NextData(4097) amid data: got %v, %v, want it to start there", e, err)
	}
}

// wantMap walks the map: it goes forward, stays on the disk, and what it leaves
// out reads as zeros.
func wantMap(t testing.TB, m mover.Mapper, content []byte) {
	t.Helper()
	size := int64(len(content))
	for off := int64(0); ; {
		e, err := m.NextData(off)
		if err == io.EOF {
			wantHole(t, content, off, size)
			return
		}
		if err != nil || e.Off < off || e.Len <= 0 || e.End() > size {
			t.Fatalf("NextData(%d) of %d bytes: got %v, %v", off, size, e, err)
		}
		wantHole(t, content, off, e.Off)
		off = e.End()
	}
}

func wantHole(t testing.TB, content []byte, from, to int64) {
	t.Helper()
	if i := firstDifference(content[from:to], make([]byte, to-from)); i >= 0 {
		t.Errorf("map: [%d, %d) is said to be a hole, byte %d is %#02x", from, to, from+int64(i), content[from+int64(i)])
	}
}

func checkMapAfterZero(t testing.TB, d Driver) {
	f := setUp(t, d)
	m, ok1 := f.disk.(mover.Mapper)
	z, ok2 := f.disk.(mover.Zeroer)
	if !ok1 || !ok2 {
		t.Skip("no mover.Mapper or no mover.Zeroer")
	}
	for _, how := range []mover.Allocation{cbt.Deallocate, cbt.Keep} {
		e := cbt.Extent{Off: 2<<20 + 100*int64(how), Len: 500_000}
		if err := z.Zero(e, how); err != nil {
			t.Fatalf("zero %v: %v", e, err)
		}
		clear(f.content[e.Off:e.End()])
		wantMap(t, m, f.content)
		f.write(t, e.Off+70_000, 3, 1)
		wantMap(t, m, f.content)
	}
}

func checkCold(t testing.TB, d Driver) {
	f := setUp(t, d)
	c, ok := f.disk.(mover.ColdReader)
	if !ok {
		t.Skip("no mover.ColdReader")
	}
	switch how := c.Coldness(); how {
	case "direct", "dropped", "server", "cached":
	default:
		t.Errorf("coldness: got %q, want direct, dropped or cached", how)
	}
	if err := f.disk.Flush(); err != nil {
		t.Fatalf("flush: %v", err)
	}
	for _, s := range spans(d.size()) {
		wantBytes(t, "cold", c.ReadCold, s[0], f.content[s[0]:s[0]+s[1]])
		wantAligned(t, c, s[0], f.content[s[0]:s[0]+s[1]])
	}
	wantEnd(t, "ReadCold", c.ReadCold, f.content)
}

// wantAligned reads into the first byte of a page, and into the byte after it.
func wantAligned(t testing.TB, c mover.ColdReader, off int64, want []byte) {
	t.Helper()
	page := alignedBytes(len(want) + 1)
	for shift := range 2 {
		wantBytes(t, "cold, aligned memory", func(p []byte, off int64) (int, error) {
			n, err := c.ReadCold(page[shift:shift+len(p)], off)
			copy(p, page[shift:])
			return n, err
		}, off, want)
	}
}

func checkColdAfterWrite(t testing.TB, d Driver) {
	f := setUp(t, d)
	c, ok := f.disk.(mover.ColdReader)
	if !ok {
		t.Skip("no mover.ColdReader")
	}
	f.equal(t, "to warm the cache")
	for i, s := range spans(d.size()) {
		f.write(t, s[0], s[1], byte(50+i))
		if z, ok := f.disk.(mover.Zeroer); ok && i%3 == 0 {
			if err := z.Zero(cbt.Extent{Off: s[0], Len: s[1]}, cbt.Deallocate); err != nil {
				t.Fatalf("zero %d bytes at %d: %v", s[1], s[0], err)
			}
			clear(f.content[s[0] : s[0]+s[1]])
		}
		if err := f.disk.Flush(); err != nil {
			t.Fatalf("flush: %v", err)
		}
		wantBytes(t, "cold after write and flush", c.ReadCold, s[0], f.content[s[0]:s[0]+s[1]])
	}
	wantBytes(t, "cold after all", c.ReadCold, 0, f.content)
	f.equal(t, "cached after cold")
}

func checkCheck(t testing.TB, d Driver) {
	f := setUp(t, d)
	c, ok := f.disk.(mover.Checker)
	if !ok {
		t.Skip("no mover.Checker")
	}
	for range 2 {
		if err := c.Check(); err != nil {
			t.Errorf("check: %v", err)
		}
		f.write(t, d.size()-1000, 1000, 1)
		if err := f.disk.Flush(); err != nil {
			t.Fatalf("flush: %v", err)
		}
	}
}

func checkReadOnly(t testing.TB, d Driver) {
	f := setUp(t, d)
	f.disk.Close()
	disk, err := f.open(ReadOnly)
	if err != nil {
		t.Fatalf("open for reading: %v", err)
	}
	t.Cleanup(func() { disk.Close() })
	wantBytes(t, "read only", disk.ReadAt, 0, f.content)
	if w, ok := disk.(mover.WritableDisk); ok {
		if n, err := w.WriteAt([]byte("no"), 10); n != 0 || err == nil {
			t.Errorf("write to a disk open for reading: got %d, %v", n, err)
		}
	}
	if z, ok := disk.(mover.Zeroer); ok {
		if err := z.Zero(cbt.Extent{Off: 0, Len: 4096}, cbt.Keep); err == nil {
			t.Error("zero on a disk open for reading: no error")
		}
	}
	wantBytes(t, "read only, after refused writes", disk.ReadAt, 0, f.content)
	if c, ok := disk.(mover.ColdReader); ok {
		wantBytes(t, "read only, cold", c.ReadCold, 0, f.content)
	}
}

func checkHold(t testing.TB, d Driver) {
	if d.NoHold {
		t.Skip("the driver has no exclusive hold")
	}
	f := setUp(t, d)
	for _, mode := range []Mode{ReadWrite, ReadOnly} {
		if disk, err := f.open(mode); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("open (mode %d) beside a writer: got %v, %v, want EBUSY", mode, disk, err)
		}
	}
	f.disk.Close()
	first, err1 := f.open(ReadOnly)
	second, err2 := f.open(ReadOnly)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatalf("two readers: %v", err)
	}
	defer second.Close()
	if disk, err := f.open(ReadWrite); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("open for writing beside readers: got %v, %v, want EBUSY", disk, err)
	}
	first.Close()
	second.Close()
	f.disk = f.mustOpen(t)
	f.equal(t, "after all others closed")
}

func checkClose(t testing.TB, d Driver) {
	f := setUp(t, d)
	if err := errors.Join(f.disk.Close(), f.disk.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}
	p := make([]byte, 4096)
	uses := map[string]func() error{
		"ReadAt":  func() error { _, err := f.disk.ReadAt(p, 0); return err },
		"WriteAt": func() error { _, err := f.disk.WriteAt(p, 0); return err },
		"Flush":   f.disk.Flush,
	}
	if c, ok := f.disk.(mover.ColdReader); ok {
		uses["ReadCold"] = func() error { _, err := c.ReadCold(p, 0); return err }
	}
	if z, ok := f.disk.(mover.Zeroer); ok {
		uses["Zero"] = func() error { return z.Zero(cbt.Extent{Len: 4096}, cbt.Keep) }
	}
	if m, ok := f.disk.(mover.Mapper); ok {
		uses["NextData"] = func() error { _, err := m.NextData(0); return err }
	}
	if c, ok := f.disk.(mover.Checker); ok {
		uses["Check"] = c.Check
	}
	if e, ok := f.disk.(mover.Ender); ok {
		uses["End"] = e.End
	}
	for name, use := range uses {
		if err := use(); err == nil || err == io.EOF {
			t.Errorf("%s after Close: got %v, want an error", name, err)
		}
	}
	if f.disk.Size() != d.size() || f.disk.Identity() == "" {
		t.Error("size and identity are gone after Close")
	}
	f.disk = f.mustOpen(t)
	f.equal(t, "after close and open")
}

// alignedBytes is memory that starts at a page.
func alignedBytes(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % page
	return b[skip:][:n]
}
