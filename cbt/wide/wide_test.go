package wide

import (
	"encoding/hex"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/zeebo/blake3"
)

// both runs f with the assembler, where there is one, and without.
func both(t *testing.T, f func(t *testing.T)) {
	t.Logf("here grains are hashed by %s", Name())
	if on {
		t.Run("wide", f)
	}
	defer func(was bool) { on = was }(on)
	on = false
	t.Run("library", f)
}

// counting is the input of the published test vectors.
func counting(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i % 251)
	}
	return p
}

func random(n int, seed uint64) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(p)
	return p
}

// check compares the digests of p and of its pieces with those of the library.
func check(t testing.TB, h *Hasher, p []byte) {
	t.Helper()
	var d [Size]byte
	h.Sum(p, &d)
	if want := blake3.Sum256(p); d != want {
		t.Fatalf("%s: digest of %d bytes: got %x, want %x", Name(), len(p), d, want)
	}
	if len(p) > GrainSize {
		return
	}
	sums := new([GrainPieces][Size]byte)
	for i := range sums {
		sums[i][0] = 0xaa
	}
	h.Pieces(p, sums)
	for i, got := range sums {
		var want [Size]byte
		if lo := i * PieceSize; lo < len(p) {
			want = blake3.Sum256(p[lo:min(lo+PieceSize, len(p))])
		}
		if got != want {
			t.Fatalf("%s: piece %d of %d bytes: got %x, want %x", Name(), i, len(p), got, want)
		}
	}
}

// Every length that may take a way of its own, and those beside it.
func TestLengths(t *testing.T) {
	both(t, func(t *testing.T) {
		all := counting(2*GrainSize + 1)
		h := New()
		for n := 0; n <= len(all); n++ {
			if r := n % 1024; r > 1 && r < 1023 && n%61 != 0 {
				continue
			}
			check(t, h, all[:n])
		}
	})
}

func TestContents(t *testing.T) {
	both(t, func(t *testing.T) {
		h := New()
		for seed := range uint64(64) {
			check(t, h, random(GrainSize, seed))
			check(t, h, random(GrainSize>>(seed%3), seed))
		}
		ones := make([]byte, GrainSize) // carries everywhere
		check(t, h, ones)
		for i := range ones {
			ones[i] = 0xff
		}
		check(t, h, ones)
	})
}

// Each bit of the grain has its place: one that is set in zeros tells words, lanes,
// blocks and chunks that were exchanged, or read twice.
func TestPlaces(t *testing.T) {
	both(t, func(t *testing.T) {
		h, p := New(), make([]byte, GrainSize)
		for i := 0; i < len(p); i += 4 {
			if testing.Short() && i%(4*37) != 0 {
				continue
			}
			p[i+i/4%4] = 1 << (i / 16 % 8)
			check(t, h, p)
			p[i+i/4%4] = 0
		}
	})
}

// These digests are what b3sum 1.2.0, the reference's program, says of the input of
// the published vectors: the library has no part in them.
func TestReference(t *testing.T) {
	both(t, func(t *testing.T) {
		h := New()
		for _, tt := range []struct {
			n    int
			want string
		}{
			{16384, "f875d6646de28985646f34ee13be9a576fd515f76b5b0a26bb324735041ddde4"},
			{32768, "162183d1f9184474f5a5c9e6224e66720cdb6523f822e52d9b1efa30893f48f9"},
			{49152, "88c8baf84eb0b231f985d2be3540430506a9280fd0ec4cec74524bbc33bbc5df"},
			{65535, "de7d0f4c044c56f56e0c5f7ab247be9491c4520e8688f0f0d25406f46fdfbd03"},
			{65536, "68d647e619a930e7b1082f74f334b0c65a315725569bdc123f0ee11881717bfe"},
		} {
			var d [Size]byte
			h.Sum(counting(tt.n), &d)
			if got := hex.EncodeToString(d[:]); got != tt.want {
				t.Errorf("%d bytes: got %s, want %s", tt.n, got, tt.want)
			}
		}
		sums := new([GrainPieces][Size]byte)
		h.Pieces(counting(GrainSize), sums)
		for i, want := range map[int]string{
			0:  "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969",
			1:  "535cf151d8b1d9c63d5ae6a37ef7771ccd6ac6d3582d4a76e3ff433e9daaf1cd",
			7:  "4131b2a9563771ed665791e54a7c750bf08ebdee7df93014dcf51fa66e03fc65",
			15: "7f20c255cdbd77bdfc7a4db05ef82e9526c8f1851fee049a1879c3b5243ac193",
		} {
			if got := hex.EncodeToString(sums[i][:]); got != want {
				t.Errorf("piece %d: got %s, want %s", i, got, want)
			}
		}
	})
}

func TestUnaligned(t *testing.T) {
	both(t, func(t *testing.T) {
		h, p := New(), random(GrainSize+130, 1)
		for off := range 130 {
			check(t, h, p[off:off+GrainSize])
		}
	})
}

// Neither a byte before nor one behind the input may be touched: pages that cannot be
// read lie there.
func TestPageEdge(t *testing.T) {
	page := syscall.Getpagesize()
	const room = 2 * GrainSize
	m, err := syscall.Mmap(-1, 0, page+room+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(m) }()
	in := m[page : page+room]
	copy(in, random(room, 2))
	for _, closed := range [][]byte{m[:page], m[page+room:]} {
		if err := syscall.Mprotect(closed, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	both(t, func(t *testing.T) {
		h := New()
		for _, n := range []int{1, PieceSize, GrainSize / 4, GrainSize / 2, GrainSize - 1, GrainSize} {
			check(t, h, in[:n])
			check(t, h, in[room-n:])
			check(t, h, in[room-n-1:room-1])
		}
	})
}

// The outputs end where they end.
func TestOutputs(t *testing.T) {
	both(t, func(t *testing.T) {
		h, p := New(), random(GrainSize, 3)
		var d [3][Size]byte
		var s [3][GrainPieces][Size]byte
		h.Sum(p, &d[1])
		h.Pieces(p, &s[1])
		if d[0] != d[2] || d[0] != ([Size]byte{}) || s[0] != s[2] || s[0] != ([GrainPieces][Size]byte{}) {
			t.Error("something beside a digest was written")
		}
	})
}

// Goroutines move between threads, grow their stacks and are stopped by the collector
// in the middle of it all: each has its own registers and stack.
func TestConcurrent(t *testing.T) {
	both(t, func(t *testing.T) {
		var wg sync.WaitGroup
		for seed := range uint64(8) {
			p := random(GrainSize, seed)
			want := blake3.Sum256(p)
			wg.Go(func() {
				h := New()
				var d [Size]byte
				for i := range 200 {
					if i%20 == 0 { // on a stack that is new, and small
						done := make(chan struct{})
						go func() { defer close(done); h.Sum(p, &d) }()
						<-done
					} else {
						h.Sum(p, &d)
					}
					if d != want {
						t.Errorf("seed %d, round %d: got %x, want %x", seed, i, d, want)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestAllocations(t *testing.T) {
	both(t, func(t *testing.T) {
		h, p := New(), random(GrainSize, 4)
		var d [Size]byte
		var s [GrainPieces][Size]byte
		for name, f := range map[string]func(){
			"Sum":        func() { h.Sum(p, &d) },
			"Sum tail":   func() { h.Sum(p[:777], &d) },
			"Pieces":     func() { h.Pieces(p, &s) },
			"short ones": func() { h.Pieces(p[:5000], &s) },
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%s allocates %v times", name, n)
			}
		}
	})
}

func TestName(t *testing.T) {
	seen := map[bool]string{on: Name()}
	defer func(was bool) { on = was }(on)
	on = false
	seen[on] = Name()
	if seen[false] == "AVX-512" || seen[true] != "" && seen[true] != "AVX-512" {
		t.Errorf("names: %v", seen)
	}
}

// FuzzSum compares with the library at an offset and a length of the fuzzer's choice,
// in contents that repeat its own.
func FuzzSum(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint8(0), uint32(GrainSize))
	f.Add([]byte("a grain of files"), uint8(63), uint32(GrainSize/2))
	f.Add([]byte{}, uint8(1), uint32(0))
	buf, h := make([]byte, 256+GrainSize+1), New()
	f.Fuzz(func(t *testing.T, seed []byte, off uint8, n uint32) {
		switch {
		case n%4 < 2: // half of them whole grains
			n = GrainSize
		default:
			n %= GrainSize + 2
		}
		p := buf[off:][:n]
		for i := range p {
			p[i] = byte(i >> 10)
			if len(seed) > 0 {
				p[i] ^= seed[i%len(seed)]
			}
		}
		check(t, h, p)
	})
}

// TestSane: assembler that computes something else is not used.
func TestSane(t *testing.T) {
	h := &Hasher{h: blake3.New()}
	library := func(p []byte, d *[Size]byte) { *d = blake3.Sum256(p) }
	pieces := func(p []byte, all *[GrainPieces][Size]byte) {
		for i := range all {
			all[i] = blake3.Sum256(p[i*PieceSize:][:PieceSize])
		}
	}
	wrongLast := func(p []byte, all *[GrainPieces][Size]byte) { pieces(p, all); all[15][31] ^= 1 }
	wrong := func(p []byte, d *[Size]byte) { library(p, d); d[0] ^= 0x80 }
	for name, c := range map[string]struct{ got, want bool }{
		"the library": {sane(library, pieces), true}, "a wrong digest": {sane(wrong, pieces), false}, "a wrong piece": {sane(library, wrongLast), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: sane %v", name, c.got)
		}
	}
	if able && !sane(h.tree.sum, h.tree.pieces) {
		t.Error("the assembler of this processor is wrong")
	}
}
