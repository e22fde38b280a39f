package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/haulback/haulback/bench/result"
	"github.com/haulback/haulback/bench/run"
	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

var built cmdtest.Programs

func TestMain(m *testing.M) { os.Exit(cmdtest.Main(m, &built)) }

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--size", "1"}, "--size"},
		{[]string{"--size", "4MiB"}, "--size 4MiB"},
		{[]string{"--size", "9000KiB"}, "multiple of 1MiB"},
		{[]string{"--runs", "0"}, "--runs 0"},
		{[]string{"--runs", "many"}, "many"},
		{[]string{"--cases", "same,2pct"}, `no case "2pct"`},
		{[]string{"--on", "tape"}, `no place "tape"`},
		{[]string{"--on", "disk,memory", "--cases", "hint,wan"}, "--on memory: only same,1pct,10pct,empty"},
		{[]string{"--peers", "rsink"}, `no peer "rsink"`},
		{[]string{"--files-from", "/no/such/dir"}, "/no/such/dir"},
		{[]string{"--bin", "/no/such/bin"}, "/no/such/bin"},
		{[]string{"same"}, "same"},
		{[]string{"--quack"}, "quack"},
	} {
		cmd := command()
		cmd.SetArgs(append([]string{"--bin", built.Dir(t)}, c.args...))
		cmd.SetOut(new(bytes.Buffer))
		err := cmd.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) || exitcode.Of(err) != exitcode.Of(&exitcode.UsageError{Err: errors.New("x")}) {
			t.Errorf("haulbench %q: %v, want a usage error with %q", c.args, err, c.want)
		}
	}
}

func TestParts(t *testing.T) {
	all := run.Part{Cases: run.Cases, Runs: 5}
	same := []result.Case{result.Same}
	for _, c := range []struct {
		f    flags
		want []run.Part
	}{
		{flags{runs: 5}, []run.Part{all, {Place: result.InMemory, Cases: run.Anywhere, Runs: 3}, {Place: result.Cold, Cases: same, Runs: 3}}},
		{flags{runs: 5, on: []string{"disk"}}, []run.Part{all}},
		{flags{runs: 2, quick: true}, []run.Part{{Cases: quickCases, Runs: 2}}},
		{flags{runs: 1, cases: []string{"hint", "same"}}, []run.Part{{Cases: []result.Case{result.Hint, result.Same}, Runs: 1}}},
		{
			flags{runs: 4, cases: []string{"empty", "hint", "10pct"}, on: []string{"cold", "memory"}},
			[]run.Part{
				{Place: result.Cold, Cases: []result.Case{result.TenPercent, result.Empty}, Runs: 3},
				{Place: result.InMemory, Cases: []result.Case{result.TenPercent, result.Empty}, Runs: 3},
			},
		},
	} {
		if got, err := c.f.parts(); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %v, %v, want %v", c.f, got, err, c.want)
		}
	}
}

// TestSmoke benchmarks haulback and nbdcopy on a small image, twice. What the
// figures are is nobody's business here; that all are there is.
func TestSmoke(t *testing.T) {
	files := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(files, name), bytes.Repeat([]byte(name+" text "), 100_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, results := t.TempDir(), t.TempDir()
	weighed := 0
	for cases, on := range map[string]string{"1pct,empty": "disk,memory", "same,hint": "disk,cold"} {
		var out bytes.Buffer
		cmd := command()
		cmd.SetArgs([]string{
			"--size", "8MiB", "--runs", "1", "--cases", cases, "--on", on, "--peers", "haulback/quic,haulback/tls,nbdcopy/plain,bdsync,cat", "--files-from", files,
			"--dir", dir, "--out", results, "--bin", built.Dir(t),
		})
		cmd.SetOut(&out)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		f, err := os.Open(filepath.Join(results, "results.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := result.Read(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ran, at := map[string]bool{}, map[result.Place]bool{}
		for _, one := range r.Runs {
			ran[string(one.Case)+" "+one.Peer+" "+one.Variant] = true
			at[one.Place] = true
			if !one.OK() || one.Wall <= 0 || one.Peer != "cat" && one.Cmp != result.Equal {
				t.Errorf("run %+v", one)
			}
			if one.Peer == "haulback" && one.RSS[result.Source] > 0 { // a run may end between two looks at its memory
				weighed++
			}
			if r.Setup.CPUBy == "cgroup v2" && one.Wire < 1000 && one.Peer != "cat" {
				t.Errorf("nothing on the wire: %+v", one)
			}
		}
		for _, c := range strings.Split(cases, ",") {
			if !ran[c+" haulback quic"] || (c == "empty") != ran[c+" nbdcopy plain"] {
				t.Errorf("%s: %v\n%s", c, ran, out.String())
			}
		}
		if at[result.Cold] != strings.Contains(on, "cold") || at[result.InMemory] != strings.Contains(on, "memory") && !strings.Contains(out.String(), "LEFT OUT: EVERYTHING IN MEMORY: ") {
			t.Errorf("on %s: ran at %v\n%s", on, at, out.String())
		}
		if !strings.Contains(out.String(), "LEFT OUT: bdsync") && len(r.LeftOut) > 0 {
			t.Errorf("a peer was left out in silence:\n%s", out.String())
		}
		if page, err := os.ReadFile(filepath.Join(results, "README.md")); err != nil || !bytes.Contains(page, []byte("haulback")) {
			t.Errorf("no page: %v", err)
		}
	}
	if weighed == 0 {
		t.Error("no run of haulback has a figure for memory")
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("a tmpfs stays mounted: %v\n%s", err, mounts)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "run-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
