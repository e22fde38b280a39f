package osd

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/libopenstorage/openstorage/api"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// watch tells whether somebody opens a file or device, or closes one that could be
// written. O_PATH is not seen.
func watch(t *testing.T, path string) (seen func() (opened, written bool)) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	ok(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_OPEN|unix.IN_CLOSE_WRITE)
	ok(t, err)
	return func() (opened, written bool) {
		buf := make([]byte, 4096)
		n, err := unix.Read(fd, buf)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		for b := buf[:max(n, 0)]; len(b) >= unix.SizeofInotifyEvent; {
			mask := binary.NativeEndian.Uint32(b[4:])
			opened = opened || mask&unix.IN_OPEN != 0
			written = written || mask&unix.IN_CLOSE_WRITE != 0
			b = b[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(b[12:]):]
		}
		return opened, written
	}
}

// TestHostilePath: what a server may not name is not opened, and the volume is
// detached again.
func TestHostilePath(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, os.WriteFile(at("file"), make([]byte, mib), 0o600))
	ok(t, os.WriteFile(at("short"), make([]byte, mib-512), 0o600))
	ok(t, os.Mkdir(at("allowed"), 0o700))
	ok(t, os.WriteFile(at("allowed/file"), make([]byte, mib), 0o600))
	ok(t, os.WriteFile(at("allowed/long"), make([]byte, mib+512), 0o600))
	ok(t, os.Mkdir(at("allowed/directory"), 0o700))
	ok(t, unix.Mkfifo(at("allowed/fifo"), 0o600))
	ok(t, os.Symlink(at("file"), at("allowed/link")))
	ok(t, os.Symlink("/dev/null", at("allowed/null")))
	ok(t, os.Symlink("file", at("allowed/good")))
	for name, test := range map[string]struct {
		path, watch, want string
		files             bool
	}{
		"another file":       {at("file"), at("file"), "not among the devices", true},
		"null":               {"/dev/null", "/dev/null", "not among the devices", true},
		"a disk":             {"/dev/sda", "", "not among the devices", true},
		"..":                 {dir + "/allowed/../file", at("file"), "no plain path", true},
		"relative":           {"allowed/file", "", "no plain path", true},
		"newline":            {at("allowed/file\n"), "", "no plain path", true},
		"not there":          {at("allowed/none"), "", "no such file", true},
		"link to elsewhere":  {at("allowed/link"), at("file"), "not among the devices", true},
		"link to null":       {at("allowed/null"), "/dev/null", "not among the devices", true},
		"directory":          {at("allowed/directory"), "", "no block device", true},
		"FIFO":               {at("allowed/fifo"), at("allowed/fifo"), "no block device", true},
		"longer":             {at("allowed/long"), at("allowed/long"), "1049088 bytes, and the volume has 1048576", true},
		"file, and no files": {at("allowed/file"), at("allowed/file"), "files = true is not set", false},
		"fine":               {at("allowed/file"), at("allowed/file"), "", true},
		"fine by a link":     {at("allowed/good"), at("allowed/file"), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, osdtest.Config{})
			id := r.volume("v", 1, 1)
			r.cfg.Devices, r.cfg.Files = []string{at("allowed/*")}, test.files
			r.set(func(q *osdtest.Quirks) { q.Path = test.path })
			seen := func() (bool, bool) { return false, false }
			if test.watch != "" && test.watch != "/dev/null" { // which everybody opens
				seen = watch(t, test.watch)
			}
			a, err := r.k.Open(t.Context(), r.client(r.cfg), id, "", true)
			if test.want == "" {
				ok(t, err)
				ok(t, a.Release(t.Context()))
			} else {
				wants(t, err, test.want)
				retryable(t, err, false)
			}
			if opened, written := seen(); opened || written {
				t.Errorf("it was opened (for writing: %v)", written)
			}
			r.clean()
		})
	}
}

// TestHostileDevice is the same with block devices.
func TestHostileDevice(t *testing.T) {
	r := newRig(t, osdtest.Config{Loop: true})
	other := newRig(t, osdtest.Config{Loop: true})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	theirs := must[string](t)(other.server.AttachOutside(other.volume("w", 1, 2), ""))
	shorter := must[string](t)(other.server.AttachOutside(other.volume("x", 2, 2), ""))

	// A loop device of the right size that was there before.
	r.set(func(q *osdtest.Quirks) { q.Path = theirs })
	seen := watch(t, theirs)
	_, err := r.k.Open(ctx, r.c, id, "", true)
	wants(t, err, "was there before it was attached")
	if opened, written := seen(); opened || written {
		t.Errorf("another's device was opened (for writing: %v)", written)
	}
	r.set(func(q *osdtest.Quirks) { q.Path = shorter })
	_, err = r.k.Open(ctx, r.c, id, "", true)
	wants(t, err, "was there before it was attached")
	r.set(func(q *osdtest.Quirks) { q.Path = "/dev/loop-control" })
	_, err = r.k.Open(ctx, r.c, id, "", true)
	wants(t, err, "no block device")
	r.set(func(q *osdtest.Quirks) { q.Path = "" })

	for _, extra := range []int64{512, -512} {
		r.set(func(q *osdtest.Quirks) { q.WrongSize = extra })
		_, err = r.k.Open(ctx, r.c, id, "", true)
		wants(t, err, "bytes, and the volume has 1048576")
	}
	r.set(func(q *osdtest.Quirks) { q.WrongSize, q.EmptyPath = 0, true })
	_, err = r.k.Open(ctx, r.c, id, "", true)
	wants(t, err, "names no device")
	r.set(func(q *osdtest.Quirks) { q.EmptyPath = false })
	r.clean()

	// A path that is used again: nothing of ours leads there.
	r.set(func(q *osdtest.Quirks) { q.ReusePaths = true })
	a := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", true))
	path := a.Path()
	ok(t, r.server.DetachOutside(id))
	second := r.volume("y", 1, 3)
	if again := must[string](t)(r.server.AttachOutside(second, "")); again != path {
		t.Logf("the path was not used again: %s and %s", path, again)
	}
	wants(t, a.Check(ctx), "not attached here any more")
	if n := r.calls("Detach", func() { ok(t, a.Release(ctx)) }); n != 0 {
		t.Errorf("%d Detach", n)
	}
	ok(t, r.server.DetachOutside(second))
	r.clean()
}

// TestDevRoot: for a daemon in a container the host's devices, and their links, are
// below a directory.
func TestDevRoot(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	id := r.volume("v", 1, 1)
	root := t.TempDir()
	ok(t, os.MkdirAll(root+"/dev/mapper", 0o700))
	ok(t, os.WriteFile(root+"/dev/dm-0", make([]byte, mib), 0o600))
	ok(t, os.Symlink("../dm-0", root+"/dev/mapper/a"))
	ok(t, os.Symlink("/dev/dm-0", root+"/dev/mapper/b"))
	ok(t, os.Symlink("/etc/passwd", root+"/dev/mapper/c"))
	ok(t, os.Symlink("../../../../../../../../../etc/passwd", root+"/dev/mapper/d"))
	r.cfg.Devices, r.cfg.DevRoot, r.cfg.Files = nil, root, true
	c := r.client(r.cfg)
	for path, want := range map[string]string{
		"/dev/dm-0": "", "/dev/mapper/a": "", "/dev/mapper/b": "",
		"/dev/mapper/c": "no such file", "/dev/mapper/d": "no such file", "/dev/../../dm-0": "no plain path",
	} {
		r.set(func(q *osdtest.Quirks) { q.Path = path })
		a, err := r.k.Open(t.Context(), c, id, "", false)
		if want != "" {
			wants(t, err, want)
			continue
		}
		if errors.Is(err, unix.ENOSYS) {
			t.Skipf("NOT RUN: no openat2: %v", err)
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if a.Path() != root+"/dev/dm-0" {
			t.Errorf("%s is %s", path, a.Path())
		}
		ok(t, a.Release(t.Context()))
	}
	r.clean()
}

// moved is a server whose volume has another device right after it was attached.
type moved struct {
	api.OpenStorageMountAttachClient
	then func()
}

// Attach implements api.OpenStorageMountAttachClient.
func (m moved) Attach(ctx context.Context, in *api.SdkVolumeAttachRequest, o ...grpc.CallOption) (*api.SdkVolumeAttachResponse, error) {
	r, err := m.OpenStorageMountAttachClient.Attach(ctx, in, o...)
	m.then()
	return r, err
}

func TestHostileMoves(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	mounts := r.c.mounts
	r.c.mounts = moved{mounts, func() {
		ok(t, r.server.DetachOutside(id))
		r.set(func(q *osdtest.Quirks) { q.Path = filepath.Join(r.dir, "images", "other") })
		_, err := mounts.Attach(ctx, &api.SdkVolumeAttachRequest{VolumeId: id})
		ok(t, err)
	}}
	_, err := r.k.Open(ctx, r.c, id, "", true)
	wants(t, err, "and right after that")
	r.c.mounts = moved{mounts, func() { ok(t, r.server.DetachOutside(id)) }}
	_, err = r.k.Open(ctx, r.c, id, "", true)
	wants(t, err, "the volume is not attached")
	r.c.mounts = moved{mounts, func() {
		ok(t, r.server.DetachOutside(id))
		_, err := r.server.AttachOutside(id, "node-9")
		ok(t, err)
	}}
	_, err = r.k.Open(ctx, r.c, id, "", true)
	class(t, err, Elsewhere)
	ok(t, r.server.DetachOutside(id))
	r.clean()
}

// TestPresent: a device that was mapped before is told from one that is made since.
func TestPresent(t *testing.T) {
	sys := t.TempDir()
	for name, text := range map[string]string{
		"dm-0/dev": "253:0", "dm-0/dm/name": "vg-root", "dm-0/dm/uuid": "LVM-1",
		"loop3/dev": "7:3", "loop3/loop/backing_file": "/srv/a", "loop4/dev": "7:4", "sda/dev": "8:0",
	} {
		file := filepath.Join(sys, name)
		ok(t, os.MkdirAll(filepath.Dir(file), 0o700))
		ok(t, os.WriteFile(file, []byte(text+"\n"), 0o600))
	}
	want := map[uint64]string{unix.Mkdev(253, 0): "vg-root LVM-1", unix.Mkdev(7, 3): "/srv/a"}
	if got := present(sys); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
