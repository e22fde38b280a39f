package cbt

import (
	"math"
	"testing"
)

// scaled is a map whose offsets are m's times unit.
func scaled(m Map, unit int64) Map {
	var s Map
	for e := range m.All() {
		s.Add(Extent{Off: e.Off * unit, Len: e.Len * unit})
	}
	return s
}

// touched is the set of grains, of per units each, that the set touches.
func (n naive) touched(per int) naive {
	g := make(naive, (len(n)+per-1)/per)
	for i, v := range n {
		g[i/per] = g[i/per] || v
	}
	return g
}

func TestMapGrains(t *testing.T) {
	const per = 4 // extents in quarters of a grain
	r := newRand(t)
	for range 500 {
		n := 1 + r.IntN(200)
		m, set := randomMap(r, n)
		size := int64(n) * GrainSize / per
		m = scaled(m, GrainSize/per)
		want := set.touched(per)

		next := int64(0)
		for e := range m.Grains(size) {
			i := e.Off / GrainSize
			if e != Grain(i, size) || i < next || !want[i] {
				t.Fatalf("%v: grain %v after %d", m.ext, e, next)
			}
			for _, skipped := range want[next:i] {
				if skipped {
					t.Fatalf("%v: no grain between %d and %d", m.ext, next, i)
				}
			}
			next = i + 1
		}
		for i, missing := range want[next:] {
			if missing {
				t.Fatalf("%v: grain %d missing", m.ext, next+int64(i))
			}
		}
		checkAligned(t, m, want, size)
	}
}

// checkAligned compares AlignGrains with the set of grains.
func checkAligned(t *testing.T, m Map, want naive, size int64) {
	t.Helper()
	a := m.AlignGrains(size)
	var w Map
	for _, e := range want.extents() {
		w.Add(grainRun(e.Off, e.End(), size))
	}
	if !a.Equal(w) || a.Len() != w.Len() {
		t.Fatalf("%v aligned: got %v, want %v", m.ext, a.ext, w.ext)
	}
	if !m.Subtract(a).Empty() {
		t.Fatalf("%v aligned misses %v", m.ext, m.Subtract(a).ext)
	}
}

func TestMapGrainsBeyond(t *testing.T) {
	m := mapOf(0, 1, GrainSize, math.MaxInt64-GrainSize)
	for _, tt := range []struct{ size, grains int64 }{
		{0, 0}, {1, 1}, {GrainSize, 1}, {GrainSize + 1, 2}, {10 * GrainSize, 10},
	} {
		n := int64(0)
		for e := range m.Grains(tt.size) {
			if err := e.Check(tt.size); err != nil {
				t.Errorf("%d bytes: %v", tt.size, err)
			}
			n++
		}
		if n != tt.grains {
			t.Errorf("%d bytes: %d grains, want %d", tt.size, n, tt.grains)
		}
	}
	if a := m.AlignGrains(math.MaxInt64); a.Count() != 1 || a.Len() != math.MaxInt64 {
		t.Errorf("aligned to the largest disk: %v", a.ext)
	}
	for range m.Grains(math.MaxInt64) {
		break // must stop, there are 2^47
	}
}
