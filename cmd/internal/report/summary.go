package report

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// summaryText says in words what a run came to.
func summaryText(r *Result) string {
	var b strings.Builder
	fmt.Fprintln(&b, verdict(r))
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	c := &r.Counters
	row("source", "%s", r.Start.Source)
	row("target", "%s", r.Start.Target)
	row("compared", "%s of %s in %s: %s equal, %s holes on both sides", size.Text(c.Scanned), size.Text(c.Total), took(r.Phases),
		size.Text(c.Same), size.Text(c.Holes))
	trackingRows(r, row)
	row("differed", "%s (%s), of it zeros and holes %s", size.Text(c.Differing), percent(c.Differing, c.Total), size.Text(c.Zero))
	if !r.Verify {
		copyRows(r, row)
	}
	if r.Larger > 0 && !r.Verify {
		row("note", "the target is %s longer than the source; that part was left alone", size.Text(r.Larger))
	}
	if r.Equal {
		row("root", "%s", hex.EncodeToString(r.Root[:]))
	}
	badRows(r, &b)
	return b.String()
}

// unfinished reports whether a copy marked its target and the last word on it
// did not come.
func (r *Result) unfinished() bool {
	return !r.Verify && r.Epoch > 0 && r.State == wire.StateClean
}

func verdict(r *Result) string {
	switch {
	case r.Verify && r.Larger > 0:
		return fmt.Sprintf("Different: %s is %d bytes longer; %d bytes were compared.", r.Start.Target, r.Larger, r.Counters.Scanned)
	case r.Verify && r.Equal:
		return fmt.Sprintf("Equal: %s (%d bytes) were compared and none differ.", size.Text(r.Counters.Scanned), r.Counters.Scanned)
	case r.Verify && (len(r.Report.Bad) > 0 || r.Counters.Bad > 0):
		return fmt.Sprintf("Different: %d bytes were compared.", r.Counters.Scanned)
	case r.Verify:
		return "Not compared to the end."
	case r.sampled() && r.State == wire.StateVerified:
		n, m := r.grains()
		return fmt.Sprintf("Verified (sampled %d of %d): what differs was brought over and proved by reading both; of what change tracking calls "+
			"unchanged, %d grains of 64 KiB of %d were compared and none differs.", n, m, n, m)
	case r.Equal && r.State == wire.StateVerified:
		return "Verified: the target is equal to the source, proved by reading both."
	}
	if r.unfinished() && r.Counters.Sent == 0 && r.Counters.Had == 0 {
		return "Not verified. This run has written nothing to the target; haulback probe tells its state."
	}
	if r.unfinished() {
		return fmt.Sprintf("Not verified. The target is Inconsistent: do not power on anything that uses it; %s", r.goOn())
	}
	if r.State == wire.StateClean { // nobody has said: the last word did not come
		return "Not verified."
	}
	return fmt.Sprintf("Not verified: the target is %v.", r.State)
}

// goOn is what to do after a run that was cut.
func (r *Result) goOn() string {
	if r.Mode == ModeRestore {
		return "restore the stream again, from its start"
	}
	return "go on with the same command and --run " + r.Start.Run
}

// sampled reports whether grains were left out of the comparison.
func (r *Result) sampled() bool { return r.Counters.Skipped > 0 }

// grains is how many of the grains that change tracking calls unchanged were
// compared, and how many there are.
func (r *Result) grains() (n, m int64) {
	c := &r.Counters
	return cbt.Grains(c.Sampled), cbt.Grains(c.Sampled) + cbt.Grains(c.Skipped)
}

// trackingRows say what change tracking was asked for and what came of it.
func trackingRows(r *Result, row func(name, format string, args ...any)) {
	if r.Tracking == "" || r.Tracking == "full" {
		return
	}
	switch {
	case r.Hinted:
	case len(r.Phases) > 1 || strings.HasPrefix(r.Reason, "used: "): // what came first has said what it did
		row("tracking", "%s was asked for and %s", r.Tracking, r.Reason)
		return
	default:
		row("tracking", "%s was asked for and not used: %s", r.Tracking, r.Reason)
		return
	}
	n, m := r.grains()
	row("tracking", "%s: %s", r.Tracking, r.Reason)
	row("left out", "%s (%s), called unchanged; %d of %d such grains were sampled", size.Text(r.Counters.Skipped), percent(r.Counters.Skipped, r.Counters.Total), n, m)
}

// copyRows are the numbers that only a copy has.
func copyRows(r *Result, row func(name, format string, args ...any)) {
	c := &r.Counters
	row("sent", "%s, as %s on the wire%s", size.Text(c.Sent), size.Text(c.Wire), over(&r.Report))
	if c.Refined > 0 {
		row("refined", "%s of the grains that differ were on the target already, in pieces of 4 KiB", size.Text(c.Refined))
	}
	if k := &r.Compression; k.Grains > 0 && r.Report.Transport != "pipe" {
		row("compressed", "%s (%s was asked for)", k.Text(), k.Asked)
	}
	row("written", "%s are durable on the target, %s were read back", size.Text(c.Durable), size.Text(c.ReadBack))
	switch {
	case c.Reconnects > 0:
		row("resumed", "%d times; %s were durable on the target from before", c.Reconnects, size.Text(c.Had))
	case c.Had > 0:
		row("resumed", "%s were durable on the target from before", size.Text(c.Had))
	}
	if c.Redone > 0 {
		row("redone", "%d grains of 64 KiB were read back wrong and written again: check the target's device", c.Redone)
	}
	if c.Lost > 0 {
		row("lost", "%d grains of 64 KiB were gone although the target had flushed them: check its device and cache settings", c.Lost)
	}
	if text := coldness(r.Cold); text != "" {
		row("read", "%s", text)
	}
}

// over says what the bytes went over, and why if that was chosen by itself.
func over(r *mover.Report) string {
	if r.Transport == "" || r.Transport == "pipe" {
		return ""
	}
	text := " over " + r.Transport
	var how []string
	if r.Conns > 1 && r.Transport == "quic" { // of TLS each stream has one, whatever the network
		how = append(how, fmt.Sprintf("%d connections", r.Conns))
	}
	if r.Control == "bbr" { // others are what one expects
		how = append(how, r.Control)
	}
	if len(how) > 0 {
		text += " (" + strings.Join(how, ", ") + ")"
	}
	if r.Why != "" {
		text += ": " + OneLine(r.Why)
	}
	return text
}

// coldness says how much a read of the target proves.
func coldness(how string) string {
	switch how {
	case "direct":
		return "the target from the device itself (O_DIRECT)"
	case "dropped":
		return "the target after its page cache was dropped"
	case "server":
		return "the target as its server answers: whether that is the device or the server's cache cannot be told"
	case "cached":
		return "the target through the page cache: no way around it was found, so the device itself is not proved"
	}
	return how
}

func took(phases []Phase) string {
	var d time.Duration
	for _, p := range phases {
		d += p.Dur
	}
	return d.Round(100 * time.Millisecond).String()
}

func percent(n, total int64) string {
	if total <= 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(total))
}

// maxBadRows is a screen; the rest is in the JSON.
const maxBadRows = 10

func badRows(r *Result, b *strings.Builder) {
	bad := r.Report.Bad
	for i, e := range bad {
		if i == maxBadRows {
			fmt.Fprintf(b, "  and %d more\n", len(bad)-maxBadRows)
			return
		}
		what := "differ"
		switch {
		case e.Unreadable && r.Verify:
			what = "cannot be read on one of the sides"
		case e.Unreadable:
			what = "cannot be read at the source"
		}
		fmt.Fprintf(b, "  bytes %d to %d (%s at %s) %s\n", e.Off, e.Off+e.Len-1, size.Text(e.Len), size.Text(e.Off), what)
	}
}
