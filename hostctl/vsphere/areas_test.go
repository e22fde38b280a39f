package vsphere

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/haulback/haulback/cbt"
)

const block = 64 << 10

// book is a host that knows which blocks of a disk have changed and answers in
// pages, as vSphere does: at most limit areas, the length up to where it looked.
type book struct {
	size  int64
	areas []cbt.Extent // sorted
	limit int
	// whole makes its length claim all of the disk although the areas were cut:
	// what two products took for the end.
	whole bool
	calls []int64
}

func (b *book) ask(start int64) (page, error) {
	b.calls = append(b.calls, start)
	p := page{start: start, length: b.size - start}
	for _, e := range b.areas {
		if e.Off+e.Len <= start {
			continue
		}
		if len(p.areas) == b.limit {
			if !b.whole {
				last := p.areas[len(p.areas)-1]
				p.length = last.Off + last.Len - start
			}
			return p, nil
		}
		p.areas = append(p.areas, e)
	}
	return p, nil
}

func stripes(n int) (areas []cbt.Extent) {
	for i := range n {
		areas = append(areas, cbt.Extent{Off: int64(2*i) * block, Len: block})
	}
	return areas
}

// B3: an answer is cut at 2000 areas, whatever its length says.
func TestB3Pages(t *testing.T) {
	for _, n := range []int{0, 1, 1999, 2000, 2001, 4000, 9999} {
		for _, whole := range []bool{false, true} {
			b := &book{size: 1 << 32, areas: stripes(n), limit: fullPage, whole: whole}
			got, _, err := collect(b.size, b.ask)
			if err != nil || !slices.Equal(got, b.areas) {
				t.Errorf("%d areas, length of the whole disk %v: got %d areas, %v", n, whole, len(got), err)
			}
			for _, start := range b.calls {
				if start >= b.size {
					t.Errorf("%d areas: asked at %d, the end of the disk", n, start)
				}
			}
		}
	}
}

func TestCollectEndOfDisk(t *testing.T) {
	b := &book{size: 5*block + 512, areas: []cbt.Extent{{Off: 5 * block, Len: 512}}, limit: fullPage}
	got, _, err := collect(b.size, b.ask)
	if err != nil || !slices.Equal(got, b.areas) || len(b.calls) != 1 {
		t.Errorf("got %v after the questions at %v, %v", got, b.calls, err)
	}
}

// B4: what is untidy is put in order and told of, what is outside voids all.
func TestB4Untidy(t *testing.T) {
	const size = 100 * block
	one := func(areas ...cbt.Extent) page { return page{length: size, areas: areas} }
	for _, c := range []struct {
		name  string
		pages []page
		want  []cbt.Extent
		says  string // of the remark
		wrong string // of the error
	}{
		{name: "nothing changed", pages: []page{one()}},
		{
			name: "unsorted", pages: []page{one(cbt.Extent{Off: 4 * block, Len: block}, cbt.Extent{Off: 0, Len: block})},
			want: []cbt.Extent{{Off: 0, Len: block}, {Off: 4 * block, Len: block}}, says: "out of order",
		},
		{
			name: "overlapping", pages: []page{one(cbt.Extent{Off: 0, Len: 3 * block}, cbt.Extent{Off: block, Len: block})},
			want: []cbt.Extent{{Off: 0, Len: 3 * block}},
		},
		{name: "touching", pages: []page{one(cbt.Extent{Off: 0, Len: block}, cbt.Extent{Off: block, Len: block})}, want: []cbt.Extent{{Off: 0, Len: 2 * block}}},
		{name: "empty area", pages: []page{one(cbt.Extent{Off: 7, Len: 0})}, says: "were empty"},
		{name: "over the end", pages: []page{one(cbt.Extent{Off: size - 512, Len: block})}, want: []cbt.Extent{{Off: size - 512, Len: 512}}, says: "over the end"},
		{name: "over the end of all numbers", pages: []page{one(cbt.Extent{Off: size - 512, Len: 1<<63 - 1})}, want: []cbt.Extent{{Off: size - 512, Len: 512}}, says: "over the end"},
		{name: "length over the end of all numbers", pages: []page{{length: 1<<63 - 1}}},
		{name: "page from before", pages: []page{{length: block}, {start: 0, length: size}}},
		{name: "outside", pages: []page{one(cbt.Extent{Off: size, Len: block})}, wrong: "outside"},
		{name: "negative offset", pages: []page{one(cbt.Extent{Off: -1, Len: block})}, wrong: "outside"},
		{name: "negative length", pages: []page{one(cbt.Extent{Off: 0, Len: -1})}, wrong: "outside"},
		{name: "empty page", pages: []page{{}}, wrong: "answered nothing"},
		{name: "empty page later", pages: []page{{length: block}, {start: block}}, wrong: "answered nothing"},
		{name: "page with a gap", pages: []page{{length: block}, {start: 2 * block, length: block}}, wrong: "asked from"},
		{name: "negative page", pages: []page{{length: -1}}, wrong: "asked from"},
	} {
		got, remark, err := collect(size, func(int64) (page, error) {
			if len(c.pages) == 0 {
				return page{}, errors.New("asked too often")
			}
			p := c.pages[0]
			c.pages = c.pages[1:]
			return p, nil
		})
		switch {
		case c.wrong != "":
			if _, ok := errors.AsType[*untrue](err); !ok || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%s: got %v, %v; want distrust that says %q", c.name, got, err, c.wrong)
			}
		case err != nil || !slices.Equal(got, c.want) || !strings.Contains(remark, c.says):
			t.Errorf("%s: got %v, remark %q, %v; want %v and %q", c.name, got, remark, err, c.want, c.says)
		}
	}
}

func TestCollectEnds(t *testing.T) {
	const size = int64(1) << 40
	calls := 0
	_, _, err := collect(size, func(start int64) (page, error) {
		calls++
		return page{start: start, length: 1}, nil // a byte at a time
	})
	if err == nil || calls > maxPages {
		t.Errorf("after %d answers: %v", calls, err)
	}
	if _, _, err := collect(0, func(int64) (page, error) { return page{}, nil }); err == nil {
		t.Error("a disk of no bytes: no error")
	}
}

// Whatever a host answers, the areas are within the disk, sorted and apart, and
// cover every area that it named inside.
func FuzzAreas(f *testing.F) {
	f.Add(int64(1<<30), uint64(1), uint16(3))
	f.Add(int64(512), uint64(2), uint16(2500))
	f.Fuzz(func(t *testing.T, size int64, seed uint64, n uint16) {
		rnd := rand.New(rand.NewPCG(seed, uint64(n)))
		var named []cbt.Extent
		asked := 0
		got, _, err := collect(size, func(start int64) (page, error) {
			if asked++; asked > 50 {
				return page{start: start, length: 1<<63 - 1}, nil
			}
			p := page{start: start, length: wild(rnd, size)}
			if rnd.IntN(10) == 0 {
				p.start = wild(rnd, size)
			}
			for range rnd.IntN(int(n%3000) + 1) {
				p.areas = append(p.areas, cbt.Extent{Off: wild(rnd, size), Len: wild(rnd, size)})
			}
			named = append(named, p.areas...)
			return p, nil
		})
		if err != nil {
			return
		}
		end := int64(-1)
		for _, e := range got {
			if e.Off <= end || e.Len <= 0 || e.Off+e.Len > size || e.Off+e.Len < 0 {
				t.Fatalf("area %v after %d of a disk of %d bytes", e, end, size)
			}
			end = e.Off + e.Len
		}
		for _, e := range named {
			if e.Len > 0 && !covers(got, e.Off) {
				t.Fatalf("area %v is lost: %v", e, got)
			}
		}
	})
}

// wild is a number of a host: mostly plausible.
func wild(rnd *rand.Rand, size int64) int64 {
	switch rnd.IntN(40) {
	case 0:
		return -1
	case 1:
		return 1<<63 - 1
	case 2:
		return 0
	}
	if size <= 0 {
		return rnd.Int64()
	}
	return rnd.Int64N(size)
}

func covers(areas []cbt.Extent, off int64) bool {
	return slices.ContainsFunc(areas, func(e cbt.Extent) bool { return off >= e.Off && off < e.Off+e.Len })
}
