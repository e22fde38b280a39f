package result

import (
	"fmt"
	"math"
	"slices"
)

// Verdict is what became of a target.
type Verdict string

// The verdicts.
const (
	Met         Verdict = "met"
	Missed      Verdict = "missed"
	NotMeasured Verdict = "not measured"
)

// Check is one condition of a target: a number that may be at most, or has to
// be at least, a limit. Numbers are ratios of medians if the text does not say
// another unit.
type Check struct {
	Target  string  // P1 to P14
	Text    string  // what is compared
	AtLeast bool    // else at most
	Limit   float64 //
	Value   float64 // 0 when not measured
	Verdict Verdict
	Why     string // of NotMeasured: which runs are missing
}

// Rule is the condition as text: "<= 1.35".
func (c *Check) Rule() string {
	if c.AtLeast {
		return fmt.Sprintf(">= %g", c.Limit)
	}
	return fmt.Sprintf("<= %g", c.Limit)
}

// who is a peer's variant in a case.
type who struct {
	c             Case
	peer, variant string
}

func (w who) String() string { return fmt.Sprintf("%s in %s", name(w.peer, w.variant), w.c) }

// The variants that targets speak of.
var (
	haulbackQUIC = func(c Case) who { return who{c, "haulback", "quic"} }
	rsyncDelta   = func(c Case) who { return who{c, "rsync", "delta"} }
	bdsync       = func(c Case) who { return who{c, "bdsync", "sha256"} }
	nbdcopyTLS   = who{Empty, "nbdcopy", "tls"}
)

// number takes what a check compares out of a summary; NaN when it is not there.
type number func(*Summary) float64

func wall(s *Summary) float64 { return s.Wall.Median }
func wire(s *Summary) float64 { return s.Wire.Median }

func extra(key string) number {
	return func(s *Summary) float64 {
		if v, ok := s.Extra[key]; ok {
			return v.Median
		}
		return math.NaN()
	}
}

// peak is the larger end's highest resident memory in MiB.
func peak(s *Summary) float64 {
	m := math.NaN()
	for _, e := range s.RSS {
		m = larger(m, e.Max)
	}
	return m / (1 << 20)
}

// cpuPerGiB is the busier end's CPU seconds for each GiB of disk.
func cpuPerGiB(s *Summary) float64 {
	m := math.NaN()
	for _, e := range s.CPUEnd {
		m = larger(m, e.Median)
	}
	return m / (float64(s.Image) / (1 << 30))
}

func larger(a, b float64) float64 {
	if math.IsNaN(a) {
		return b
	}
	return max(a, b)
}

// untailed is the wall time by the wall time without what came after the last byte was sent.
func untailed(s *Summary) float64 {
	rest := s.Wall.Median - extra(ExtraTail)(s)
	if rest <= 0 {
		return math.NaN()
	}
	return s.Wall.Median / rest
}

// elsewhere are the targets that speak of peers, the only ones that are held
// against the results of other places than the disk too. The others are of
// haulback alone, or of cases that have no such place.
var elsewhere = []string{"P1", "P2", "P3", "P4", "P6", "P7"}

// Evaluate holds the results of a place against the targets P1 to P14 and names
// each condition once, in the same order for every place. P12 belongs to a part
// that was never a condition.
func (r *Results) Evaluate(p Place) []Check {
	e := evaluation{r: r.At(p)}
	e.ratio("P1", "identical, QUIC: wall by that of two b3sum", wall, haulbackQUIC(Same), who{Same, "b3sum", ""}, false, 1.35)
	e.ratio("P2", "identical: rsync's wall by haulback's", wall, rsyncDelta(Same), haulbackQUIC(Same), true, 1.5)
	e.ratio("P2", "identical: bdsync's wall by haulback's", wall, bdsync(Same), haulbackQUIC(Same), true, 2.5)
	for _, d := range []struct {
		target              string
		c                   Case
		text                string
		rsync, bdsync, wire float64
	}{
		{"P3", OnePercent, "1 % changed, QUIC", 2.7, 2, 0.3},
		{"P4", TenPercent, "10 % changed, QUIC", 4.2, 1.5, 0.35},
	} {
		e.ratio(d.target, d.text+": rsync's wall by haulback's", wall, rsyncDelta(d.c), haulbackQUIC(d.c), true, d.rsync)
		e.ratio(d.target, d.text+": bdsync's wall by haulback's", wall, bdsync(d.c), haulbackQUIC(d.c), true, d.bdsync)
		e.ratio(d.target, d.text+": wire with refinement by rsync's", wire, who{d.c, "haulback", "quic-refine"}, rsyncDelta(d.c), false, d.wire)
	}
	e.ratio("P5", "1 % named by a hint: wall by that of the full comparison", wall, who{Hint, "haulback", "quic"}, haulbackQUIC(OnePercent), false, 0.3)
	e.ratio("P5", "the same on a disk four times as large", wall, who{HintLarge, "haulback", "quic"}, who{HintSmall, "haulback", "quic"}, false, 1.2)
	e.ratio("P6", "full copy, auto: wall of nbdcopy with TLS by haulback's", wall, nbdcopyTLS, who{Empty, "haulback", "auto"}, true, 1.25)
	e.ratio("P6", "full copy, auto with LZ4: wire by that of nbdcopy with TLS", wire, who{Empty, "haulback", "auto-lz4"}, nbdcopyTLS, false, 0.6)
	e.ratio("P7", "full copy, QUIC: wall of nbdcopy with TLS by haulback's", wall, nbdcopyTLS, haulbackQUIC(Empty), true, 0.65)
	e.ratio("P7", "full copy, QUIC: wall with the stock socket by ours", wall, who{Empty, "haulback", "quic-stock"}, haulbackQUIC(Empty), true, 1.5)
	e.ratio("P8", "payload rate of QUIC by that of crypto/tls over TCP", extra(ExtraRate), who{Payload, "haulback", "quic"}, who{Payload, "crypto/tls", ""}, true, 0.45)
	e.value("P8", "packets lost on loopback", extra(ExtraLost), who{Payload, "haulback", "quic"}, false, 0)
	e.value("P9", "1 Gbit/s, 50 ms, auto: share of the link", extra(ExtraLinkShare), who{WAN, "haulback", "auto"}, true, 0.75)
	e.value("P9", "the same with 0.1 % loss", extra(ExtraLinkShare), who{WANLoss, "haulback", "auto"}, true, 0.75)
	e.value("P10", "resident memory of an end, 1 % changed, MiB", peak, haulbackQUIC(OnePercent), false, 64)
	e.value("P10", "resident memory of an end, 10 % changed, MiB", peak, haulbackQUIC(TenPercent), false, 64)
	e.value("P10", "resident memory of an end, full copy, MiB", peak, haulbackQUIC(Empty), false, 96)
	e.value("P10", "resident memory of an end, sparse disk of 1 TiB, MiB", peak, haulbackQUIC(Huge), false, 64)
	e.value("P11", "identical: CPU seconds for each GiB of disk, busier end", cpuPerGiB, haulbackQUIC(Same), false, 0.5)
	e.value("P13", "full copy, tls: wall by wall without what came after the last byte", untailed, who{Empty, "haulback", "tls"}, false, 1.3)
	e.ratio("P14", "64 disks at once: wall by that of one disk", wall, who{ManyDisks, "haulback", "quic"}, who{OneDisk, "haulback", "quic"}, false, 1.3)
	e.value("P14", "resident memory of an end, 64 disks at once, MiB", peak, haulbackQUIC(ManyDisks), false, 192)
	for i := range e.checks {
		if c := &e.checks[i]; p != OnDisk && !slices.Contains(elsewhere, c.Target) {
			c.Value, c.Verdict, c.Why = 0, NotMeasured, "is of the disk only"
		}
	}
	return e.checks
}

// evaluation collects checks.
type evaluation struct {
	r      *Results
	checks []Check
}

func (e *evaluation) add(c Check, missing ...who) {
	switch {
	case len(missing) > 0:
		c.Verdict, c.Why = NotMeasured, fmt.Sprintf("%v did not run, or does not tell", missing[0])
	case c.AtLeast && c.Value >= c.Limit, !c.AtLeast && c.Value <= c.Limit:
		c.Verdict = Met
	default:
		c.Verdict = Missed
	}
	e.checks = append(e.checks, c)
}

// numeric adds a check with its value; without one w is to blame.
func (e *evaluation) numeric(c Check, v float64, w who) {
	if math.IsNaN(v) {
		e.add(c, w)
		return
	}
	c.Value = v
	e.add(c)
}

// value checks one number of one peer.
func (e *evaluation) value(target, text string, n number, w who, atLeast bool, limit float64) {
	c := Check{Target: target, Text: text, AtLeast: atLeast, Limit: limit}
	s := e.r.Find(w.c, w.peer, w.variant)
	if s == nil {
		e.add(c, w)
		return
	}
	e.numeric(c, n(s), w)
}

// ratio checks a number of one peer by that of another.
func (e *evaluation) ratio(target, text string, n number, a, b who, atLeast bool, limit float64) {
	c := Check{Target: target, Text: text, AtLeast: atLeast, Limit: limit}
	sa, sb := e.r.Find(a.c, a.peer, a.variant), e.r.Find(b.c, b.peer, b.variant)
	switch {
	case sa == nil:
		e.add(c, a)
	case sb == nil || n(sb) == 0:
		e.add(c, b)
	default:
		e.numeric(c, n(sa)/n(sb), a)
	}
}
