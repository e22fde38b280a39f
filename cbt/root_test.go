package cbt

import (
	"errors"
	"math"
	"testing"
)

// fold is a root with the digests added one by one.
func fold(size int64, digests ...Digest) *Root {
	r := NewRoot(size)
	for i := range digests {
		r.Add(&digests[i])
	}
	return r
}

// The roots here were computed by a second implementation of BLAKE3, from the
// definition in the package documentation. They must never change: roots are
// stored, and compared with those of other versions.
func TestRootGolden(t *testing.T) {
	var counting Digest
	for i := range counting {
		counting[i] = byte(i)
	}
	zero := ZeroDigest(GrainSize)
	long := NewRoot(5000*GrainSize + 1)
	long.AddZeros(5001)
	batch := NewRoot(1025 * GrainSize)
	batch.AddZeros(1025)
	for _, tt := range []struct {
		name string
		r    *Root
		want string
	}{
		{"empty disk", NewRoot(0), "e7f0c9984e4789ad226d19b9fec30e5bc6aa537fca00ab33b703ae6ef7e3fa72"},
		{"zero grain", fold(GrainSize, zero), "1890580bae6797c397b006ab51df698cb1485e44ce36543b48bc8486f20a1e20"},
		{
			"short tail", fold(2*GrainSize+512, counting, zero, ZeroDigest(512)),
			"72c90eabc79c5689daaa72d14bf392d4ace41b1b1c5412da6d1e995192b2a8d0",
		},
		{"5000 zero grains and a byte", long, "b45dbdb6db626f5a1056a881840b125739dc6626cc0a4f7b402923a8959d8697"},
		{"1025 zero grains", batch, "17e255de4add14ee146092b1b9883d0a7ab08dadb9ddafab53c881d32c087deb"},
	} {
		d, err := tt.r.Sum()
		if err != nil || d.String() != tt.want {
			t.Errorf("%s: got %v, %v, want %s", tt.name, d, err, tt.want)
		}
	}
}

// Roots of two sides that skipped the same grains are equal however the calls
// were cut, and no other: not with the grain compared, not with another one
// skipped, not with a digest in its place.
func TestRootAddSkipped(t *testing.T) {
	const size = 9*GrainSize + 5
	d := Digest{1}
	sum := func(steps ...any) Digest {
		t.Helper()
		r := NewRoot(size)
		for _, s := range steps {
			switch s := s.(type) {
			case int:
				r.AddSkipped(int64(s))
				r.Prefix() // disturbs nothing
			case Digest:
				r.Add(&s)
			default:
				r.AddZeros(1)
			}
		}
		got, err := r.Sum()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	zero := struct{}{}
	want := sum(3, d, zero, 5)
	if golden := "36e219d61c3d3a35c7c163db663f9ef6c8a42d72c3ba2c8d1e42abcf6e19ae73"; want.String() != golden { // b3sum's
		t.Errorf("got %v, want %s", want, golden)
	}
	if got := sum(1, 2, 0, d, zero, 4, 1); got != want {
		t.Errorf("cut otherwise: %v, want %v", got, want)
	}
	for name, got := range map[string]Digest{
		"compared":         sum(2, d, d, zero, 5),
		"zero instead":     sum(2, zero, d, zero, 5),
		"leaf as a digest": sum(2, skippedLeaf(), d, zero, 5),
		"one further":      sum(4, d, zero, 4),
		"none":             sum(d, d, d, d, zero, zero, zero, zero, zero, zero),
	} {
		if got == want {
			t.Errorf("%s: the same root", name)
		}
	}
	r := NewRoot(size)
	r.AddSkipped(11)
	if _, err := r.Sum(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("11 of 10 grains: %v", err)
	}
}

// AddZeros must be Add of zero digests, and neither Prefix, Sum nor Clone may
// disturb what follows: blake3's own Sum changes the state it sums.
func TestRootAddZeros(t *testing.T) {
	r := newRand(t)
	h := NewHasher()
	for range 60 {
		size := 1 + r.Int64N(6000*GrainSize)
		n := Grains(size)
		plain, fast := NewRoot(size), NewRoot(size)
		for fast.Grains() < n {
			if r.IntN(2) == 0 {
				var d Digest
				h.Sum([]byte{byte(r.Int())}, &d)
				plain.Add(&d)
				fast.Add(&d)
			} else {
				k := r.Int64N(n - fast.Grains() + 1)
				for range k {
					d := ZeroDigest(int(Grain(plain.Grains(), size).Len))
					plain.Add(&d)
				}
				fast.AddZeros(k)
			}
			if fast.Grains() != plain.Grains() {
				t.Fatalf("%d bytes: %d grains, want %d", size, fast.Grains(), plain.Grains())
			}
			if r.IntN(3) == 0 && fast.Prefix() != plain.Clone().Prefix() {
				t.Fatalf("%d bytes: prefixes of %d grains differ", size, fast.Grains())
			}
		}
		fast.AddZeros(0) // nothing, also behind the short tail
		want, err1 := plain.Sum()
		got, err2 := fast.Sum()
		again, err3 := fast.Sum()
		if got != want || again != want || err1 != nil || err2 != nil || err3 != nil {
			t.Fatalf("%d bytes: got %v, %v; %v, %v; want %v, %v", size, got, err2, again, err3, want, err1)
		}
	}
}

func TestRootIncomplete(t *testing.T) {
	d := ZeroDigest(GrainSize)
	const size = 2*GrainSize + 1
	for _, tt := range []struct {
		name   string
		size   int64
		fold   func(*Root)
		grains int64
	}{
		{"nothing", size, func(*Root) {}, 0},
		{"one short", size, func(r *Root) { r.AddZeros(2) }, 2},
		{"one more", size, func(r *Root) { r.AddZeros(3); r.Add(&d) }, 3},
		{"more zeros", size, func(r *Root) { r.Add(&d); r.AddZeros(3) }, 1},
		{"more zeros, then right", size, func(r *Root) { r.AddZeros(4); r.AddZeros(3) }, 3},
		{"fewer than none", size, func(r *Root) { r.AddZeros(-1); r.AddZeros(3) }, 3},
		{"far more", size, func(r *Root) { r.Add(&d); r.AddZeros(math.MaxInt64) }, 1},
		{"on an empty disk", 0, func(r *Root) { r.Add(&d) }, 0},
		{"a disk that cannot be", -1, func(*Root) {}, 0},
	} {
		r := NewRoot(tt.size)
		tt.fold(r)
		if _, err := r.Sum(); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := r.Clone().Sum(); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s, cloned: %v", tt.name, err)
		}
		if r.Grains() != tt.grains {
			t.Errorf("%s: %d grains, want %d", tt.name, r.Grains(), tt.grains)
		}
	}
}

// Every bit of the contents is in the root: order, size and each digest.
func TestRootDiffers(t *testing.T) {
	a, b := ZeroDigest(1), ZeroDigest(2)
	seen := map[Digest]string{}
	for name, r := range map[string]*Root{
		"a b":           fold(2*GrainSize, a, b),
		"b a":           fold(2*GrainSize, b, a),
		"a a":           fold(2*GrainSize, a, a),
		"a b, smaller":  fold(2*GrainSize-1, a, b),
		"a":             fold(GrainSize, a),
		"a of two":      fold(2*GrainSize, a),
		"nothing of it": fold(2 * GrainSize),
	} {
		d := r.Prefix()
		if other, ok := seen[d]; ok {
			t.Errorf("%q and %q have one root", name, other)
		}
		seen[d] = name
	}
}

func TestRootClone(t *testing.T) {
	a, b := ZeroDigest(1), ZeroDigest(2)
	r := fold(2*GrainSize, a)
	c := r.Clone()
	r.Add(&a)
	c.Add(&b)
	if r.Prefix() != fold(2*GrainSize, a, a).Prefix() || c.Prefix() != fold(2*GrainSize, a, b).Prefix() {
		t.Error("a clone and its original are not independent")
	}
}
