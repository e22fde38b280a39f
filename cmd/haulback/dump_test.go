package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// open opens a file that the test closes at its end.
func open(t *testing.T, path string, flag int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// dumpTo runs haulback dump into a file.
func dumpTo(t *testing.T, s *cmdtest.Site, file string, args ...string) cmdtest.Result {
	t.Helper()
	return s.StartIO(nil, open(t, file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC), append([]string{"dump"}, args...)...).Wait()
}

// restoreFrom runs haulback restore from a file.
func restoreFrom(t *testing.T, s *cmdtest.Site, file string, args ...string) cmdtest.Result {
	t.Helper()
	return s.StartIO(open(t, file, os.O_RDONLY), nil, append([]string{"restore"}, args...)...).Wait()
}

// cmpFiles lets cmp compare the first n bytes, all with 0.
func cmpFiles(t *testing.T, a, b string, n int64) {
	t.Helper()
	args := []string{a, b}
	if n > 0 {
		args = []string{"-n", fmt.Sprint(n), a, b}
	}
	if out, err := exec.Command("cmp", args...).CombinedOutput(); err != nil {
		t.Errorf("cmp: %v: %s", err, out)
	}
}

// want fails the test unless r has the exit code and the words.
func want(t *testing.T, what string, r cmdtest.Result, code int, words ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("%s: exit code %d, want %d: %s", what, r.Code, code, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr, w) {
			t.Errorf("%s: %q is not in: %s", what, w, r.Stderr)
		}
	}
}

// jsonLine is the last JSON line of a type.
func jsonLine(t *testing.T, text, kind string) (found map[string]any) {
	t.Helper()
	for l := range strings.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if m["message_type"] == kind {
			found = m
		}
	}
	return found
}

// TestDumpDisks dumps disks of every kind and restores them elsewhere.
func TestDumpDisks(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	sparse := s.Disk("sparse", 300*mib+1, 0)
	for _, at := range []int64{0, 70*mib + 5, 300*mib - 3} {
		if _, err := open(t, sparse, os.O_RDWR).WriteAt([]byte("data"), at); err != nil {
			t.Fatal(err)
		}
	}
	served := nbdtest.Unix(t, "qemu-nbd", "-f", "raw", "-r", "-t", s.Disk("served", 5*mib+512, 4))
	target := s.Disk("nbdtarget", 5*mib+512, 5)
	for _, c := range []struct {
		name, disk, file, target string
		args                     []string
	}{
		{"raw", "", s.Disk("raw", 7*mib+777, 1), s.Disk("rawtarget", 7*mib+777, 9), nil},
		{"one byte", "", s.Disk("one", 1, 2), s.Dir + "/one.new", []string{"--create"}},
		{"larger target", "", s.Disk("small", 3*mib, 3), s.Disk("larger", 4*mib, 8), nil},
		{"sparse", "", sparse, s.Dir + "/sparse.new", []string{"--create"}},
		{"NBD", served.URI, s.Dir + "/served", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to, stream := c.disk, c.target, s.Dir+"/"+strings.ReplaceAll(c.name, " ", "")+".hb"
			if from == "" {
				from = c.file
			}
			if to == "" {
				to = nbdtest.Unix(t, "qemu-nbd", "-f", "raw", "-t", target).URI
				c.target = target
			}
			want(t, "dump", dumpTo(t, s, stream, from, "--json"), 0, `"root":"`)
			want(t, "check", restoreFrom(t, s, stream, "--verify-only"), 0, "The stream is whole")
			want(t, "restore", restoreFrom(t, s, stream, append([]string{to}, c.args...)...), 0, "Verified: ")
			if st, err := os.Stat(c.file); err != nil {
				t.Error(err)
			} else {
				cmpFiles(t, c.file, c.target, st.Size())
			}
		})
	}
	st, err := os.Stat(s.Dir + "/sparse.new")
	if err != nil || st.Sys().(*syscall.Stat_t).Blocks*512 > 8*mib {
		t.Errorf("the restored sparse file takes %d bytes (%v)", st.Sys().(*syscall.Stat_t).Blocks*512, err)
	}
}

// TestDumpPipe: dump and restore in one pipe, as a migration by hand would.
func TestDumpPipe(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := s.Disk("a", 40*mib+1, 1), s.Disk("b", 40*mib+1, 2)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from := s.StartIO(nil, w, "dump", a, "--label", "vm=web", "--compress", "none")
	to := s.StartIO(r, nil, "restore", b)
	_, _ = r.Close(), w.Close()
	want(t, "dump", from.Wait(), 0)
	want(t, "restore", to.Wait(), 0, "Verified: ")
	cmpFiles(t, a, b, 0)
}

// TestDumpChanged: a clone is the change tracking of a stream, which goes only
// onto its base.
func TestDumpChanged(t *testing.T) {
	t.Parallel()
	dir := xfs(t)
	s := cmdtest.NewSite(t, &programs, "desk")
	src, clone, dst := filepath.Join(dir, "disk.img"), filepath.Join(dir, "clone.img"), s.Dir+"/copy.img"
	mustTool(t, "cp", s.Disk("seed", 90*mib+5, 1), src)
	mustTool(t, "cp", "--reflink=always", src, clone)
	r := dumpTo(t, s, s.Dir+"/full.hb", src, "--json")
	want(t, "full", r, 0, `"kind":"full"`)
	full := s.Dir + "/full.json"
	if err := os.WriteFile(full, []byte(r.Stderr), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, src, os.O_RDWR).WriteAt([]byte("changed since"), 9*mib+5); err != nil {
		t.Fatal(err)
	}
	inc := s.Dir + "/inc.hb"
	r = dumpTo(t, s, inc, src, "--json", "--cbt", "fiemap:"+clone, "--base", full)
	want(t, "changed", r, 0, `"kind":"changed"`, `"actual_tracking":"hint"`)
	if sum := jsonLine(t, r.Stderr, "summary"); sum["base_root"] != jsonLine(t, readAll(t, full), "summary")["root"] || sum["stream_bytes"].(float64) > 16*mib {
		t.Errorf("summary %v", sum)
	}
	name, _ := jsonLine(t, readAll(t, full), "summary")["run"].(string)
	want(t, "the name of its base", dumpTo(t, s, s.Dir+"/none.hb", src, "--cbt", "fiemap:"+clone, "--base", full, "--run", name), 10, "one of its own")
	want(t, "new file", restoreFrom(t, s, inc, dst, "--create"), 10, "full stream first")
	mustTool(t, "cp", s.Dir+"/seed", dst)
	want(t, "base not known", restoreFrom(t, s, inc, dst), 14, "--check-base")
	root, _ := jsonLine(t, readAll(t, full), "summary")["root"].(string)
	want(t, "word of the caller", restoreFrom(t, s, inc, dst, "--base-root", root), 0, "Verified (sampled")
	cmpFiles(t, src, dst, 0)
	mustTool(t, "cp", s.Dir+"/seed", s.Dir+"/copy2.img")
	want(t, "base is read", restoreFrom(t, s, inc, s.Dir+"/copy2.img", "--check-base"), 0, "Verified: ", "asked for and used: fiemap", "compared   90.0 MiB of 90.0 MiB")
	cmpFiles(t, src, s.Dir+"/copy2.img", 0)
	want(t, "full", restoreFrom(t, s, s.Dir+"/full.hb", s.Dir+"/copy3.img", "--create"), 0)
	want(t, "word of the journal", restoreFrom(t, s, inc, s.Dir+"/copy3.img"), 0, "the word of its journal", "Verified (sampled")
	want(t, "another disk is read", restoreFrom(t, s, inc, s.Disk("other", 90*mib+5, 7), "--check-base"), 14, "nothing was written")
	other := s.Disk("untracked", mib, 3)
	want(t, "no tracking", dumpTo(t, s, inc, other, "--json", "--cbt", "fiemap:"+clone, "--base", full), 0, `"kind":"full"`, `"tracking_reason":"no hint`)
	want(t, "no tracking, strict", dumpTo(t, s, inc, other, "--cbt", "fiemap:"+clone, "--base", full, "--strict"), 14)
	if st, err := os.Stat(inc); err != nil || st.Size() != 0 {
		t.Errorf("a refused dump wrote %d bytes (%v)", st.Size(), err)
	}
}

func readAll(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestStreamCodes: what a script sees when something is wrong.
func TestStreamCodes(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := s.Disk("a", 3*mib, 1), s.Disk("b", 3*mib, 2)
	good, bad, short := s.Dir+"/a.hb", s.Dir+"/bad.hb", s.Dir+"/short.hb"
	want(t, "dump", dumpTo(t, s, good, a), 0)
	stream := []byte(readAll(t, good))
	half := len(stream) / 2
	if err := os.WriteFile(short, stream[:half], 0o600); err != nil {
		t.Fatal(err)
	}
	stream[half] ^= 1
	if err := os.WriteFile(bad, stream, 0o600); err != nil {
		t.Fatal(err)
	}
	spec := func(name, text string) string {
		if err := os.WriteFile(s.Dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.Dir + "/" + name
	}
	for _, c := range []struct {
		name string
		code int
		word string
		args []string
	}{
		{"no such disk", 10, "check the path", []string{s.Dir + "/none"}},
		{"no argument", 10, "accepts 1 arg", nil},
		{"an export", 10, "on the host of that daemon", []string{"haulback://h:1/x"}},
		{"tracking without a base", 10, "--base", []string{a, "--cbt", "fiemap:" + b}},
		{"base without tracking", 10, "--cbt", []string{a, "--base", s.Dir}},
		{"a base that is none", 10, "no summary", []string{a, "--cbt", "fiemap:" + b, "--base", a}},
		{"a base that is not there", 10, "no file", []string{a, "--cbt", "fiemap:" + b, "--base", "zz"}},
		{"tracking", 10, "magic", []string{a, "--cbt", "magic", "--base", strings.Repeat("0", 64)}},
		{"strict about nothing", 10, "--strict", []string{a, "--strict"}},
		{"compression", 10, "zip", []string{a, "--compress", "zip"}},
		{"label", 10, "printable", []string{a, "--label", "a=b\x1b"}},
		{"run", 10, "xyz", []string{a, "--run", "xyz"}},
		{"spec with an unknown key", 10, "dsk", []string{"--spec", spec("s1", `{"dsk": "x"}`)}},
		{"spec and an argument", 10, "unknown command", []string{a, "--spec", spec("s2", `{"disk": "x"}`)}},
		{"spec", 0, "Dumped", []string{"--spec", spec("s3", fmt.Sprintf(`{"disk": %q, "compress": "none", "labels": {"vm": "web"}}`, a))}},
		{"an empty disk", 10, "0 bytes", []string{s.Disk("empty", 0, 0)}},
		{"all is well", 0, "Dumped", []string{a}},
	} {
		want(t, "dump: "+c.name, dumpTo(t, s, s.Dir+"/out.hb", c.args...), c.code, c.word)
	}
	for _, c := range []struct {
		name, stream string
		code         int
		word         string
		args         []string
	}{
		{"no such file", good, 10, "--create", []string{s.Dir + "/none"}},
		{"an export", good, 10, "on the host of that daemon", []string{"haulback://h:1/x"}},
		{"too small", good, 10, "at least as large", []string{s.Disk("small", mib, 4)}},
		{"no stream", a, 10, "not a haulback stream", []string{b}},
		{"empty", os.DevNull, 10, "0 bytes", []string{b}},
		{"damaged, looked at", bad, 4, "damaged", []string{"--verify-only"}},
		{"damaged", bad, 4, "damaged", []string{b}},
		{"short, looked at", short, 4, "ends in the middle", []string{"--verify-only"}},
		{"short", short, 4, "ends in the middle", []string{b}},
		{"two words for a base", good, 10, "--check-base", []string{b, "--check-base", "--base-root", strings.Repeat("0", 64)}},
		{"root", good, 10, "64 hex", []string{b, "--base-root", "12"}},
		{"spec", good, 0, "Verified", []string{"--spec", spec("s4", fmt.Sprintf(`{"target": %q}`, b))}},
		{"all is well", good, 0, "Verified", []string{b}},
		{"looked at", good, 0, "whole", []string{"--verify-only"}},
	} {
		r := restoreFrom(t, s, c.stream, c.args...)
		want(t, "restore: "+c.name, r, c.code, c.word)
		if r.Out != "" || c.code != 0 && strings.Contains(r.Stderr, "Verified: ") {
			t.Errorf("restore: %s: %q on standard output, %s", c.name, r.Out, r.Stderr)
		}
	}
	cmpFiles(t, a, b, 0)
}

// TestDumpTerminal: nobody gets a disk on his screen, or waits for a stream from
// his keyboard.
func TestDumpTerminal(t *testing.T) {
	t.Parallel()
	ptm := open(t, "/dev/ptmx", os.O_RDWR)
	n, err := unix.IoctlGetInt(int(ptm.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptm.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty := open(t, fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY)
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", mib, 1)
	want(t, "dump", s.StartIO(nil, tty, "dump", a).Wait(), 10, "terminal")
	want(t, "restore", s.StartIO(tty, nil, "restore", a).Wait(), 10, "terminal")
}

// TestDumpPipeCloses: a reader that goes is a failure, not a signal; a signal
// ends a dump that nobody reads and a restore that nobody writes to.
func TestDumpPipeCloses(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", 20*mib, 1)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := s.StartIO(nil, w, "dump", a)
	_ = w.Close()
	if _, err := io.CopyN(io.Discard, r, 100<<10); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	want(t, "closed", p.Wait(), 1, "has gone")

	if r, w, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p = s.StartIO(nil, w, "dump", a)
	_ = w.Close()
	if _, err := io.CopyN(io.Discard, r, 1); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGTERM)
	want(t, "stopped", p.Wait(), 130, "stopped by a signal")

	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stream := s.Dir + "/a.hb"
	want(t, "dump", dumpTo(t, s, stream, a), 0)
	p = s.StartIO(in, nil, "restore", s.Disk("b", 20*mib, 2))
	_ = in.Close()
	if _, err := io.WriteString(out, readAll(t, stream)[:10*mib]); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGTERM)
	want(t, "stopped", p.Wait(), 130, "stopped by a signal")
	want(t, "probe", cmdtest.Result{Stderr: s.OK("probe", s.Dir+"/b").Out}, 0, "Inconsistent")
}

// TestDumpProgress: a caller's descriptor gets how far a stream is.
func TestDumpProgress(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", 9*mib, 1)
	for i, script := range []string{
		`"$0" --state-dir "$1" dump "$2" --progress-fd 3 3>"$2.p0" >"$2.hb"`,
		`"$0" --state-dir "$1" restore --verify-only --progress-fd 3 3>"$2.p1" <"$2.hb"`,
		`"$0" --state-dir "$1" restore "$2.new" --create --progress-fd 3 3>"$2.p2" <"$2.hb"`,
	} {
		mustTool(t, "sh", "-c", script, filepath.Join(programs.Dir(t), "haulback"), s.State, a)
		if got := readAll(t, fmt.Sprint(a, ".p", i)); !strings.HasPrefix(got, "0/100\n") || !strings.HasSuffix(got, "\n100/100\n") {
			t.Errorf("%s wrote %q", script, got)
		}
	}
}

// TestRestoreNoSpace: a target that fills up is left Inconsistent with exit
// code 3, and the same stream finishes it when there is room.
func TestRestoreNoSpace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root for mounts")
	}
	s := cmdtest.NewSite(t, &programs, "desk")
	a, dir, stream := s.Disk("a", 12*mib, 1), t.TempDir(), s.Dir+"/a.hb"
	mustTool(t, "mount", "-t", "tmpfs", "-o", "mode=0700,size=8m", "tmpfs", dir)
	t.Cleanup(func() { mustToolAfter(t, "umount", dir) })
	want(t, "dump", dumpTo(t, s, stream, a), 0)
	want(t, "full", restoreFrom(t, s, stream, dir+"/b", "--create"), 3, "no space", "not verified")
	if r := s.OK("probe", dir+"/b"); !strings.Contains(r.Out, "Inconsistent") {
		t.Errorf("probe of a disk that filled up:\n%s", r.Out)
	}
	mustTool(t, "mount", "-o", "remount,size=32m", dir)
	want(t, "again", restoreFrom(t, s, stream, dir+"/b"), 0, "Verified: ")
	cmpFiles(t, a, dir+"/b", 0)
}

func mustToolAfter(t *testing.T, name string, args ...string) {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %q: %v: %s", name, args, err, out)
	}
}

// TestRestoreKilled kills a restore at drawn points. What was touched is
// Inconsistent, what is called Verified is equal, and the stream restored again
// makes it so.
func TestRestoreKilled(t *testing.T) {
	t.Parallel()
	kills := 34
	if testing.Short() {
		kills = 6
	}
	s := cmdtest.NewSite(t, &programs, "desk")
	a, stream := s.Disk("a", 24*mib+512, 1), s.Dir+"/a.hb"
	want(t, "dump", dumpTo(t, s, stream, a), 0)
	whole := []byte(readAll(t, stream))
	rng := rand.New(rand.NewPCG(1, 1))
	touched := 0
	for i := range kills {
		b := s.Disk(fmt.Sprint("b", i), 24*mib+512, 2) // of its own: a journal knows the file, not what a test does to it
		before := []byte(readAll(t, b))
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := s.StartIO(in, nil, "restore", b)
		_ = in.Close()
		n := rng.IntN(len(whole))
		if i%4 == 0 {
			n = len(whole)
		}
		if _, err := out.Write(whole[:n]); err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rng.IntN(120)) * time.Millisecond) // the point to kill at
		_ = p.Cmd.Process.Kill()                                    // it may have ended
		verified := strings.Contains(p.Wait().Stderr, "Verified: ")
		_ = out.Close()
		after := []byte(readAll(t, b))
		state := s.OK("probe", b).Out
		switch {
		case (verified || strings.Contains(state, "Verified")) && !bytes.Equal(after[:len(before)], []byte(readAll(t, a))):
			t.Fatalf("kill %d: Verified, and the disks differ:\n%s", i, state)
		case !bytes.Equal(after, before) && !strings.Contains(state, "Inconsistent") && !strings.Contains(state, "Verified"):
			t.Fatalf("kill %d: touched and not marked:\n%s", i, state)
		case strings.Contains(state, "Inconsistent"):
			touched++
		}
		want(t, "again", restoreFrom(t, s, stream, b), 0, "Verified: ")
		cmpFiles(t, a, b, 0)
		if err := os.Remove(b); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("figure: kill -9 of a restore: %d times, %d in the middle of writing", kills, touched)
	if touched < kills/4 {
		t.Errorf("only %d of %d kills came while the target was being written", touched, kills)
	}
}
