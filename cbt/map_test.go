package cbt

import (
	"math"
	"slices"
	"testing"
)

func TestMapAddRemove(t *testing.T) {
	r := newRand(t)
	for range 300 {
		n := 1 + r.IntN(200)
		var m Map
		set := make(naive, n)
		for range 40 {
			e := randomExtent(r, n)
			if r.IntN(3) == 0 {
				m.Remove(e)
				set.with(e, false)
			} else {
				m.Add(e)
				set.with(e, true)
			}
			set.check(t, e.String(), m)
		}
	}
}

func TestMapAddTable(t *testing.T) {
	for _, tt := range []struct {
		name string
		add  Extent
		want []Extent
	}{
		{"empty", Extent{Off: 15}, []Extent{{10, 10}, {30, 10}}},
		{"touching the end", Extent{20, 5}, []Extent{{10, 15}, {30, 10}}},
		{"touching the start", Extent{5, 5}, []Extent{{5, 15}, {30, 10}}},
		{"the gap exactly", Extent{20, 10}, []Extent{{10, 30}}},
		{"within the gap", Extent{21, 8}, []Extent{{10, 10}, {21, 8}, {30, 10}}},
		{"over all", Extent{0, 100}, []Extent{{0, 100}}},
		{"within one", Extent{12, 3}, []Extent{{10, 10}, {30, 10}}},
		{"at the end", Extent{50, 1}, []Extent{{10, 10}, {30, 10}, {50, 1}}},
		{"negative length", Extent{15, -3}, []Extent{{10, 10}, {30, 10}}},
		{"from below zero", Extent{-5, 8}, []Extent{{0, 3}, {10, 10}, {30, 10}}},
		{"all below zero", Extent{math.MinInt64, math.MaxInt64}, []Extent{{10, 10}, {30, 10}}},
		{"over the top", Extent{40, math.MaxInt64}, []Extent{{10, 10}, {30, math.MaxInt64 - 30}}},
		{"at the top", Extent{math.MaxInt64, 7}, []Extent{{10, 10}, {30, 10}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mapOf(10, 10, 30, 10)
			m.Add(tt.add)
			if got := slices.Collect(m.All()); !slices.Equal(got, tt.want) {
				t.Errorf("add %v: got %v, want %v", tt.add, got, tt.want)
			}
			sum := int64(0)
			for _, e := range tt.want {
				sum += e.Len
			}
			if m.Len() != sum {
				t.Errorf("add %v: Len %d, want %d", tt.add, m.Len(), sum)
			}
		})
	}
}

func TestMapRemoveWild(t *testing.T) {
	for _, e := range []Extent{{-5, 3}, {5, -1}, {math.MaxInt64, math.MaxInt64}, {20, 10}} {
		m := mapOf(10, 10, 30, 10)
		m.Remove(e)
		if want := mapOf(10, 10, 30, 10); !m.Equal(want) || m.Len() != 20 {
			t.Errorf("remove %v: got %v", e, m.ext)
		}
	}
	m := mapOf(10, 10, 30, 10)
	m.Remove(Extent{math.MinInt64 + 1, math.MaxInt64})
	m.Remove(Extent{15, math.MaxInt64})
	if want := mapOf(10, 5); !m.Equal(want) || m.Len() != 5 {
		t.Errorf("remove from 15: got %v", m.ext)
	}
}

func TestMapQueries(t *testing.T) {
	r := newRand(t)
	for range 300 {
		n := 1 + r.IntN(120)
		m, set := randomMap(r, n)
		for off := range int64(n) {
			e, ok := m.At(off)
			if ok != set[off] || ok && !e.Contains(Extent{off, 1}) {
				t.Fatalf("At(%d) of %v: %v, %t", off, m.ext, e, ok)
			}
		}
		e := randomExtent(r, n)
		want := !slices.Contains(set[e.Off:e.End()], false)
		if got := m.Covers(e); got != want {
			t.Fatalf("Covers(%v) of %v: %t", e, m.ext, got)
		}
	}
	m := mapOf(10, 10)
	for _, e := range []Extent{{10, -1}, {-1, 1}, {12, math.MaxInt64}} {
		if m.Covers(e) {
			t.Errorf("Covers(%v) is true", e)
		}
	}
}

// Building in disk order must not search or shift: a million extents in any
// other way would not end within the test's time.
func TestMapAddInOrder(t *testing.T) {
	const n = 1 << 20
	var m Map
	for i := range int64(n) {
		m.Add(Extent{Off: 2 * i, Len: 1})
	}
	if m.Count() != n || m.Len() != n {
		t.Fatalf("count %d, len %d, want %d", m.Count(), m.Len(), n)
	}
	next := int64(2 * n)
	got := testing.AllocsPerRun(100, func() {
		m.Add(Extent{Off: next - 1, Len: 1}) // grows the last extent
		next++
	})
	if got != 0 {
		t.Errorf("growing the last extent allocates %v times", got)
	}
}

func TestMapAllStops(t *testing.T) {
	seen := 0
	for range mapOf(0, 1, 2, 1, 4, 1).All() {
		if seen++; seen == 2 {
			break
		}
	}
	if seen != 2 {
		t.Errorf("saw %d extents", seen)
	}
}

func TestMapNext(t *testing.T) {
	m := mapOf(10, 5, 20, 1)
	for off, want := range map[int64]Extent{-5: {10, 5}, 0: {10, 5}, 10: {10, 5}, 12: {12, 3}, 15: {20, 1}, 20: {20, 1}} {
		if got, ok := m.Next(off); got != want || !ok {
			t.Errorf("from %d: got %v, %t, want %v", off, got, ok, want)
		}
	}
	if got, ok := m.Next(21); ok {
		t.Errorf("from 21: got %v", got)
	}
}
