package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// TestCopyToOwnLoop: a file and the loop device on it are one disk, by whatever
// names and in both directions. Another file is another disk.
func TestCopyToOwnLoop(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: needs root for loop devices")
	}
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := s.Disk("a", mib, 1), s.Disk("b", mib, 2)
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", a).CombinedOutput()
	if err != nil {
		t.Skipf("NOT TESTED: no loop device to be had here: %s", out)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
	link, node := filepath.Join(s.Dir, "link"), filepath.Join(s.Dir, "node")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(loop, node); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{a, "block://" + loop}, {link, node}, {"block://" + loop, "file://" + a}, {node, link}} {
		if r := s.Run("copy", c[0], c[1]); r.Code != 10 || !strings.Contains(r.Stderr, "are the same disk") {
			t.Errorf("copy %s: exit code %d, want 10: %s", c, r.Code, r.Stderr)
		}
	}
	s.OK("copy", b, loop)
	cmdtest.MustEqual(t, a, b)
}
