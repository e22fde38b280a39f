package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/bench/result"
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
	for _, cases := range []string{"1pct,empty", "same,hint"} {
		var out bytes.Buffer
		cmd := command()
		cmd.SetArgs([]string{
			"--size", "8MiB", "--runs", "1", "--cases", cases, "--peers", "haulback/quic,haulback/tls,nbdcopy/plain,bdsync,cat", "--files-from", files,
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
		ran := map[string]bool{}
		for _, run := range r.Runs {
			ran[string(run.Case)+" "+run.Peer+" "+run.Variant] = true
			if !run.OK() || run.Wall <= 0 || run.RSS[result.Source] == 0 && run.Peer != "cat" || run.Peer != "cat" && run.Cmp != result.Equal {
				t.Errorf("run %+v", run)
			}
			if r.Setup.CPUBy == "cgroup v2" && run.Wire < 1000 && run.Peer != "cat" {
				t.Errorf("nothing on the wire: %+v", run)
			}
		}
		for _, c := range strings.Split(cases, ",") {
			if !ran[c+" haulback quic"] || (c == "empty") != ran[c+" nbdcopy plain"] {
				t.Errorf("%s: %v\n%s", c, ran, out.String())
			}
		}
		if !strings.Contains(out.String(), "LEFT OUT: bdsync") && len(r.LeftOut) > 0 {
			t.Errorf("a peer was left out in silence:\n%s", out.String())
		}
		if page, err := os.ReadFile(filepath.Join(results, "README.md")); err != nil || !bytes.Contains(page, []byte("haulback")) {
			t.Errorf("no page: %v", err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "run-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
