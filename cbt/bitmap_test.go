package cbt

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// randomBitmap is a bitmap of n grains, the last one short, and its bits.
func randomBitmap(r *rand.Rand, n int64) (*Bitmap, naive) {
	b, set := NewBitmap(n*GrainSize-1), make(naive, n)
	for range r.IntN(20) {
		e := randomExtent(r, int(n))
		if r.IntN(2) == 0 {
			b.Set(e.Off)
			b.Clear(e.End() / 2)
			set[e.Off], set[e.End()/2] = true, false
			continue
		}
		b.SetRange(e.Off, e.End())
		set.with(e, true)
	}
	if r.IntN(4) == 0 { // dense noise, for which runs are the longer form
		for i := range set {
			if set[i] = r.IntN(2) == 0; set[i] {
				b.Set(int64(i))
			} else {
				b.Clear(int64(i))
			}
		}
	}
	return b, set
}

func TestBitmap(t *testing.T) {
	r := newRand(t)
	for range 500 {
		n := 1 + r.Int64N(300)
		b, set := randomBitmap(r, n)
		if b.Grains() != n {
			t.Fatalf("%d grains, want %d", b.Grains(), n)
		}
		count := int64(0)
		nextSet, nextClear := n, n
		for i := n - 1; i >= 0; i-- {
			if set[i] {
				count++
				nextSet = i
			} else {
				nextClear = i
			}
			if b.Get(i) != set[i] || b.NextSet(i) != nextSet || b.NextClear(i) != nextClear {
				t.Fatalf("bit %d of %v: %t, next set %d, clear %d", i, set, b.Get(i), b.NextSet(i), b.NextClear(i))
			}
		}
		if b.Count() != count || b.NextSet(n) != n || b.NextClear(n+1) != n || b.NextSet(-9) != nextSet {
			t.Fatalf("%v: count %d, past the end %d, %d", set, b.Count(), b.NextSet(n), b.NextClear(n+1))
		}
		checkRuns(t, b, set)
	}
}

// checkRuns compares Runs and Map with the set of grains.
func checkRuns(t *testing.T, b *Bitmap, set naive) {
	t.Helper()
	var runs []Extent
	for lo, hi := range b.Runs() {
		runs = append(runs, between(lo, hi))
	}
	if want := set.extents(); !slices.Equal(runs, want) {
		t.Fatalf("runs: got %v, want %v", runs, want)
	}
	m, bytes := b.Map(), int64(0)
	for e := range m.Grains(b.size) {
		if !set[e.Off/GrainSize] {
			t.Fatalf("map has grain %v", e)
		}
		bytes += e.Len
	}
	if bytes != m.Len() || m.Count() != len(runs) || !m.Equal(m.Clip(Extent{Len: b.size})) {
		t.Fatalf("map %v of runs %v", m.ext, runs)
	}
}

func TestBitmapBounds(t *testing.T) {
	b := NewBitmap(10 * GrainSize)
	for name, f := range map[string]func(){
		"Set(-1)":        func() { b.Set(-1) },
		"Set(10)":        func() { b.Set(10) },
		"Clear(10)":      func() { b.Clear(10) },
		"Get(10)":        func() { b.Get(10) },
		"SetRange(9,11)": func() { b.SetRange(9, 11) },
		"SetRange(5,4)":  func() { b.SetRange(5, 4) },
		"Set(2^63-1)":    func() { b.Set(1<<63 - 1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Errorf("no panic")
				}
			}()
			f()
		})
	}
	b.SetRange(10, 10) // nothing, at the end
	if b.Count() != 0 {
		t.Errorf("%d bits set", b.Count())
	}
	for _, size := range []int64{0, -1} {
		if e := NewBitmap(size); e.Grains() != 0 || e.NextSet(0) != 0 || !e.Map().Empty() {
			t.Errorf("bitmap of %d bytes is not empty", size)
		}
	}
}

func TestBitmapRunsStop(t *testing.T) {
	b := NewBitmap(10 * GrainSize)
	b.Set(1)
	b.Set(3)
	for lo := range b.Runs() {
		if lo != 1 {
			t.Fatalf("run at %d after a break", lo)
		}
		break
	}
}

func TestBitmapCodecGolden(t *testing.T) {
	for _, tt := range []struct {
		name   string
		grains int64
		set    []int64 // pairs lo, hi
		hex    string
	}{
		{"no disk", 0, nil, "00 00"},
		{"none set", 300, nil, "ac02 00 ac02"},
		{"all set", 300, []int64{0, 300}, "ac02 00 00 ab02"},
		{"a few", 100, []int64{3, 5, 90, 100}, "64 00 03 01 54 09"},
		{"last only", 100, []int64{99, 100}, "64 00 63 00"},
		{"alternating", 20, []int64{1, 2, 3, 4, 5, 6, 19, 20}, "14 01 2a0008"},
		{"runs as long as raw", 20, []int64{1, 2}, "14 00 01 00 11"},
		{"one grain", 1, []int64{0, 1}, "01 01 01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			size := tt.grains * GrainSize
			b := NewBitmap(size)
			for i := 0; i < len(tt.set); i += 2 {
				b.SetRange(tt.set[i], tt.set[i+1])
			}
			want := unhex(t, tt.hex)
			if got := b.AppendTo([]byte("x")); string(got) != "x"+string(want) {
				t.Errorf("got % x, want x and % x", got, want)
			}
			got, err := ParseBitmap(want, size)
			if err != nil || !slices.Equal(got.words, b.words) {
				t.Errorf("% x: %v", want, err)
			}
			mustFailShort(t, want, func(p []byte) error { _, err := ParseBitmap(p, size); return err })
		})
	}
}

func TestParseBitmapRefuses(t *testing.T) {
	for _, tt := range []struct{ name, hex string }{
		{"another disk", "15 00 15"},
		{"a smaller disk", "13 00 14"},
		{"unknown form", "14 02 2a0008"},
		{"bits beyond the end", "14 01 2a0018"},
		{"raw where runs are shorter", "14 01 000000"},
		{"raw where runs are as long", "14 01 020000"},
		{"runs where raw is shorter", "14 00 01 00 00 00 00 0e"},
		{"a run too long", "14 00 15"},
		{"a run too long, second", "14 00 13 01"},
		{"run not shortest", "14 00 9400"},
		{"an overflowing run", "14 00 ffffffffffffffffff01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseBitmap(unhex(t, tt.hex), 20*GrainSize); !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %v", tt.hex, err)
			}
		})
	}
}

func TestBitmapCodecRandom(t *testing.T) {
	r := newRand(t)
	for range 400 {
		b, _ := randomBitmap(r, 1+r.Int64N(300))
		p := b.AppendTo(nil)
		if most := int(b.Grains()+7)/8 + 11; len(p) > most {
			t.Fatalf("%d bytes for %d grains, at most %d", len(p), b.Grains(), most)
		}
		mustFailShort(t, p, func(p []byte) error {
			got, err := ParseBitmap(p, b.size)
			if err == nil && !slices.Equal(got.words, b.words) {
				t.Fatalf("% x: got %x, want %x", p, got.words, b.words)
			}
			return err
		})
	}
}

// FuzzParseBitmap: what parses is canonical, and memory is that of the disk.
func FuzzParseBitmap(f *testing.F) {
	f.Add([]byte{0, 0}, uint16(0))
	f.Add([]byte{0x64, 0, 3, 1, 0x54, 9}, uint16(100))
	f.Add([]byte{0x14, 1, 0x2a, 0, 8}, uint16(20))
	f.Fuzz(func(t *testing.T, p []byte, grains uint16) {
		b, err := ParseBitmap(p, int64(grains)*GrainSize)
		if err != nil {
			return
		}
		if got := b.AppendTo(nil); !bytes.Equal(got, p) {
			t.Fatalf("% x: appends as % x", p, got)
		}
		if b.Grains() != int64(grains) || cap(b.words) > int(grains)/64+1 {
			t.Fatalf("% x: %d grains in %d words for %d", p, b.Grains(), cap(b.words), grains)
		}
		n := int64(0)
		for lo, hi := range b.Runs() {
			n += hi - lo
		}
		if n != b.Count() {
			t.Fatalf("% x: runs of %d, %d set", p, n, b.Count())
		}
	})
}
