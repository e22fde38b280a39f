package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// bench is a rig with one pair of images and a daemon over one target.
type bench struct {
	*rig
	*pair
	path   string // of the target
	daemon *daemon
}

// newBench makes a target file that holds the first image, unless it is made
// already.
func newBench(t *testing.T, path string, tables ...string) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{pair: newPair(t, dir, smallBlocks, 9), path: path}
	if path == "" {
		b.path = filepath.Join(dir, "target.img")
		overwrite(t, b.path, b.img[0])
	}
	b.rig = newRig(t, append(tables, target("disk", b.path))...)
	b.daemon = b.rig.daemon(t, anyPort)
	return b
}

// copy starts a copy of the second image.
func (b *bench) copy(t *testing.T, args ...string) *process {
	t.Helper()
	return b.rig.copy(t, b.img[1], b.daemon.uri("disk"), args...)
}

// flows waits until some of the copy is durable.
func flows(t *testing.T, p *process) {
	t.Helper()
	cmdtest.Await(t, "data to flow", func() bool {
		if ended(p) {
			t.Fatalf("the copy ended too early:\n%s%s", p.Stdout(), p.Stderr())
		}
		return last(t, p.Stdout(), "status").bytes("written") > 0
	})
}

// wantEqual checks that a copy ended well and tells the truth.
func (b *bench) wantEqual(t *testing.T, p *process) line {
	t.Helper()
	sum := wantVerified(t, p)
	if !equal(t, b.img[1], b.path, b.size) {
		t.Errorf("Verified, and cmp finds a difference")
	}
	return sum
}

// TestStop stops the daemon as a paused machine or a swap storm does, and lets
// it go on: the copy ends well, over the same link or a new one. The stall and
// idle limits of 30 s cannot be configured, so passing them takes -long.
func TestStop(t *testing.T) {
	pause := 3 * time.Second
	if *long {
		pause = 36 * time.Second
	} else {
		t.Logf("stops for %v only; with -long for longer than the limits of 30 s", pause)
	}
	for _, transport := range []string{"quic", "tls"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "")
			p := b.copy(t, "--rate", "1MiB", "--retry", "50s", "--transport", transport) // far longer than it takes to stop it
			flows(t, p)
			b.daemon.Signal(syscall.SIGSTOP)
			cmdtest.Await(t, "the daemon to stand", func() bool { return stands(t, b.daemon.process) })
			if ended(p) {
				t.Fatalf("the copy ended too early:\n%s%s", p.Stdout(), p.Stderr())
			}
			time.Sleep(pause) // is the subject of the test
			if ended(p) {
				t.Errorf("the copy ended without its target:\n%s%s", p.Stdout(), p.Stderr())
			}
			b.daemon.Signal(syscall.SIGCONT)
			sum := b.wantEqual(t, p)
			if *long && sum.bytes("reconnects") == 0 {
				t.Errorf("a target that was silent for %v was not left: %v", pause, sum)
			}
		})
	}
}

// stands reports whether p was stopped by a signal.
func stands(t *testing.T, p *process) bool {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), ") T ")
}

// TestTerm stops the daemon in order while it works: it makes durable what it
// has, and the copy goes on by itself when it is back.
func TestTerm(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	p := b.copy(t, "--rate", "1MiB", "--retry", "30s") // far longer than it takes to see that it flows
	flows(t, p)
	log := b.daemon.stop(t)
	if !strings.Contains(log, "haulbackd stopped") {
		t.Errorf("the daemon does not say that it has stopped:\n%s", log)
	}
	if s := b.probe(t, b.path); s.text("state") != "Inconsistent" || s.bytes("durable") == 0 {
		t.Errorf("probe of a half copy: %v, want Inconsistent and what is durable", s)
	}
	b.daemon = b.rig.daemon(t, b.daemon.listen)
	sum := b.wantEqual(t, p)
	if resent := sum.bytes("sent") - b.differ; sum.bytes("reconnects") == 0 || resent > 8*mib {
		t.Errorf("%d reconnects and %d bytes sent again; want some, and what was under way at most", sum.bytes("reconnects"), resent)
	}
}

// TestDiskFull runs out of space under the target, and goes on when there is
// more.
func TestDiskFull(t *testing.T) {
	needRoot(t, "a full disk", "mount", "umount")
	t.Parallel()
	dir := tmpfs(t, "12m")
	path := filepath.Join(dir, "target.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, path)
	if err := os.Truncate(path, b.size); err != nil { // sparse: it promises what it does not have
		t.Fatal(err)
	}
	wantEnd(t, b.copy(t), 3, "no space left", "free space", "same command")
	if s := b.probeFree(t, b.daemon.uri("disk")); s.text("state") != "Inconsistent" {
		t.Errorf("probe after the end of space: %v, want Inconsistent", s)
	}
	tool(t, "mount", "-o", "remount,size=64m", dir)
	b.wantEqual(t, b.copy(t))
	if s := b.probeFree(t, b.daemon.uri("disk")); s.text("state") != "Verified" {
		t.Errorf("probe at the end: %v, want Verified", s)
	}
}

// TestStateFull has no room for a journal: nothing may be written without one.
func TestStateFull(t *testing.T) {
	needRoot(t, "a full state directory", "mount", "umount")
	t.Parallel()
	b := newBench(t, "")
	b.daemon.stop(t)
	small := tmpfs(t, "1m")
	tool(t, "cp", "-a", b.home.State+"/.", small)
	b.home.State = small
	b.daemon = b.rig.daemon(t, anyPort)
	wantEnd(t, b.copy(t), 1, "state directory has no space left", "free 4 MiB")
	if !equal(t, b.img[0], b.path, b.size) {
		t.Errorf("the target was written without a journal")
	}
	tool(t, "mount", "-o", "remount,size=16m", small)
	b.wantEqual(t, b.copy(t))
}

// TestTwoCopies starts a second copy onto a target in use.
func TestTwoCopies(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	first := b.copy(t, "--rate", "1MiB") // far longer than the second takes to begin
	flows(t, first)
	wantEnd(t, b.rig.copy(t, b.img[0], b.daemon.uri("disk")), 11, "in use by run")
	if ended(first) {
		t.Errorf("the first copy ended before the second was refused:\n%s", first.Stdout())
	}
	b.wantEqual(t, first)
}

// TestMounted names a mounted device as the target. It is mounted for reading
// only, so that the file system itself does not write to it either.
func TestMounted(t *testing.T) {
	needRoot(t, "a mounted target", "losetup", "mount", "umount", "mkfs.ext4")
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64*mib); err != nil {
		t.Fatal(err)
	}
	device := loopDevice(t, file)
	tool(t, "mkfs.ext4", "-q", device)
	at := t.TempDir()
	if out, err := exec.Command("mount", "-o", "ro", device, at).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: cannot mount here: %s", out)
	}
	unmount := func() { tool(t, "umount", at) }
	t.Cleanup(func() { unmount() })
	b := newBench(t, device)
	before := filepath.Join(dir, "before.img")
	overwrite(t, before, device)
	wantEnd(t, b.copy(t), 11, device, "mounted", "findmnt "+device)
	if !equal(t, before, device, 64*mib) {
		t.Errorf("a mounted device was written")
	}
	unmount()
	unmount = func() {}
	b.wantEqual(t, b.copy(t))
}

// TestFree takes the next copy at once: a target is let go when its copy ends.
func TestFree(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	for i := range 6 {
		p := b.rig.copy(t, b.img[1-i%2], b.daemon.uri("disk"))
		wantVerified(t, p)
		began := time.Now()
		if s := b.probeFree(t, b.daemon.uri("disk")); s.text("state") != "Verified" || time.Since(began) > 20*time.Second {
			t.Errorf("%v after the copy: %v, want Verified and soon", time.Since(began), s)
		}
	}
}
