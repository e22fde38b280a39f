package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/bench/result"
)

var accept = flag.Bool("accept", false, "write the golden page from what is made now")

// load reads the results that the tests use: invented numbers of all kinds.
func load(t *testing.T) (*result.Results, Reasons) {
	t.Helper()
	f, err := os.Open("testdata/results.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := result.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	reasons, err := ReadReasons("testdata/reasons.json")
	if err != nil {
		t.Fatal(err)
	}
	return r, reasons
}

func TestMarkdown(t *testing.T) {
	const golden = "testdata/README.golden.md"
	r, reasons := load(t)
	var got bytes.Buffer
	Markdown(&got, r, reasons, []string{"throughput", "memory", "cpu", "wan"})
	if *accept {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	a, b := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("line %d differs (go test -accept writes what is made now):\ngot  %q\nwant %q", i+1, at(a, i), at(b, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(no line)"
}

// TestMarkdownOfNothing: an interrupted benchmark has a page too.
func TestMarkdownOfNothing(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "wan.png")
	if err := os.WriteFile(stale, []byte("of last time"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, new(result.Results), nil); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil || !strings.Contains(string(page), "not measured") || strings.Contains(string(page), "](wan.svg)") {
		t.Errorf("the page of no results: %v\n%s", err, page)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a picture of another report stays: %v", err)
	}
}

// TestLeftOutPlace: a page without results in memory says why there are none.
func TestLeftOutPlace(t *testing.T) {
	r, reasons := load(t)
	r = r.At(result.OnDisk)
	var plain, said bytes.Buffer
	Markdown(&plain, r, reasons, nil)
	r.LeftOut = append(r.LeftOut, result.LeftOut{Place: result.InMemory, Why: "9.1 GiB of memory are needed"})
	Markdown(&said, r, reasons, nil)
	for _, text := range []string{"## In memory", "**There are no results of it**: 9.1 GiB of memory are needed."} {
		if !strings.Contains(said.String(), text) || strings.Contains(plain.String(), text) {
			t.Errorf("%q is to be on the page that was told why, and on no other:\n%s", text, said.String())
		}
	}
	if strings.Contains(said.String(), "| in memory |") {
		t.Error("the targets have a column without results")
	}
}

func TestWrite(t *testing.T) {
	if testing.Short() {
		t.Skip("drawing takes seconds under the race detector, and has one goroutine")
	}
	r, reasons := load(t)
	dir := t.TempDir()
	if err := Write(dir, r, reasons); err != nil {
		t.Fatal(err)
	}
	for name, labels := range map[string][]string{
		"throughput": {"Throughput", "identical disks", "1 % changed", "10 % changed", "full copy", "haulback/quic", "rsync/delta", "nbdcopy/tls", "b3sum", "GiB of disk per second", "haulback", "peer, encrypted", "2.76"},
		"memory":     {"Throughput in memory", "identical disks", "haulback/quic", "GiB of disk per second"},
		"cpu":        {"CPU time of both ends", "CPU seconds per GiB of disk", "bdsync/sha256", "haulback/quic-refine"},
		"wan":        {"haulback/auto", "haulback/quic", "haulback/tls", "0 %", "0.01 %", "0.1 %", "1 %", "payload, Mbit/s", "75 % of it (target)", "1 Gbit/s, round trip 50ms"},
	} {
		text := svgText(t, filepath.Join(dir, name+".svg"))
		for _, label := range labels {
			if !strings.Contains(text, label) {
				t.Errorf("%s.svg has no label %q; it has: %s", name, label, text)
			}
		}
		f, err := os.Open(filepath.Join(dir, name+".png"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if c, err := png.DecodeConfig(f); err != nil || c.Width < 600 || c.Height < 300 {
			t.Errorf("%s.png: %d x %d pixels: %v", name, c.Width, c.Height, err)
		}
	}
}

// svgText is all text of a picture, which has to be well-formed XML.
func svgText(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var text strings.Builder
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if c, ok := token.(xml.CharData); ok && len(bytes.TrimSpace(c)) > 0 {
			text.Write(bytes.TrimSpace(c))
			text.WriteString("; ")
		}
	}
}

func TestReasons(t *testing.T) {
	r, err := parseReasons(strings.NewReader(`{"P3": "all of it", "P4: b": "this one", "P4 in memory": "that", "P4 cold: b": "and that"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		check result.Check
		place result.Place
		want  string
	}{
		{result.Check{Target: "P3", Text: "x", Verdict: result.Missed}, "", "all of it"},
		{result.Check{Target: "P3", Text: "x", Verdict: result.Met}, "", ""},
		{result.Check{Target: "P4", Text: "a", Verdict: result.Missed}, "", "not explained"},
		{result.Check{Target: "P3", Text: "x", Verdict: result.Missed}, result.InMemory, "in memory: not explained"},
		{result.Check{Target: "P4", Text: "b", Verdict: result.Missed}, result.InMemory, "in memory: that"},
		{result.Check{Target: "P4", Text: "b", Verdict: result.Missed}, result.Cold, "cold: and that"},
		{result.Check{Target: "P4", Text: "b", Verdict: result.NotMeasured, Why: "nobody ran"}, result.Cold, ""},
		{result.Check{Target: "P4", Text: "b", Verdict: result.Missed}, "", "this one"},
		{result.Check{Target: "P3", Verdict: result.NotMeasured, Why: "nobody ran"}, "", "nobody ran"},
	} {
		if got := r.of(&tc.check, tc.place); got != tc.want {
			t.Errorf("%+v, %v: reason %q, want %q", tc.check, tc.place, got, tc.want)
		}
	}
	for _, bad := range []string{``, `[]`, `{"p3": ""}`, `{"P3":"a"} {}`, `{"P3": 1}`, `{"P3 on tape": "x"}`} {
		if _, err := parseReasons(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if r, err := ReadReasons(filepath.Join(t.TempDir(), "none.json")); r != nil || err != nil {
		t.Errorf("no file: %v, %v", r, err)
	}
}

func TestSteps(t *testing.T) {
	for to, want := range map[float64]string{0.9: "0.0 0.2 0.4 0.6 0.8", 3: "0.0 0.5 1.0 1.5 2.0 2.5 3.0", 12.5: "0 5 10", 27: "0 5 10 15 20 25", 1040: "0 200 400 600 800 1000", 0.05: "0.00 0.01 0.02 0.03 0.04 0.05"} {
		var got []string
		for _, tick := range (steps{}).Ticks(0, to) {
			got = append(got, tick.Label)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("ticks up to %v: %q, want %q", to, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 2: "2.00", 17: "17", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 0.004: "0.00", -3.14159: "-3.14", 4096: "4096"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) is %q, want %q", v, got, want)
		}
	}
}
