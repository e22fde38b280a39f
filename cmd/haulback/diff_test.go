package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

const grain = 64 << 10

// cmpGrains is what cmp -l says differs, in whole grains, neighbours as one.
func cmpGrains(t *testing.T, a, b string, size int64) string {
	t.Helper()
	out, err := exec.Command("cmp", "-l", a, b).Output()
	if ee, ok := err.(*exec.ExitError); err != nil && (!ok || ee.ExitCode() != 1) {
		t.Fatal(err)
	}
	var list strings.Builder
	begin, end := int64(-1), int64(-1)
	flush := func() {
		if begin >= 0 {
			fmt.Fprintf(&list, "%d+%d\n", begin, min(end, size)-begin)
		}
	}
	for line := range strings.Lines(string(out)) {
		n, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		g := (n - 1) / grain * grain // cmp counts from 1
		switch {
		case g < end:
		case g == end:
			end += grain
		default:
			flush()
			begin, end = g, g+grain
		}
	}
	flush()
	return list.String()
}

// extentsOf is the extents of JSON lines.
func extentsOf(t *testing.T, out string) string {
	t.Helper()
	var list strings.Builder
	for _, l := range lines(t, out) {
		if l["message_type"] == "extent" {
			fmt.Fprintf(&list, "%d+%d\n", int64(l["offset"].(float64)), int64(l["length"].(float64)))
		}
	}
	return list.String()
}

// TestDiff: the list is that of cmp, on one machine, pushed and pulled, over
// both transports.
func TestDiff(t *testing.T) {
	t.Parallel()
	const size = 8*mib + 777
	desk, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	desk.Pair(home)
	a := desk.Disk("a", size, 1)
	b := filepath.Join(home.Dir, "b")
	content, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	for off := 100; off < size; off += 3 * grain { // many runs
		content[off] ^= 1
	}
	for i := 2 * mib; i < 3*mib+5; i++ { // a long one
		content[i] ^= 0x55
	}
	content[size-1] ^= 1
	write(t, b, string(content))
	want := cmpGrains(t, a, b, size)
	if n := strings.Count(want, "\n"); n < 20 {
		t.Fatalf("cmp has %d runs", n)
	}
	same := home.Disk("same", size, 1)
	d := home.Daemon(cmdtest.Export("b", b, "target", desk), cmdtest.Export("src", b, "source", desk), cmdtest.Export("same", same, "source", desk))
	for name, args := range map[string][]string{
		"here": {a, b}, "push": {a, d.URI("b")}, "pull": {d.URI("src"), a}, "pull by TLS": {d.URI("src"), a, "--transport", "tls"}, "push by TLS": {a, d.URI("b"), "--transport", "tls"},
	} {
		r := desk.Run(append([]string{"diff", "--json"}, args...)...)
		if got := extentsOf(t, r.Out); r.Code != 4 || got != want {
			t.Errorf("%s: exit code %d, got\n%swant\n%s%s", name, r.Code, got, want, r.Stderr)
		}
		if sum := lastLine(t, r.Out, "summary"); sum["mode"] != "diff" || sum["equal"] != false || sum["bad"] != nil {
			t.Errorf("%s: summary %v", name, sum)
		}
	}
	r := desk.Run("diff", a, b)
	var text strings.Builder
	for line := range strings.Lines(r.Out) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "different" {
			fmt.Fprintf(&text, "%s+%s\n", f[0], f[1])
		}
	}
	if text.String() != want || r.Code != 4 {
		t.Errorf("for people: exit code %d\n%s", r.Code, r.Out)
	}
	for _, equal := range [][]string{{a, same}, {d.URI("same"), a}} {
		if r := desk.Run("diff", "--json", equal[0], equal[1]); r.Code != 0 || extentsOf(t, r.Out) != "" {
			t.Errorf("equal disks: exit code %d: %s", r.Code, r.Out)
		}
	}
	if r := desk.Run("diff", d.URI("src"), d.URI("b")); r.Code != 10 || !strings.Contains(r.Stderr, "run haulback diff where") {
		t.Errorf("two exports: exit code %d: %s", r.Code, r.Stderr)
	}
	if got, err := os.ReadFile(b); err != nil || !bytes.Equal(got, content) {
		t.Error("diff has written")
	}
}

// TestDiffAcrossARestart: the daemon is killed in the middle, and the list is
// that of cmp all the same.
func TestDiffAcrossARestart(t *testing.T) {
	t.Parallel()
	const size = 64 * mib
	desk, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	desk.Pair(home)
	a, b := desk.Disk("a", size, 1), home.Disk("b", size, 1)
	for off := int64(5); off < size; off += 5 * grain {
		flip(t, b, off)
	}
	d := home.Daemon(cmdtest.Export("b", b, "source", desk))
	uri := d.URI("b")
	c := desk.Start("diff", "--json", uri, a, "--retry", "1m")
	cmdtest.Await(t, "a first extent", func() bool { return strings.Contains(c.Stdout(), `"extent"`) || c.Cmd.ProcessState != nil })
	d.Signal(syscall.SIGKILL)
	d.Wait()
	home.DaemonAt(d.Listen, cmdtest.Export("b", b, "source", desk))
	r := c.Wait()
	if got, want := extentsOf(t, r.Out), cmpGrains(t, a, b, size); r.Code != 4 || got != want {
		t.Errorf("exit code %d, %d runs, want %d\n%s", r.Code, strings.Count(got, "\n"), strings.Count(want, "\n"), r.Stderr)
	}
}

// TestDiffFullDisk: a list that cannot be written is no list.
func TestDiffFullDisk(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := s.Disk("a", mib, 1), s.Disk("b", mib, 2)
	for _, args := range [][]string{{"diff", a, b}, {"extents", a}, {"diff", "--json", a, b}, {"extents", "--json", a}} {
		if r := fullDisk(t, s, args...); r.Code != 1 || !strings.Contains(r.Stderr, "no space") {
			t.Errorf("%q: exit code %d: %s", args, r.Code, r.Stderr)
		}
	}
}

// fullDisk runs haulback with a standard output that takes nothing.
func fullDisk(t *testing.T, s *cmdtest.Site, args ...string) cmdtest.Result {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	check(t, err)
	defer full.Close()
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), programs.Path(t, "haulback"), append([]string{"--state-dir", s.State}, args...)...)
	cmd.Stdout, cmd.Stderr = full, &stderr
	_ = cmd.Run() // the code says it
	return cmdtest.Result{Code: cmd.ProcessState.ExitCode(), Stderr: stderr.String()}
}
