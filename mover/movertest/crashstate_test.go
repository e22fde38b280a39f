package movertest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/haulback/haulback/mover"
)

func mustOpen(t *testing.T, dir mover.StateDir, name string) mover.StateFile {
	t.Helper()
	f, err := dir.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t *testing.T, f mover.StateFile, text string, off int64) {
	t.Helper()
	if _, err := f.WriteAt([]byte(text), off); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, dir mover.StateDir, name string) string {
	t.Helper()
	f := mustOpen(t, dir, name)
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, size)
	if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(p)
}

// TestStateDirs: the simulated directory and the real one behave the same as
// long as the power stays on.
func TestStateDirs(t *testing.T) {
	real, err := mover.DirState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	for name, dir := range map[string]mover.StateDir{
		"real": real, "crashable": NewCrashableState(NewPower()).Mount(),
	} {
		t.Run(name, func(t *testing.T) { testStateDir(t, dir) })
	}
}

func testStateDir(t *testing.T, dir mover.StateDir) {
	f := mustOpen(t, dir, "a")
	if _, err := dir.Open("a"); !errors.Is(err, mover.ErrHeld) {
		t.Errorf("second open: got %v, want ErrHeld", err)
	}
	put(t, f, "hello", 3)
	if err := errors.Join(f.Sync(), f.Allocate(10), f.Allocate(4), f.Truncate(9), dir.Sync()); err != nil {
		t.Fatal(err)
	}
	if n, err := f.ReadAt(make([]byte, 5), 9); n != 0 || err != io.EOF {
		t.Errorf("read at the end: got %d, %v, want EOF", n, err)
	}
	if err := f.Allocate(0); err == nil {
		t.Error("allocate nothing: no error")
	}
	if err := dir.Rename("a", "b"); err != nil {
		t.Fatal(err)
	}
	put(t, f, "!", 8)
	if _, err := dir.Open("b"); !errors.Is(err, mover.ErrHeld) {
		t.Errorf("open of the renamed: got %v, want ErrHeld", err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("write after close: no error")
	}
	if got := content(t, dir, "b"); got != "\x00\x00\x00hello!" {
		t.Errorf("content: got %q", got)
	}
	for _, err := range []error{dir.Remove("a"), dir.Rename("a", "c")} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("absent file: got %v, want ErrNotExist", err)
		}
	}
	mustOpen(t, dir, "c").Close()
	if names, err := dir.List(); err != nil || !slices.Equal(names, []string{"b", "c"}) {
		t.Errorf("list: got %q, %v", names, err)
	}
	if err := errors.Join(dir.Remove("c"), dir.Sync()); err != nil {
		t.Error(err)
	}
}

func TestStateCrashNames(t *testing.T) {
	for percent, want := range map[int][]string{0: {"kept"}, 100: {"new", "renamed"}} {
		power := NewPower()
		state := NewCrashableState(power)
		dir := state.Mount()
		mustOpen(t, dir, "kept").Close()
		if err := dir.Sync(); err != nil {
			t.Fatal(err)
		}
		f := mustOpen(t, dir, "new")
		if err := dir.Rename("kept", "renamed"); err != nil {
			t.Fatal(err)
		}
		power.Crash(seeded(1), percent)
		if names, err := state.Mount().List(); err != nil || !slices.Equal(names, want) {
			t.Errorf("names at %d %%: got %q, %v, want %q", percent, names, err, want)
		}
		if _, err := f.Size(); !errors.Is(err, ErrPowerCut) {
			t.Errorf("old file: got %v, want ErrPowerCut", err)
		}
		if _, err := dir.List(); !errors.Is(err, ErrPowerCut) {
			t.Errorf("old mount: got %v, want ErrPowerCut", err)
		}
	}
}

// TestStateCrashPrefix: metadata survives in order: the second rename never
// without the first.
func TestStateCrashPrefix(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(50) {
		power := NewPower()
		state := NewCrashableState(power)
		dir := state.Mount()
		mustOpen(t, dir, "a").Close()
		if err := errors.Join(dir.Sync(), dir.Rename("a", "b"), dir.Rename("b", "c")); err != nil {
			t.Fatal(err)
		}
		power.Crash(seeded(seed), 50)
		names, err := state.Mount().List()
		if err != nil || len(names) != 1 {
			t.Fatalf("seed %d: got %q, %v, want one name", seed, names, err)
		}
		seen[names[0]] = true
	}
	if len(seen) != 3 {
		t.Errorf("names seen: got %v, want a, b and c", seen)
	}
}

func TestStateCrashBytes(t *testing.T) {
	old, stale := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{7}, 1<<16)
	kinds := map[string]int{}
	for seed := range uint64(40) {
		power := NewPower()
		state := NewCrashableState(power)
		dir := state.Mount()
		former := mustOpen(t, dir, "former")
		put(t, former, string(stale), 0)
		f := mustOpen(t, dir, "journal")
		put(t, f, string(old), 0)
		if err := errors.Join(former.Close(), dir.Remove("former"), f.Sync(), dir.Sync()); err != nil {
			t.Fatal(err)
		}
		put(t, f, string(bytes.Repeat([]byte{2}, 8192)), 2048)
		power.Crash(seeded(seed), 50)
		got := []byte(content(t, state.Mount(), "journal"))
		if !bytes.Equal(got[:2048], old[:2048]) {
			t.Fatalf("seed %d: synced bytes were lost", seed)
		}
		if len(got) != 4096 && len(got) != 10240 {
			t.Fatalf("seed %d: size %d, want 4096 or 10240", seed, len(got))
		}
		for p := range slices.Chunk(got[2048:], sectorSize) {
			kinds[kindOf(p)]++
		}
	}
	for _, kind := range []string{"zeros", "old", "new", "stale", "mixed"} {
		if kinds[kind] == 0 {
			t.Errorf("no sector of kind %q in 40 crashes: %v", kind, kinds)
		}
	}
}

func kindOf(p []byte) string {
	for b, kind := range map[byte]string{0: "zeros", 1: "old", 2: "new", 7: "stale"} {
		if bytes.Count(p, []byte{b}) == len(p) {
			return kind
		}
	}
	return "mixed"
}

func TestStateFaults(t *testing.T) {
	power := NewPower()
	state := NewCrashableState(power)
	dir := state.Mount()
	f := mustOpen(t, dir, "j")
	if err := errors.Join(f.Allocate(4096), f.Sync(), dir.Sync()); err != nil {
		t.Fatal(err)
	}
	state.FailSync(1)
	put(t, f, "lost", 0)
	if err1, err2 := f.Sync(), f.Sync(); !errors.Is(err1, syscall.EIO) || err2 != nil {
		t.Errorf("sync: got %v, %v, want EIO, then OK", err1, err2)
	}
	state.SetSpace(4096)
	if _, err := f.WriteAt([]byte("x"), 4096); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write beyond the space: got %v, want ENOSPC", err)
	}
	state.Lie(true)
	put(t, f, "liar", 512)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	state.Lie(false)
	power.Crash(seeded(1), 0)
	got := content(t, state.Mount(), "j")
	if got != string(make([]byte, 4096)) {
		t.Errorf("after the crash: %q...%q is there, want zeros", got[:4], got[512:516])
	}
	state.Rot("j", 5)
	if got := content(t, state.Mount(), "j"); got[5] == 0 {
		t.Error("rot changed nothing")
	}
}

// TestOneClock: a cut hits disks and journals at the same moment.
func TestOneClock(t *testing.T) {
	power := NewPower()
	dev, state := NewCrashable(power, 1<<20), NewCrashableState(power)
	d, dir := openCrashable(t, dev), state.Mount()
	f := mustOpen(t, dir, "j") // action 1
	power.CutAt(2)
	writeByte(t, d, 1, 0, 1)
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, ErrPowerCut) {
		t.Errorf("second action: got %v, want ErrPowerCut", err)
	}
	if err := d.Flush(); !errors.Is(err, ErrPowerCut) {
		t.Errorf("disk after the cut: got %v, want ErrPowerCut", err)
	}
}
