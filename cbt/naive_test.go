package cbt

import (
	"math/rand/v2"
	"testing"
	"time"
)

// newRand is a random source whose seed is printed when the test fails.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// naive is the set of bytes that a Map is, one bool per byte: what the property
// tests compare with.
type naive []bool

// with sets the bytes of e that exist.
func (n naive) with(e Extent, v bool) {
	for i := max(0, e.Off); i < min(int64(len(n)), e.End()); i++ {
		n[i] = v
	}
}

// combine is the set of the bytes for which f is true.
func combine(a, b naive, f func(a, b bool) bool) naive {
	c := make(naive, len(a))
	for i := range c {
		c[i] = f(a[i], b[i])
	}
	return c
}

// extents is what a Map of the set must hold.
func (n naive) extents() []Extent {
	var all []Extent
	for i := 0; i < len(n); i++ {
		lo := i
		for i < len(n) && n[i] {
			i++
		}
		if i > lo {
			all = append(all, Extent{Off: int64(lo), Len: int64(i - lo)})
		}
	}
	return all
}

// check fails the test unless m is the set and all that m says of itself fits.
func (n naive) check(t *testing.T, what string, m Map) {
	t.Helper()
	want, i, sum := n.extents(), 0, int64(0)
	for e := range m.All() {
		if i >= len(want) || e != want[i] {
			t.Fatalf("%s: got %v, want %v", what, m.ext, want)
		}
		sum += e.Len
		i++
	}
	if i != len(want) || m.Count() != i || m.Len() != sum || m.Empty() != (i == 0) {
		t.Fatalf("%s: got %v, count %d, len %d, want %v", what, m.ext, m.Count(), m.Len(), want)
	}
}

// randomExtent is an extent within n bytes, sometimes empty.
func randomExtent(r *rand.Rand, n int) Extent {
	off := r.IntN(n)
	return Extent{Off: int64(off), Len: int64(r.IntN(min(n-off, 1+n/8) + 1))}
}

// randomMap is a map within n bytes, and the set that it should be.
func randomMap(r *rand.Rand, n int) (Map, naive) {
	var m Map
	set := make(naive, n)
	for range r.IntN(12) {
		e := randomExtent(r, n)
		m.Add(e)
		set.with(e, true)
	}
	return m, set
}

// mapOf is the map of pairs of offset and length.
func mapOf(offLen ...int64) Map {
	var m Map
	for ; len(offLen) > 0; offLen = offLen[2:] {
		m.Add(Extent{Off: offLen[0], Len: offLen[1]})
	}
	return m
}
