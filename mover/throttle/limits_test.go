package throttle

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the test names a zone
)

func TestValidate(t *testing.T) {
	window := func(w Window) Limits { return Limits{Windows: []Window{w}} }
	for _, c := range []struct {
		name string
		l    Limits
		want string // in the error; empty: none
	}{
		{"none", Limits{}, ""},
		{"least", Limits{Wire: Least, Read: Least, Latency: LeastLatency, Priority: High}, ""},
		{"wire", Limits{Wire: Least - 1}, "wire rate of 65535"},
		{"read", Limits{Read: 1}, "read rate of 1"},
		{"negative", Limits{Read: -1}, "read rate of -1"},
		{"latency", Limits{Latency: time.Microsecond}, "latency 1µs"},
		{"negative latency", Limits{Latency: -1}, "latency"},
		{"latency of hours", Limits{Latency: time.Hour}, "latency 1h"},
		{"priority", Limits{Priority: 2}, "priority 2"},
		{"whole day", window(Window{From: 0, To: 1440}), ""},
		{"whole day from noon", window(Window{From: 720, To: 720}), ""},
		{"from", window(Window{From: 1440}), "window 0"},
		{"to", window(Window{To: 1441}), "window 0"},
		{"before midnight", window(Window{From: -1}), "window 0"},
		{"rate", window(Window{To: 1, Wire: 5}), "window 0: wire rate of 5"},
		{"many", Limits{Windows: make([]Window, 65)}, "65 windows"},
	} {
		err := c.l.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if thr, err := New(c.l); c.want != "" && (err == nil || thr.on.Load()) {
			t.Errorf("%s: New takes it: %v", c.name, err)
		}
	}
}

func days(list ...time.Weekday) (d [7]bool) {
	for _, w := range list {
		d[w] = true
	}
	return d
}

// TestWindows looks at minutes around the edges, with the dates on which Berlin
// changed its clocks in 2026: at 29 March 02:00 became 03:00, at 25 October
// 03:00 became 02:00.
func TestWindows(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	work := Window{Days: days(1, 2, 3, 4, 5), From: 8 * 60, To: 18 * 60, Wire: 1 << 20}
	night := Window{Days: days(time.Friday), From: 22 * 60, To: 6 * 60, Wire: 2 << 20}
	early := Window{From: 2 * 60, To: 3 * 60, Wire: 3 << 20}
	half := Window{From: 2*60 + 30, To: 2*60 + 30, Wire: 4 << 20} // all the time
	for _, c := range []struct {
		at      string // UTC
		windows []Window
		want    int64 // MiB/s; 0: no window holds
	}{
		{"2026-11-20T06:59:59Z", []Window{work}, 0}, // Friday, 07:59:59
		{"2026-11-20T07:00:00Z", []Window{work}, 1},
		{"2026-11-20T16:59:59Z", []Window{work}, 1},
		{"2026-11-20T17:00:00Z", []Window{work}, 0},
		{"2026-11-21T12:00:00Z", []Window{work}, 0}, // Saturday
		{"2026-11-22T12:00:00Z", []Window{work}, 0}, // Sunday
		{"2026-11-20T20:59:59Z", []Window{work, night}, 0},
		{"2026-11-20T21:00:00Z", []Window{work, night}, 2},
		{"2026-11-20T23:30:00Z", []Window{night}, 2}, // Saturday, 00:30
		{"2026-11-21T04:59:59Z", []Window{night}, 2},
		{"2026-11-21T05:00:00Z", []Window{night}, 0},
		{"2026-11-21T21:30:00Z", []Window{night}, 0}, // it began on Friday only
		{"2026-11-19T23:30:00Z", []Window{night}, 0}, // Friday, 00:30: Thursday's night
		{"2026-11-20T12:00:00Z", []Window{half, work}, 4},
		{"2026-11-20T12:00:00Z", []Window{work, half}, 1}, // the first that holds
		{"2026-03-28T01:30:00Z", []Window{early}, 3},
		{"2026-03-29T00:59:59Z", []Window{early}, 0}, // 01:59:59
		{"2026-03-29T01:00:00Z", []Window{early}, 0}, // 03:00: there was no 02:00
		{"2026-10-24T23:59:59Z", []Window{early}, 0}, // 01:59:59
		{"2026-10-25T00:00:00Z", []Window{early}, 3}, // 02:00, the first
		{"2026-10-25T01:30:00Z", []Window{early}, 3}, // 02:30, the second
		{"2026-10-25T01:59:59Z", []Window{early}, 3},
		{"2026-10-25T02:00:00Z", []Window{early}, 0}, // 03:00
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		l := Limits{Wire: 9 << 20, Windows: c.windows}
		got := l.at(at.In(berlin))
		want := rates{limit: [kinds]int64{wire: c.want << 20}, window: c.want > 0}
		if c.want == 0 {
			want.limit[wire] = 9 << 20
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", at.In(berlin), got, want)
		}
	}
}
