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

// Table prints what all runs gave, by case, with the ratios to the first
// variant of haulback, and then the targets.
func Table(out io.Writer, r *result.Results) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	all := r.Summaries()
	var now result.Case
	for _, s := range all {
		if s.Case != now {
			now = s.Case
			fmt.Fprintf(t, "\n%s\truns\twall s\tmin\tmax\tx haulback\tCPU s\tsource\ttarget\twire MiB\tRSS MiB\n", now)
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
	fmt.Fprint(t, "\ntarget\twhat\tis to be\tis\t\n")
	for _, c := range r.Evaluate() {
		value := fmt.Sprintf("%.2f", c.Value)
		if c.Verdict == result.NotMeasured {
			value = c.Why
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Target, c.Text, c.Rule(), value, c.Verdict)
	}
	_ = t.Flush() // a terminal that is gone does not stop a benchmark
	for _, l := range r.LeftOut {
		fmt.Fprintf(out, "LEFT OUT: %s %s %s: %s\n", l.Name, l.Variant, l.Case, l.Why)
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
