package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// sparse is a disk with data at the places, in MiB.
func sparse(t *testing.T, s *cmdtest.Site, name string, size int64, at ...int64) string {
	t.Helper()
	path := s.Disk(name, int(size), 0)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, m := range at {
		if _, err := f.WriteAt([]byte(strings.Repeat("data", mib/4)), m*mib); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil { // what is not on the disk yet has no place there
		t.Fatal(err)
	}
	return path
}

// rows are the extents of a list and its summary.
func rows(t *testing.T, s *cmdtest.Site, args ...string) (list []string, sum map[string]any) {
	t.Helper()
	r := s.OK(append([]string{"extents", "--json"}, args...)...)
	for _, l := range lines(t, r.Out) {
		if l["message_type"] == "extent" {
			list = append(list, fmt.Sprintf("%.0f+%.0f %s", l["offset"], l["length"], l["kind"]))
		}
	}
	return list, lastLine(t, r.Out, "summary")
}

// TestExtents: the list is that of qemu-img, of a file and of an NBD server, and
// can be had in pieces.
func TestExtents(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	s := cmdtest.NewSite(t, &programs, "desk")
	a := sparse(t, s, "a", 32*mib, 1, 2, 7, 20, 31)
	var want []string
	var merged struct{ off, end int64 }
	kind := ""
	flush := func() {
		if kind != "" {
			want = append(want, fmt.Sprintf("%d+%d %s", merged.off, merged.end-merged.off, kind))
		}
	}
	var qemu []struct {
		Start, Length int64
		Data          bool
	}
	if err := json.Unmarshal([]byte(mustTool(t, "qemu-img", "map", "-f", "raw", "--output=json", a)), &qemu); err != nil {
		t.Fatal(err)
	}
	for _, q := range qemu {
		k := map[bool]string{true: "data", false: "hole"}[q.Data]
		if k == kind {
			merged.end = q.Start + q.Length
			continue
		}
		flush()
		kind, merged.off, merged.end = k, q.Start, q.Start+q.Length
	}
	flush()
	if len(want) < 8 {
		t.Fatalf("qemu-img: %v", want)
	}
	server := nbdtest.Unix(t, "qemu-nbd", "-t", "-f", "raw", a)
	// The server comes first: it opens the file when it likes, and cannot while we
	// hold it.
	for _, disk := range []string{server.URI, a, "file://" + a} {
		got, sum := rows(t, s, disk)
		if strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("%s: got %v, want %v", disk, got, want)
		}
		if sum["complete"] != true || sum["data"].(float64)+sum["hole"].(float64) != 32*mib || sum["next_offset"].(float64) != 32*mib {
			t.Errorf("%s: summary %v", disk, sum)
		}
		var pieces []string
		for next, complete := "0", false; !complete; {
			some, sum := rows(t, s, disk, "--max", "3", "--offset", next)
			pieces = append(pieces, some...)
			next, complete = strconv.FormatFloat(sum["next_offset"].(float64), 'f', 0, 64), sum["complete"].(bool)
		}
		if strings.Join(pieces, ",") != strings.Join(want, ",") {
			t.Errorf("%s: in pieces %v, want %v", disk, pieces, want)
		}
	}
	if got, _ := rows(t, s, a, "--offset", "7MiB"); got[0] != fmt.Sprintf("%d+%d data", 7*mib, mib) {
		t.Errorf("from 7 MiB: %v", got)
	}
	if r := s.OK("extents", a); !strings.Contains(r.Out, "OFFSET") || !strings.Contains(r.Out, "extents: 5.0 MiB data, 27.0 MiB holes, of 32.0 MiB") {
		t.Errorf("for people:\n%s", r.Out)
	}
}

// TestExtentsChanged lists what a clone does not share any more.
func TestExtentsChanged(t *testing.T) {
	t.Parallel()
	dir := xfs(t)
	s := cmdtest.NewSite(t, &programs, "desk")
	src, clone := filepath.Join(dir, "disk.img"), filepath.Join(dir, "clone.img")
	for _, args := range [][]string{{"cp", s.Disk("seed", 16*mib, 1), src}, {"cp", "--reflink=always", src, clone}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	f, err := os.OpenFile(src, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("changed"), 9*mib+5)
	_, err2 := f.WriteAt(make([]byte, 8192), 3*mib)
	if err := errors.Join(err, err2, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	got, sum := rows(t, s, src, "--cbt", "fiemap:"+clone)
	want := fmt.Sprintf("%d+8192 changed,%d+4096 changed", 3*mib, 9*mib)
	if strings.Join(got, ",") != want || sum["trust"] != "exact" || sum["changed"].(float64) != 8192+4096 || sum["actual_tracking"] != "hint" {
		t.Errorf("got %v, want %s; summary %v", got, want, sum)
	}
	if got, _ := rows(t, s, src, "--cbt", "fiemap:"+clone, "--offset", strconv.Itoa(9*mib)); len(got) != 1 {
		t.Errorf("from 9 MiB: %v", got)
	}
	if r := s.OK("estimate", "--json", src, clone, "--cbt", "fiemap:"+clone); !strings.Contains(r.Out, `"actual_tracking":"hint"`) || !strings.Contains(r.Out, `"send_max":131072,`) {
		t.Errorf("estimate: %s", r.Out)
	}
}

// TestExtentsUntrusted: no answer is exit code 14, or with --fallback everything.
func TestExtentsUntrusted(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", mib, 1)
	track := "fiemap:" + s.Disk("b", mib, 1)
	if r := s.Run("extents", a, "--cbt", track); r.Code != 14 || r.Out != "" || !strings.Contains(r.Stderr, "--fallback") {
		t.Errorf("exit code %d: %s%s", r.Code, r.Out, r.Stderr)
	}
	r := s.OK("extents", a, "--cbt", track, "--fallback", "--json")
	if got := extentsOf(t, r.Out); got != fmt.Sprintf("0+%d\n", mib) || !strings.Contains(r.Out, `"warning"`) || lastLine(t, r.Out, "summary")["actual_tracking"] != "full" {
		t.Errorf("with --fallback: %s", r.Out)
	}
	for want, args := range map[string][]string{
		"run haulback extents there":  {"haulback://127.0.0.1:1/x"},
		"beyond the end":              {a, "--offset", "2MiB"},
		"a number from 0":             {a, "--offset", "-5"},
		"number of extents":           {a, "--max", "-1"},
		"it goes with --cbt":          {a, "--fallback"},
		"no such file or device":      {a + "x"},
		`"magic": bitmap:NAME`:        {a, "--cbt", "magic"},
		"no such change tracking":     {a, "--cbt", "bitmap:b0"},
		"accepts 1 arg(s), received ": {},
	} {
		if r := s.Run(append([]string{"extents"}, args...)...); r.Code != 10 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%q: exit code %d, want 10 and %q: %s", args, r.Code, want, r.Stderr)
		}
	}
}

// TestEstimate: what the estimate says of a small disk, whose every grain is in
// the sample, is what the copy does.
func TestEstimate(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := sparse(t, s, "a", 16*mib, 1, 2, 7), sparse(t, s, "b", 16*mib, 2, 9)
	before, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	e := lastLine(t, s.OK("estimate", "--json", a, b).Out, "summary")
	after, err := os.ReadFile(b)
	if err != nil || string(before) != string(after) {
		t.Fatal("estimate has written")
	}
	if _, err := os.Stat(filepath.Join(s.State, "journal")); err == nil {
		t.Error("estimate has made journals")
	}
	c := lastLine(t, s.OK("copy", "--json", a, b).Out, "summary")
	if got, want := e["differing"].(map[string]any)["likely"], c["changed"]; got != want || e["confidence"] != nil {
		t.Errorf("estimated %v bytes to differ, the copy found %v", e, want)
	}
	if e["send_max"].(float64) < c["sent"].(float64)-c["zero"].(float64) || e["send_max"].(float64) != 3*mib {
		t.Errorf("estimated at most %v, sent %v", e["send_max"], c["sent"])
	}
	noise := s.Disk("noise", 2*mib, 5)
	e = lastLine(t, s.OK("estimate", "--json", noise, s.Disk("blank", 2*mib, 0)).Out, "summary")
	c = lastLine(t, s.OK("copy", "--json", noise, s.Dir+"/blank").Out, "summary")
	if most := e["sent_wire"].(map[string]any)["high"].(float64); c["sent_wire"].(float64) > most || most > 2.01*mib {
		t.Errorf("estimated at most %.0f bytes on the wire, there were %v", most, c["sent_wire"])
	}
	if r := s.Run("estimate", a, "haulback://127.0.0.1:1/x"); r.Code != 10 || !strings.Contains(r.Stderr, "run haulback estimate there") {
		t.Errorf("an export: exit code %d: %s", r.Code, r.Stderr)
	}
	if r := s.Run("estimate", a, a); r.Code != 10 {
		t.Errorf("one disk: exit code %d: %s", r.Code, r.Stderr)
	}
	if r := s.OK("estimate", a); !strings.Contains(r.Out, "at most 3.0 MiB") {
		t.Errorf("for people:\n%s", r.Out)
	}
}
