package cbt

import (
	"errors"
	"math"
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
		p := PlanHint(size, hint, nil, every, seed)

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
		if q := PlanHint(size, hint, nil, every, seed); q.Digest() != p.Digest() {
			t.Fatalf("seed %d: two plans", seed)
		}
	}
}

// checkSample: exactly one grain of every stride of rest is in the sample.
func checkSample(t *testing.T, p Plan, rest Map, every int64) {
	t.Helper()
	i, inStride := int64(0), 0
	for g := range rest.Grains(p.Size) {
		if i%every == 0 && i > 0 {
			if inStride != 1 {
				t.Fatalf("%d samples before grain %d of the rest, one in %d", inStride, i, every)
			}
			inStride = 0
		}
		if p.Sampled.Covers(g) {
			inStride++
		}
		i++
	}
	if i > 0 && inStride != 1 || i == 0 && !p.Sampled.Empty() {
		t.Fatalf("%d samples in the last stride of %d", inStride, i)
	}
}

// Whatever is wrong with a hint, the plan is full and says so: nothing wrong
// ever reads less.
func TestPlanFallsBack(t *testing.T) {
	const size = 40*GrainSize + 100
	for _, tt := range []struct {
		name   string
		plan   Plan
		reason string
	}{
		{"asked for", PlanFull(size), "asked for"},
		{"no hint", PlanHint(size, mapOf(0, 1), errors.New("change ID is gone"), 8, 7), "no hint: change ID is gone"},
		{"beyond", PlanHint(size, mapOf(0, 1, size-1, 2), nil, 8, 7), "bad hint"},
		{"far beyond", PlanHint(size, mapOf(math.MaxInt64-1, 1), nil, 8, 7), "bad hint"},
		{"never sampled", PlanHint(size, mapOf(0, 1), nil, 0, 7), "without a sample"},
		{"sampled less than never", PlanHint(size, mapOf(0, 1), nil, -1, 7), "without a sample"},
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
		want := (41 + every - 1) / every
		if every > 41 {
			want = 1
		}
		n := int64(0)
		p := PlanHint(size, Map{}, nil, every, 3)
		for range p.Sampled.Grains(size) {
			n++
		}
		if n != want || p.Mode != ModeHint {
			t.Errorf("one in %d of 41 grains: %d, want %d", every, n, want)
		}
	}
	if p := PlanHint(size, mapOf(0, size), nil, 4, 3); !p.Sampled.Empty() || p.Read.Len() != size {
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
		p := PlanHint(grains*GrainSize, hint, nil, every, r.Uint64())
		if p.Sampled.Clip(lost).Empty() {
			t.Fatalf("%v lost and not sampled: %v", lost, p.Sampled.ext)
		}
	}
}

// The digests and the sample were computed by a second implementation.
func TestPlanGolden(t *testing.T) {
	const size = 40*GrainSize + 100
	hint := PlanHint(size, mapOf(70000, 10, 5*GrainSize, 2*GrainSize), nil, 8, 7)
	var want Map
	for _, g := range []int64{10, 15, 21, 30, 39} {
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
		{"hint", hint, "e24c0044fa082102b9cf0a031e6a2db76ff6a467244ad63ac4abf15ca20b5859"},
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

func TestModeString(t *testing.T) {
	for m, want := range map[Mode]string{ModeFull: "full", ModeHint: "hint", 0: "mode 0"} {
		if m.String() != want {
			t.Errorf("%d: %q, want %q", uint8(m), m, want)
		}
	}
}
