package wan

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestSeriesRate(t *testing.T) {
	const mib = 1 << 20
	steady := func(n int) (p []point) { // 10 MiB every 100 ms, from 1 s on
		for i := range n {
			p = append(p, point{time.Second + time.Duration(i)*100*time.Millisecond, int64(i+1) * 10 * mib})
		}
		return p
	}
	for _, tc := range []struct {
		name   string
		points []point
		rate   float64
		over   time.Duration
	}{
		{"nothing", nil, 0, 0},
		{"one moment", steady(1), 0, 0},
		{"steady, as long as the window", steady(200), 100 * mib, 10 * time.Second},
		{"steady, shorter than the window", steady(51), 100 * mib, 3 * time.Second},
		{"shorter than it takes to settle", steady(5), 100 * mib, 400 * time.Millisecond},
		{"a slow start is left out", append([]point{{0, 1}}, steady(30)[15:]...), 100 * mib, 1400 * time.Millisecond},
		{"a slow end beyond the window is left out", append(steady(150), point{time.Hour, 1600 * mib}), 100 * mib, 10 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := series{points: tc.points}
			rate, over := s.rate(2*time.Second, 10*time.Second)
			if math.Abs(rate-tc.rate) > 1 || over != tc.over {
				t.Errorf("%.0f B/s over %v, want %.0f over %v", rate, over, tc.rate, tc.over)
			}
		})
	}
}

func TestSeriesRead(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	var in strings.Builder
	fmt.Fprintln(&in, `{"message_type":"started","time":"2026-11-01T12:00:00Z"}`)
	for i, written := range []int{0, 5, 5, 9} {
		fmt.Fprintf(&in, `{"message_type":"status","time":%q,"written":%d}`+"\n", at.Add(time.Duration(i)*time.Second).Format(time.RFC3339Nano), written)
	}
	fmt.Fprintln(&in, "what is no JSON is left out")
	fmt.Fprintln(&in, `{"message_type":"event","time":"2026-11-01T12:00:09Z","text":"reconnected"}`)
	fmt.Fprintln(&in, `{"message_type":"summary","time":"2026-11-01T12:00:04Z","written":10,"actual_transport":"quic"}`)
	s := series{began: at}
	calls := 0
	if note := s.read(strings.NewReader(in.String()), func() { calls++ }); note != "quic" || calls != 5 {
		t.Errorf("the copy says %q, after %d statuses, want quic and 5", note, calls)
	}
	want := []point{{time.Second, 5}, {3 * time.Second, 9}, {4 * time.Second, 10}}
	if fmt.Sprint(s.points) != fmt.Sprint(want) {
		t.Errorf("points %v, want %v", s.points, want)
	}
	if n, rate := s.whole(); n != 10 || rate != 2.5 {
		t.Errorf("%d bytes, %v a second, want 10 and 2.5", n, rate)
	}
}

func TestCaseOf(t *testing.T) {
	for loss, want := range map[float64]string{0: "wan", 0.0001: "wan-lowloss", 0.001: "wan-loss", 0.01: "wan-loss-1"} {
		if got := string(CaseOf(loss)); got != want {
			t.Errorf("loss %v is case %q, want %q", loss, got, want)
		}
	}
}
