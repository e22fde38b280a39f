package vddk_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/vddk"
)

// mounts are the file systems that share blocks, and how they are made.
var mounts = []struct {
	name, mkfs string
	make       []string
	options    string
}{
	{"xfs", "mkfs.xfs", []string{"-q", "-m", "reflink=1"}, "defaults"},
	{"btrfs", "mkfs.btrfs", []string{"-q"}, "defaults"},
	{"btrfs compressed", "mkfs.btrfs", []string{"-q"}, "compress-force=zstd"},
}

// mount makes and mounts a file system of 512 MiB, sparse, in a file.
func mount(t testing.TB, mkfs string, args []string, options string) string {
	t.Helper()
	need(t, mkfs)
	image := filepath.Join(t.TempDir(), "fs.img")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 512<<20)); err != nil {
		t.Fatal(err)
	}
	dev, point := attach(t, image), t.TempDir()
	run(t, mkfs, append(args, dev)...)
	run(t, "mount", "-o", options, dev, point)
	t.Cleanup(func() { run(t, "umount", point) })
	return point
}

// TestFileOn: the file systems that proxies have, beside the one that tests run
// on. Compressed btrfs takes O_DIRECT and answers it from its cache.
func TestFileOn(t *testing.T) {
	needRoot(t)
	for _, m := range mounts {
		t.Run(m.name, func(t *testing.T) {
			movertest.TestDisk(t, fileIn(mount(t, m.mkfs, m.make, m.options)))
		})
	}
}

// reflinkChanged asks for the changes of path since base.
func reflinkChanged(t testing.TB, path, base string) cbt.Hint {
	t.Helper()
	d, err := vddk.Open(t.Context(), "file://"+path, vddk.Options{Track: "fiemap:" + base})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	hint, err := d.(vddk.Tracker).Changed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if hint.Provider != "fiemap" || hint.Since != base || hint.Size != d.Size() {
		t.Errorf("hint %+v of a disk of %d bytes", hint, d.Size())
	}
	return hint
}

// wantCovers: every block of 4 KiB that differs is in the hint, by plain
// comparison of the two files. It returns how many bytes do not differ and are
// not in it.
func wantCovers(t testing.TB, hint cbt.Hint, path, base string) (spared int64) {
	t.Helper()
	a, err1 := os.ReadFile(path)
	b, err2 := os.ReadFile(base)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	m, err := cbt.FromAreas(hint.Areas, hint.Size)
	if err != nil {
		t.Fatalf("hint: %v", err)
	}
	const block = 4096
	for off := int64(0); off < int64(len(a)); off += block {
		e := cbt.Extent{Off: off, Len: min(block, int64(len(a))-off)}
		same := e.End() <= int64(len(b)) && bytes.Equal(a[e.Off:e.End()], b[e.Off:e.End()])
		covered := m.Covers(e)
		if !same && !covered {
			t.Errorf("block %v differs and is not in the hint", e)
		}
		if !covered {
			spared += e.Len
		}
	}
	return spared
}

func clone(t testing.TB, from, to string) {
	t.Helper()
	src, err1 := os.Open(from)
	dst, err2 := os.Create(to)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())), src.Close(), dst.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestTrackedExactly: three blocks are written, and these three are told.
func TestTrackedExactly(t *testing.T) {
	needRoot(t)
	for _, m := range mounts[:2] {
		t.Run(m.name, func(t *testing.T) {
			dir := mount(t, m.mkfs, m.make, m.options)
			path, base := newImage(t, dir, noise(8<<20)), filepath.Join(dir, "base")
			clone(t, path, base)
			if hint := reflinkChanged(t, path, base); len(hint.Areas) != 0 || hint.Trust != cbt.Exact {
				t.Errorf("nothing was written: %+v", hint)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for _, off := range []int64{4096 * 3, 1<<20 + 5, 7<<20 + 4095} {
				if _, err := f.WriteAt([]byte("x"), off); err != nil {
					t.Fatal(err)
				}
			}
			hint := reflinkChanged(t, path, base)
			want := []cbt.Extent{{Off: 4096 * 3, Len: 4096}, {Off: 1 << 20, Len: 4096}, {Off: 7 << 20, Len: 4096}}
			if fmt.Sprint(hint.Areas) != fmt.Sprint(want) || hint.Trust != cbt.Exact || hint.Granularity != 4096 {
				t.Errorf("got %+v, want %v", hint, want)
			}
			wantCovers(t, hint, path, base)
		})
	}
}

// TestTrackedCompressed: the places of compressed blocks are not believed.
func TestTrackedCompressed(t *testing.T) {
	needRoot(t)
	m := mounts[2]
	dir := mount(t, m.mkfs, m.make, m.options)
	path, base := newImage(t, dir, bytes.Repeat([]byte("compressible"), 300_000)), filepath.Join(dir, "base")
	clone(t, path, base)
	hint := reflinkChanged(t, path, base)
	if hint.Trust != cbt.OverReports || hint.Remark == "" || len(hint.Areas) == 0 {
		t.Errorf("got %+v, want it to over-report and say so", hint)
	}
}

// TestTrackedHistories: whatever happened to the file, no change is missed.
func TestTrackedHistories(t *testing.T) {
	needRoot(t)
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for _, m := range mounts {
		t.Run(m.name, func(t *testing.T) {
			dir := mount(t, m.mkfs, m.make, m.options)
			var spared int64
			for i := range seeds {
				seed := rand.Uint64()
				h := newHistory(t, dir, seed)
				for range 1 + h.rand.IntN(12) {
					h.step()
				}
				n := wantCovers(t, reflinkChanged(t, h.path, h.base), h.path, h.base)
				if spared += n; t.Failed() {
					t.Fatalf("seed %#x (%d of %d): %s", seed, i, seeds, strings.Join(h.steps, "; "))
				}
				h.remove()
			}
			if spared == 0 && m.name != "btrfs compressed" {
				t.Error("no hint spared a single block")
			}
			t.Logf("%d histories, %d MiB spared", seeds, spared>>20)
		})
	}
}

// history is a file, its clone, and what was done to the file since.
type history struct {
	t          *testing.T
	rand       *rand.Rand
	f, cl      *os.File
	path, base string
	steps      []string
}

func newHistory(t *testing.T, dir string, seed uint64) *history {
	h := &history{t: t, rand: rand.New(rand.NewPCG(seed, 0)), path: filepath.Join(dir, "disk"), base: filepath.Join(dir, "base")}
	f, err := os.Create(h.path)
	if err != nil {
		t.Fatal(err)
	}
	h.f = f
	t.Cleanup(func() { // before the file system goes, when a step failed
		f.Close()
		if h.cl != nil {
			h.cl.Close()
		}
	})
	h.must(f.Truncate(1<<20 + h.rand.Int64N(3<<20)))
	for range h.rand.IntN(10) {
		h.step() // without a clone: no step of its own
	}
	clone(t, h.path, h.base)
	cl, err := os.Open(h.base)
	h.must(err)
	h.cl, h.steps = cl, append(h.steps, "CLONE")
	return h
}

func (h *history) must(err error) {
	if err != nil {
		h.t.Helper()
		h.t.Fatalf("%v after %s", err, strings.Join(h.steps, "; "))
	}
}

func (h *history) remove() {
	h.must(errors.Join(h.f.Close(), h.cl.Close(), os.Remove(h.path), os.Remove(h.base)))
}

// step does one thing that a guest, a file system's tool or an operator does.
func (h *history) step() {
	st, err := h.f.Stat()
	h.must(err)
	off := h.rand.Int64N(st.Size())
	n := 1 + h.rand.Int64N(min(st.Size()-off, 300_000))
	if h.rand.IntN(2) == 0 { // blocks
		off, n = off&^4095, (n+4095)&^4095
	}
	what := h.rand.IntN(12)
	h.steps = append(h.steps, fmt.Sprintf("%d: %d+%d", what, off, n))
	switch what {
	case 0, 1, 2:
		p := make([]byte, n)
		one := byte(h.rand.Uint32())
		for i := range p {
			if p[i] = one; n%2 == 0 { // else it compresses well
				p[i] = byte(h.rand.Uint32())
			}
		}
		_, err = h.f.WriteAt(p, off)
	case 3: // the same bytes again
		p := make([]byte, n)
		_, _ = h.f.ReadAt(p, off) // up to the end
		_, err = h.f.WriteAt(p, off)
	case 4:
		err = h.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	case 5:
		err = h.fallocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	case 6:
		err = h.fallocate(0, off, n)
	case 7: // zeros as data
		_, err = h.f.WriteAt(make([]byte, n), off)
	case 8:
		err = h.f.Truncate(st.Size() + h.rand.Int64N(400_000) - 200_000)
	case 9: // blocks of the same file to another place, or the same place of the clone
		err = h.cloneRange(h.f, st.Size())
	case 10:
		if h.cl != nil {
			err = h.cloneRange(h.cl, st.Size())
		}
	case 11:
		err = h.f.Sync()
		if h.rand.IntN(4) == 0 {
			h.defragment()
		}
	}
	h.must(err)
}

func (h *history) fallocate(mode uint32, off, n int64) error {
	return unix.Fallocate(int(h.f.Fd()), mode, off, n)
}

// cloneRange shares blocks of from, half of the time with their own place.
func (h *history) cloneRange(from *os.File, size int64) error {
	st, err := from.Stat()
	if err != nil {
		return err
	}
	blocks := min(st.Size(), size) / 4096
	n := 1 + h.rand.Int64N(min(blocks, 40))
	src, dst := h.rand.Int64N(blocks-n+1), h.rand.Int64N(blocks-n+1)
	if from != h.f && h.rand.IntN(2) == 0 {
		dst = src
	}
	if from == h.f && src < dst+n && dst < src+n {
		return nil // it may not overlap
	}
	h.steps = append(h.steps, fmt.Sprintf("clone %d blocks %d to %d", n, src, dst))
	return unix.IoctlFileCloneRange(int(h.f.Fd()), &unix.FileCloneRange{
		Src_fd: int64(from.Fd()), Src_offset: uint64(src) * 4096, Src_length: uint64(n) * 4096, Dest_offset: uint64(dst) * 4096,
	})
}

// defragment moves the blocks of the file, of the clone, or of all.
func (h *history) defragment() {
	var fs unix.Statfs_t
	h.must(unix.Fstatfs(int(h.f.Fd()), &fs))
	if int64(fs.Type) != unix.BTRFS_SUPER_MAGIC {
		return
	}
	which := h.path
	if h.cl != nil && h.rand.IntN(2) == 0 {
		which = h.base
	}
	h.steps = append(h.steps, "defragment "+which)
	run(h.t, "btrfs", "filesystem", "defragment", "-f", which)
}

// TestTrackedSubvolume: a snapshot of a subvolume has a device number of its
// own, and is the usual clone on btrfs.
func TestTrackedSubvolume(t *testing.T) {
	needRoot(t)
	m := mounts[1]
	dir := mount(t, m.mkfs, m.make, m.options)
	vol, snap := filepath.Join(dir, "vol"), filepath.Join(dir, "snap")
	run(t, "btrfs", "-q", "subvolume", "create", vol)
	path := filepath.Join(vol, "disk.img")
	put(t, vol, "disk.img", noise(4<<20))
	run(t, "btrfs", "-q", "subvolume", "snapshot", "-r", vol, snap)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 1<<20); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(snap, "disk.img")
	hint := reflinkChanged(t, path, base)
	if len(hint.Areas) != 1 || hint.Areas[0] != (cbt.Extent{Off: 1 << 20, Len: 4096}) {
		t.Errorf("got %+v", hint)
	}
	wantCovers(t, hint, path, base)
}

// TestTrackedRefuses: a track of another driver is refused at open, what cannot
// be compared when it is asked for.
func TestTrackedRefuses(t *testing.T) {
	needRoot(t)
	here := newImage(t, t.TempDir(), noise(1<<20))
	xfs := mount(t, "mkfs.xfs", mounts[0].make, "defaults")
	on := newImage(t, xfs, noise(1<<20))
	other := newImage(t, mount(t, "mkfs.xfs", mounts[0].make, "defaults"), noise(1<<20))
	link := filepath.Join(xfs, "hard")
	if err := os.Link(on, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ uri, track, want string }{
		{on, "fiemap:" + on, "the disk itself"},
		{on, "fiemap:" + link, "the disk itself"},
		{on, "fiemap:" + other, "another file system"},
		{on, "fiemap:" + here, "not on xfs or btrfs"},
		{here, "fiemap:" + here + "x", "no such file"},
		{on, "fiemap:", "fiemap:/path"},
		{on, "bitmap:x", "fiemap:/path"},
		{on, "fiemap:" + xfs, "directory"},
		{"vmdk://" + vmfs(t, t.TempDir(), noise(512)), "fiemap:x", "only raw files"},
		{"block://" + attach(t, here), "fiemap:" + on, "only raw files"},
	} {
		d, err := vddk.Open(t.Context(), c.uri, vddk.Options{Track: c.track})
		if err == nil {
			_, err = d.(vddk.Tracker).Changed(t.Context())
			d.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s by %s: %v, want %q", c.uri, c.track, err, c.want)
		}
	}
	w := open(t, on, vddk.ReadWrite)
	w.Close()
}

// TestTrackedSizes: what lies beyond the clone's end has changed.
func TestTrackedSizes(t *testing.T) {
	needRoot(t)
	dir := mount(t, "mkfs.xfs", mounts[0].make, "defaults")
	path, base := newImage(t, dir, noise(1<<20+100)), filepath.Join(dir, "base")
	clone(t, path, base)
	for _, size := range []int64{1<<20 + 101, 3 << 20, 1 << 19, 5000} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		wantCovers(t, reflinkChanged(t, path, base), path, base)
	}
}
