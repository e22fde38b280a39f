package vddk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// loopBacking is the file behind a loop device, as recorded at open.
type loopBacking struct {
	info unix.LoopInfo64
	file *os.File // opened as a path only; nil when it cannot be reached from here
	once sync.Once
}

// openLoopBacking returns nil when fd is no loop device. The path in sysfs may
// be out of date or of another mount namespace, so it counts only when it leads
// to the inode that the device names.
func openLoopBacking(fd int, major, minor uint32) *loopBacking {
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return nil
	}
	b := &loopBacking{info: *info}
	path, err := os.ReadFile(filepath.Join(sysDir(major, minor), "loop", "backing_file"))
	if err != nil {
		return b
	}
	file, err := os.OpenFile(strings.TrimSuffix(string(path), "\n"), unix.O_PATH, 0)
	if err != nil {
		return b
	}
	var st unix.Stat_t
	if unix.Fstat(int(file.Fd()), &st) != nil || st.Dev != info.Device || st.Ino != info.Inode {
		file.Close()
		return b
	}
	b.file = file
	return b
}

// check returns an error when the device got another file, or its file became
// too short for the device.
func (b *loopBacking) check(fd int, size int64) error {
	now, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return fmt.Errorf("%w: loop device lost its file: %w", ErrChanged, err)
	}
	if now.Device != b.info.Device || now.Inode != b.info.Inode || now.Offset != b.info.Offset {
		return fmt.Errorf("%w: loop device has another file (inode was %d, is %d)", ErrChanged, b.info.Inode, now.Inode)
	}
	if b.file == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(b.file.Fd()), &st); err != nil {
		return err
	}
	if need := int64(b.info.Offset) + size; st.Size < need {
		return fmt.Errorf("%w: backing file of the loop device has %d of %d bytes", ErrChanged, st.Size, need)
	}
	return nil
}

func (b *loopBacking) close() {
	b.once.Do(func() {
		if b.file != nil {
			b.file.Close()
		}
	})
}

// loopOn returns the loop device, if any, whose backing file is the inode.
func loopOn(dev, ino uint64) string {
	entries, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		path, err := os.ReadFile(entry)
		if err != nil {
			continue // detached since the listing
		}
		var st unix.Stat_t
		if unix.Stat(strings.TrimSuffix(string(path), "\n"), &st) == nil && st.Dev == dev && st.Ino == ino {
			return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(entry)))
		}
	}
	return ""
}
