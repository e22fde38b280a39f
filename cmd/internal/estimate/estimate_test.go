package estimate

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// image is a disk in memory; grains that are all zeros are holes.
type image struct {
	b   []byte
	bad int64 // offset of a grain that cannot be read, plus 1
}

func (m image) Size() int64 { return int64(len(m.b)) }

func (m image) ReadAt(p []byte, off int64) (int, error) {
	if m.bad > 0 && off == m.bad-1 {
		return 0, syscall.EIO
	}
	return bytes.NewReader(m.b).ReadAt(p, off)
}

func (m image) NextData(off int64) (cbt.Extent, error) {
	for ; off < m.Size(); off = (off/cbt.GrainSize + 1) * cbt.GrainSize {
		end := min((off/cbt.GrainSize+1)*cbt.GrainSize, m.Size())
		if !cbt.IsZero(m.b[off:end]) {
			return cbt.Extent{Off: off, Len: end - off}, nil
		}
	}
	return cbt.Extent{}, io.EOF
}

func grainsOf(m []byte, list ...int) {
	for _, g := range list {
		for i := g * cbt.GrainSize; i < min(len(m), (g+1)*cbt.GrainSize); i++ {
			m[i] = byte(i>>3) | 1
		}
	}
}

// The bounds are counted by hand.
func TestBounds(t *testing.T) {
	const grains = 64
	const g = cbt.GrainSize
	src := make([]byte, grains*g-100) // the last grain is short
	grainsOf(src, 1, 2, 3, 10, 63)
	dst := make([]byte, len(src)+5)
	grainsOf(dst, 1, 2, 20)
	hint := cbt.Hint{Provider: "p", Size: int64(len(src)), Trust: cbt.Exact, Areas: []cbt.Extent{{Off: 2*g + 5, Len: g}, {Off: 30 * g, Len: 1}}}
	few := cbt.Sampling{Every: 1 << 30, Least: 1}
	for _, c := range []struct {
		name string
		r    Request
		want Estimate
	}{
		{"no target", Request{Source: image{b: src}}, Estimate{Data: 5*g - 100, ReadMax: 5*g - 100, Compared: 64*g - 100, SendMax: 5*g - 100, Candidates: 5, Wire: Bounds{Likely: 5*g - 100, High: 5*g - 100 + 5*100}}},
		{"all sampled", Request{Source: image{b: src}, Target: image{b: dst}, Sample: 1000}, Estimate{
			Data: 5*g - 100, ReadMax: 5*g - 100, Compared: 64*g - 100, SendMax: 5*g - 100, Candidates: 6, Sampled: 6,
			Differing: Bounds{4*g - 66, 4*g - 66, 4*g - 66, true},
		}},
		{"equal", Request{Source: image{b: src}, Target: image{b: src}, Sample: 1000}, Estimate{
			Data: 5*g - 100, ReadMax: 5*g - 100, Compared: 64*g - 100, SendMax: 5*g - 100, Candidates: 5, Sampled: 5, Differing: Bounds{0, 0, 0, true},
		}},
		{"hint", Request{Source: image{b: src}, Target: image{b: dst}, Hint: &hint, Sample: 1000, Sampling: few}, Estimate{
			Data: 5*g - 100, ReadMax: 3*g - 100, Compared: 6*g - 100, SendMax: 2 * g, Candidates: 2, Sampled: 2, Hinted: true, Differing: Bounds{g, g, g, true},
		}},
		{"bad sector", Request{Source: image{b: src, bad: 1 + g}, Target: image{b: dst}, Sample: 1000}, Estimate{
			Data: 5*g - 100, ReadMax: 5*g - 100, Compared: 64*g - 100, SendMax: 5*g - 100, Candidates: 6, Sampled: 6, Unreadable: 1,
			Differing: Bounds{5*g - 83, 5*g - 83, 5*g - 83, true},
		}},
	} {
		got, err := Make(t.Context(), c.r)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		near := func(a, b Bounds) bool {
			off := func(x, y int64) bool { return math.Abs(float64(x-y)) <= 100 } // the short grain weighs as a whole one
			return off(a.Low, b.Low) && off(a.Likely, b.Likely) && off(a.High, b.High) && a.Known == b.Known
		}
		w := c.want
		if got.Data != w.Data || got.ReadMax != w.ReadMax || got.SendMax != w.SendMax || got.Candidates != w.Candidates ||
			got.Sampled != w.Sampled || got.Unreadable != w.Unreadable || got.Hinted != w.Hinted || got.Compared < w.Compared-2*g || got.Compared > w.Compared+2*g ||
			!near(got.Differing, w.Differing) || w.Wire.High > 0 && got.Wire != w.Wire {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, w)
		}
		if got.Total != int64(len(src)) {
			t.Errorf("%s: total %d", c.name, got.Total)
		}
	}
	if _, err := Make(t.Context(), Request{Source: image{b: dst}, Target: image{b: src}}); err == nil {
		t.Error("a target that is too small has an estimate")
	}
}

// A sample of a quarter finds the truth within its bounds in nearly all draws.
func TestSampleIsWithinItsBounds(t *testing.T) {
	const grains = 256
	missed := 0
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 7))
		src := make([]byte, grains*cbt.GrainSize+int(seed)) // the size seeds the draw
		for i := 0; i < len(src); i += 512 {
			src[i] = byte(rng.Uint32()) | 1
		}
		dst := bytes.Clone(src)
		differ := int64(0)
		for g := range grains {
			if rng.IntN(10) < 3 {
				dst[g*cbt.GrainSize+9]++
				differ++
			}
		}
		e, err := Make(t.Context(), Request{Source: image{b: src}, Target: image{b: dst}, Sample: 64})
		if err != nil || e.Sampled != 64 {
			t.Fatalf("%+v, %v", e, err)
		}
		if truth := differ * cbt.GrainSize; truth < e.Differing.Low || truth > e.Differing.High {
			missed++
		}
		if e.Ratio > 0.2 || e.Ratio <= 0 {
			t.Errorf("ratio %v of what is nearly all zeros", e.Ratio)
		}
	}
	if missed > 3 {
		t.Errorf("%d of 20 samples are beside the truth", missed)
	}
}

// Against the tables of Clopper and Pearson.
func TestInterval(t *testing.T) {
	for _, c := range []struct {
		k, n      int64
		low, high float64
	}{{0, 10, 0, 0.3085}, {1, 10, 0.0025, 0.4450}, {5, 10, 0.1871, 0.8129}, {10, 10, 0.6915, 1}, {50, 100, 0.3983, 0.6017}, {0, 1000, 0, 0.00368}} {
		low, high := Interval(c.k, c.n, 1<<40)
		if math.Abs(low-c.low) > 0.0001 || math.Abs(high-c.high) > 0.0001 {
			t.Errorf("%d in %d: %.4f to %.4f, want %.4f to %.4f", c.k, c.n, low, high, c.low, c.high)
		}
	}
	if low, high := Interval(3, 10, 10); low != 0.3 || high != 0.3 {
		t.Errorf("all of it was seen, and it is %v to %v", low, high)
	}
}
