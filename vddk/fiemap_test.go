package vddk

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// answer is a page as the kernel would write it.
func answer(extents ...[4]uint64) []byte {
	raw := make([]byte, fiemapHeaderLen+len(extents)*fiemapExtentLen)
	binary.NativeEndian.PutUint32(raw[20:], uint32(len(extents)))
	for i, e := range extents {
		at := raw[fiemapHeaderLen+i*fiemapExtentLen:]
		for j := range 3 {
			binary.NativeEndian.PutUint64(at[8*j:], e[j])
		}
		binary.NativeEndian.PutUint32(at[40:], uint32(e[3]))
	}
	return raw
}

func TestParseFiemap(t *testing.T) {
	const size = 1 << 20
	for name, c := range map[string]struct {
		raw  []byte
		want string // runs and the end of what is told, or "error"
	}{
		"nothing":          {answer(), "[] 1048576"},
		"shared":           {answer([4]uint64{8192, 1 << 30, 4096, 0x2000}), "[{8192 12288 1073741824 3}] 12288"},
		"last, own":        {answer([4]uint64{4096, 7, 4096, 1}), "[{4096 8192 7 2}] 8192"},
		"unwritten":        {answer([4]uint64{4096, 7, 4096, 0x2800}), "[{4096 8192 7 1}] 8192"},
		"compressed":       {answer([4]uint64{4096, 7, 4096, 0x2008}), "[{4096 8192 7 0}] 8192"},
		"inline":           {answer([4]uint64{4096, 0, 4096, 0x301}), "[{4096 8192 0 0}] 8192"},
		"delayed":          {answer([4]uint64{4096, 0, 4096, 0x6}), "[{4096 8192 0 0}] 8192"},
		"delayed, zero":    {answer([4]uint64{4096, 0, 4096, 0x806}), "[{4096 8192 0 0}] 8192"},
		"encrypted":        {answer([4]uint64{4096, 0, 4096, 0x2088}), "[{4096 8192 0 0}] 8192"},
		"a flag to come":   {answer([4]uint64{4096, 7, 4096, 0x12000}), "[{4096 8192 7 0}] 8192"},
		"over the end":     {answer([4]uint64{4096, 7, 2 << 20, 0x2000}), "[{4096 1048576 7 3}] 1048576"},
		"behind the end":   {answer([4]uint64{4096, 7, 4096, 0}, [4]uint64{1 << 20, 7, 4096, 0}), "[{4096 8192 7 2}] 1048576"},
		"too short":        {make([]byte, 31), "error"},
		"more than fits":   {binary.NativeEndian.AppendUint32(make([]byte, 20), 1)[:24:24], "error"},
		"empty extent":     {answer([4]uint64{4096, 7, 0, 0}), "error"},
		"backwards":        {answer([4]uint64{8192, 7, 4096, 0}, [4]uint64{4096, 7, 4096, 0}), "error"},
		"overlapping":      {answer([4]uint64{4096, 7, 8192, 0}, [4]uint64{8192, 7, 4096, 0}), "error"},
		"over the start":   {answer([4]uint64{0, 7, 8192, 0}), "[{4096 8192 4103 2}] 8192"},
		"before the start": {answer([4]uint64{0, 7, 4096, 0}), "error"},
		"overflow":         {answer([4]uint64{4096, 7, 1<<63 - 1, 0}), "error"},
		"overflow, 64 bit": {answer([4]uint64{1 << 63, 7, 1, 0}), "error"},
		"medium overflows": {answer([4]uint64{4096, 1<<63 - 1, 4096, 0}), "error"},
	} {
		runs, told, err := parseFiemap(nil, c.raw, 4096, size)
		got := fmt.Sprint(runs, " ", told)
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%s: got %s (%v), want %s", name, got, err, c.want)
		}
	}
}

// TestWalk compares with a naive walk, byte by byte.
func TestWalk(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	random := func(size int64) (runs []run) {
		for off := r.Int64N(4); off < size; off += r.Int64N(4) {
			end := min(off+1+r.Int64N(5), size)
			runs = append(runs, run{off, end, off + r.Int64N(2)*100, runKind(r.IntN(4))})
			off = end
		}
		return runs
	}
	find := func(runs []run, off int64) *run {
		for i := range runs {
			if runs[i].off <= off && off < runs[i].end {
				return &runs[i]
			}
		}
		return nil
	}
	for range 2000 {
		size := 1 + r.Int64N(40)
		a, b := random(size), random(size)
		differs := make([]bool, size)
		walk(a, b, 0, size, func(off, end int64, _ bool) {
			for i := off; i < end; i++ {
				differs[i] = true
			}
		})
		for off := range size {
			x, y := find(a, off), find(b, off)
			zero1, zero2 := x == nil || x.kind == runZero, y == nil || y.kind == runZero
			same := zero1 && zero2 || !zero1 && !zero2 && x.kind == runShared && y.kind == runShared && x.at-x.off == y.at-y.off
			if differs[off] == same {
				t.Fatalf("seed %#x: byte %d: differs is %v: %v, %v", seed, off, differs[off], a, b)
			}
		}
	}
}

// TestWindows: pages of any length give the answer of the whole map, and a base
// whose blocks move meanwhile gives none.
func TestWindows(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	const size = 1 << 16
	whole := func(shift int64) (runs []run) {
		for off := int64(0); off < size; off += 64 {
			if r.IntN(4) > 0 {
				runs = append(runs, run{off, off + 64, off + shift*r.Int64N(2), runShared})
			}
		}
		return runs
	}
	paged := func(runs []run) asker {
		return func(b *fiemapBuffer, off, size int64) ([]run, int64, error) {
			page := b.runs[:0]
			for _, x := range runs {
				if x.end > off && len(page) < 7 {
					page = append(page, run{max(x.off, off), x.end, x.at + max(x.off, off) - x.off, x.kind})
				}
			}
			b.runs = page
			if len(page) == 0 {
				return nil, size, nil
			}
			return page, page[len(page)-1].end, nil
		}
	}
	for range 20 {
		a, b := whole(1<<20), whole(1<<21)
		want, got := comparison{hint: &cbt.Hint{}}, comparison{hint: &cbt.Hint{}}
		walk(a, b, 0, size, want.differ)
		if err := got.windows(t.Context(), paged(a), paged(b), size); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.hint.Areas, want.hint.Areas) || len(want.hint.Areas) == 0 {
			t.Fatalf("seed %#x: %d areas, want %d", seed, len(got.hint.Areas), len(want.hint.Areas))
		}
	}
	calls := 0
	moving := func(b *fiemapBuffer, off, size int64) ([]run, int64, error) {
		calls++
		return []run{{0, size, int64(calls), runShared}}, size, nil
	}
	c := comparison{hint: &cbt.Hint{}}
	if err := c.windows(t.Context(), paged(nil), moving, size); err == nil || !strings.Contains(err.Error(), "moves the blocks") {
		t.Errorf("blocks that move: %v", err)
	}
}

// FuzzFiemap: no panic, and what is accepted goes forward within the file.
func FuzzFiemap(f *testing.F) {
	f.Add(answer([4]uint64{0, 4096, 4096, 0x2000}, [4]uint64{8192, 1 << 30, 4096, 0x801}), int64(0), int64(1<<20))
	f.Add(answer([4]uint64{4096, 0, 1 << 62, 1}), int64(4096), int64(5000))
	f.Fuzz(func(t *testing.T, raw []byte, off, size int64) {
		if off < 0 || off >= size {
			return
		}
		runs, told, err := parseFiemap(nil, raw, off, size)
		if err != nil {
			return
		}
		if told <= off || told > size {
			t.Fatalf("told to %d of [%d, %d)", told, off, size)
		}
		pos := off
		for _, r := range runs {
			if r.off < pos || r.end <= r.off || r.end > told || r.at < 0 {
				t.Fatalf("run %+v at %d of %d", r, pos, told)
			}
			pos = r.end
		}
	})
}

// TestDifferCoarsens: beyond a million areas more counts as changed, never less.
func TestDifferCoarsens(t *testing.T) {
	const step, count = 8192, maxAreas + 1000
	c := comparison{hint: &cbt.Hint{Size: count * step, Trust: cbt.Exact}}
	for i := range int64(count) {
		c.differ(i*step, i*step+4096, false)
		if len(c.hint.Areas) > maxAreas {
			t.Fatalf("%d areas", len(c.hint.Areas))
		}
	}
	c.judge()
	at := 0
	for i := range int64(count) {
		for at < len(c.hint.Areas) && c.hint.Areas[at].End() <= i*step {
			at++
		}
		if at == len(c.hint.Areas) || !c.hint.Areas[at].Contains(cbt.Extent{Off: i * step, Len: 4096}) {
			t.Fatalf("the change at %d is lost", i*step)
		}
	}
	if c.hint.Trust != cbt.OverReports || c.hint.Remark == "" {
		t.Errorf("trust %v, remark %q", c.hint.Trust, c.hint.Remark)
	}
}
