package cbt

import (
	"errors"
	"math"
	"slices"
	"testing"
)

func TestAlgebra(t *testing.T) {
	r := newRand(t)
	for range 1500 {
		n := 1 + r.IntN(200)
		a, setA := randomMap(r, n)
		b, setB := randomMap(r, n)
		wasA, wasB := slices.Clone(a.ext), slices.Clone(b.ext)
		e := randomExtent(r, n)
		within := make(naive, n)
		within.with(e, true)

		and := func(x, y bool) bool { return x && y }
		not := func(x, y bool) bool { return x && !y }
		or := func(x, y bool) bool { return x || y }
		combine(setA, setB, or).check(t, "union", a.Union(b))
		combine(setA, setB, and).check(t, "intersect", a.Intersect(b))
		combine(setA, setB, not).check(t, "subtract", a.Subtract(b))
		combine(setA, within, and).check(t, "clip", a.Clip(e))
		combine(setA, setA, func(x, _ bool) bool { return !x }).
			check(t, "complement", a.Complement(int64(n)))

		if !slices.Equal(a.ext, wasA) || !slices.Equal(b.ext, wasB) {
			t.Fatalf("operands changed: %v to %v, %v to %v", wasA, a.ext, wasB, b.ext)
		}
		if a.Equal(b) != slices.Equal(setA, setB) {
			t.Fatalf("Equal of %v and %v: %t", a.ext, b.ext, a.Equal(b))
		}
	}
}

// A map that a method returned is one's own: changing it leaves the operand.
func TestAlgebraOwn(t *testing.T) {
	m := mapOf(0, 10, 20, 10)
	for name, own := range map[string]Map{
		"union":     m.Union(Map{}),
		"intersect": m.Intersect(mapOf(0, 100)),
		"subtract":  m.Subtract(Map{}),
		"clip":      m.Clip(Extent{0, 100}),
	} {
		if !own.Equal(m) {
			t.Errorf("%s: got %v, want %v", name, own.ext, m.ext)
		}
		own.Remove(Extent{2, 25})
		if want := mapOf(0, 10, 20, 10); !m.Equal(want) {
			t.Fatalf("%s shares extents with its operand: now %v", name, m.ext)
		}
	}
}

// Cutting a map into batches and putting them together must give it back.
func TestClipSplitCovers(t *testing.T) {
	r := newRand(t)
	for range 300 {
		n := 1 + r.IntN(300)
		m, set := randomMap(r, n)
		step := int64(1 + r.IntN(50))
		var whole Map
		bytes := int64(0)
		for off := int64(0); off < int64(n); off += step {
			part := m.Clip(Extent{Off: off, Len: step})
			bytes += part.Len()
			whole = whole.Union(part)
		}
		set.check(t, "parts together", whole)
		if bytes != m.Len() {
			t.Fatalf("parts have %d bytes, the map %d", bytes, m.Len())
		}
	}
}

func TestClipWild(t *testing.T) {
	m := mapOf(0, 10, 20, 10)
	for _, tt := range []struct {
		e    Extent
		want Map
	}{
		{Extent{-5, 10}, mapOf(0, 5)},
		{Extent{25, math.MaxInt64}, mapOf(25, 5)},
		{Extent{5, -5}, Map{}},
		{Extent{math.MaxInt64, 1}, Map{}},
	} {
		if got := m.Clip(tt.e); !got.Equal(tt.want) {
			t.Errorf("Clip(%v): got %v, want %v", tt.e, got.ext, tt.want.ext)
		}
	}
}

func TestFromAreas(t *testing.T) {
	r := newRand(t)
	for range 500 {
		n := 1 + r.IntN(200)
		set := make(naive, n)
		var areas []Extent
		for range r.IntN(30) {
			if e := randomExtent(r, n); e.Len > 0 {
				areas = append(areas, e)
				set.with(e, true)
			}
		}
		was := slices.Clone(areas)
		m, err := FromAreas(areas, int64(n))
		if err != nil {
			t.Fatalf("%v: %v", areas, err)
		}
		set.check(t, "areas", m)
		if !slices.Equal(areas, was) {
			t.Fatalf("the host's answer was reordered")
		}
	}
}

func TestFromAreasRefuses(t *testing.T) {
	const size = 1000
	for _, e := range []Extent{
		{-1, 10},
		{0, size + 1},
		{size, 1},
		{999, 2},
		{500, 0},
		{500, -1},
		{math.MaxInt64, 1},
		{1, math.MaxInt64},
		{math.MinInt64, math.MaxInt64},
	} {
		m, err := FromAreas([]Extent{{0, 10}, e, {20, 10}}, size)
		if !errors.Is(err, ErrBounds) || !m.Empty() {
			t.Errorf("area %v: got %v, %v", e, m.ext, err)
		}
	}
	if m, err := FromAreas(nil, size); err != nil || !m.Empty() {
		t.Errorf("no areas: got %v, %v", m.ext, err)
	}
}

// FuzzFromAreas: what is accepted covers each area and no byte more than all of
// them together, within the disk.
func FuzzFromAreas(f *testing.F) {
	f.Add(int64(1000), int64(0), int64(10), int64(5), int64(10), int64(999), int64(1))
	f.Add(int64(1000), int64(30), int64(10), int64(5), int64(10), int64(0), int64(5))
	f.Add(int64(10), int64(math.MaxInt64), int64(10), int64(-5), int64(10), int64(0), int64(5))
	f.Fuzz(func(t *testing.T, size, o1, l1, o2, l2, o3, l3 int64) {
		areas := []Extent{{o1, l1}, {o2, l2}, {o3, l3}}
		m, err := FromAreas(areas, size)
		if err != nil {
			return
		}
		if !m.Clip(Extent{Len: size}).Equal(m) {
			t.Fatalf("%v of %d: %v leaves the disk", areas, size, m.ext)
		}
		rest := m
		for _, e := range areas {
			if !m.Covers(e) {
				t.Fatalf("%v of %d: %v misses %v", areas, size, m.ext, e)
			}
			rest = rest.Subtract(mapOf(e.Off, e.Len))
		}
		if !rest.Empty() {
			t.Fatalf("%v of %d: %v has %v too much", areas, size, m.ext, rest.ext)
		}
	})
}
