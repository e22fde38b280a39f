package vddk_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// qcow2WithBitmap is an image of 64 MiB with the bitmap b0, and four changes
// since: two writes, zeros, and a discard of what was written.
func qcow2WithBitmap(t *testing.T) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "d.qcow2")
	nbdtest.Run(t, "qemu-img", "create", "-f", "qcow2", img, "64M")
	nbdtest.Run(t, "qemu-img", "bitmap", "--add", "--enable", "-g", "65536", img, "b0")
	nbdtest.Run(t, "qemu-io", "-f", "qcow2", "-c", "write 1M 100k", "-c", "write 8M 1M", "-c", "write -z 20M 64k", "-c", "discard 8M 64k", img)
	return img
}

func changed(t *testing.T, d vddk.Disk) (cbt.Hint, error) {
	t.Helper()
	tracker, ok := d.(vddk.Tracker)
	if !ok {
		t.Fatalf("%T is no vddk.Tracker", d)
	}
	return tracker.Changed(t.Context())
}

// TestNBDBitmap reads a persistent bitmap of QEMU, and sees what a writer adds.
func TestNBDBitmap(t *testing.T) {
	nbdtest.Need(t, "qemu-img")
	img := qcow2WithBitmap(t)
	want := []cbt.Extent{{Off: 1 << 20, Len: 128 << 10}, {Off: 8 << 20, Len: 1 << 20}, {Off: 20 << 20, Len: 64 << 10}}
	wantAreas(t, img, want, "bitmap:b0")

	s := nbdtest.Unix(t, "qemu-nbd", "-t", "-f", "qcow2", img)
	d := openServer(t, s, vddk.Options{Mode: vddk.ReadWrite})
	if _, err := d.WriteAt(make([]byte, 10), 33<<20+5); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Flush(), d.Close()); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	wantAreas(t, img, append(want, cbt.Extent{Off: 33 << 20, Len: 64 << 10}), "bitmap:b0")
}

func wantAreas(t *testing.T, img string, want []cbt.Extent, track string) {
	t.Helper()
	s := nbdtest.Unix(t, "qemu-nbd", "-t", "-r", "-A", "-B", "b0", "-f", "qcow2", img)
	d := openServer(t, s, vddk.Options{Track: track})
	hint, err := changed(t, d)
	if err != nil || !slices.Equal(hint.Areas, want) {
		t.Errorf("bitmap: got %v, %v, want %v", hint.Areas, err, want)
	}
	if hint.Size != 64<<20 || hint.Since != "b0" || hint.Trust == cbt.Distrusted {
		t.Errorf("hint: got %+v", hint)
	}
	if got := d.Describe().Bitmaps; !slices.Equal(got, []string{"bitmap:b0"}) {
		t.Errorf("bitmaps on offer: got %q", got)
	}
	d.Close()
	s.Stop()
}

// TestNBDBitmapMissing: the error says what there is, and what it likely means.
func TestNBDBitmapMissing(t *testing.T) {
	nbdtest.Need(t, "qemu-img")
	s := nbdtest.Unix(t, "qemu-nbd", "-t", "-r", "-B", "b0", "-f", "qcow2", qcow2WithBitmap(t))
	d := openServer(t, s, vddk.Options{Track: "bitmap:b1"})
	_, err := changed(t, d)
	missing, ok := errors.AsType[*nbd.ContextError](err)
	if !ok || !slices.Equal(missing.Offered, []string{"base:allocation", "qemu:dirty-bitmap:b0"}) {
		t.Fatalf("missing bitmap: got %v, %+v", err, missing)
	}
	for _, word := range []string{"b1", "qemu:dirty-bitmap:b0", "inconsistent", "compare the whole disk"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in %v", word, err)
		}
	}
	if retryable(err) {
		t.Error("a missing bitmap does not come back")
	}
}

// TestNBDBitmapOfKilledWriter: kill -9 leaves the bitmap in use; qemu-nbd then
// refuses to export it, and without it the whole disk is compared.
func TestNBDBitmapOfKilledWriter(t *testing.T) {
	nbdtest.Need(t, "qemu-img")
	img := qcow2WithBitmap(t)
	writer := nbdtest.Unix(t, "qemu-nbd", "-t", "-f", "qcow2", img)
	d := openServer(t, writer, vddk.Options{Mode: vddk.ReadWrite})
	_, err := d.WriteAt([]byte("lost count"), 40<<20)
	if err := errors.Join(err, d.Flush()); err != nil {
		t.Fatal(err)
	}
	writer.Kill()

	refuses := nbdtest.Unix(t, "qemu-nbd", "-t", "-r", "-B", "b0", "-f", "qcow2", img)
	_ = refuses.Cmd.Wait()
	if d, err := vddk.OpenNBD(t.Context(), refuses.URI, vddk.Options{Track: "bitmap:b0"}); !retryable(err) {
		t.Errorf("a server that does not start: got %v, %v, want a retryable error", d, err)
	}
	s := nbdtest.Unix(t, "qemu-nbd", "-t", "-r", "-f", "qcow2", img)
	_, err = changed(t, openServer(t, s, vddk.Options{Track: "bitmap:b0"}))
	if _, ok := errors.AsType[*nbd.ContextError](err); !ok || !strings.Contains(err.Error(), "inconsistent") {
		t.Errorf("bitmap of a killed writer: got %v", err)
	}
}

func TestNBDTrackNeedsItsWord(t *testing.T) {
	for _, track := range []string{"b0", "bitmap:", "fiemap:/a"} {
		if d, err := vddk.OpenNBD(t.Context(), "nbd+unix:///?socket=/nowhere", vddk.Options{Track: track}); err == nil || !strings.Contains(err.Error(), "bitmap:NAME") {
			t.Errorf("track %q: got %v, %v", track, d, err)
		}
	}
}
