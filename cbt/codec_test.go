package cbt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"runtime"
	"testing"
)

// unhex is the bytes of hexadecimal text in which spaces are free.
func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mustFailShort fails the test if a proper prefix of b, or b and one more byte,
// parses, or fails with another error than ErrFormat.
func mustFailShort(t *testing.T, b []byte, parse func([]byte) error) {
	t.Helper()
	if err := parse(b); err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	for n := range b {
		if err := parse(b[:n:n]); !errors.Is(err, ErrFormat) {
			t.Fatalf("prefix of %d bytes of % x: %v", n, b, err)
		}
	}
	if err := parse(append(bytes.Clone(b), 0)); !errors.Is(err, ErrFormat) {
		t.Fatalf("% x and a zero byte: %v", b, err)
	}
}

func TestMapCodecGolden(t *testing.T) {
	const size = 1 << 30
	for _, tt := range []struct {
		name string
		m    Map
		hex  string
	}{
		{"empty", Map{}, "00"},
		{"first byte", mapOf(0, 1), "01 00 00"},
		{"one grain", mapOf(GrainSize, GrainSize), "01 808004 ffff03"},
		{"a gap of one byte", mapOf(0, 1, 2, 1), "02 00 00 00 00"},
		{"three", mapOf(0, 1, 70000, 10, 5*GrainSize, 2*GrainSize), "03 00 00 eea204 09 85dd0f ffff07"},
		{"whole disk", mapOf(0, size), "01 00 ffffffff03"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := unhex(t, tt.hex)
			if got := tt.m.AppendTo([]byte("x")); string(got) != "x"+string(want) {
				t.Errorf("%v: got % x, want x and % x", tt.m.ext, got, want)
			}
			if m, err := ParseMap(want, size, 3); err != nil || !m.Equal(tt.m) || m.Len() != tt.m.Len() {
				t.Errorf("% x: got %v, %v", want, m.ext, err)
			}
			mustFailShort(t, want, func(b []byte) error { _, err := ParseMap(b, size, 3); return err })
		})
	}
}

func TestParseMapRefuses(t *testing.T) {
	for _, tt := range []struct{ name, hex string }{
		{"nothing", ""},
		{"more extents than allowed", "04 0000 0000 0000 0000"},
		{"more extents than bytes", "03 0000 0000"},
		{"a count of 2^63", "80808080808080808001 0000"},
		{"a count over 64 bits", "ffffffffffffffffff7f"},
		{"count not shortest", "8000"},
		{"gap not shortest", "01 8000 00"},
		{"length not shortest", "01 00 8000"},
		{"beyond the disk", "01 00 64"},
		{"starts at the end", "01 64 00"},
		{"starts beyond", "01 65 00"},
		{"the second starts at the end", "02 00 62 00 00"},
		{"a gap that would overflow", "02 00 00 ffffffffffffffffff01 00"},
		{"a length that would overflow", "01 00 ffffffffffffffffff01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if m, err := ParseMap(unhex(t, tt.hex), 100, 3); !errors.Is(err, ErrFormat) {
				t.Errorf("%s: got %v, %v", tt.hex, m.ext, err)
			}
		})
	}
	if _, err := ParseMap([]byte{0}, -5, -5); err == nil {
		t.Error("a negative limit lets an empty map in") // a caller's bug, kept closed
	}
}

func TestMapCodecRandom(t *testing.T) {
	r := newRand(t)
	for range 300 {
		n := 1 + r.IntN(300)
		unit := int64(1) << r.IntN(40)
		m, _ := randomMap(r, n)
		m = scaled(m, unit)
		parse := func(b []byte) error {
			got, err := ParseMap(b, int64(n)*unit, m.Count())
			if err == nil && !got.Equal(m) {
				t.Fatalf("% x: got %v, want %v", b, got.ext, m.ext)
			}
			return err
		}
		mustFailShort(t, m.AppendTo(nil), parse)
		if m.Empty() {
			continue
		}
		if _, err := ParseMap(m.AppendTo(nil), int64(n)*unit, m.Count()-1); err == nil {
			t.Fatalf("%v: parsed with a limit of %d extents", m.ext, m.Count()-1)
		}
		last := m.ext[m.Count()-1].End()
		if _, err := ParseMap(m.AppendTo(nil), last-1, m.Count()); err == nil {
			t.Fatalf("%v: parsed for a disk of %d bytes", m.ext, last-1)
		}
	}
}

// A few bytes must not make a decoder allocate for the numbers in them.
func TestParseMapAllocation(t *testing.T) {
	b := unhex(t, "ffffff7f 00 00 00 00")
	if got := allocated(func() { ParseMap(b, math.MaxInt64, math.MaxInt) }); got > 1<<20 {
		t.Errorf("% x: %d bytes allocated", b, got)
	}
}

// allocated is about how many bytes f allocates; other goroutines count as well.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzParseMap: what parses is canonical, within the disk, and no larger in
// memory than eight times the input.
func FuzzParseMap(f *testing.F) {
	f.Add([]byte{0}, int64(100))
	f.Add([]byte{3, 0, 0, 0xee, 0xa2, 4, 9, 0x85, 0xdd, 0xf, 0xff, 0xff, 7}, int64(1<<30))
	f.Add([]byte{2, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0}, int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		const most = 1000
		m, err := ParseMap(b, size, most)
		if err != nil {
			return
		}
		if got := m.AppendTo(nil); !bytes.Equal(got, b) {
			t.Fatalf("% x: appends as % x", b, got)
		}
		if m.Count() > most || 16*cap(m.ext) > 8*len(b) {
			t.Fatalf("% x: %d extents, room for %d", b, m.Count(), cap(m.ext))
		}
		if !m.Empty() && !m.Clip(Extent{Len: size}).Equal(m) {
			t.Fatalf("% x: %v leaves the disk of %d", b, m.ext, size)
		}
		again := mapOf()
		for e := range m.All() {
			again.Add(e)
		}
		if !again.Equal(m) || again.Len() != m.Len() {
			t.Fatalf("% x: %v is not sorted, disjoint and merged", b, m.ext)
		}
	})
}
