package result

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{9, 1, 5}, Spread{5, 1, 9}},
		{[]float64{4, 1, 9, 2}, Spread{3, 1, 9}},
	} {
		before := append([]float64(nil), c.in...)
		if got := SpreadOf(c.in); got != c.want {
			t.Errorf("SpreadOf(%v) = %v, want %v", c.in, got, c.want)
		}
		if !reflect.DeepEqual(before, append([]float64(nil), c.in...)) {
			t.Errorf("SpreadOf changed its argument: %v, was %v", c.in, before)
		}
	}
}

func TestFile(t *testing.T) {
	lines := []Line{
		{Setup: &Setup{Commit: "abc", Size: 1 << 30, Cores: map[End]string{Source: "0", Target: "1"}}},
		{Peer: &Peer{Name: "rsync", Variant: "delta", Commands: []string{"rsync --daemon"}}},
		{LeftOut: &LeftOut{Name: "bdsync", Why: "it is not in PATH"}},
		{LeftOut: &LeftOut{Place: InMemory, Why: "there is too little"}},
		{Image: &Image{Case: Same, Bytes: 1 << 30}},
		{Run: &Run{Case: Same, Peer: "rsync", Variant: "delta", N: 1, Wall: 2.5, CPU: map[End]float64{Source: 1}, Note: strings.Repeat("long ", 20_000)}},
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	want := new(Results)
	for _, l := range lines {
		if err := w.Write(l); err != nil {
			t.Fatal(err)
		}
		want.Add(l)
	}
	whole := b.String()
	for _, cut := range []string{"", `{"run":{"case":"sa`} {
		got, err := Read(strings.NewReader(whole + cut))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("read with %q at the end: %v: %+v, want %+v", cut, err, got, want)
		}
	}
	if _, err := Read(strings.NewReader(whole + "nonsense\n" + whole)); err == nil || !strings.Contains(err.Error(), "line 7") {
		t.Errorf("a bad line is no error that names it: %v", err)
	}
	if _, err := Read(strings.NewReader(strings.Repeat("x", maxLine*2))); err == nil {
		t.Error("a line without end was read")
	}
}

// runs makes n runs of a peer with wall times around a median.
func runs(c Case, peer, variant string, wall float64, more func(*Run)) (all []Run) {
	for i, f := range []float64{1, 0.5, 3} {
		r := Run{Case: c, Peer: peer, Variant: variant, N: i + 1, Image: 4 << 30, Wall: wall * f, Cmp: Equal}
		if more != nil {
			more(&r)
		}
		all = append(all, r)
	}
	return all
}

func TestSummaries(t *testing.T) {
	var r Results
	a := runs(Same, "haulback", "quic", 2, func(r *Run) {
		r.CPU = map[End]float64{Source: float64(r.N), Target: 10 * float64(r.N)}
		r.RSS = map[End]int64{Source: int64(r.N)}
		r.Wire = int64(r.N) * 100
	})
	a[1].Cmp = Differ
	r.Runs = append(a, runs(Same, "b3sum", "", 1, nil)...)
	s := r.Find(Same, "haulback", "quic")
	if s == nil || s.Runs != 2 || s.Failed != 1 || s.Wall != (Spread{4, 2, 6}) || s.CPU != (Spread{22, 11, 33}) ||
		s.CPUEnd[Target] != (Spread{20, 10, 30}) || s.RSS[Source].Max != 3 || s.Wire.Median != 200 {
		t.Errorf("summary %+v", s)
	}
	if got := r.Fastest(Same); len(got) != 2 || got[0].Name() != "b3sum" || got[1].Name() != "haulback/quic" {
		t.Errorf("fastest first: %+v", got)
	}
	if s := r.Find(Empty, "haulback", "quic"); s != nil {
		t.Errorf("a summary of no runs: %+v", s)
	}
}

func TestEvaluate(t *testing.T) {
	verdicts := func(r *Results, target string) (got []Verdict) {
		for _, c := range r.Evaluate(OnDisk) {
			if c.Target == target {
				got = append(got, c.Verdict)
			}
		}
		return got
	}
	join := func(groups ...[]Run) *Results {
		r := new(Results)
		for _, g := range groups {
			r.Runs = append(r.Runs, g...)
		}
		return r
	}
	const mib = 1 << 20
	rss := func(m int64) func(*Run) {
		return func(r *Run) { r.RSS = map[End]int64{Source: 1, Target: m * mib} }
	}
	for _, c := range []struct {
		name, target string
		r            *Results
		want         []Verdict
	}{
		{"at most, met", "P1", join(runs(Same, "haulback", "quic", 1.35, nil), runs(Same, "b3sum", "", 1, nil)), []Verdict{Met}},
		{"at most, missed", "P1", join(runs(Same, "haulback", "quic", 1.36, nil), runs(Same, "b3sum", "", 1, nil)), []Verdict{Missed}},
		{"no other peer", "P1", join(runs(Same, "haulback", "quic", 1.36, nil)), []Verdict{NotMeasured}},
		{"at least, met; the other left out", "P2", join(runs(Same, "haulback", "quic", 2, nil), runs(Same, "rsync", "delta", 3, nil)), []Verdict{Met, NotMeasured}},
		{"at least, missed", "P2", join(runs(Same, "haulback", "quic", 2.1, nil), runs(Same, "rsync", "delta", 3, nil), runs(Same, "bdsync", "sha256", 5, nil)), []Verdict{Missed, Missed}},
		{"full and wire", "P6", join(runs(Empty, "nbdcopy", "tls", 4, func(r *Run) { r.Wire = 100 }), runs(Empty, "haulback", "auto", 3, nil),
			runs(Empty, "haulback", "auto-lz4", 9, func(r *Run) { r.Wire = 61 })), []Verdict{Met, Missed}},
		{"nothing lost", "P8", join(runs(Payload, "haulback", "quic", 1, func(r *Run) { r.Extra = map[string]float64{ExtraRate: 500, ExtraLost: 0} }),
			runs(Payload, "crypto/tls", "", 1, func(r *Run) { r.Extra = map[string]float64{ExtraRate: 1000} })), []Verdict{Met, Met}},
		{"a loss that nobody counted", "P8", join(runs(Payload, "haulback", "quic", 1, func(r *Run) { r.Extra = map[string]float64{ExtraRate: 500} })), []Verdict{NotMeasured, NotMeasured}},
		{
			"memory, the largest of all runs", "P10", join(runs(OnePercent, "haulback", "quic", 1, func(r *Run) { rss(int64(60 + r.N*2))(r) }), runs(TenPercent, "haulback", "quic", 1, rss(64)), runs(Huge, "haulback", "quic", 1, nil)),
			[]Verdict{Missed, Met, NotMeasured, NotMeasured},
		},
		{"CPU of the busier end", "P11", join(runs(Same, "haulback", "quic", 1, func(r *Run) { r.CPU = map[End]float64{Source: 1, Target: 2.04} })), []Verdict{Missed}},
		{"a tail", "P13", join(runs(Empty, "haulback", "tls", 13, func(r *Run) { r.Extra = map[string]float64{ExtraTail: 3} })), []Verdict{Met}},
		{"a tail that was not told", "P13", join(runs(Empty, "haulback", "tls", 13, nil)), []Verdict{NotMeasured}},
		{"disks of four times the size", "P5", join(runs(HintSmall, "haulback", "quic", 1, nil), runs(HintLarge, "haulback", "quic", 1.3, nil)), []Verdict{NotMeasured, Missed}},
		{"nothing at all", "P14", new(Results), []Verdict{NotMeasured, NotMeasured}},
	} {
		if got := verdicts(c.r, c.target); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %s is %q, want %q", c.name, c.target, got, c.want)
		}
	}
	for _, c := range new(Results).Evaluate(OnDisk) {
		if c.Verdict != NotMeasured || c.Why == "" || c.Text == "" {
			t.Errorf("of no results: %+v", c)
		}
	}
	seen := map[string]bool{}
	for _, c := range new(Results).Evaluate(OnDisk) {
		seen[c.Target] = true
	}
	for _, p := range []string{"P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P13", "P14"} {
		if !seen[p] {
			t.Errorf("%s is not evaluated", p)
		}
	}
}

// TestPlaces: what was measured at one place says nothing of another.
func TestPlaces(t *testing.T) {
	in := func(p Place) func(*Run) { return func(r *Run) { r.Place = p } }
	r := &Results{Setup: Setup{Commit: "abc"}, LeftOut: []LeftOut{{Place: Cold, Why: "x"}, {Name: "bdsync", Why: "y"}}, Images: []Image{{Case: Same, Place: InMemory}}}
	for _, some := range [][]Run{
		runs(Same, "haulback", "quic", 3, nil), runs(Same, "b3sum", "", 1, nil),
		runs(Same, "haulback", "quic", 1.2, in(InMemory)), runs(Same, "b3sum", "", 1, in(InMemory)),
		runs(Same, "haulback", "quic", 1, in(Cold)),
	} {
		r.Runs = append(r.Runs, some...)
	}
	for p, want := range map[Place]Verdict{OnDisk: Missed, InMemory: Met, Cold: NotMeasured} {
		if c := r.Evaluate(p)[0]; c.Target != "P1" || c.Verdict != want {
			t.Errorf("%v: %+v, want %s", p, c, want)
		}
		for i, c := range r.Evaluate(p) {
			if disk := r.Evaluate(OnDisk)[i]; c.Text != disk.Text || p != OnDisk && c.Target == "P10" && c.Verdict != NotMeasured {
				t.Errorf("%v: %+v, on disk %+v", p, c, disk)
			}
		}
	}
	if m := r.At(InMemory); len(m.Images) != 1 || len(m.LeftOut) != 0 || m.Setup.Commit != "abc" || len(m.Runs)*5 != len(r.Runs)*2 {
		t.Errorf("in memory: %+v", m)
	}
	if c := r.At(Cold); len(c.Images) != 0 || len(c.LeftOut) != 1 {
		t.Errorf("cold: %+v", c)
	}
}
