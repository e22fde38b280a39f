package osd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// device is what an attached volume appears as. Its fd is O_PATH: it holds the
// inode, and neither reads nor writes.
type device struct {
	fd   int
	path string // as it is opened, for messages
	stat unix.Stat_t
	size int64 // bytes
}

func (d *device) close() {
	if d != nil && d.fd >= 0 {
		_ = unix.Close(d.fd)
		d.fd = -1
	}
}

// block reports whether it is a block device; else it is a file.
func (d *device) block() bool { return d.stat.Mode&unix.S_IFMT == unix.S_IFBLK }

// self is the path of the inode itself, whatever its name leads to now.
func (d *device) self() string { return "/proc/self/fd/" + strconv.Itoa(d.fd) }

// verify opens what the server says v is attached as, believes none of it, and asks
// the server again. before are the devices that were present before v was
// attached. Nothing is opened for writing, and nothing but a block device of an
// allowed name is opened for reading.
func (c *Client) verify(ctx context.Context, v *Volume, before map[uint64]string) (*device, error) {
	d, err := c.device(v.Path)
	if err == nil {
		err = d.judge(v.Size, c.cfg.Files, before)
	}
	if err != nil {
		d.close()
		return nil, c.refuse("Attach", v.ID, "device %q: %s; nothing was opened for writing", clean(v.Path), clean(err.Error()))
	}
	if err := c.same(ctx, v); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// same asks the server whether v is what it was.
func (c *Client) same(ctx context.Context, v *Volume) error {
	now, err := c.Inspect(ctx, v.ID)
	switch {
	case err != nil:
		return err
	case !now.Attached || !now.here:
		return c.refuse("Inspect", v.ID, "it is not attached here any more")
	case now.Path != v.Path:
		return c.refuse("Inspect", v.ID, "its device was %q, and now is %q", clean(v.Path), clean(now.Path))
	case now.Size != v.Size:
		return c.refuse("Inspect", v.ID, "it had %d bytes, and now has %d", v.Size, now.Size)
	case now.Restoring:
		return c.refuse("Inspect", v.ID, "it is being restored")
	case now.Unfit != "":
		return c.refuse("Inspect", v.ID, "%s", now.Unfit)
	}
	return nil
}

// device opens a path that a server has named, if it and the end of its links are
// allowed. Links of a DevRoot are followed within it.
func (c *Client) device(name string) (*device, error) {
	if err := c.allowed(name); err != nil {
		return nil, err
	}
	d := &device{fd: -1}
	root, err := unix.Open(c.cfg.DevRoot, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("dev_root %s: %w", c.cfg.DevRoot, err)
	}
	defer unix.Close(root)
	if c.cfg.DevRoot == "/" {
		d.fd, err = unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	} else {
		d.fd, err = unix.Openat2(root, strings.TrimPrefix(name, "/"), &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
	}
	if err != nil {
		return nil, err
	}
	// The fd is what counts from here on: this is its own name, not where a name
	// leads that somebody may change.
	end, err := os.Readlink(d.self())
	if err != nil {
		return d, err
	}
	d.path = end
	base, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(root))
	if err != nil {
		return d, err
	}
	if base != "/" {
		var ok bool
		if end, ok = strings.CutPrefix(end, base); !ok {
			return d, errors.New("it leads out of dev_root")
		}
	}
	if end != name {
		if err := c.allowed(end); err != nil {
			return d, fmt.Errorf("it leads to %q, and that %w", clean(end), err)
		}
	}
	return d, unix.Fstat(d.fd, &d.stat)
}

// allowed reports whether a server may name that path.
func (c *Client) allowed(name string) error {
	switch {
	case name == "":
		return errors.New("is no path")
	case !path.IsAbs(name) || path.Clean(name) != name || clean(name) != name:
		return errors.New("is no plain path")
	}
	for _, p := range c.cfg.Devices {
		if ok, err := path.Match(p, name); ok && err == nil {
			return nil
		}
	}
	return errors.New("is not among the devices that a server may name (" + strings.Join(c.cfg.Devices, ", ") + ")")
}

// judge looks what the device is, and only then opens it, to see its size.
func (d *device) judge(size int64, files bool, before map[uint64]string) error {
	switch kind := d.stat.Mode & unix.S_IFMT; {
	case d.stat.Nlink == 0:
		return errors.New("it is deleted")
	case kind == unix.S_IFBLK:
	case kind == unix.S_IFREG && files:
		d.size = d.stat.Size
		return d.fits(size)
	case kind == unix.S_IFREG:
		return errors.New("it is a file, and files = true is not set")
	default:
		return fmt.Errorf("it is no block device (mode %#o)", d.stat.Mode)
	}
	if _, err := os.Lstat(d.sys("partition")); err == nil {
		return errors.New("it is a partition")
	}
	if was, there := before[d.stat.Rdev]; there && was == d.owner() {
		return fmt.Errorf("it is a device of %q, which was there before it was attached: it is somebody else's", clean(was))
	}
	fd, err := unix.Open(d.self(), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if d.size, err = unix.Seek(fd, 0, io.SeekEnd); err != nil {
		return err
	}
	return d.fits(size)
}

func (d *device) fits(size int64) error {
	if d.size != size {
		return fmt.Errorf("it has %d bytes, and the volume has %d", d.size, size)
	}
	return nil
}

// sys is a file of the device in sysfs.
func (d *device) sys(name string) string {
	return fmt.Sprintf("/sys/dev/block/%d:%d/%s", unix.Major(d.stat.Rdev), unix.Minor(d.stat.Rdev), name)
}

// owner is what tells a loop or mapped device from one of that number before: the
// file behind it, or its name and UUID. Of other devices, and of a loop device
// without a file, it is empty.
func (d *device) owner() string { return owner(d.sys("")) }

func owner(dir string) string {
	if file := text(dir, "loop/backing_file"); file != "" {
		return file
	}
	return strings.TrimSpace(text(dir, "dm/name") + " " + text(dir, "dm/uuid"))
}

// text is a file of sysfs in one line, or empty where there is none.
func text(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

// present are the loop devices that have a file, and the mapped devices, by their
// device number: both are made anew by who attaches. None where sysfs is not to be
// seen.
func present(sys string) map[uint64]string {
	all := map[uint64]string{}
	for _, kind := range []string{"loop*", "dm-*"} {
		dirs, err := filepath.Glob(filepath.Join(sys, kind))
		if err != nil {
			continue
		}
		for _, dir := range dirs {
			major, minor, ok := strings.Cut(text(dir, "dev"), ":")
			x, err1 := strconv.ParseUint(major, 10, 32)
			y, err2 := strconv.ParseUint(minor, 10, 32)
			if what := owner(dir); what != "" && ok && err1 == nil && err2 == nil {
				all[unix.Mkdev(uint32(x), uint32(y))] = what
			}
		}
	}
	return all
}

// blocks is where the kernel lists block devices.
const blocks = "/sys/block"

// inUse says who uses the device, or "" when nobody does as far as this machine
// tells: O_EXCL is refused where it is mounted, mapped or claimed, and what opens a
// disk without a claim, as QEMU does, is found among the open files of all processes.
// Only those of this PID namespace are seen.
func (d *device) inUse() string {
	if d.block() {
		fd, err := unix.Open(d.self(), unix.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.EBUSY):
			return "it is mounted, or claimed by somebody"
		case err != nil:
			return "whether it is in use cannot be seen: " + err.Error()
		}
		_ = unix.Close(fd)
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	if err != nil {
		return ""
	}
	for _, f := range fds {
		var s unix.Statx_t
		// DONT_SYNC: a file of a dead network server would not answer.
		if unix.Statx(unix.AT_FDCWD, f, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_INO, &s) != nil || !d.is(&s) {
			continue
		}
		if !pathOnly(f) {
			pid, _, _ := strings.Cut(strings.TrimPrefix(f, "/proc/"), "/")
			return "process " + pid + " has it open"
		}
	}
	return ""
}

// is reports whether s is the device, by whatever name.
func (d *device) is(s *unix.Statx_t) bool {
	if uint32(s.Mode)&unix.S_IFMT != d.stat.Mode&unix.S_IFMT {
		return false
	}
	if d.block() {
		return unix.Mkdev(s.Rdev_major, s.Rdev_minor) == d.stat.Rdev
	}
	return s.Ino == d.stat.Ino && unix.Mkdev(s.Dev_major, s.Dev_minor) == d.stat.Dev
}

// pathOnly reports whether an open file of /proc is O_PATH, which uses nothing.
func pathOnly(fd string) bool {
	b, err := os.ReadFile(strings.Replace(fd, "/fd/", "/fdinfo/", 1))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) // it was closed
	}
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, err := strconv.ParseUint(strings.TrimSpace(s), 8, 64)
			return err == nil && flags&unix.O_PATH != 0
		}
	}
	return false
}
