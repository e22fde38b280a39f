package movertest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
)

// write writes noise to the disk and the content, and then spoils the buffer:
// a driver must not keep it.
func (f *fixture) write(t testing.TB, off, length int64, seed byte) {
	t.Helper()
	p := make([]byte, length)
	_, _ = rand.NewChaCha8([32]byte{seed, 2}).Read(p) // never fails
	copy(f.content[off:], p)
	if n, err := f.disk.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatalf("write %d bytes at %d: got %d, %v", length, off, n, err)
	}
	clear(p)
}

func checkWrite(t testing.TB, d Driver) {
	f := setUp(t, d)
	for i, s := range spans(d.size()) {
		f.write(t, s[0], s[1], byte(i))
		from, to := max(0, s[0]-5000), min(d.size(), s[0]+s[1]+5000)
		wantBytes(t, "write and its neighbours", f.disk.ReadAt, from, f.content[from:to])
	}
	if n, err := f.disk.WriteAt(nil, 0); n != 0 || err != nil {
		t.Errorf("write nothing: got %d, %v", n, err)
	}
	f.equal(t, "after all writes")
	f.reopen(t)
	f.equal(t, "after all writes and reopen")
}

func checkWriteBeyond(t testing.TB, d Driver) {
	f := setUp(t, d)
	size := d.size()
	for _, s := range [][2]int64{{size - 512, 513}, {size - 1, 2}, {size, 1}, {size + 1, 1}, {size + 1<<40, 512}, {0, size + 1}, {-1, 2}, {1<<63 - 1, 2}} {
		n, err := f.disk.WriteAt(bytes.Repeat([]byte{0xEE}, int(s[1])), s[0])
		if n != 0 || !errors.Is(err, cbt.ErrBounds) {
			t.Errorf("write %d bytes at %d of %d: got %d, %v, want 0, ErrBounds", s[1], s[0], size, n, err)
		}
	}
	if got := f.disk.Size(); got != size {
		t.Errorf("size after refused writes: got %d, want %d", got, size)
	}
	f.reopen(t)
	if got := f.disk.Size(); got != size {
		t.Fatalf("size after refused writes and reopen: got %d, want %d", got, size)
	}
	f.equal(t, "after refused writes")
}

func checkFlush(t testing.TB, d Driver) {
	f := setUp(t, d)
	for i := range 3 {
		f.write(t, int64(i)*100_001, 70_001, byte(i))
		if err := f.disk.Flush(); err != nil {
			t.Fatalf("flush %d: %v", i, err)
		}
	}
	if err := f.disk.Flush(); err != nil {
		t.Errorf("flush with nothing to do: %v", err)
	}
	f.equal(t, "after flush")
}

// checkConcurrent writes, reads and flushes at the same time, each goroutine in
// stripes of its own of an odd length, so that neighbours share sectors' pages.
func checkConcurrent(t testing.TB, d Driver) {
	const workers = 6
	f := setUp(t, d)
	stripe := int64(12_345)
	if d.Granule > 1 {
		stripe = stripe / d.Granule * d.Granule
	}
	before := bytes.Clone(f.content)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { f.stripes(t, w, workers, stripe, before) })
	}
	wg.Wait()
	f.equal(t, "after concurrent writes")
	f.reopen(t)
	f.equal(t, "after concurrent writes and reopen")
}

// stripes is one worker; it reads each stripe before and after its write.
func (f *fixture) stripes(t testing.TB, worker, workers int, stripe int64, before []byte) {
	noise := rand.NewChaCha8([32]byte{3, byte(worker)})
	p := make([]byte, stripe)
	for i := int64(worker); i*stripe < int64(len(before)); i += int64(workers) {
		off := i * stripe
		q := p[:min(stripe, int64(len(before))-off)]
		wantBytes(t, "beside writes", f.disk.ReadAt, off, before[off:off+int64(len(q))])
		_, _ = noise.Read(q) // never fails
		if n, err := f.disk.WriteAt(q, off); n != len(q) || err != nil {
			t.Errorf("write %d bytes at %d: got %d, %v", len(q), off, n, err)
		}
		copy(f.content[off:], q)
		wantBytes(t, "beside writes", f.disk.ReadAt, off, q)
		if i%64 == 0 {
			if err := f.disk.Flush(); err != nil {
				t.Errorf("flush beside writes: %v", err)
			}
		}
	}
}

func checkZero(t testing.TB, d Driver) {
	f := setUp(t, d)
	z, ok := f.disk.(mover.Zeroer)
	if !ok {
		t.Skip("no mover.Zeroer")
	}
	for i, s := range spans(d.size()) {
		how := []mover.Allocation{cbt.Keep, cbt.Deallocate}[i%2]
		f.write(t, s[0], s[1], byte(i))
		if err := z.Zero(cbt.Extent{Off: s[0], Len: s[1]}, how); err != nil {
			t.Fatalf("zero %d bytes at %d (%d): %v", s[1], s[0], how, err)
		}
		clear(f.content[s[0] : s[0]+s[1]])
		from, to := max(0, s[0]-5000), min(d.size(), s[0]+s[1]+5000)
		wantBytes(t, "zero and its neighbours", f.disk.ReadAt, from, f.content[from:to])
		if i%7 == 0 {
			f.write(t, 0, d.size(), byte(100+i))
		}
	}
	f.equal(t, "after zero")
	f.reopen(t)
	f.equal(t, "after zero and reopen")
}

func checkZeroBeyond(t testing.TB, d Driver) {
	f := setUp(t, d)
	z, ok := f.disk.(mover.Zeroer)
	if !ok {
		t.Skip("no mover.Zeroer")
	}
	size := d.size()
	for _, e := range []cbt.Extent{{Off: size - 1, Len: 2}, {Off: size, Len: 1}, {Off: -1, Len: 2}, {Off: 0, Len: 0}, {Off: 0, Len: -1}, {Off: 1, Len: 1<<63 - 1}} {
		for _, how := range []mover.Allocation{cbt.Keep, cbt.Deallocate} {
			if err := z.Zero(e, how); !errors.Is(err, cbt.ErrBounds) {
				t.Errorf("zero %v of %d bytes: got %v, want ErrBounds", e, size, err)
			}
		}
	}
	f.reopen(t)
	if got := f.disk.Size(); got != size {
		t.Fatalf("size after refused zeroing: got %d, want %d", got, size)
	}
	f.equal(t, "after refused zeroing")
}
