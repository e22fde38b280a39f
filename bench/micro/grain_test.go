package micro

import (
	"strconv"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// BenchmarkZero is the test that comes before hashing, on a grain of zeros, which
// it has to read whole.
func BenchmarkZero(b *testing.B) {
	for _, size := range []int{4 << 10, cbt.GrainSize} {
		b.Run("size="+strconv.Itoa(size), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if !cbt.IsZero(p) {
					b.Fatal("zeros are not zero")
				}
			}
		})
	}
}

// BenchmarkHash is BLAKE3 with a hasher that is kept: of grains, and of 4 KiB.
func BenchmarkHash(b *testing.B) {
	for _, size := range []int{4 << 10, cbt.GrainSize} {
		b.Run("size="+strconv.Itoa(size), func(b *testing.B) {
			next := piecesOf(content(b, "random"), size)
			h := cbt.NewHasher()
			var d cbt.Digest
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				h.Sum(next(), &d)
			}
		})
	}
}

// BenchmarkHashLibrary is the same by the library alone, which package wide stands
// beside.
func BenchmarkHashLibrary(b *testing.B) {
	for _, size := range []int{4 << 10, cbt.GrainSize} {
		b.Run("size="+strconv.Itoa(size), func(b *testing.B) {
			next := piecesOf(content(b, "random"), size)
			h, out := blake3.New(), make([]byte, 0, cbt.DigestSize)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				h.Reset()
				_, _ = h.Write(next()) // never fails
				out = h.Sum(out[:0])
			}
		})
	}
}

// BenchmarkHashHot is BLAKE3 of one grain that stays in the first two caches.
func BenchmarkHashHot(b *testing.B) {
	p := content(b, "random")[:cbt.GrainSize]
	h := cbt.NewHasher()
	var d cbt.Digest
	b.SetBytes(cbt.GrainSize)
	b.ReportAllocs()
	for b.Loop() {
		h.Sum(p, &d)
	}
}

// BenchmarkSummer sums the pieces of grains, as refinement does.
func BenchmarkSummer(b *testing.B) {
	next := piecesOf(content(b, "random"), cbt.GrainSize)
	m := wire.NewSummer()
	var sums [wire.GrainParts]wire.PartSum
	b.SetBytes(cbt.GrainSize)
	b.ReportAllocs()
	for b.Loop() {
		m.Sum(next(), &sums)
	}
}

// BenchmarkKeyed is the keyed hash of 80 bytes that binds a record to its place.
func BenchmarkKeyed(b *testing.B) {
	h, err := blake3.NewKeyed(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	in, out := make([]byte, 80), make([]byte, 0, 32)
	b.ReportAllocs()
	for b.Loop() {
		h.Reset()
		_, _ = h.Write(in) // never fails
		out = h.Sum(out[:0])
	}
}

// BenchmarkRoot adds digests to a root, as both ends do for each grain.
func BenchmarkRoot(b *testing.B) {
	r := cbt.NewRoot(1 << 60)
	var d cbt.Digest
	b.ReportAllocs()
	for b.Loop() {
		r.Add(&d)
	}
}

// BenchmarkCompress compresses grains; what does not shrink by a sixteenth is given
// up, as it is on the way. Ratio is input by output.
func BenchmarkCompress(b *testing.B) {
	for _, kind := range kinds {
		b.Run("encoder=pierrec/content="+kind.name, func(b *testing.B) {
			p := content(b, kind.name)
			var c lz4.Compressor
			compress(b, p, func(dst, src []byte) int {
				n, err := c.CompressBlock(src, dst)
				if err != nil {
					return 0
				}
				return n
			})
		})
	}
}

// compress runs encode, which gives the length of the block in dst, or 0.
func compress(b *testing.B, p []byte, encode func(dst, src []byte) int) {
	next := piecesOf(p, cbt.GrainSize)
	dst := make([]byte, cbt.GrainSize-cbt.GrainSize/16)
	var in, out int64
	b.SetBytes(cbt.GrainSize)
	b.ReportAllocs()
	for b.Loop() {
		g := next()
		n := encode(dst, g)
		if n == 0 {
			n = len(g)
		}
		in, out = in+int64(len(g)), out+int64(n)
	}
	b.ReportMetric(float64(in)/float64(out), "ratio")
}

// BenchmarkExpand expands grains.
func BenchmarkExpand(b *testing.B) {
	b.Run("decoder=pierrec/content=files", func(b *testing.B) {
		next := piecesOf(content(b, "files"), cbt.GrainSize)
		var blocks [][]byte
		for range 64 {
			dst := make([]byte, lz4.CompressBlockBound(cbt.GrainSize))
			n, err := lz4.CompressBlock(next(), dst, nil)
			if err != nil || n == 0 {
				b.Fatalf("%d bytes: %v", n, err)
			}
			blocks = append(blocks, dst[:n])
		}
		dst := make([]byte, cbt.GrainSize)
		i := 0
		b.SetBytes(cbt.GrainSize)
		b.ReportAllocs()
		for b.Loop() {
			if n, err := lz4.UncompressBlock(blocks[i%len(blocks)], dst); err != nil || n != len(dst) {
				b.Fatalf("%d bytes: %v", n, err)
			}
			i++
		}
	})
}
