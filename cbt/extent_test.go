package cbt

import (
	"errors"
	"math"
	"testing"
)

func TestExtentCheck(t *testing.T) {
	const size = 100
	for _, tt := range []struct {
		e  Extent
		ok bool
	}{
		{Extent{0, 1}, true},
		{Extent{0, 100}, true},
		{Extent{99, 1}, true},
		{Extent{0, 0}, false},
		{Extent{0, 101}, false},
		{Extent{100, 1}, false},
		{Extent{101, -1}, false},
		{Extent{-1, 2}, false},
		{Extent{1, math.MaxInt64}, false},
		{Extent{math.MaxInt64, math.MaxInt64}, false},
		{Extent{math.MinInt64, math.MinInt64}, false},
	} {
		if err := tt.e.Check(size); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrBounds) {
			t.Errorf("%v: %v, want ok %t", tt.e, err, tt.ok)
		}
	}
}

func TestExtentIntersect(t *testing.T) {
	for _, tt := range []struct{ a, b, want Extent }{
		{Extent{0, 10}, Extent{5, 10}, Extent{5, 5}},
		{Extent{0, 10}, Extent{2, 3}, Extent{2, 3}},
		{Extent{0, 10}, Extent{10, 5}, Extent{10, 0}},
		{Extent{0, 10}, Extent{20, 5}, Extent{20, 0}},
	} {
		if got := tt.a.Intersect(tt.b); got != tt.want {
			t.Errorf("%v and %v: got %v, want %v", tt.a, tt.b, got, tt.want)
		}
		if got := tt.b.Intersect(tt.a); got != tt.want {
			t.Errorf("%v and %v: got %v, want %v", tt.b, tt.a, got, tt.want)
		}
		if whole := tt.want == tt.b; tt.a.Contains(tt.b) != whole {
			t.Errorf("%v contains %v: %t", tt.a, tt.b, !whole)
		}
	}
	if got := (Extent{1048576, 65536}).String(); got != "[1048576, +65536)" {
		t.Errorf("String: %s", got)
	}
}

func TestGrains(t *testing.T) {
	for _, tt := range []struct{ size, n, last int64 }{
		{-5, 0, 0},
		{0, 0, 0},
		{1, 1, 1},
		{GrainSize - 1, 1, GrainSize - 1},
		{GrainSize, 1, GrainSize},
		{GrainSize + 512, 2, 512},
		{BatchSize, BatchGrains, GrainSize},
		{math.MaxInt64, 1 << 47, GrainSize - 1},
	} {
		n := Grains(tt.size)
		if n != tt.n {
			t.Errorf("%d bytes: %d grains, want %d", tt.size, n, tt.n)
		}
		if n == 0 {
			continue
		}
		if e := Grain(n-1, tt.size); e.Len != tt.last || e.End() != tt.size {
			t.Errorf("%d bytes: last grain %v, want length %d", tt.size, e, tt.last)
		}
	}
}
