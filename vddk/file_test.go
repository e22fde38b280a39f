package vddk_test

import (
	"bytes"
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
	"unsafe"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/vddk"
)

// Compile-time proof that the drivers have every ability that mover knows.
var (
	_ fullDisk = (*vddk.File)(nil)
	_ fullDisk = (*vddk.Device)(nil)
	_ fullDisk = vddk.Disk(nil)
)

type fullDisk interface {
	mover.WritableDisk
	mover.Zeroer
	mover.Mapper
	mover.ColdReader
	mover.Checker
}

// opener opens uri for the conformance suite.
func opener(t testing.TB, uri string) movertest.Opener {
	return func(mode movertest.Mode) (mover.Disk, error) {
		opts := vddk.Options{Mode: vddk.ReadOnly}
		if mode == movertest.ReadWrite {
			opts.Mode = vddk.ReadWrite
		}
		return vddk.Open(t.Context(), uri, opts)
	}
}

// fileIn is the driver of raw files in a new directory below dir.
func fileIn(dir string) movertest.Driver {
	return movertest.Driver{Make: func(t testing.TB, content []byte) movertest.Opener {
		return opener(t, newImage(t, dir, content))
	}}
}

// newImage writes content to a new file and lets zeros be holes.
func newImage(t testing.TB, dir string, content []byte) string {
	t.Helper()
	dir, err := os.MkdirTemp(dir, "vddk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f, err := os.Create(filepath.Join(dir, "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	const piece = 64 << 10
	for off := 0; off < len(content); off += piece {
		p := content[off:min(off+piece, len(content))]
		if bytes.Count(p, []byte{0}) == len(p) {
			continue
		}
		if _, err := f.WriteAt(p, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(int64(len(content))), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func open(t testing.TB, uri string, mode vddk.Mode) vddk.Disk {
	t.Helper()
	d, err := vddk.Open(t.Context(), uri, vddk.Options{Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func noise(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(p) // never fails
	return p
}

// aligned is memory that direct I/O takes as it is.
func aligned(p []byte) []byte {
	b := make([]byte, len(p)+4096)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % 4096
	return b[skip:][:copy(b[skip:], p)]
}

// TestCreateRefused: a file that cannot have its size does not stay, empty.
func TestCreateRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge")
	d, err := vddk.Open(t.Context(), path, vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 1<<63 - 1})
	if err == nil {
		d.Close()
		t.Skip("NOT TESTED: this file system has files of any size")
	}
	if _, stat := os.Stat(path); !errors.Is(stat, os.ErrNotExist) {
		t.Errorf("after %v: %v, want no file", err, stat)
	}
}

func TestFile(t *testing.T) { movertest.TestDisk(t, fileIn(t.TempDir())) }

// TestFileTmpfs: no O_DIRECT that means anything, and no ZERO_RANGE.
func TestFileTmpfs(t *testing.T) {
	const shm = "/dev/shm"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shm, &fs); err != nil || fs.Type != 0x01021994 {
		t.Skipf("SKIPPED: %s is no tmpfs (%v)", shm, err)
	}
	movertest.TestDisk(t, fileIn(shm))
	d := open(t, newImage(t, shm, noise(10_000)), vddk.ReadWrite)
	if got := d.Coldness(); got != "cached" {
		t.Errorf("coldness of a file in memory: got %q, want cached", got)
	}
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestFileAllocation: Deallocate gives space back, Keep does not, and the rest
// of the file is untouched: judged by cmp.
func TestFileAllocation(t *testing.T) {
	content := noise(4<<20 + 777)
	path := newImage(t, t.TempDir(), content)
	d := open(t, path, vddk.ReadWrite)
	if err := d.Flush(); err != nil { // until then the file system may not have allocated
		t.Fatal(err)
	}
	before := blocks(t, path)
	if !d.Describe().CanPunch {
		t.Skip("SKIPPED: the file system of the temporary directory cannot punch holes")
	}
	punched, kept := cbt.Extent{Off: 1 << 20, Len: 1 << 20}, cbt.Extent{Off: 2<<20 + 5, Len: 1 << 20}
	if err := errors.Join(d.Zero(punched, cbt.Deallocate), d.Zero(kept, cbt.Keep), d.Flush()); err != nil {
		t.Fatal(err)
	}
	clear(content[punched.Off:punched.End()])
	clear(content[kept.Off:kept.End()])
	wantGivenBack(t, before-blocks(t, path), punched.Len)
	wantFile(t, path, content)
	if e, err := d.NextData(1 << 20); err != nil || e.Off != 2<<20 {
		t.Errorf("NextData(1 MiB): got %v, %v, want it to start at 2 MiB", e, err)
	}
}

// wantGivenBack allows the file system a few blocks for a longer extent list.
func wantGivenBack(t *testing.T, got, want int64) {
	t.Helper()
	if got > want || got < want-64<<10 {
		t.Errorf("given back: got %d bytes, want %d", got, want)
	}
}

// wantFile compares the file with content by cmp(1), which shares no code with
// us.
func wantFile(t *testing.T, path string, content []byte) {
	t.Helper()
	cmp := exec.Command("cmp", path, "-")
	cmp.Stdin = bytes.NewReader(content)
	if out, err := cmp.CombinedOutput(); err != nil {
		t.Errorf("cmp: %v: %s", err, out)
	}
}

func TestFileWritesAreBytes(t *testing.T) {
	content := noise(3<<20 + 1)
	path := newImage(t, t.TempDir(), make([]byte, len(content)))
	d := open(t, path, vddk.ReadWrite)
	for _, s := range [][2]int{{0, 1}, {1, 700_000}, {700_001, 347_999}, {1_048_000, 576}, {1 << 20, 1 << 20}, {2 << 20, 1<<20 + 1}} {
		if _, err := d.WriteAt(aligned(content[s[0]:s[0]+s[1]]), int64(s[0])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Flush(), d.Check(), d.Close()); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, content)
}

func TestFileChanged(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"cut":     func(path string) error { return os.Truncate(path, 100) },
		"grown":   func(path string) error { return os.Truncate(path, 1<<20+1) },
		"removed": os.Remove,
	} {
		path := newImage(t, t.TempDir(), noise(1<<20))
		d := open(t, path, vddk.ReadWrite)
		if err := d.Check(); err != nil {
			t.Errorf("%s: check before: %v", name, err)
		}
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if err := d.Check(); !errors.Is(err, vddk.ErrChanged) || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%s: got %v, want ErrChanged, and the path first: the engine says \"check\"", name, err)
		}
	}
}

// TestFileCutUnderReader: the end of a file that was cut is no end of the disk.
func TestFileCutUnderReader(t *testing.T) {
	path := newImage(t, t.TempDir(), noise(1<<20))
	d := open(t, path, vddk.ReadOnly)
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func([]byte, int64) (int, error){"ReadAt": d.ReadAt, "ReadCold": d.ReadCold} {
		n, err := read(make([]byte, 65536), 0)
		if !errors.Is(err, io.ErrUnexpectedEOF) || n > 5000 {
			t.Errorf("%s: got %d, %v, want at most 5000 and ErrUnexpectedEOF", name, n, err)
		}
	}
}

func TestFilePathIsResolvedOnce(t *testing.T) {
	dir := t.TempDir()
	a, b, link := newImage(t, dir, []byte("aaaa")), newImage(t, dir, []byte("bbbb")), filepath.Join(dir, "link")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	d := open(t, "file://"+link, vddk.ReadOnly)
	if direct := open(t, a, vddk.ReadOnly); direct.Identity() != d.Identity() {
		t.Errorf("identity by link %q, by path %q", d.Identity(), direct.Identity())
	}
	if err := errors.Join(os.Remove(link), os.Symlink(b, link), os.Remove(a), os.Rename(b, a)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4)
	for _, read := range []func([]byte, int64) (int, error){d.ReadAt, d.ReadCold} {
		if _, err := read(p, 0); err != nil || string(p) != "aaaa" {
			t.Errorf("read after the path led elsewhere: got %q, %v, want aaaa", p, err)
		}
	}
}

func TestFileCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.img")
	create := vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 1<<20 + 3}
	for _, opts := range []vddk.Options{{Create: true, CreateSize: 1}, {Mode: vddk.ReadWrite, Create: true}} {
		if _, err := vddk.Open(t.Context(), path, opts); err == nil {
			t.Errorf("create with %+v: no error", opts)
		}
	}
	for range 2 { // the second time it is there
		d, err := vddk.Open(t.Context(), path, create)
		if err != nil {
			t.Fatal(err)
		}
		if d.Size() != 1<<20+3 || blocks(t, path) != 0 {
			t.Errorf("created: %d bytes, %d allocated", d.Size(), blocks(t, path))
		}
		d.Close()
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	d, err := vddk.Open(t.Context(), path, create)
	if err != nil || d.Size() != create.CreateSize {
		t.Fatalf("creation that was cut: got %v", err)
	}
	d.Close()
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := vddk.Open(t.Context(), path, create); err == nil || !strings.Contains(err.Error(), "has 5 bytes") {
		t.Errorf("file of another size: got %v", err)
	}
	link, victim := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "victim")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	for _, uri := range []string{link, "vmdk://" + link} {
		if _, err := vddk.Open(t.Context(), uri, create); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("create %s through a link to nowhere: got %v, want ErrNotExist", uri, err)
		}
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("a file was created through a link")
	}
	if _, err := vddk.Open(t.Context(), path+"x", vddk.Options{Mode: vddk.ReadWrite}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: got %v, want ErrNotExist", err)
	}
}

func TestOpenRefusesWhatIsNoDisk(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	image := newImage(t, dir, []byte("x"))
	for uri, want := range map[string]string{
		dir: "directory", fifo: "pipe", "/dev/null": "character device", "block://" + image: "it is a file, not a block device",
	} {
		_, err := vddk.Open(t.Context(), uri, vddk.Options{})
		if !errors.Is(err, vddk.ErrKind) || !strings.Contains(err.Error(), want) {
			t.Errorf("open %s: got %v, want ErrKind with %q", uri, err, want)
		}
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	path := newImage(t, t.TempDir(), noise(1<<20))
	d := open(t, path, vddk.ReadOnly)
	_, err := d.WriteAt(make([]byte, 65536), 4096)
	if want := fmt.Sprintf("write 64 KiB at 4096 of %s: %v", path, vddk.ErrReadOnly); err == nil || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	w := open(t, newImage(t, t.TempDir(), noise(100)), vddk.ReadWrite)
	if _, err := w.WriteAt(make([]byte, 101), 0); !errors.Is(err, cbt.ErrBounds) || !strings.Contains(err.Error(), "write 101 bytes at 0 of ") {
		t.Errorf("write beyond the end: got %v", err)
	}
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED: the race detector makes sync.Pool drop buffers")
	}
	d := open(t, newImage(t, t.TempDir(), noise(3<<20+777)), vddk.ReadWrite)
	p := aligned(make([]byte, 1<<20))
	for name, run := range map[string]func() error{
		"ReadAt":            func() error { _, err := d.ReadAt(p, 5); return err },
		"WriteAt, direct":   func() error { _, err := d.WriteAt(p, 1<<20); return err },
		"WriteAt, buffered": func() error { _, err := d.WriteAt(p[:65536], 12345); return err },
		"ReadCold, aligned": func() error { _, err := d.ReadCold(p, 1<<20); return err },
		"ReadCold, tail":    func() error { _, err := d.ReadCold(p[:777], 3<<20); return err },
		"Zero":              func() error { return d.Zero(cbt.Extent{Off: 100, Len: 70_000}, cbt.Deallocate) },
		"NextData":          func() error { _, err := d.NextData(0); return err },
	} {
		var failed error
		if got := leastAllocs(20, func() { failed = errors.Join(failed, run()) }); got != 0 || failed != nil {
			t.Errorf("%s: %v allocations, %v", name, got, failed)
		}
	}
}

func BenchmarkFile(b *testing.B) {
	path := newImage(b, b.TempDir(), noise(64<<20))
	d := open(b, path, vddk.ReadWrite)
	p := aligned(noise(1 << 20))
	for name, run := range map[string]func(off int64) error{
		"write1MiB":  func(off int64) error { _, err := d.WriteAt(p, off); return err },
		"write64KiB": func(off int64) error { _, err := d.WriteAt(p[:65536], off); return err },
		"cold1MiB":   func(off int64) error { _, err := d.ReadCold(p, off); return err },
		"cold64KiB":  func(off int64) error { _, err := d.ReadCold(p[:65536], off); return err },
	} {
		b.Run(name, func(b *testing.B) {
			n := int64(1 << 20)
			if strings.HasSuffix(name, "64KiB") {
				n = 65536
			}
			b.SetBytes(n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := run(int64(i) * n % (64 << 20)); err != nil {
					b.Fatal(err)
				}
			}
			if err := d.Flush(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// TestFileContainer: an image that is not raw is worth a warning, and no more.
func TestFileContainer(t *testing.T) {
	for head, want := range map[string]string{
		"# Disk DescriptorFile\nversion=1\n": "name it vmdk:///PATH", "KDMV\x01": "qemu-img convert", "QFI\xfb\x00": "qemu-nbd", "MZ plain bytes": "",
	} {
		path := newImage(t, t.TempDir(), append([]byte(head), noise(4096)...))
		if got := open(t, path, vddk.ReadWrite).Describe().Warning; !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q: warning %q, want %q in it", head, got, want)
		}
	}
}
