package osdtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// HasLoop is nil, or says why there are no loop devices here: a container may have the
// control device and not those that it makes.
func HasLoop() error {
	control, err := loopControl()
	if err != nil {
		return fmt.Errorf("osdtest: no loop devices: %w", err)
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("osdtest: no loop devices: LOOP_CTL_GET_FREE: %w", err)
	}
	f, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("osdtest: no loop devices: %w", err)
	}
	return f.Close()
}

// loopControl is the control device, locked until it is closed: no process of this
// package opens a device that another one has just taken, and may be watching.
func loopControl() (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(control.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, control.Close())
	}
	return control, nil
}

// loopTries is how often another program may take the device that was free.
const loopTries = 100

// attachLoop makes a loop device of a file: of the wanted path if that is free, or any.
func attachLoop(file, wanted string, readOnly bool) (path string, err error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	backing, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return "", err
	}
	defer backing.Close()
	control, err := loopControl()
	if err != nil {
		return "", err
	}
	defer control.Close()
	if wanted != "" && !bound(wanted) && configure(wanted, mode, backing) == nil {
		return wanted, nil
	}
	for range loopTries {
		n, free := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if free != nil {
			return "", fmt.Errorf("LOOP_CTL_GET_FREE: %w", free)
		}
		path = fmt.Sprintf("/dev/loop%d", n)
		if err = configure(path, mode, backing); err == nil {
			return path, nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENOENT) {
			return "", err
		}
	}
	return "", err
}

// bound reports whether a loop device has a file.
func bound(path string) bool {
	_, err := os.Stat("/sys/block/" + filepath.Base(path) + "/loop/backing_file")
	return err == nil
}

// configure binds a device that is free to a file; by a mode that only reads, the kernel
// makes it read-only. Direct I/O keeps the bytes out of the page cache twice; not every
// file system has it.
func configure(path string, mode int, backing *os.File) error {
	dev, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], backing.Name())
	config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
	if errors.Is(err, unix.EINVAL) {
		config.Info.Flags &^= unix.LO_FLAGS_DIRECT_IO
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
	}
	if err != nil {
		return fmt.Errorf("LOOP_CONFIGURE %s: %w", path, err)
	}
	return nil
}

// detachLoop ends a loop device whose file is the named one; another's is left alone. Who
// has it open keeps it until they close it, says the kernel.
func detachLoop(path, file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	return clearLoop(path, func(info *unix.LoopInfo64) bool {
		return info.Device == st.Dev && info.Inode == st.Ino
	})
}

func clearLoop(path string, ours func(*unix.LoopInfo64) bool) error {
	dev, err := os.Open(path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dev.Close()
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return nil // no file
	}
	if err != nil {
		return fmt.Errorf("LOOP_GET_STATUS64 %s: %w", path, err)
	}
	if !ours(info) {
		return nil
	}
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("LOOP_CLR_FD %s: %w", path, err)
	}
	return nil
}

// detachAll ends the loop devices whose files are below dir: those of a server that was
// killed, too.
func detachAll(dir string) error {
	all, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, name := range all {
		text, read := os.ReadFile(name)
		file := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), " (deleted)")
		if read != nil || !strings.HasPrefix(file, dir+"/") {
			continue
		}
		device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(name)))
		err = errors.Join(err, clearLoop(device, func(info *unix.LoopInfo64) bool {
			now, again := os.ReadFile(name) // opened since: it stays what it is
			return again == nil && string(now) == string(text)
		}))
	}
	return err
}
