package report

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/haulback/haulback/bench/result"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// heading is what a case is called, in the order of the page.
var headings = []struct {
	c     result.Case
	title string
	short string // on a picture; empty: not on one
}{
	{result.Same, "Both disks are equal", "identical disks"},
	{result.OnePercent, "1 % of the disk was changed", "1 % changed"},
	{result.TenPercent, "10 % of the disk were changed", "10 % changed"},
	{result.Empty, "Full copy to a new, sparse disk", "full copy"},
	{result.Hint, "1 % was changed, and change tracking names the places", "1 % changed, tracked"},
	{result.HintSmall, "A sparse disk with named changes", ""},
	{result.HintLarge, "The same changes on a disk of four times the size", ""},
	{result.Huge, "A sparse disk of 1 TiB", ""},
	{result.ManyDisks, "64 disks at once", ""},
	{result.OneDisk, "The bytes of 64 disks as one disk", ""},
	{result.Payload, "Payload through an encrypted link", ""},
}

func title(c result.Case) string {
	for _, h := range headings {
		if h.c == c {
			return h.title
		}
	}
	return string(c)
}

// cases are those of the results, in the order of the page; what it does not know
// comes last.
func cases(r *result.Results) []result.Case {
	var found []result.Case
	for _, s := range r.Summaries() {
		if !slices.Contains(found, s.Case) && !isWAN(s.Case) {
			found = append(found, s.Case)
		}
	}
	rank := func(c result.Case) int {
		for i, h := range headings {
			if h.c == c {
				return i
			}
		}
		return len(headings)
	}
	slices.SortStableFunc(found, func(a, b result.Case) int { return rank(a) - rank(b) })
	return found
}

// Markdown writes the page. Drawn names the pictures that stand beside it.
func Markdown(out *bytes.Buffer, r *result.Results, reasons Reasons, drawn []string) {
	fmt.Fprintf(out, "# Benchmark results\n\nMade by `haulbench` from measured runs; changes here are lost. What is measured and how, and how to run it: [performance.md](../performance.md).\n\n")
	setup(out, &r.Setup)
	targets(out, r, reasons)
	for _, p := range pictures {
		if slices.Contains(drawn, p.name) {
			fmt.Fprintf(out, "## %s\n\n![%s](%s.svg)\n\n%s\n\n", p.title, p.title, p.name, p.text)
		}
	}
	for _, p := range places {
		place(out, r.At(p.place), p.title, p.text)
	}
	wanTable(out, r)
	commands(out, r)
}

// setup is what all runs have in common.
func setup(out *bytes.Buffer, s *result.Setup) {
	t := table{out: out, left: 2}
	t.row("", "")
	m := &s.Machine
	t.row("when, what", fmt.Sprintf("%s, haulback %s", s.Began.UTC().Format("2006-01-02 15:04 UTC"), s.Commit))
	t.row("machine", join(m.CPU, fmt.Sprintf("%d cores", m.Cores), fmt.Sprintf("%.1f GiB of memory", float64(m.Memory)/gib), m.Virtual))
	if m.Hash != "" { // not in results that are older
		t.row("grains hashed with", m.Hash)
	}
	t.row("system", join(m.OS, m.Kernel, m.Disk))
	t.row("cores of each end", fmt.Sprintf("source %s, target %s", orDash(s.Cores[result.Source]), orDash(s.Cores[result.Target])))
	t.row("runs", fmt.Sprintf("the peers of a case alternate, in as many rounds as its section says; load before the first: %s", orDash(m.Load)))
	t.row("image", fmt.Sprintf("%s MiB, seed %d", number(float64(s.Size)/mib), s.Seed))
	t.row("CPU time by", orDash(s.CPUBy))
	var versions []string
	for _, k := range slices.Sorted(maps.Keys(s.Versions)) {
		versions = append(versions, k+" "+s.Versions[k])
	}
	t.row("versions", orDash(strings.Join(versions, "; ")))
	fmt.Fprintln(out)
	if s.Quick {
		fmt.Fprintf(out, "This was a quick run: small images and few repeats. Its numbers show that all works, and little more.\n\n")
	}
}

// caseTable is a row for each peer of one case, the fastest first.
func caseTable(out *bytes.Buffer, r *result.Results, c result.Case) {
	fmt.Fprintf(out, "### %s\n\n", title(c))
	for _, i := range r.Images {
		if i.Case == c && i.Text != "" {
			fmt.Fprintf(out, "%s\n\n", i.Text)
		}
	}
	if c == result.Payload {
		payloadTable(out, r)
		return
	}
	all := r.Fastest(c)
	base := reference(all)
	t := table{out: out, left: 2}
	by := "wall by " + base
	if base == "" {
		by = "wall by the fastest"
	}
	t.row("peer", "encrypted", "wall s: median (min–max)", by, "CPU s: median (min–max)", "source + target", "wire MiB", "peak memory MiB: source / target", "runs")
	for i := range all {
		s := &all[i]
		t.row(emphasize(s), encrypted(r, s), spread(s.Wall), ratio(s, all, base), spread(s.CPU),
			pair(s.CPUEnd, func(v result.Spread) float64 { return v.Median }, " + "), measured(s.Wire.Median/mib),
			pair(s.RSS, func(v result.Spread) float64 { return v.Max / mib }, " / "), runs(s))
	}
	fmt.Fprintln(out)
	failures(out, r, c)
	details(out, all)
}

// reference is whose wall time is 1 in a table: haulback over QUIC, or else the
// fastest of haulback's.
func reference(all []result.Summary) string {
	name := ""
	for i := range all {
		if all[i].Peer == "haulback" && (name == "" || all[i].Variant == "quic") {
			name = all[i].Name()
		}
	}
	return name
}

func ratio(s *result.Summary, all []result.Summary, base string) string {
	wall := all[0].Wall.Median
	for i := range all {
		if all[i].Name() == base {
			wall = all[i].Wall.Median
		}
	}
	if wall == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", s.Wall.Median/wall)
}

func emphasize(s *result.Summary) string {
	if s.Peer == "haulback" {
		return "**" + s.Name() + "**"
	}
	return s.Name()
}

func encrypted(r *result.Results, s *result.Summary) string {
	if peer := find(r, s); peer != nil {
		if peer.Encrypted {
			return "yes"
		}
		return "no"
	}
	return "–"
}

func find(r *result.Results, s *result.Summary) *result.Peer {
	i := slices.IndexFunc(r.Peers, func(p result.Peer) bool { return p.Name == s.Peer && p.Variant == s.Variant })
	if i < 0 {
		return nil
	}
	return &r.Peers[i]
}

// runs is how many count, and how many do not.
func runs(s *result.Summary) string {
	if s.Failed > 0 {
		return fmt.Sprintf("%d, and %d failed", s.Runs, s.Failed)
	}
	return strconv.Itoa(s.Runs)
}

// failures names what has no place in a table: runs that failed, and peers that
// could not run.
func failures(out *bytes.Buffer, r *result.Results, c result.Case) {
	said := false
	line := func(format string, args ...any) {
		said = true
		fmt.Fprintf(out, "- "+format+"\n", args...)
	}
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Case == c && !run.OK() {
			why := run.Error
			if why == "" {
				why = fmt.Sprintf("exit code %d, cmp: %s", run.Exit, orDash(string(run.Cmp)))
			}
			line("%s, run %d, does not count: %s", name(run.Peer, run.Variant), run.N, oneLine(why))
		}
	}
	for _, l := range r.LeftOut {
		if l.Case == c {
			line("%s was left out: %s", name(l.Name, l.Variant), oneLine(l.Why))
		}
	}
	if said {
		fmt.Fprintln(out)
	}
}

// details is what haulback says of its own runs: what verification and durability
// cost stands apart.
func details(out *bytes.Buffer, all []result.Summary) {
	columns := []struct {
		key, title string
		unit       float64
	}{
		{result.ExtraCopy, "pass s", 1},
		{result.ExtraTail, "after the last byte s", 1},
		{result.ExtraVerify, "verification apart s", 1},
		{result.ExtraCompared, "compared MiB", mib},
		{result.ExtraSent, "sent MiB, raw", mib},
		{result.ExtraSentWire, "sent MiB, compressed", mib},
		{result.ExtraReadBack, "read back MiB", mib},
		{result.ExtraLost, "packets lost", 1},
	}
	has := func(key string) bool {
		return slices.ContainsFunc(all, func(s result.Summary) bool { _, ok := s.Extra[key]; return ok })
	}
	head := []string{"by its own report"}
	for _, c := range columns {
		if has(c.key) {
			head = append(head, c.title)
		}
	}
	if len(head) == 1 {
		return
	}
	t := table{out: out, left: 1}
	t.row(head...)
	for i := range all {
		s := &all[i]
		row, said := []string{s.Name()}, false
		for _, c := range columns {
			v, ok := s.Extra[c.key]
			switch {
			case ok:
				row, said = append(row, number(v.Median/c.unit)), true
			case has(c.key):
				row = append(row, "–")
			}
		}
		if said {
			t.row(row...)
		}
	}
	fmt.Fprintln(out)
}

// payloadTable has rates and no disks.
func payloadTable(out *bytes.Buffer, r *result.Results) {
	t := table{out: out, left: 1}
	t.row("link", "MiB/s: median (min–max)", "CPU s per GiB, both ends", "packets lost", "runs")
	for _, s := range r.Fastest(result.Payload) {
		rate := s.Extra[result.ExtraRate]
		perGiB := "–"
		if n := rate.Median * s.Wall.Median; n > 0 && s.CPU.Median > 0 {
			perGiB = number(s.CPU.Median / (n / gib))
		}
		lost := "–"
		if v, ok := s.Extra[result.ExtraLost]; ok {
			lost = strconv.FormatFloat(v.Max, 'f', 0, 64)
		}
		t.row(emphasize(&s), spread(result.Spread{Median: rate.Median / mib, Min: rate.Min / mib, Max: rate.Max / mib}), perGiB, lost, runs(&s))
	}
	fmt.Fprintln(out)
	failures(out, r, result.Payload)
}

// commands are how the peers were run, and who was not.
func commands(out *bytes.Buffer, r *result.Results) {
	if len(r.Peers) > 0 {
		fmt.Fprintf(out, "## Commands\n\n")
	}
	for i := range r.Peers {
		p := &r.Peers[i]
		fmt.Fprintf(out, "%s: %s\n\n", name(p.Name, p.Variant), p.Title)
		for _, remark := range p.Remarks {
			fmt.Fprintf(out, "- %s\n", oneLine(remark))
		}
		if len(p.Remarks) > 0 {
			fmt.Fprintln(out)
		}
		for _, c := range p.Commands {
			fmt.Fprintf(out, "    %s\n", oneLine(c))
		}
		if len(p.Commands) > 0 {
			fmt.Fprintln(out)
		}
	}
	first := true
	for _, l := range r.LeftOut {
		if l.Case == "" && l.Name != "" {
			if first {
				fmt.Fprintf(out, "## Left out\n\n")
			}
			first = false
			fmt.Fprintf(out, "- %s: %s\n", name(l.Name, l.Variant), oneLine(l.Why))
		}
	}
}

// table writes the rows of a Markdown table: the first is its head. The first left
// columns are text, then come numbers: all the others, or as many as numbers says.
type table struct {
	out     *bytes.Buffer
	left    int
	numbers int
	rows    int
}

func (t *table) row(cells ...string) {
	for _, c := range cells {
		t.out.WriteString("| ")
		if c = strings.ReplaceAll(oneLine(c), "|", `\|`); c != "" {
			t.out.WriteString(c + " ")
		}
	}
	t.out.WriteString("|\n")
	if t.rows == 0 {
		for i := range cells {
			if i < t.left || t.numbers > 0 && i >= t.left+t.numbers {
				t.out.WriteString("|---")
			} else {
				t.out.WriteString("|---:")
			}
		}
		t.out.WriteString("|\n")
	}
	t.rows++
}

func name(peer, variant string) string {
	if variant == "" {
		return peer
	}
	return peer + "/" + variant
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// number has three digits that count, and no more than two after the point.
func number(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) && (a == 0 || a >= 10):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
}

// measured is number, where zero means that nobody measured it.
func measured(v float64) string {
	if v == 0 {
		return "–"
	}
	return number(v)
}

func spread(s result.Spread) string {
	if s.Median == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.Min), number(s.Max))
}

// pair is a number of both ends, or of the one there is.
func pair(of map[result.End]result.Spread, value func(result.Spread) float64, between string) string {
	var parts []string
	for _, e := range []result.End{result.Source, result.Target} {
		if v, ok := of[e]; ok {
			parts = append(parts, number(value(v)))
		}
	}
	return orDash(strings.Join(parts, between))
}
