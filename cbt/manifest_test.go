package cbt

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// manifestOf is the manifest of the bytes.
func manifestOf(p []byte) Manifest {
	m := Manifest{Size: int64(len(p)), Digests: make([]Digest, Grains(int64(len(p))))}
	h := NewHasher()
	for i := range m.Digests {
		e := Grain(int64(i), m.Size)
		h.Sum(p[e.Off:e.End()], &m.Digests[i])
	}
	return m
}

func TestManifestDiff(t *testing.T) {
	r := newRand(t)
	for range 20 {
		p := make([]byte, 1+r.IntN(30*GrainSize))
		a := manifestOf(p)
		want := NewBitmap(a.Size)
		for range r.IntN(6) {
			i := r.IntN(len(p))
			p[i]++
			want.Set(int64(i) / GrainSize)
		}
		d, err := a.Diff(manifestOf(p))
		if err != nil || !d.Equal(want.Map()) {
			t.Fatalf("got %v, %v, want %v", d.ext, err, want.Map().ext)
		}
		if d, err := a.Diff(a); err != nil || !d.Empty() {
			t.Fatalf("a manifest differs from itself: %v, %v", d.ext, err)
		}
	}
}

func TestManifestRefuses(t *testing.T) {
	whole := manifestOf(make([]byte, 2*GrainSize))
	short := Manifest{Size: whole.Size, Digests: whole.Digests[:1]}
	for name, x := range map[string]struct {
		a, b Manifest
		want error
	}{
		"size":       {whole, manifestOf(make([]byte, 2*GrainSize-1)), ErrBounds},
		"short":      {whole, short, ErrIncomplete},
		"both short": {short, short, ErrIncomplete},
		"negative":   {Manifest{Size: -1}, Manifest{Size: -1}, ErrIncomplete},
	} {
		if _, err := x.a.Diff(x.b); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	if _, err := short.Root(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("root of a short manifest: %v", err)
	}
	if b, err := short.AppendTo([]byte("x")); !errors.Is(err, ErrIncomplete) || string(b) != "x" {
		t.Errorf("encoding of a short manifest: % x, %v", b, err)
	}
}

func TestManifestGolden(t *testing.T) {
	zero, tail := ZeroDigest(GrainSize).String(), ZeroDigest(1).String()
	for _, tt := range []struct {
		name string
		size int
		hex  string
	}{
		{"empty disk", 0, "48424d46 01 0000000000000000 " +
			"e7f0c9984e4789ad226d19b9fec30e5bc6aa537fca00ab33b703ae6ef7e3fa72"},
		{"one zero grain", GrainSize, "48424d46 01 0000000000010000 " + zero +
			"1890580bae6797c397b006ab51df698cb1485e44ce36543b48bc8486f20a1e20"},
		{"5000 zero grains and a byte", 5000*GrainSize + 1, "48424d46 01 0000000013880001 " +
			string(bytes.Repeat([]byte(zero), 5000)) + tail +
			"b45dbdb6db626f5a1056a881840b125739dc6626cc0a4f7b402923a8959d8697"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := unhex(t, tt.hex)
			m, err := ParseManifest(want)
			if err != nil || m.Size != int64(tt.size) || int64(len(m.Digests)) != Grains(m.Size) {
				t.Fatalf("size %d, %d digests, %v", m.Size, len(m.Digests), err)
			}
			if got, err := m.AppendTo(nil); err != nil || !bytes.Equal(got, want) {
				t.Errorf("appends as other bytes: %v", err)
			}
		})
	}
}

func TestManifestCodec(t *testing.T) {
	r := newRand(t)
	for range 10 {
		p := make([]byte, r.IntN(5*GrainSize))
		for i := range p {
			p[i] = byte(r.Int())
		}
		m := manifestOf(p)
		b, err := m.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		parse := func(b []byte) error {
			got, err := ParseManifest(b)
			if err == nil && (got.Size != m.Size || !slices.Equal(got.Digests, m.Digests)) {
				t.Fatalf("%d bytes: parses as another manifest", len(b))
			}
			return err
		}
		mustFailShort(t, b, parse)
		mustFailFlipped(t, r, b, parse)
	}
}

// mustFailFlipped fails the test if b parses with a bit flipped.
func mustFailFlipped(t *testing.T, r *rand.Rand, b []byte, parse func([]byte) error) {
	t.Helper()
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 1 << r.IntN(8)
		if err := parse(c); !errors.Is(err, ErrFormat) {
			t.Fatalf("byte %d is %#x, not %#x: %v", i, c[i], b[i], err)
		}
	}
}

// A header that claims a large disk must not cost memory.
func TestParseManifestAllocation(t *testing.T) {
	b := append([]byte("HBMF\x01\x7f\xff\xff\xff\xff\xff\xff\xff"), make([]byte, 64)...)
	if got := allocated(func() { ParseManifest(b) }); got > 1<<20 { // what else runs allocates too; a digest each would be 2^52 bytes
		t.Errorf("%d bytes allocated", got)
	}
}

// FuzzParseManifest: what parses is canonical and its root is its root. The
// fuzzer cannot find roots, so the test also appends the one that fits.
func FuzzParseManifest(f *testing.F) {
	for _, size := range []int{0, 1, GrainSize + 1} {
		b, err := manifestOf(make([]byte, size)).AppendTo(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkManifest(t, b)
		if len(b) < manifestHead {
			return
		}
		n := (len(b) - manifestHead) / DigestSize
		m := Manifest{Size: int64(n) * GrainSize, Digests: make([]Digest, n)}
		for i := range m.Digests {
			copy(m.Digests[i][:], b[manifestHead+i*DigestSize:])
		}
		good, err := m.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !checkManifest(t, good) {
			t.Fatalf("% x does not parse", good)
		}
	})
}

// checkManifest reports whether b parses, after checking what it parses as.
func checkManifest(t *testing.T, b []byte) bool {
	t.Helper()
	m, err := ParseManifest(b)
	if err != nil {
		return false
	}
	if got, err := m.AppendTo(nil); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("% x: appends as % x, %v", b, got, err)
	}
	if cap(m.Digests)*DigestSize > len(b) {
		t.Fatalf("%d bytes: room for %d digests", len(b), cap(m.Digests))
	}
	return true
}
