package vddk

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// lockInode takes the OFD lock of the whole file or device node: shared for
// reading, exclusive for writing, so that a source and a target never are the
// same disk. It belongs to the open file: the kernel frees it at close or death.
func lockInode(fd int, path string, mode Mode) error {
	lock := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
	if mode == ReadWrite {
		lock.Type = unix.F_WRLCK
	}
	wanted := lock.Type
	err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES):
		return &LockedError{Path: path, By: lockHolder(fd, wanted), Remedy: lockRemedy(path)}
	case mode == ReadOnly && (errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EOPNOTSUPP)):
		return nil // no locks here: a reader harms nobody, a writer is refused below
	}
	return fmt.Errorf("%s: lock: %w", path, err)
}

// lockHolder describes the lock in the way. Only locks of the old kind carry a
// process; an OFD lock (ours, qemu's) is reported with pid -1.
func lockHolder(fd int, wanted int16) string {
	lock := unix.Flock_t{Type: wanted, Whence: io.SeekStart}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK {
		return "locked by another program"
	}
	use := "for reading"
	if lock.Type == unix.F_WRLCK {
		use = "for writing"
	}
	if lock.Pid > 0 {
		return fmt.Sprintf("locked %s by process %d", use, lock.Pid)
	}
	return fmt.Sprintf("locked %s by another program (or it is the source and the target of one job)", use)
}

func lockRemedy(path string) string {
	return fmt.Sprintf("find the holder with `fuser -v %s` or `lsof %s` and stop it", path, path)
}
