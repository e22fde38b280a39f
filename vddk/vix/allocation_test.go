package vix

import (
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// TestAllocation compares random answers and writes with a naive list of chunks.
func TestAllocation(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		size := (1 + random.Int64N(3000)) * 4 * SectorSize
		if random.IntN(4) == 0 {
			size += windowSize * random.Int64N(3)
		}
		data := map[int64]bool{} // chunks
		var a allocation
		a.init(size)
		ask := func(e cbt.Extent, mark func(cbt.Extent)) error {
			if e.Off%chunkSize != 0 || e.Len%chunkSize != 0 || e.Len == 0 || e.Len > windowSize || e.End() > size {
				t.Fatalf("size %d: asked for %v", size, e)
			}
			for range random.IntN(5) {
				b := cbt.Extent{Off: e.Off + random.Int64N(e.Len), Len: 1}
				b.Len += random.Int64N(min(e.End()-b.Off, 20*chunkSize))
				mark(b)
				note(data, b)
			}
			return nil
		}
		if tail := size % chunkSize; tail != 0 {
			note(data, cbt.Extent{Off: size - tail, Len: tail})
		}
		for range 20 {
			if random.IntN(3) == 0 {
				w := cbt.Extent{Off: random.Int64N(size), Len: 1}
				w.Len += random.Int64N(min(size-w.Off, 3*chunkSize))
				a.wrote(w.Off, int(w.Len))
				note(data, w)
			}
			off := random.Int64N(size)
			if random.IntN(2) == 0 {
				off = max(0, size-1-random.Int64N(min(size, 40*chunkSize)))
			}
			check(t, &a, off, ask, data)
		}
	}
}

func note(data map[int64]bool, e cbt.Extent) {
	for c := e.Off / chunkSize; c <= (e.End()-1)/chunkSize; c++ {
		data[c] = true
	}
}

func check(t *testing.T, a *allocation, off int64, ask query, data map[int64]bool) {
	t.Helper()
	got, err := a.next(off, ask)
	for c := off / chunkSize; c*chunkSize < a.size; c++ {
		if !data[c] {
			continue
		}
		if want := max(off, c*chunkSize); err != nil || got.Off != want || got.Len <= 0 || got.End() > a.size {
			t.Fatalf("next(%d) of %d: got %v, %v, want data at %d", off, a.size, got, err, want)
		}
		for at := got.Off; at < got.End(); at += chunkSize {
			if !data[at/chunkSize] {
				t.Fatalf("next(%d): %v has a hole at %d", off, got, at)
			}
		}
		if got.End() < a.size && got.End()%windowSize != 0 && data[got.End()/chunkSize] {
			t.Fatalf("next(%d): %v ends amid data", off, got)
		}
		return
	}
	if err != io.EOF {
		t.Fatalf("next(%d) of %d: got %v, %v, want EOF", off, a.size, got, err)
	}
}

func TestAllocationFails(t *testing.T) {
	var a allocation
	a.init(3 * windowSize)
	calls := 0
	ask := func(e cbt.Extent, _ func(cbt.Extent)) error {
		if calls++; calls > 1 {
			return errors.New("no more")
		}
		return nil
	}
	// The first window is all hole, the second fails: from then on all is data,
	// and nobody asks again.
	for _, off := range []int64{5, 2 * windowSize, 0} {
		if e, err := a.next(off, ask); err != nil || e.End() != a.size || off != 5 && e.Off != off {
			t.Errorf("next(%d): %v, %v", off, e, err)
		}
	}
	a.wrote(windowSize, 1)
	if calls != 2 {
		t.Errorf("%d queries", calls)
	}
}
