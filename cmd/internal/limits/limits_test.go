package limits

import (
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/mover/throttle"
)

func TestWindow(t *testing.T) {
	week := [7]bool{1: true, 2: true, 3: true, 4: true, 5: true}
	for _, c := range []struct {
		text string
		want throttle.Window
		back string // what Text says; empty: the same
	}{
		{"Mon-Fri 08:00-18:00 10MiB", throttle.Window{Days: week, From: 480, To: 1080, Wire: 10 << 20}, "Mon,Tue,Wed,Thu,Fri 08:00-18:00 wire 10MiB"},
		{"22:00-06:30 wire 50MiB read 100KiB", throttle.Window{From: 1320, To: 390, Wire: 50 << 20, Read: 100 << 10}, ""},
		{"Sat,Sun 00:00-24:00 unlimited", throttle.Window{Days: [7]bool{0: true, 6: true}, To: 1440}, ""},
		{"Sat-Mon  12:00-12:01  read 65537B", throttle.Window{Days: [7]bool{0: true, 1: true, 6: true}, From: 720, To: 721, Read: 65537}, "Mon,Sat,Sun 12:00-12:01 read 65537B"},
		{"Tue 23:59-00:00 read 1GiB wire 64KiB", throttle.Window{Days: [7]bool{2: true}, From: 1439, Wire: 64 << 10, Read: 1 << 30}, "Tue 23:59-00:00 wire 64KiB read 1GiB"},
	} {
		got, err := Window(c.text)
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v, want %+v", c.text, got, err, c.want)
		}
		l := throttle.Limits{Windows: []throttle.Window{got}}
		if err := l.Validate(); err != nil {
			t.Errorf("%q: %v", c.text, err)
		}
		if c.back == "" {
			c.back = c.text
		}
		if s := Text(got); s != c.back {
			t.Errorf("%q is written %q, want %q", c.text, s, c.back)
		}
	}
	for text, want := range map[string]string{
		"":                                  "DAYS FROM-TO LIMIT",
		"Mon":                               "DAYS FROM-TO LIMIT",
		"Mon 08:00-18:00":                   "DAYS FROM-TO LIMIT",
		"mon 08:00-18:00 1MiB":              `"mon" is no day`,
		"Mon-Frid 08:00-18:00 1MiB":         "is no day",
		"Mon-Wed,Tue 08:00-18:00 1MiB":      "Tue is there twice",
		"Mon-Sun,Mon 08:00-18:00 1MiB":      "Mon is there twice",
		"Mon, 08:00-18:00 1MiB":             "is no day",
		"8:00-18:00 1MiB":                   `"8:00" is no time`,
		"08:00-18:60 1MiB":                  "is no time",
		"08:00-24:01 1MiB":                  "is no time",
		"08:00 1MiB":                        "no span of time",
		"24:00-08:00 1MiB":                  "begins at 24:00",
		"08:00-08:00 1MiB":                  "00:00-24:00",
		"08:00-+9:00 1MiB":                  "is no time",
		"08:00-18:00 1MB":                   "GiB or TiB",
		"08:00-18:00 0B":                    "no limit",
		"08:00-18:00 63KiB":                 "below 64KiB",
		"08:00-18:00 wire":                  "64MiB",
		"08:00-18:00 wire 1MiB read":        "SIZE",
		"08:00-18:00 disk 1MiB":             "SIZE",
		"08:00-18:00 1MiB 1MiB":             "SIZE",
		"08:00-18:00 wire 1MiB wire 2MiB":   "wire is there twice",
		"08:00-18:00 unlimited read 1MiB":   "SIZE",
		"Mon-Fri 08:00-18:00 read 1MiB per": "SIZE",
	} {
		if w, err := Window(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", text, w, err, want)
		}
	}
}

func TestLatency(t *testing.T) {
	if d, err := Latency("20ms"); err != nil || d != 20*time.Millisecond {
		t.Errorf("20ms: %v, %v", d, err)
	}
	for _, s := range []string{"20", "0s", "-1ms", "1us", "2h", "fast"} {
		if d, err := Latency(s); err == nil {
			t.Errorf("%q: %v", s, d)
		}
	}
}

func FuzzWindow(f *testing.F) {
	f.Add("Mon-Fri,Sun 08:00-18:00 wire 10MiB read 1GiB")
	f.Add("22:00-06:30 unlimited")
	f.Fuzz(func(t *testing.T, s string) {
		w, err := Window(s)
		if err != nil {
			return
		}
		l := throttle.Limits{Windows: []throttle.Window{w}}
		if err := l.Validate(); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if again, err := Window(Text(w)); err != nil || again != w {
			t.Fatalf("%q is written %q, which is %+v, %v", s, Text(w), again, err)
		}
	})
}
