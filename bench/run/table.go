package run

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
)

// Line is one run as a line for people.
func Line(r *result.Run, runs int) string {
	name := r.Peer
	if r.Variant != "" {
		name += "/" + r.Variant
	}
	line := fmt.Sprintf("  %-6s %d/%d  %-22s %7.2f s  CPU %6.2f s  wire %8.1f MiB  RSS %s MiB", r.Case, r.N, runs, name, r.Wall, r.TotalCPU(), mib(r.Wire), ends(r.RSS))
	switch {
	case !r.OK():
		line += "  FAILED: " + r.Error
	case r.Cmp == result.Equal:
		line += "  equal"
	}
	if r.Note != "" {
		line += "  (" + r.Note + ")"
	}
	return line
}

// ends are an amount of memory at both ends.
func ends(m map[result.End]int64) string {
	var all []string
	for _, e := range measure.Ends {
		all = append(all, fmt.Sprintf("%.0f", mib(m[e])))
	}
	return strings.Join(all, "+")
}

// Table prints what all runs gave, by place and case, with the ratios to the
// first variant of haulback, and then the targets.
func Table(out io.Writer, r *result.Results) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range result.Places {
		rows(t, p, r.At(p).Summaries())
	}
	fmt.Fprint(t, "\ntarget\twhat\twhere\tis to be\tis\t\n")
	for _, p := range result.Places {
		for _, c := range r.Evaluate(p) {
			value := fmt.Sprintf("%.2f", c.Value)
			if c.Verdict == result.NotMeasured {
				if p != result.OnDisk {
					continue
				}
				value = c.Why
			}
			fmt.Fprintf(t, "%s\t%s\t%v\t%s\t%s\t%s\n", c.Target, c.Text, p, c.Rule(), value, c.Verdict)
		}
	}
	_ = t.Flush() // a terminal that is gone does not stop a benchmark
	for _, l := range r.LeftOut {
		what := strings.Fields(fmt.Sprintf("%s %s %s %v", l.Name, l.Variant, l.Case, l.Place))
		fmt.Fprintf(out, "LEFT OUT: %s: %s\n", strings.Join(what, " "), l.Why)
	}
}

// rows are the cases at one place.
func rows(t io.Writer, p result.Place, all []result.Summary) {
	var now result.Case
	for _, s := range all {
		if s.Case != now {
			now = s.Case
			fmt.Fprintf(t, "\n%s, %v\truns\twall s\tmin\tmax\tx haulback\tCPU s\tsource\ttarget\twire MiB\tRSS MiB\n", now, p)
		}
		ratio := "-"
		if base := ours(all, s.Case); base > 0 {
			ratio = fmt.Sprintf("%.2f", s.Wall.Median/base)
		}
		failed := ""
		if s.Failed > 0 {
			failed = fmt.Sprintf(" (%d FAILED)", s.Failed)
		}
		fmt.Fprintf(t, "%s\t%d%s\t%.2f\t%.2f\t%.2f\t%s\t%.2f\t%.2f\t%.2f\t%.1f\t%.0f + %.0f\n", s.Name(), s.Runs, failed, s.Wall.Median, s.Wall.Min, s.Wall.Max, ratio,
			s.CPU.Median, s.CPUEnd[result.Source].Median, s.CPUEnd[result.Target].Median, s.Wire.Median/(1<<20), s.RSS[result.Source].Max/(1<<20), s.RSS[result.Target].Max/(1<<20))
	}
}

// ours is the median wall time of haulback over QUIC in a case.
func ours(all []result.Summary, c result.Case) float64 {
	for _, s := range all {
		if s.Case == c && s.Peer == "haulback" && s.Variant == "quic" {
			return s.Wall.Median
		}
	}
	return 0
}
