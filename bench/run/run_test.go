package run

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/bench/peers"
	"github.com/haulback/haulback/bench/result"
	"github.com/haulback/haulback/bench/workload"
)

// put writes bytes at an offset of a file that is there.
func put(t *testing.T, name string, off int64, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte(text), off)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestSame lets cmp find a difference wherever it is, in small files and in
// large sparse ones.
func TestSame(t *testing.T) {
	const large = sparse + 1<<20
	b := &bench{}
	for _, c := range []struct {
		name string
		size int64
		x, y int64 // where a byte is written; -1: nowhere
		same bool
	}{
		{"nothing", 1 << 20, -1, -1, true},
		{"the same byte", 1 << 20, 5, 5, true},
		{"in the first half", 1 << 20, 5, -1, false},
		{"in the second half", 1 << 20, -1, 1<<20 - 1, false},
		{"large, nothing", large, -1, -1, true},
		{"large, the same byte", large, large / 2, large / 2, true},
		{"large, in the source", large, large - 1, -1, false},
		{"large, in the target only", large, -1, large / 3, false},
	} {
		dir := t.TempDir()
		x, y := filepath.Join(dir, "x"), filepath.Join(dir, "y")
		for name, at := range map[string]int64{x: c.x, y: c.y} {
			if err := workload.Sparse(name, c.size); err != nil {
				t.Fatal(err)
			}
			if at >= 0 {
				put(t, name, at, "!")
			}
			if err := b.cache(t.Context(), name); err != nil {
				t.Errorf("%s: cache: %v", c.name, err)
			}
		}
		if same, err := b.same(t.Context(), x, y); same != c.same || err != nil {
			t.Errorf("%s: same %t, %v", c.name, same, err)
		}
	}
	dir := t.TempDir()
	x, y := filepath.Join(dir, "x"), filepath.Join(dir, "y")
	if err := errors.Join(workload.Sparse(x, 1<<20), workload.Sparse(y, 2<<20)); err != nil {
		t.Fatal(err)
	}
	if same, err := b.same(t.Context(), x, y); same || err != nil {
		t.Errorf("of two sizes: same %t, %v", same, err)
	}
	if _, err := b.same(t.Context(), x, filepath.Join(dir, "no")); err == nil {
		t.Error("without a target: no error")
	}
}

func TestCut(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	var text []byte
	for i := range 8 {
		text = append(text, bytes.Repeat([]byte{byte('a' + i)}, 4096)...)
	}
	if err := os.WriteFile(from, text, 0o600); err != nil {
		t.Fatal(err)
	}
	disks := []peers.Disk{{Source: filepath.Join(dir, "0")}, {Source: filepath.Join(dir, "1")}}
	if err := cut(t.Context(), from, disks, 4096, 4); err != nil {
		t.Fatal(err)
	}
	for i, d := range disks {
		b, err := os.ReadFile(d.Source)
		if err != nil || len(b) != 4*4*4096 {
			t.Fatalf("disk %d: %d bytes, %v", i, len(b), err)
		}
		for k := range 4 {
			at := b[k*4*4096:]
			if !bytes.Equal(at[:4096], text[(i*4+k)*4096:][:4096]) || bytes.Count(at[4096:4*4096], []byte{0}) != 3*4096 {
				t.Errorf("disk %d, piece %d: %q...", i, k, at[:10])
			}
		}
	}
}

func TestTable(t *testing.T) {
	r := new(result.Results)
	for n := range 3 {
		for _, v := range []string{"haulback/quic", "rsync/delta"} {
			peer, variant, _ := strings.Cut(v, "/")
			run := result.Run{Case: result.Same, Peer: peer, Variant: variant, N: n + 1, Image: 1 << 30, Wall: 2, Wire: 3 << 20, Cmp: result.Equal, RSS: map[result.End]int64{result.Source: 5 << 20}, Note: "quic"}
			if v == "rsync/delta" {
				run.Wall = 5
			}
			if n == 2 && v == "rsync/delta" {
				run.Cmp, run.Error = result.Differ, "target.img differs from its source"
			}
			r.Add(result.Line{Run: &run})
		}
	}
	r.Add(result.Line{LeftOut: &result.LeftOut{Name: "bdsync", Why: "it is not in PATH"}})
	var b bytes.Buffer
	Table(&b, r)
	for _, want := range []string{"same", "2 (1 FAILED)", "2.50", "not measured", "LEFT OUT: bdsync", "P2", "met"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, b.String())
		}
	}
	if s := Line(&r.Runs[5], 3); !strings.Contains(s, "FAILED: target.img differs") || !strings.Contains(s, "3/3") {
		t.Errorf("a failed run: %q", s)
	}
	if s := Line(&r.Runs[0], 3); !strings.Contains(s, "equal") || strings.Contains(s, "FAILED") || !strings.Contains(s, "5+0 MiB") {
		t.Errorf("a run: %q", s)
	}
}

// TestTablePlaces: two places do not share a median.
func TestTablePlaces(t *testing.T) {
	r := new(result.Results)
	for p, wall := range map[result.Place]float64{result.OnDisk: 4, result.InMemory: 1} {
		for _, peer := range []string{"haulback/quic", "b3sum/"} {
			name, variant, _ := strings.Cut(peer, "/")
			r.Add(result.Line{Run: &result.Run{Case: result.Same, Place: p, Peer: name, Variant: variant, N: 1, Image: 1 << 30, Wall: wall}})
			wall = 1
		}
	}
	var b bytes.Buffer
	Table(&b, r)
	for _, want := range []string{"same, on disk", "same, in memory", "on disk <= 1.35 4.00 missed", "in memory <= 1.35 1.00 met"} {
		if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), want) {
			t.Errorf("the table has no %q:\n%s", want, b.String())
		}
	}
}

// TestMemoryLacks: without the memory the part is left out, and that is no failure.
func TestMemoryLacks(t *testing.T) {
	var told []string
	b := &bench{Options: Options{Size: 1 << 60, Tell: func(s string) { told = append(told, s) }}, scratch: t.TempDir()}
	if err := b.inMemory(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || !strings.Contains(told[0], "LEFT OUT: EVERYTHING IN MEMORY: 2147483649.1 GiB of memory are needed") {
		t.Errorf("told %q", told)
	}
	if l := b.results.LeftOut; len(l) != 1 || l[0].Place != result.InMemory || l[0].Why == "" {
		t.Errorf("left out: %+v", l)
	}
}

func TestRunRefuses(t *testing.T) {
	o := Options{Size: workload.MinSize, Parts: []Part{{Cases: Cases, Runs: 1}}, Dir: t.TempDir(), Bin: t.TempDir(), Tell: func(string) {}}
	o.Peers = []string{"nobody"}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), `no peer "nobody"`) {
		t.Errorf("a peer that nobody knows: %v", err)
	}
	o.Peers = nil
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "haulback") {
		t.Errorf("no programs: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "run-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, o); err == nil {
		t.Error("no error with a context that is done")
	}
}
