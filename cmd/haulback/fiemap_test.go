package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// xfs mounts a new file system that shares blocks.
func xfs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root for mounts")
	}
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	image, point := filepath.Join(t.TempDir(), "fs.img"), t.TempDir()
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 512<<20)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.xfs", "-q", image}, {"mount", "-o", "loop", image, point}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", point).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return point
}

// TestCopyByClone: a clone of the source, made when both disks were equal, is
// the change tracking of the next copy. Without a clone, everything is read.
func TestCopyByClone(t *testing.T) {
	t.Parallel()
	dir := xfs(t)
	s := cmdtest.NewSite(t, &programs, "desk")
	src, dst, clone := filepath.Join(dir, "disk.img"), filepath.Join(s.Dir, "copy.img"), filepath.Join(dir, "clone.img")
	for _, args := range [][]string{
		{"cp", s.Disk("seed", 16*mib, 1), src}, {"cp", src, dst}, {"cp", "--reflink=always", src, clone},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	f, err := os.OpenFile(src, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("changed since"), 9*mib+5)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	r := s.OK("copy", src, dst, "--cbt", "fiemap:"+clone)
	if !strings.Contains(r.Out, "Verified (sampled") || !strings.Contains(r.Out, "fiemap") {
		t.Errorf("the clone was not used:\n%s", r.Out)
	}
	cmdtest.MustEqual(t, src, dst)
	if r := s.OK("probe", dst); !strings.Contains(r.Out, "sampled") || strings.Contains(r.Out, "\nroot ") {
		t.Errorf("a root of what was not all compared:\n%s", r.Out)
	}
	r = s.OK("copy", src, dst, "--cbt", "fiemap:"+clone, "--verify", "full")
	if !strings.Contains(r.Out, "was asked for and used: ") || !strings.Contains(r.Out, "; then everything was read again") {
		t.Errorf("the summary does not say that the clone was used, and that everything was read after it:\n%s", r.Out)
	}
	if r := s.OK("probe", dst); !strings.Contains(r.Out, "\nroot ") {
		t.Errorf("no root of what was all compared:\n%s", r.Out)
	}
	for _, strict := range []bool{false, true} {
		args := []string{"copy", src, dst, "--cbt", "fiemap:" + dst}
		code, want := 0, "not on xfs or btrfs"
		if strict {
			args, code = append(args, "--strict"), 14
		}
		if r := s.Run(args...); r.Code != code || !strings.Contains(r.Out+r.Stderr, want) {
			t.Errorf("no clone, strict %v: exit code %d, want %d and %q:\n%s%s", strict, r.Code, code, want, r.Out, r.Stderr)
		}
	}
}
