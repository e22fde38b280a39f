package cbt

import "testing"

// What is widened to fit covers what it was, in at most so many pieces.
func TestAtMost(t *testing.T) {
	r := newRand(t)
	for range 200 {
		m, _ := randomMap(r, 300)
		m = scaled(m, GrainSize/4)
		const size = 300 * GrainSize / 4
		for _, n := range []int{1, 2, 7, 1000} {
			w := m.AtMost(n, size)
			if w.Count() > n || !m.Subtract(w).Empty() || w.Len() > size {
				t.Fatalf("%v in at most %d pieces: %v", m.ext, n, w.ext)
			}
			if m.Count() <= n && !w.Equal(m) {
				t.Fatalf("%v was widened to %v without need", m.ext, w.ext)
			}
		}
	}
}

// A sample has the first and the last grain, one of each stride, and calls
// nothing unchanged.
func TestPlanSample(t *testing.T) {
	const size = 1000*GrainSize + 100
	p := PlanSample(size, Sampling{Every: 10, Least: 1, Seed: 3})
	if p.Mode != ModeHint || !p.Sampled.Empty() || !p.Read.Covers(Grain(0, size)) || !p.Read.Covers(Grain(1000, size)) {
		t.Fatalf("%+v", p)
	}
	for stride := range int64(100) {
		e := Extent{Off: stride * 10 * GrainSize, Len: 10 * GrainSize}
		if n := p.Read.Clip(e).Len() / GrainSize; n < 1 || n > 3 {
			t.Errorf("stride %d has %d grains", stride, n)
		}
	}
	if p.Digest() == PlanSample(size, Sampling{Every: 10, Least: 1, Seed: 4}).Digest() {
		t.Error("another seed draws the same")
	}
	for name, s := range map[string]Sampling{"every grain": {Every: 1, Least: 1}, "no sampling": {Every: -1}, "less than there are": {Every: 256, Least: 2000}} {
		if p := PlanSample(size, s); p.Mode != ModeFull || p.Read.Len() != size {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if p := PlanSample(0, Sampling{}); p.Mode != ModeFull {
		t.Errorf("an empty disk: %+v", p)
	}
}
