package report

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/haulback/haulback/bench/result"
)

// places are the sections of the page. What cannot be seen in the figures of one
// is said in its first lines.
var places = []struct {
	place       result.Place
	title, text string
}{
	{
		result.OnDisk, "On disk",
		"What is read is in the page cache before each run. haulback reads its target past that cache, as it promises: where only reading is to be done, the device is its limit, and memory is that of the others.",
	},
	{
		result.InMemory, "In memory",
		"Both disks, and all that the programs write, are on a tmpfs: no device is anyone's limit, and reading past the page cache, or a flush, costs nobody anything. What is left is the work of the programs. Commands, image and `cmp` are the same.",
	},
	{
		result.Cold, "On disk, cold",
		"Both disks are taken out of the page cache before each run: everybody has to read them from the device. If that is a virtual one, its host may still have them in memory.",
	},
}

// targets are the conditions with what became of them, on disk and where else
// something was measured.
func targets(out *bytes.Buffer, r *result.Results, reasons Reasons) {
	fmt.Fprintf(out, "## Targets\n\n")
	head := []string{"", "what", "wanted"}
	var at []result.Place
	var checks [][]result.Check
	for _, p := range result.Places {
		if p == result.OnDisk || len(r.At(p).Runs) > 0 {
			head, at, checks = append(head, p.String()), append(at, p), append(checks, r.Evaluate(p))
		}
	}
	t := table{out: out, left: 2, numbers: 1 + len(at)}
	t.row(append(head, "reason")...)
	for n, c := range checks[0] {
		row := []string{c.Target, c.Text, strings.NewReplacer("<=", "≤", ">=", "≥").Replace(c.Rule())}
		var why []string
		for i, p := range at {
			row = append(row, outcome(&checks[i][n], p))
			if text := reasons.of(&checks[i][n], p); text != "" {
				why = append(why, text)
			}
		}
		t.row(append(row, strings.Join(why, "; "))...)
	}
	fmt.Fprintln(out)
}

// outcome is a number with what it means. What is not measured at another place
// than the disk was not meant to be, or is not on disk either.
func outcome(c *result.Check, p result.Place) string {
	switch {
	case c.Verdict == result.Missed:
		return number(c.Value) + " **missed**"
	case c.Verdict == result.Met:
		return number(c.Value) + " met"
	case p == result.OnDisk:
		return "not measured"
	}
	return "–"
}

// place is the section of one place: what it is, a table for each case, or why
// there is none.
func place(out *bytes.Buffer, r *result.Results, title, text string) {
	all, why := cases(r), ""
	for _, l := range r.LeftOut {
		if l.Name == "" && l.Case == "" {
			why = l.Why
		}
	}
	if len(all) == 0 && why == "" {
		return
	}
	fmt.Fprintf(out, "## %s\n\n%s", title, text)
	if n := rounds(r); n > 0 {
		fmt.Fprintf(out, " Rounds: %d.", n)
	}
	fmt.Fprint(out, "\n\n")
	if why != "" {
		fmt.Fprintf(out, "**There are no results of it**: %s.\n\n", oneLine(why))
	}
	for _, c := range all {
		caseTable(out, r, c)
	}
}

// rounds is how often the peers of a case ran, at most.
func rounds(r *result.Results) (n int) {
	for i := range r.Runs {
		if !isWAN(r.Runs[i].Case) {
			n = max(n, r.Runs[i].N)
		}
	}
	return n
}
