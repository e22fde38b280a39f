package result

import (
	"cmp"
	"slices"
)

// Spread is what repeated runs gave.
type Spread struct {
	Median, Min, Max float64
}

// SpreadOf is the spread of some values; of none it is zero. Of an even number
// the median is the mean of the middle two.
func SpreadOf(v []float64) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	v = slices.Sorted(slices.Values(v))
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (m + v[len(v)/2-1]) / 2
	}
	return Spread{m, v[0], v[len(v)-1]}
}

// Summary is all runs of one peer and variant in one case.
type Summary struct {
	Case    Case
	Peer    string
	Variant string
	Image   int64
	Runs    int // that count
	Failed  int // that do not
	Wall    Spread
	CPU     Spread // both ends
	Wire    Spread
	CPUEnd  map[End]Spread
	RSS     map[End]Spread // Max is what a bound is held against
	Extra   map[string]Spread
}

// Name is peer and variant as one word.
func (s *Summary) Name() string { return name(s.Peer, s.Variant) }

func name(peer, variant string) string {
	if variant == "" {
		return peer
	}
	return peer + "/" + variant
}

// Summaries are all of a file, in the order of their first run. They are of one
// place: [Results.At] comes first.
func (r *Results) Summaries() (all []Summary) {
	type key struct {
		c     Case
		p, v  string
		image int64
	}
	at := map[key]int{}
	runs := [][]Run{}
	for _, run := range r.Runs {
		k := key{c: run.Case, p: run.Peer, v: run.Variant, image: run.Image}
		i, ok := at[k]
		if !ok {
			i = len(runs)
			at[k] = i
			runs = append(runs, nil)
		}
		runs[i] = append(runs[i], run)
	}
	for _, group := range runs {
		all = append(all, summarize(group))
	}
	return all
}

// Find is the summary of one peer and variant in one case; nil when no run of it counts.
func (r *Results) Find(c Case, peer, variant string) *Summary {
	all := r.Summaries()
	i := slices.IndexFunc(all, func(s Summary) bool { return s.Case == c && s.Peer == peer && s.Variant == variant && s.Runs > 0 })
	if i < 0 {
		return nil
	}
	return &all[i]
}

// Fastest is the summaries of a case that count, the smallest median wall time first.
func (r *Results) Fastest(c Case) (all []Summary) {
	for _, s := range r.Summaries() {
		if s.Case == c && s.Runs > 0 {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b Summary) int { return cmp.Compare(a.Wall.Median, b.Wall.Median) })
	return all
}

func summarize(runs []Run) Summary {
	s := Summary{
		Case: runs[0].Case, Peer: runs[0].Peer, Variant: runs[0].Variant, Image: runs[0].Image,
		CPUEnd: map[End]Spread{}, RSS: map[End]Spread{}, Extra: map[string]Spread{},
	}
	var wall, total, wire []float64
	cpu, rss, extra := map[End][]float64{}, map[End][]float64{}, map[string][]float64{}
	for i := range runs {
		r := &runs[i]
		if !r.OK() {
			s.Failed++
			continue
		}
		s.Runs++
		wall, total, wire = append(wall, r.Wall), append(total, r.TotalCPU()), append(wire, float64(r.Wire))
		for e, v := range r.CPU {
			cpu[e] = append(cpu[e], v)
		}
		for e, v := range r.RSS {
			rss[e] = append(rss[e], float64(v))
		}
		for k, v := range r.Extra {
			extra[k] = append(extra[k], v)
		}
	}
	s.Wall, s.CPU, s.Wire = SpreadOf(wall), SpreadOf(total), SpreadOf(wire)
	for e, v := range cpu {
		s.CPUEnd[e] = SpreadOf(v)
	}
	for e, v := range rss {
		s.RSS[e] = SpreadOf(v)
	}
	for k, v := range extra {
		s.Extra[k] = SpreadOf(v)
	}
	return s
}
