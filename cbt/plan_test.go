package cbt

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestPlanHint(t *testing.T) {
	r := newRand(t)
	for range 300 {
		n := 1 + r.IntN(400)
		hint, _ := randomMap(r, n)
		hint = scaled(hint, GrainSize/4)
		size := int64(n) * (GrainSize / 4)
		every := 1 + r.Int64N(20)
		seed := r.Uint64()
		sampling := Sampling{Every: every, Least: 1, Seed: seed}
		p := PlanHint(size, told(size, hint), nil, sampling)

		if p.Mode != ModeHint || p.Size != size || p.Reason == "" {
			t.Fatalf("plan %v of %d bytes: %q", p.Mode, p.Size, p.Reason)
		}
		changed := hint.AlignGrains(size)
		if !p.Read.Equal(changed.Union(p.Sampled)) || !changed.Intersect(p.Sampled).Empty() {
			t.Fatalf("hint %v, sample %v: reads %v", changed.ext, p.Sampled.ext, p.Read.ext)
		}
		if !p.Read.Equal(p.Read.AlignGrains(size)) {
			t.Fatalf("reads %v: not whole grains of %d bytes", p.Read.ext, size)
		}
		if s := p.Skipped(); s.Len()+p.Read.Len() != size || !s.Intersect(p.Read).Empty() {
			t.Fatalf("reads %v, skips %v", p.Read.ext, s.ext)
		}
		checkSample(t, p, changed.Complement(size), every)
		if q := PlanHint(size, told(size, hint), nil, sampling); q.Digest() != p.Digest() {
			t.Fatalf("seed %d: two plans", seed)
		}
	}
}

// told is a tracker's answer of just m.
func told(size int64, m Map) *Hint {
	return &Hint{Provider: "test", Size: size, Areas: slices.Collect(m.All()), Trust: Exact}
}

// checkSample: one grain of every stride of rest is in the sample, and nothing
// else but the first and the last grain.
func checkSample(t *testing.T, p Plan, rest Map, every int64) {
	t.Helper()
	i, inStride, edge := int64(0), 0, 0
	check := func() {
		if inStride < 1 || inStride > 1+edge {
			t.Fatalf("%d samples before grain %d of the rest, one in %d", inStride, i, every)
		}
		inStride, edge = 0, 0
	}
	for g := range rest.Grains(p.Size) {
		if i%every == 0 && i > 0 {
			check()
		}
		if g.Off == 0 || g.End() == p.Size {
			edge++
			if !p.Sampled.Covers(g) {
				t.Fatalf("grain at %d of %d bytes is not in the sample", g.Off, p.Size)
			}
		}
		if p.Sampled.Covers(g) {
			inStride++
		}
		i++
	}
	if i > 0 {
		check()
	} else if !p.Sampled.Empty() {
		t.Fatalf("%v sampled of nothing", p.Sampled.ext)
	}
}

// Whatever is wrong with a hint, the plan is full and says so: nothing wrong
// ever reads less.
func TestPlanFallsBack(t *testing.T) {
	const size = 40*GrainSize + 100
	sampling := Sampling{Every: 8, Seed: 7}
	with := func(change func(h *Hint)) Plan {
		h := told(size, mapOf(0, 1))
		change(h)
		return PlanHint(size, h, nil, sampling)
	}
	areas := func(list ...Extent) Plan { return with(func(h *Hint) { h.Areas, h.Granularity = list, 512 }) }
	for _, tt := range []struct {
		name   string
		plan   Plan
		reason string
	}{
		{"asked for", PlanFull(size), "asked for"},
		{"no hint", PlanHint(size, told(size, mapOf(0, 1)), errors.New("change ID is gone"), sampling), "no hint: change ID is gone"},
		{"no tracker", PlanHint(size, nil, nil, sampling), "nothing tracks"},
		{"beyond", areas(Extent{0, 1}, Extent{size - 1, 513}), "bad hint"},
		{"beyond in the middle", areas(Extent{size - 1, 514}, Extent{0, 1}), "bad hint"},
		{"behind", areas(Extent{size, 1}), "bad hint"},
		{"far beyond", areas(Extent{math.MaxInt64 - 1, 1}), "bad hint"},
		{"overflow", areas(Extent{1, math.MaxInt64}), "bad hint"},
		{"before", areas(Extent{-1, 1}), "bad hint"},
		{"empty area", areas(Extent{0, 0}), "bad hint"},
		{"another size", with(func(h *Hint) { h.Size++ }), "tracked a disk of"},
		{"granularity", with(func(h *Hint) { h.Granularity = -1 }), "granularity"},
		{"distrusted", with(func(h *Hint) { h.Trust, h.Remark = Distrusted, "it was in use" }), "not to be trusted: it was in use"},
		{"unknown trust", with(func(h *Hint) { h.Trust = 9 }), "not to be trusted"},
		{"sampled less than never", PlanHint(size, told(size, mapOf(0, 1)), nil, Sampling{Every: -1}), "without a sample"},
		{"fewer than none", PlanHint(size, told(size, mapOf(0, 1)), nil, Sampling{Least: -1}), "without a sample"},
	} {
		p := tt.plan
		if p.Mode != ModeFull || !strings.Contains(p.Reason, tt.reason) {
			t.Errorf("%s: %v, %q", tt.name, p.Mode, p.Reason)
		}
		if !p.Read.Equal(mapOf(0, size)) || !p.Sampled.Empty() || !p.Skipped().Empty() {
			t.Errorf("%s: reads %v, sample %v", tt.name, p.Read.ext, p.Sampled.ext)
		}
		if p.Digest() != PlanFull(size).Digest() {
			t.Errorf("%s: the reason is in the digest", tt.name)
		}
	}
	if p := PlanFull(-1); !p.Read.Empty() {
		t.Errorf("a disk of -1 bytes: reads %v", p.Read.ext)
	}
}

func TestPlanSampleEdges(t *testing.T) {
	const size = 40*GrainSize + 100
	for _, every := range []int64{1, 2, 41, 42, math.MaxInt64} {
		least, most := (41+min(every, 41)-1)/min(every, 41), int64(0)
		most = min(41, least+2) // the first and the last grain are always there
		n := int64(0)
		p := PlanHint(size, told(size, Map{}), nil, Sampling{Every: every, Least: 1, Seed: 3})
		for range p.Sampled.Grains(size) {
			n++
		}
		if n < least || n > most || p.Mode != ModeHint {
			t.Errorf("one in %d of 41 grains: %d, want %d to %d", every, n, least, most)
		}
	}
	if p := PlanHint(size, told(size, mapOf(0, size)), nil, Sampling{}); !p.Sampled.Empty() || p.Read.Len() != size {
		t.Errorf("hint of all: sample %v", p.Sampled.ext)
	}
}

// A hint that lost a stretch of changes as long as two strides is always caught
// (facts/reliability.md, B2).
func TestPlanFindsLies(t *testing.T) {
	r := newRand(t)
	for range 300 {
		const grains, every = 500, 16
		lost := Extent{Off: r.Int64N(grains-2*every) * GrainSize, Len: 2 * every * GrainSize}
		hint := mapOf(r.Int64N(grains)*GrainSize, 1).Subtract(mapOf(lost.Off, lost.Len))
		p := PlanHint(grains*GrainSize, told(grains*GrainSize, hint), nil, Sampling{Every: every, Seed: r.Uint64(), Least: 1})
		if p.Sampled.Clip(lost).Empty() {
			t.Fatalf("%v lost and not sampled: %v", lost, p.Sampled.ext)
		}
	}
}

// The digests and the sample were computed by a second implementation.
func TestPlanGolden(t *testing.T) {
	const size = 40*GrainSize + 100
	hint := PlanHint(size, told(size, mapOf(70000, 10, 5*GrainSize, 2*GrainSize)), nil, Sampling{Every: 8, Least: 1, Seed: 7})
	var want Map
	for _, g := range []int64{0, 10, 15, 21, 30, 39, 40} {
		want.Add(Grain(g, size))
	}
	if !hint.Sampled.Equal(want) {
		t.Errorf("sample: got %v, want %v", hint.Sampled.ext, want.ext)
	}
	for _, tt := range []struct {
		name string
		p    Plan
		want string
	}{
		{"full", PlanFull(16*GrainSize + 512), "18012c88bb3946da87f6e7e57f6ab36017595cacd76f15216790a71b59246ad8"},
		{"no disk", PlanFull(0), "9db7812ff321608d1375b4d583638a0bdb527b357da0c07d824d733c91be5437"},
		{"hint", hint, "8a3570f85fea80c9bfcfa06aee1ff9725e43c87cb596adc1f16e25e92f9b946a"},
	} {
		if got := tt.p.Digest(); got.String() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, got, tt.want)
		}
	}
	// The sequence published with SplitMix64 for this seed.
	for k, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423} {
		if got := draw(1234567, uint64(k)); got != want {
			t.Errorf("draw %d: got %d, want %d", k, got, want)
		}
	}
}

// The least number of samples, and the default of both numbers.
func TestSampling(t *testing.T) {
	for _, tt := range []struct {
		s            Sampling
		grains, want int64
	}{
		{Sampling{}, 1 << 20, 256},
		{Sampling{}, 256 * 64, 256},
		{Sampling{}, 256*64 - 1, 255},
		{Sampling{}, 640, 10},
		{Sampling{}, 63, 1},
		{Sampling{}, 0, 1},
		{Sampling{Every: 16}, 1 << 20, 16},
		{Sampling{Every: 1000, Least: 1}, 5000, 1000},
		{Sampling{Every: 1000, Least: 10}, 5000, 500},
	} {
		if got := tt.s.every(tt.grains); got != tt.want {
			t.Errorf("%+v of %d grains: one in %d, want %d", tt.s, tt.grains, got, tt.want)
		}
	}
}

// What is only untidy is put in order and said; a tracker that rounds up at the
// end of the disk is clipped.
func TestPlanTidiesHint(t *testing.T) {
	const size = 10*GrainSize + 100
	h := &Hint{Provider: "nbd-bitmap", Since: "b0", Size: size, Granularity: 65536, Trust: OverReports, Remark: "slow", Areas: []Extent{
		{10 * GrainSize, 65536}, {5 * GrainSize, GrainSize}, {2 * GrainSize, 3 * GrainSize}, {3 * GrainSize, 1},
	}}
	p := PlanHint(size, h, nil, Sampling{Every: 100, Least: 1, Seed: 1})
	want := mapOf(2*GrainSize, 4*GrainSize, 10*GrainSize, 100)
	if got := p.Read.Subtract(p.Sampled); !got.Equal(want) || p.Mode != ModeHint {
		t.Errorf("%v reads %v, want %v (%s)", p.Mode, got.ext, want.ext, p.Reason)
	}
	if want := "nbd-bitmap b0, over-reports, 4 areas; 2 areas were out of order, 1 areas overlapped; slow"; p.Reason != want {
		t.Errorf("reason %q, want %q", p.Reason, want)
	}
	if h.Areas[0].Len != 65536 {
		t.Error("the tracker's answer was changed")
	}
}

// A hint in too many pieces is widened, never narrowed.
func TestPlanWidens(t *testing.T) {
	r := newRand(t)
	for range 100 {
		m, _ := randomMap(r, 300)
		m = scaled(m, GrainSize/4)
		const size = 300 * GrainSize / 4
		w := m.widen(BatchSize, size)
		if !m.Subtract(w).Empty() {
			t.Fatalf("%v widened to %v", m.ext, w.ext)
		}
		for e := range w.All() {
			if e.Off%BatchSize != 0 || e.End()%BatchSize != 0 && e.End() != size {
				t.Fatalf("%v widened to %v", m.ext, w.ext)
			}
		}
	}
	var hint Map
	const grains = 2*coarse + 8
	for g := int64(0); g < grains; g += 2 {
		hint.Add(Grain(g, grains*GrainSize))
	}
	p := PlanHint(grains*GrainSize, told(grains*GrainSize, hint), nil, Sampling{})
	if p.Read.Count() > 2 || !hint.Subtract(p.Read).Empty() || !strings.Contains(p.Reason, "widened") {
		t.Errorf("reads %d extents (%s)", p.Read.Count(), p.Reason)
	}
}

func TestModeString(t *testing.T) {
	for m, want := range map[Mode]string{ModeFull: "full", ModeHint: "hint", 0: "mode 0"} {
		if m.String() != want {
			t.Errorf("%d: %q, want %q", uint8(m), m, want)
		}
	}
}
