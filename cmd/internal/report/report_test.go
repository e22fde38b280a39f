package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// TestLineCountsWhatIsSettled: sent bytes move neither the bar nor the rate.
func TestLineCountsWhatIsSettled(t *testing.T) {
	var term bytes.Buffer
	now := time.Unix(0, 0)
	out := NewText(&term, &term, func() int { return 200 }).(*textOutput)
	out.now = func() time.Time { return now }
	tell := func(verified, sent int64) string {
		term.Reset()
		out.Status(wire.Counters{Total: 1000 << 20, Scanned: sent, Sent: sent, Verified: verified}, "")
		now = now.Add(time.Second)
		return term.String()
	}
	tell(0, 0)
	for _, c := range []struct {
		verified, sent int64
		want           string
	}{
		{0, 500 << 20, "  0.0% [--------------------] 0 B/s ETA --  "},
		{100 << 20, 500 << 20, " 10.0% [##------------------] 50.0 MiB/s ETA 18s  "},
		{1000 << 20, 1000 << 20, "100.0% [####################] 333.3 MiB/s ETA 0s  "},
	} {
		if got := strings.TrimPrefix(tell(c.verified, c.sent), clearLine); !strings.HasPrefix(got, c.want) {
			t.Errorf("verified %d, sent %d: %q, want it to begin with %q", c.verified, c.sent, got, c.want)
		}
	}
	tell(0, 0)
	if got := strings.TrimPrefix(tell(10<<20, 0), clearLine); !strings.Contains(got, " 10.0 MiB/s ") {
		t.Errorf("after a rewind: %q, want the rate of what came since", got)
	}
}

func TestLineFits(t *testing.T) {
	c := wire.Counters{Total: 1 << 40, Verified: 1 << 39}
	for _, width := range []int{0, 1, 40, 79, 200} {
		if got := progressLine(c, 1<<30, "", width); len(got) > width {
			t.Errorf("width %d: %d columns: %q", width, len(got), got)
		}
		got := progressLine(c, 1<<30, "", width)
		if width >= 40 && (!strings.Contains(got, "1.0 GiB/s ETA 8m32s") || !strings.HasSuffix(got, "B") && !strings.HasSuffix(got, "s")) {
			t.Errorf("width %d: rate and ETA are not in, or a number is cut in %q", width, got)
		}
	}
}

// TestLineSaysWhatLimits: who looks at a slow copy sees at once that it was told
// to be slow.
func TestLineSaysWhatLimits(t *testing.T) {
	c := wire.Counters{Total: 1 << 40, Verified: 1 << 39, Sent: 1 << 20}
	for width, want := range map[int]string{80: "ETA 8m32s  limited by daemon rate", 200: "ETA 8m32s  limited by daemon rate  sent 1.0 MiB  "} {
		if got := progressLine(c, 1<<30, "daemon rate", width); !strings.Contains(got, want) {
			t.Errorf("width %d: %q is not in %q", width, want, got)
		}
	}
	var out bytes.Buffer
	for limit, want := range map[string]bool{"latency": true, "": false} {
		out.Reset()
		NewJSON(&out).Status(c, limit)
		if got := strings.Contains(out.String(), `"limited_by":"latency"`); got != want || !want && strings.Contains(out.String(), "limited_by") {
			t.Errorf("limited by %q: %s", limit, out.String())
		}
	}
}

// TestRemarkEndsLine: an event has a line of its own, and the bar comes back
// below it.
func TestRemarkEndsLine(t *testing.T) {
	var term bytes.Buffer
	out := NewText(&term, &term, func() int { return 80 }).(*textOutput)
	out.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	out.Status(wire.Counters{Total: 1}, "")
	term.Reset()
	out.Remark(Warning, "link lost:\n no answer")
	if got, want := term.String(), clearLine+"03:04:05 WARNING: link lost:; no answer\n"; got != want {
		t.Errorf("Remark wrote %q, want %q", got, want)
	}
}

func TestSummary(t *testing.T) {
	bad := make([]mover.BadRun, 13)
	for i := range bad {
		bad[i] = mover.BadRun{Off: int64(i) << 20, Len: 1 << 16}
	}
	good := wire.Counters{Total: 1 << 30, Scanned: 1 << 30, Same: 1 << 29, Sent: 1 << 20, Wire: 1 << 19, Differing: 1 << 20, Verified: 1 << 30}
	for _, c := range []struct {
		name       string
		r          Result
		want, lack []string
	}{
		{
			"verified",
			Result{Report: mover.Report{Equal: true, State: wire.StateVerified, Counters: good, Transport: "quic", Cold: "direct", Larger: 1 << 20}},
			[]string{"Verified: ", "over quic", "O_DIRECT", "1.0 MiB longer than the source", "0.1 %", "root"},
			[]string{"resumed", "redone"},
		},
		{
			"cached",
			Result{Report: mover.Report{Equal: true, State: wire.StateVerified, Counters: good, Cold: "cached", Transport: "pipe"}},
			[]string{"the device itself is not proved"},
			[]string{"over pipe", "longer"},
		},
		{
			"cut",
			Result{Report: mover.Report{Counters: wire.Counters{Total: 9, Reconnects: 3, Had: 5 << 20, Redone: 2, Lost: 1}}},
			[]string{"Not verified.", "resumed    3 times; 5.0 MiB were durable", "2 grains of 64 KiB were read back wrong", "1 grains of 64 KiB were gone"},
			[]string{"Clean", "root"},
		},
		{
			"began",
			Result{Start: Start{Run: "R1"}, Report: mover.Report{Epoch: 7, Counters: good}},
			[]string{"The target is Inconsistent: do not power on", "--run R1"},
			nil,
		},
		{
			"sampled",
			Result{Start: Start{Tracking: "bitmap:b0"}, Report: mover.Report{
				State: wire.StateVerified, Hinted: true, Reason: "nbd-bitmap b0, exact, 3 areas",
				Counters: wire.Counters{Total: 1 << 30, Scanned: 80 << 16, Verified: 80 << 16, Sampled: 64 << 16, Skipped: 1<<30 - 80<<16},
			}},
			[]string{"Verified (sampled 64 of 16368): ", "none differs", "bitmap:b0: nbd-bitmap b0, exact, 3 areas", "1019.0 MiB (99.5 %), called unchanged"},
			[]string{"root", "proved by reading both.", "equal to the source"},
		},
		{
			"distrusted",
			Result{Start: Start{Tracking: "bitmap:b0"}, Report: mover.Report{Equal: true, State: wire.StateVerified, Counters: good, Reason: "distrusted: x"}},
			[]string{"Verified: ", "bitmap:b0 was asked for and not used: distrusted: x"},
			[]string{"sampled", "left out"},
		},
		{
			"sampled, then read in full",
			Result{
				Start: Start{Tracking: "bitmap:b0"}, Phases: []Phase{{Name: "pass"}, {Name: "full verify"}},
				Report: mover.Report{Equal: true, State: wire.StateVerified, Counters: good, Reason: "used: x; then everything was read again"},
			},
			[]string{"Verified: ", "bitmap:b0 was asked for and used: x; then everything was read again"},
			[]string{"sampled", "left out", "not used"},
		},
		{"copied", Result{Report: mover.Report{State: wire.StateCopied}}, []string{"Not verified: the target is Copied."}, nil},
		{"equal", Result{Verify: true, Report: mover.Report{Equal: true, Counters: good}}, []string{"Equal: 1.0 GiB (1073741824 bytes)"}, []string{"sent", "written"}},
		{
			"different",
			Result{Verify: true, Report: mover.Report{Counters: good, Bad: bad}},
			[]string{"Different: 1073741824 bytes were compared", "bytes 9437184 to 9502719", "and 3 more"},
			[]string{"bytes 10485760 "},
		},
	} {
		got := summaryText(&c.r)
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %q is not in\n%s", c.name, w, got)
			}
		}
		for _, w := range c.lack {
			if strings.Contains(got, w) {
				t.Errorf("%s: %q is in\n%s", c.name, w, got)
			}
		}
	}
}

// TestLog: what a driver warns of is told like an event, the rest is not.
func TestLog(t *testing.T) {
	var term bytes.Buffer
	out := NewText(&term, &term, func() int { return 80 }).(*textOutput)
	out.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	log := NewLog(out).With("vm", "vm-7")
	log.Info("worker started")
	log.Warn("worker was killed", "err", "signal\n9")
	if got, want := term.String(), "03:04:05 worker was killed vm=vm-7 err=signal; 9\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
