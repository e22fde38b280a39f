package mover_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/haulback/haulback/mover"
)

func openState(t *testing.T) (*mover.StateRoot, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	d, err := mover.DirState(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

func TestDirStatePermissions(t *testing.T) {
	d, path := openState(t)
	f, err := d.Open("journal")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, want := range map[string]fs.FileMode{path: 0o700, filepath.Join(path, "journal"): 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %s: got %v (%v), want %v", name, info.Mode().Perm(), err, want)
		}
	}
	if err := os.Chmod(path, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := mover.DirState(path); err == nil {
		t.Error("a directory the group may write was accepted")
	}
}

func TestDirStateHold(t *testing.T) {
	d, _ := openState(t)
	f, err := d.Open("journal")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open("journal"); !errors.Is(err, mover.ErrHeld) {
		t.Errorf("second open: got %v, want ErrHeld", err)
	}
	// The hold goes with the file, not with the name.
	if err := d.Rename("journal", "moved"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open("moved"); !errors.Is(err, mover.ErrHeld) {
		t.Errorf("open under the new name: got %v, want ErrHeld", err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}
	g, err := d.Open("moved")
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	g.Close()
}

func TestDirStateReplace(t *testing.T) {
	d, _ := openState(t)
	for _, name := range []string{"a", "b"} {
		f, err := d.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(name), 0); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Rename("b", "a"), d.Sync()); err != nil {
		t.Fatal(err)
	}
	names, err := d.List()
	if err != nil || !slices.Equal(names, []string{"a"}) {
		t.Fatalf("list: got %q, %v, want [a]", names, err)
	}
	f, err := d.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 1)
	if _, err := f.ReadAt(p, 0); err != nil || p[0] != 'b' {
		t.Errorf("content of a: got %q, %v, want b", p, err)
	}
	if err := d.Remove("b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("remove of an absent name: got %v, want ErrNotExist", err)
	}
}

func TestDirStateAllocate(t *testing.T) {
	d, path := openState(t)
	f, err := d.Open("journal")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Allocate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Allocate(4096); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Size(); err != nil || n != 1<<20 {
		t.Errorf("size: got %d, %v, want %d", n, err, 1<<20)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(path, "journal"), &st); err != nil || st.Blocks*512 < 1<<20 {
		t.Errorf("allocated: got %d bytes, %v, want 1 MiB", st.Blocks*512, err)
	}
	if err := f.Truncate(10); err != nil {
		t.Fatal(err)
	}
	if n, err := f.ReadAt(make([]byte, 20), 0); n != 10 || err != io.EOF {
		t.Errorf("read beyond the end: got %d, %v, want 10, EOF", n, err)
	}
}

func TestDirStateNames(t *testing.T) {
	d, path := openState(t)
	if err := os.Symlink("/etc/hostname", filepath.Join(path, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("other", filepath.Join(path, "inner")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(path, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "../up", "/etc/x", "nul\x00", "link", "inner", "dir"} {
		if f, err := d.Open(name); err == nil {
			f.Close()
			t.Errorf("open %q: accepted", name)
		}
	}
}

// TestDirStateHoldAcrossReplace: a handle that was opened before a Rename over
// its name and locked after it holds a file that nobody will read again; Open
// must not return it. The window is two system calls wide, hence the stress.
func TestDirStateHoldAcrossReplace(t *testing.T) {
	d, _ := openState(t)
	var holders atomic.Int32
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			next := fmt.Sprintf("next-%d", worker)
			for range 500 {
				if err := replaceHeld(d, next, &holders); err != nil && !errors.Is(err, mover.ErrHeld) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// replaceHeld opens "journal" and, as its only holder, puts another file there.
func replaceHeld(d *mover.StateRoot, next string, holders *atomic.Int32) error {
	f, err := d.Open("journal")
	if err != nil {
		return err
	}
	defer f.Close()
	if n := holders.Add(1); n != 1 {
		err = fmt.Errorf("%d holders of one name", n)
	}
	g, err2 := d.Open(next)
	if err2 == nil {
		err2 = g.Close()
	}
	holders.Add(-1)
	return errors.Join(err, err2, d.Rename(next, "journal"))
}
