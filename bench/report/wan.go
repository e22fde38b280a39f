package report

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/haulback/haulback/bench/result"
)

// keyLoss is the Extra of a run over the emulated link: the share of packets lost.
// It is wan.ExtraLoss; a page needs no namespaces.
const keyLoss = "loss"

// isWAN tells the cases of the emulated link, those that package result does not
// know too.
func isWAN(c result.Case) bool { return strings.HasPrefix(string(c), string(result.WAN)) }

// lossOf is the share of lost packets in a case of the emulated link.
func lossOf(s *result.Summary) float64 {
	if v, ok := s.Extra[keyLoss]; ok {
		return v.Median
	}
	return map[result.Case]float64{result.WANLowLoss: 0.0001, result.WANLoss: 0.001}[s.Case]
}

// curve is all runs over the emulated link that count, by loss and then by name.
func curve(r *result.Results) (all []result.Summary) {
	for _, s := range r.Summaries() {
		if isWAN(s.Case) && s.Runs > 0 {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b result.Summary) int {
		return cmp.Or(cmp.Compare(lossOf(&a), lossOf(&b)), cmp.Compare(a.Name(), b.Name()))
	})
	return all
}

// wanTable has a row for each loss and transport.
func wanTable(out *bytes.Buffer, r *result.Results) {
	all := curve(r)
	var failed []result.Case
	for i := range r.Runs {
		if run := &r.Runs[i]; !run.OK() && isWAN(run.Case) && !slices.Contains(failed, run.Case) {
			failed = append(failed, run.Case)
		}
	}
	if len(all)+len(failed) == 0 {
		return
	}
	fmt.Fprintf(out, "## A long link, emulated\n\n")
	for _, i := range r.Images {
		if len(all) > 0 && i.Case == all[0].Case && i.Text != "" {
			text, _, _ := strings.Cut(i.Text, ", loss")
			fmt.Fprintf(out, "%s. Rates are of what became durable, without the start.\n\n", text)
		}
	}
	t := table{out: out, left: 2, numbers: 5}
	t.row("loss", "transport", "Mbit/s durable: median (min–max)", "of the link", "CPU s: source + target", "peak memory MiB: source / target", "runs", "chosen")
	for i := range all {
		s := &all[i]
		rate := s.Extra[result.ExtraRate]
		t.row(fmt.Sprintf("%g %%", lossOf(s)*100), emphasize(s),
			spread(result.Spread{Median: mbit(rate.Median), Min: mbit(rate.Min), Max: mbit(rate.Max)}),
			fmt.Sprintf("%.0f %%", s.Extra[result.ExtraLinkShare].Median*100),
			pair(s.CPUEnd, func(v result.Spread) float64 { return v.Median }, " + "),
			pair(s.RSS, func(v result.Spread) float64 { return v.Max / mib }, " / "), runs(s), note(r, s))
	}
	fmt.Fprintln(out)
	for _, c := range failed {
		failures(out, r, c)
	}
}

func mbit(bytes float64) float64 { return bytes * 8 / 1e6 }

// note is what the last run said of how it went.
func note(r *result.Results, s *result.Summary) (text string) {
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Case == s.Case && run.Peer == s.Peer && run.Variant == s.Variant && run.OK() && run.Note != "" {
			text = run.Note
		}
	}
	return text
}
