package extents

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// fake is a disk whose driver answers from a list, whatever it is asked.
type fake struct {
	size int64
	data []cbt.Extent
	lie  *cbt.Extent
	err  error
	hint cbt.Hint
}

func (f fake) Size() int64 { return f.size }

func (f fake) NextData(off int64) (cbt.Extent, error) {
	if f.lie != nil {
		return *f.lie, nil
	}
	for _, e := range f.data {
		if e.End() > off {
			lo := max(off, e.Off)
			return cbt.Extent{Off: lo, Len: e.End() - lo}, nil
		}
	}
	if f.err != nil {
		return cbt.Extent{}, f.err
	}
	return cbt.Extent{}, io.EOF
}

func (f fake) Changed(context.Context) (cbt.Hint, error) { return f.hint, f.err }

func all(seq iter.Seq2[Extent, error]) (list []Extent, err error) {
	for e, err := range seq {
		if err != nil {
			return list, err
		}
		list = append(list, e)
	}
	return list, nil
}

func TestAllocated(t *testing.T) {
	broken := errors.New("broken")
	d := fake{size: 100, data: []cbt.Extent{{Off: 10, Len: 5}, {Off: 15, Len: 5}, {Off: 90, Len: 10}}}
	for _, c := range []struct {
		name string
		disk fake
		from int64
		want []Extent
		err  bool
	}{
		{"whole", d, 0, []Extent{{0, 10, Hole}, {10, 10, Data}, {20, 70, Hole}, {90, 10, Data}}, false},
		{"from the middle of data", d, 12, []Extent{{12, 8, Data}, {20, 70, Hole}, {90, 10, Data}}, false},
		{"from a hole", d, 50, []Extent{{50, 40, Hole}, {90, 10, Data}}, false},
		{"from the end", d, 100, nil, false},
		{"all hole", fake{size: 7}, 0, []Extent{{0, 7, Hole}}, false},
		{"all data", fake{size: 7, data: []cbt.Extent{{Len: 7}}}, 0, []Extent{{0, 7, Data}}, false},
		{"beyond the end", fake{size: 7, data: []cbt.Extent{{Len: 9}}}, 0, []Extent{{0, 7, Data}}, false},
		{"error on the way", fake{size: 7, data: []cbt.Extent{{Len: 3}}, err: broken}, 0, []Extent{{0, 3, Data}}, true},
		{"goes back", fake{size: 9, lie: &cbt.Extent{Off: 2, Len: 2}}, 5, nil, true},
		{"stands still", fake{size: 9, lie: &cbt.Extent{Off: 5}}, 5, nil, true},
		{"behind the end", fake{size: 9, lie: &cbt.Extent{Off: 9, Len: 1}}, 5, nil, true},
	} {
		got, err := all(Allocated(t.Context(), c.disk, c.from))
		if !slices.Equal(got, c.want) || (err != nil) != c.err {
			t.Errorf("%s: got %v, %v; want %v", c.name, got, err, c.want)
		}
	}
}

// Taken up at any offset, the list goes on as if it had not stopped.
func TestResumed(t *testing.T) {
	d := fake{size: 64, data: []cbt.Extent{{Off: 3, Len: 4}, {Off: 20, Len: 1}, {Off: 40, Len: 24}}}
	whole, _ := all(Allocated(t.Context(), d, 0))
	for cut := range whole {
		rest, err := all(Allocated(t.Context(), d, whole[cut].Off))
		if err != nil || !slices.Equal(rest, whole[cut:]) {
			t.Errorf("from %d: %v, %v", whole[cut].Off, rest, err)
		}
	}
}

func TestAllocatedStops(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("stopped")
	cancel(why)
	if got, err := all(Allocated(ctx, fake{size: 9}, 0)); len(got) > 0 || !errors.Is(err, why) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestChanged(t *testing.T) {
	areas := []cbt.Extent{{Off: 60, Len: 10}, {Off: 10, Len: 5}, {Off: 12, Len: 8}}
	hint := func(edit func(*cbt.Hint)) cbt.Hint {
		h := cbt.Hint{Provider: "p", Since: "s", Size: 100, Trust: cbt.Exact, Areas: areas}
		edit(&h)
		return h
	}
	for _, c := range []struct {
		name string
		disk fake
		from int64
		want []Extent
		ok   bool
	}{
		{"in order", fake{hint: hint(func(*cbt.Hint) {})}, 0, []Extent{{10, 10, ChangedHas}, {60, 10, ChangedHas}}, true},
		{"resumed", fake{hint: hint(func(*cbt.Hint) {})}, 13, []Extent{{13, 7, ChangedHas}, {60, 10, ChangedHas}}, true},
		{"nothing changed", fake{hint: hint(func(h *cbt.Hint) { h.Areas = nil })}, 0, nil, true},
		{"distrusts itself", fake{hint: hint(func(h *cbt.Hint) { h.Trust = cbt.Distrusted })}, 0, nil, false},
		{"another disk", fake{hint: hint(func(h *cbt.Hint) { h.Size = 99 })}, 0, nil, false},
		{"outside", fake{hint: hint(func(h *cbt.Hint) { h.Areas = []cbt.Extent{{Off: 99, Len: 2}} })}, 0, nil, false},
		{"no answer", fake{err: errors.New("gone")}, 0, nil, false},
	} {
		a, err := Changed(t.Context(), c.disk, 100)
		if (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got, _ := all(a.From(c.from)); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// comb is a disk of n extents of data, none of them next to another.
type comb int64

func (c comb) Size() int64 { return int64(c) * 2 }

func (c comb) NextData(off int64) (cbt.Extent, error) {
	if off = (off + 1) / 2 * 2; off >= c.Size() {
		return cbt.Extent{}, io.EOF
	}
	return cbt.Extent{Off: off, Len: 1}, nil
}

// The memory of a list does not grow with it.
func TestAllocatedStreams(t *testing.T) {
	list := func(n int64) float64 {
		return testing.AllocsPerRun(1, func() {
			seen := int64(0)
			for _, err := range Allocated(t.Context(), comb(n), 0) {
				if err != nil {
					t.Fatal(err)
				}
				seen++
			}
			if seen != 2*n {
				t.Fatalf("%d extents of %d", seen, 2*n)
			}
		})
	}
	if few, many := list(10), list(1_000_000); many > few+100 {
		t.Errorf("%v allocations for 20 extents, %v for 2000000", few, many)
	}
}
