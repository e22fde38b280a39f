package e2e

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/haulback/haulback/cbt"
)

const mib = 1 << 20

// pair is two images of one size, each the next version of the other. Copying
// one over the other sends differ bytes.
type pair struct {
	img          [2]string
	size, differ int64
}

// newPair makes images of n blocks of 8 MiB and an odd end. In each block a
// MiB is the same but for one byte, one is zeros in the second image, and the
// rest differs.
func newPair(t *testing.T, dir string, n int, seed byte) *pair {
	t.Helper()
	size := n*8*mib + 9*512
	rng := rand.NewChaCha8([32]byte{seed})
	a, b := make([]byte, size), make([]byte, size)
	_, _ = rng.Read(a) // never fails
	_, _ = rng.Read(b)
	for off := 0; off+8*mib <= size; off += 8 * mib {
		copy(b[off:off+mib], a[off:])
		b[off+5*cbt.GrainSize] ^= 1
		clear(b[off+mib : off+2*mib])
	}
	p := &pair{img: [2]string{filepath.Join(dir, "a.img"), filepath.Join(dir, "b.img")}, size: int64(size)}
	for off := 0; off < size; off += cbt.GrainSize {
		end := min(off+cbt.GrainSize, size)
		if !bytes.Equal(a[off:end], b[off:end]) {
			p.differ += int64(end - off)
		}
	}
	for i, image := range [][]byte{a, b} {
		if err := os.WriteFile(p.img[i], image, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// overwrite makes the file or device to start with the bytes of from, and
// makes them durable, so that a test does not pay for them later.
func overwrite(t *testing.T, to, from string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err = io.Copy(out, in); err == nil {
		err = out.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// equal is what cmp says of the first size bytes.
func equal(t *testing.T, a, b string, size int64) bool {
	t.Helper()
	out, err := exec.Command("cmp", "-n", strconv.FormatInt(size, 10), a, b).CombinedOutput()
	if code := exitCode(err); code > 1 {
		t.Fatalf("cmp %s %s: %v\n%s", a, b, err, out)
	}
	if err != nil {
		t.Logf("cmp: %s", strings.TrimSpace(string(out)))
	}
	return err == nil
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := err.(*exec.ExitError); ok {
		return e.ExitCode()
	}
	return 127
}

// needRoot skips the test, and says what is not tested, when it cannot have
// devices and file systems of its own.
func needRoot(t *testing.T, what string, tools ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("NOT TESTED: %s needs root; run the tests as root, on a machine of their own", what)
	}
	for _, tool := range append(tools, "cmp") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT TESTED: %s needs the program %s: %v", what, tool, err)
		}
	}
}

// loopDevice puts a loop device on the file until the test ends.
func loopDevice(t *testing.T, file string) string {
	t.Helper()
	var text string
	for range 5 { // another test may take the device that was found free
		out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
		text = strings.TrimSpace(string(out))
		if err == nil {
			t.Cleanup(func() { tool(t, "losetup", "-d", text) })
			return text
		}
	}
	t.Skipf("NOT TESTED: no loop device to be had here: %s", text)
	return ""
}

// tmpfs mounts a small file system until the test ends.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=0700,size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: no tmpfs to be had here: %s", out)
	}
	t.Cleanup(func() { tool(t, "umount", dir) })
	return dir
}

// tool runs a program that has to succeed.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
}
