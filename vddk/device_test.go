package vddk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/vddk"
)

// needRoot skips loudly: block devices need root and loop devices.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root for loop devices")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("SKIPPED: no loop devices: %v", err)
	}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// attach makes image a loop device and detaches it at the end of the test.
func attach(t testing.TB, image string, options ...string) string {
	t.Helper()
	needRoot(t)
	dev := run(t, "losetup", append(options, "-f", "--show", image)...)
	t.Cleanup(func() { run(t, "losetup", "-d", dev) })
	return dev
}

// loopDriver is the driver of loop devices on images in dir.
func loopDriver(dir string, options ...string) movertest.Driver {
	return movertest.Driver{Granule: 512, Make: func(t testing.TB, content []byte) movertest.Opener {
		return opener(t, "block://"+attach(t, newImage(t, dir, content), options...))
	}}
}

func TestDevice(t *testing.T) {
	needRoot(t)
	movertest.TestDisk(t, loopDriver(t.TempDir()))
}

// TestDeviceBigSectors: a logical sector of 4 KiB, where a direct read of 512
// bytes is refused.
func TestDeviceBigSectors(t *testing.T) {
	needRoot(t)
	d := loopDriver(t.TempDir(), "-b", "4096")
	d.Granule = 4096
	movertest.TestDisk(t, d)
}

// TestDeviceWithoutDiscard: a loop device on a file of ramfs, which punches no
// holes, takes neither discards nor WRITE ZEROES.
func TestDeviceWithoutDiscard(t *testing.T) {
	needRoot(t)
	point := t.TempDir()
	run(t, "mount", "-t", "ramfs", "ramfs", point)
	t.Cleanup(func() { run(t, "umount", point) })
	movertest.TestDisk(t, loopDriver(point))
	d := open(t, attach(t, newImage(t, point, noise(1<<20))), vddk.ReadWrite)
	if d.Describe().CanPunch {
		t.Error("it is said to give space back")
	}
	before := readable(t, d)
	e := cbt.Extent{Off: 4096 * 3, Len: 500_000}
	if err := errors.Join(d.Zero(e, cbt.Deallocate), d.Flush()); err != nil {
		t.Fatal(err)
	}
	clear(before[e.Off:e.End()])
	if !bytes.Equal(before, readable(t, d)) {
		t.Error("the device does not read as zeros where it was zeroed, or is changed elsewhere")
	}
}

// readable is all of the disk, from the device.
func readable(t *testing.T, d vddk.Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if _, err := d.ReadCold(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDeviceReadOnly(t *testing.T) {
	dev := attach(t, newImage(t, t.TempDir(), noise(1<<20)), "-r")
	disk, err := vddk.Open(t.Context(), dev, vddk.Options{Mode: vddk.ReadWrite})
	if err == nil {
		disk.Close()
		t.Fatal("a read-only device was opened for writing")
	}
	if !strings.Contains(err.Error(), dev) || !errors.Is(err, vddk.ErrReadOnly) && !errors.Is(err, syscall.EACCES) {
		t.Errorf("%v, want ErrReadOnly or EACCES and the path", err)
	}
	disk, err = vddk.Open(t.Context(), dev, vddk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	disk.Close()
}

func TestDeviceDescription(t *testing.T) {
	image := newImage(t, t.TempDir(), noise(1<<20))
	dev := attach(t, image)
	d := open(t, dev, vddk.ReadWrite)
	got := d.Describe()
	if got.Kind != "block" || got.Size != 1<<20 || got.SectorSize != 512 || got.Coldness != "direct" || got.ReadOnly || got.CanMap {
		t.Errorf("description: got %+v", got)
	}
	if _, ok := d.(*vddk.Device); !ok || !strings.Contains(got.Identity, ":loop=") {
		t.Errorf("plain path of a device: got %T, %q", d, got.Identity)
	}
	if _, err := vddk.Open(t.Context(), "file://"+dev, vddk.Options{}); !errors.Is(err, vddk.ErrKind) || !strings.Contains(err.Error(), "write block://"+dev) {
		t.Errorf("file:// on a device: got %v, want ErrKind and what to write", err)
	}
	create := vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 1 << 20}
	if _, err := vddk.Open(t.Context(), dev, create); !errors.Is(err, vddk.ErrKind) {
		t.Errorf("create on a device: got %v, want ErrKind", err)
	}
}

func TestDeviceWithoutMedium(t *testing.T) {
	needRoot(t)
	dev := run(t, "losetup", "-f")
	if d, err := vddk.Open(t.Context(), dev, vddk.Options{}); err == nil {
		d.Close()
		t.Skipf("SKIPPED: %s was taken by another program meanwhile", dev)
	} else if !errors.Is(err, vddk.ErrKind) && !errors.Is(err, syscall.ENXIO) {
		t.Errorf("loop device without a file: got %v, want ErrKind", err)
	}
}

// TestDeviceBytes: what is written through the driver is in the image, punched
// space is given back to it, and cmp says so.
func TestDeviceBytes(t *testing.T) {
	content := noise(4<<20 + 512)
	image := newImage(t, t.TempDir(), content)
	d := open(t, attach(t, image), vddk.ReadWrite)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	before := blocks(t, image)
	copy(content[100:], "odd bytes")
	if _, err := d.WriteAt([]byte("odd bytes"), 100); err != nil {
		t.Fatal(err)
	}
	big := aligned(bytes.Repeat([]byte("large"), 1<<20/5+1)[:1<<20])
	copy(content[3<<20:], big)
	if _, err := d.WriteAt(big, 3<<20); err != nil {
		t.Fatal(err)
	}
	e := cbt.Extent{Off: 1<<20 - 3, Len: 1<<20 + 6}
	if err := errors.Join(d.Zero(e, cbt.Deallocate), d.Flush(), d.Check(), d.Close()); err != nil {
		t.Fatal(err)
	}
	clear(content[e.Off:e.End()])
	wantFile(t, image, content)
	wantGivenBack(t, before-blocks(t, image), 1<<20)
}

func TestDeviceHeldByAnotherProcess(t *testing.T) {
	wantHeld(t, attach(t, newImage(t, t.TempDir(), noise(1<<20))))
}

func TestDeviceMounted(t *testing.T) {
	image := newImage(t, t.TempDir(), make([]byte, 4<<20))
	dev, point := attach(t, image), t.TempDir()
	run(t, "mkfs.ext4", "-q", dev)
	run(t, "mount", dev, point)
	t.Cleanup(func() { run(t, "umount", point) })
	locked := wantLocked(t, dev, vddk.ReadWrite)
	if !strings.Contains(locked.By, "mounted") || !strings.Contains(locked.Remedy, "findmnt "+dev) {
		t.Errorf("mounted device: got %v", locked)
	}
	d := open(t, dev, vddk.ReadOnly)
	if got := d.Describe().Warning; !strings.Contains(got, "mounted read-write at "+point) {
		t.Errorf("warning of a mounted source: got %q", got)
	}
	// The file beneath is in use too, by the loop device.
	locked = wantLocked(t, image, vddk.ReadWrite)
	if !strings.Contains(locked.Error(), dev) {
		t.Errorf("image of a loop device: got %v, want it to name %s", locked, dev)
	}
	if got := open(t, image, vddk.ReadOnly).Describe().Warning; !strings.Contains(got, dev) {
		t.Errorf("warning of an image with a loop device: got %q", got)
	}
}

func TestDeviceChanged(t *testing.T) {
	for name, change := range map[string]func(dev, image string){
		"grown": func(dev, image string) {
			if err := os.Truncate(image, 2<<20); err != nil {
				t.Fatal(err)
			}
			run(t, "losetup", "-c", dev)
		},
		"shrunk": func(dev, image string) {
			if err := os.Truncate(image, 1<<19); err != nil {
				t.Fatal(err)
			}
			run(t, "losetup", "-c", dev)
		},
		// The device keeps its size; only the file tells.
		"file cut": func(_, image string) {
			if err := os.Truncate(image, 1<<20-512); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			image := newImage(t, t.TempDir(), noise(1<<20))
			dev := attach(t, image)
			d := open(t, dev, vddk.ReadWrite)
			if err := d.Check(); err != nil {
				t.Errorf("check before: %v", err)
			}
			change(dev, image)
			if err := d.Check(); !errors.Is(err, vddk.ErrChanged) {
				t.Errorf("got %v, want ErrChanged", err)
			}
		})
	}
}

// smallTmpfs mounts a file system of 8 MiB.
func smallTmpfs(t *testing.T) string {
	t.Helper()
	needRoot(t)
	point := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", point)
	t.Cleanup(func() { run(t, "umount", point) })
	return point
}

// TestFileNoSpace: the errno survives, and what was not written is said.
func TestFileNoSpace(t *testing.T) {
	path := filepath.Join(smallTmpfs(t), "disk.img")
	d, err := vddk.Open(t.Context(), path, vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p, written := noise(1<<20), 0
	for off := int64(0); off < d.Size() && err == nil; off += int64(len(p)) {
		var n int
		n, err = d.WriteAt(p, off)
		written += n
	}
	if !errors.Is(err, syscall.ENOSPC) || written > 8<<20 {
		t.Errorf("after %d bytes: got %v, want ENOSPC within 8 MiB", written, err)
	}
	if err := d.Zero(cbt.Extent{Len: 4 << 20}, cbt.Deallocate); err != nil {
		t.Errorf("punch on a full file system: %v", err)
	}
}

// TestDeviceNoSpace: a thin device that runs full says so at the write or at
// the flush, and from then on nothing is believed.
func TestDeviceNoSpace(t *testing.T) {
	image := filepath.Join(smallTmpfs(t), "disk.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	d := open(t, attach(t, image), vddk.ReadWrite)
	p := noise(64 << 10) // small writes go through the page cache
	var err error
	for off := int64(0); off < d.Size() && err == nil; off += int64(len(p)) {
		_, err = d.WriteAt(p, off)
	}
	flushed := d.Flush()
	if flushed == nil {
		t.Fatalf("flush of a full device: no error (write: %v)", err)
	}
	if again := d.Flush(); again == nil || again.Error() != flushed.Error() {
		t.Errorf("second flush: got %v, want the first error again: %v", again, flushed)
	}
	if _, err := d.WriteAt(p, 0); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("write after a failed flush: got %v, want its error", err)
	}
}
