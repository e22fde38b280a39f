package osdtest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// backed are the loop devices whose files are below dir.
func backed(t *testing.T, dir string) (devices []string) {
	t.Helper()
	all, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	ok(t, err)
	for _, name := range all {
		if text, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(text), dir+"/") {
			devices = append(devices, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(name))))
		}
	}
	return devices
}

func looped(t *testing.T) (s *Server, c *client, id string, dir string) {
	t.Helper()
	needLoop(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	ok(t, err)
	s, c = start(t, Config{Dir: dir, Loop: true})
	id, err = s.AddVolume("data", mib, bytes.NewReader(pattern(mib, 1)))
	ok(t, err)
	return s, c, id, dir
}

func TestLoopEnds(t *testing.T) {
	s, c, id, dir := looped(t)
	path := must(t)(c.plug(id))
	if got := backed(t, dir); len(got) != 1 || got[0] != path {
		t.Fatalf("attached at %s: devices %v", path, got)
	}
	dev, err := os.Open(path)
	ok(t, err)
	defer dev.Close()
	size, err := dev.Seek(0, 2)
	if err != nil || size != mib {
		t.Errorf("%s has %d bytes, %v", path, size, err)
	}
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil || !bytes.HasPrefix(info.File_name[:], []byte(s.Image(id)[:40])) {
		t.Errorf("%s: %v", info.File_name, err)
	}
	ok(t, dev.Close())
	ok(t, s.Close())
	if got := backed(t, dir); len(got) != 0 {
		t.Errorf("left after Close: %v", got)
	}
	// what a killed server leaves
	path, err = attachLoop(s.Image(id), "", false)
	ok(t, err)
	foreign := filepath.Join(t.TempDir(), "foreign")
	ok(t, makeImage(foreign, mib))
	other, err := attachLoop(foreign, "", false)
	ok(t, err)
	defer func() { ok(t, detachLoop(other, foreign)) }()
	s, _ = start(t, Config{Dir: dir, Loop: true})
	if got := backed(t, dir); len(got) != 0 {
		t.Errorf("left by New: %v, with %s", got, path)
	}
	if got := backed(t, filepath.Dir(foreign)); len(got) != 1 {
		t.Errorf("New took another's device: %v", got)
	}
	// by the wrong file nothing is detached
	ok(t, detachLoop(other, s.Image(id)))
	if got := backed(t, filepath.Dir(foreign)); len(got) != 1 {
		t.Errorf("another's device is gone: %v", got)
	}
}

// TestLoopFacts are three rules of data safety: O_EXCL is exclusive, what is not flushed
// is in no snapshot, and Detach does not end who has the device open.
func TestLoopFacts(t *testing.T) {
	s, c, id, _ := looped(t)
	path := must(t)(c.plug(id))
	dev, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	ok(t, err)
	defer dev.Close()
	if again, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0); !errors.Is(err, unix.EBUSY) {
		again.Close()
		t.Errorf("a second O_EXCL: %v", err)
	}
	_, err = dev.WriteAt(pattern(4096, 2), 0)
	ok(t, err)
	early := must(t)(c.snapshot(id, "early", nil))
	ok(t, dev.Sync())
	late := must(t)(c.snapshot(id, "late", nil))
	holds(t, s.Image(early), pattern(4096, 1))
	holds(t, s.Image(late), pattern(4096, 2))

	ok(t, c.unplug(id))
	_, err = dev.WriteAt(pattern(4096, 3), 0)
	ok(t, err)
	ok(t, dev.Sync())
	holds(t, s.Image(id), pattern(4096, 3))
	if second := must(t)(c.plug(id)); second == path {
		t.Errorf("attached again at %s, which is open", second)
	}
	ok(t, dev.Close())
	ok(t, c.unplug(id))
}

func TestLoopQuirks(t *testing.T) {
	s, c, id, _ := looped(t)
	snapshot := must(t)(c.snapshot(id, "s", nil))
	path := must(t)(c.plug(snapshot))
	holds(t, path, pattern(mib, 1))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	ok(t, err)
	if _, err := f.WriteAt(pattern(4096, 2), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("a snapshot's device is written: %v", err)
	}
	ok(t, f.Close())
	ok(t, c.unplug(snapshot))
	s.Set(func(q *Quirks) { q.WritableSnapshots, q.WrongSize = true, 512 })
	path = must(t)(c.plug(snapshot))
	f, err = os.OpenFile(path, os.O_RDWR, 0)
	ok(t, err)
	_, err = f.WriteAt(pattern(4096, 2), 0)
	ok(t, err)
	if size, err := f.Seek(0, 2); err != nil || size != mib+512 {
		t.Errorf("%d bytes, %v", size, err)
	}
	ok(t, f.Close())
	ok(t, c.unplug(snapshot))
	s.Set(func(q *Quirks) { *q = Quirks{ReusePaths: true} })
	for range 3 { // another process may take a device in between
		must(t)(c.plug(id))
		path = must(t)(c.plug(snapshot))
		ok(t, c.unplug(id)) // the kernel would give this one, the lowest
		ok(t, c.unplug(snapshot))
		again := must(t)(c.plug(id))
		ok(t, c.unplug(id))
		if again == path {
			return
		}
	}
	t.Error("no path is used again")
}
