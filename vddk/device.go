package vddk

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
)

// Device is a block device: a disk, a partition, a logical volume, a loop.
type Device struct {
	raw
	major, minor uint32
	loop         *loopBacking // nil when it is no loop device
	warning      string
}

// openDevice opens the device that pathFD stands for. A target is claimed with
// O_EXCL; a source is not, because the snapshot of a mounted disk may itself be
// mounted read-only.
func openDevice(path string, pathFD int, opts Options) (*Device, error) {
	flags := unix.O_RDONLY
	if opts.Mode == ReadWrite {
		flags = unix.O_RDWR | unix.O_EXCL
	}
	fd, err := unix.Open(selfFD(pathFD), flags|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, &LockedError{
			Path: path, By: "device is mounted or open exclusively by another program",
			Remedy: fmt.Sprintf("find the holder with `lsblk %s`, `findmnt %s` or `fuser -vm %s` and release it", path, path, path),
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := refuseReadOnly(path, fd, opts.Mode); err != nil {
		unix.Close(fd)
		return nil, err
	}
	d := &Device{raw: raw{path: path, fd: fd, readOnly: opts.Mode == ReadOnly}}
	d.cold.fd = -1
	if err := d.init(opts); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// refuseReadOnly tells of a device that takes no writes when it is opened, not
// at the first write. Some kernels say so at open, others do not.
func refuseReadOnly(path string, fd int, mode Mode) error {
	if mode != ReadWrite {
		return nil
	}
	ro, err := unix.IoctlGetUint32(fd, unix.BLKROGET)
	if err != nil || ro == 0 {
		return nil // who cannot tell will at the first write
	}
	return fmt.Errorf("%s: %w: the device is set read-only; run `blockdev --setrw %s`, or name another target", path, ErrReadOnly, path)
}

func (d *Device) init(opts Options) error {
	if err := lockInode(d.fd, d.path, opts.Mode); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	d.major, d.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	if err := d.geometry(); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	d.loop = openLoopBacking(d.fd, d.major, d.minor)
	d.identity = deviceIdentity(d.major, d.minor, d.loop)
	if d.readOnly {
		d.warning = mountWarning(d.major, d.minor)
		_ = unix.Fadvise(d.fd, 0, 0, unix.FADV_SEQUENTIAL) // advice: its failure changes nothing
	}
	var err error
	if d.cold, err = openCold(d.fd, d.readOnly, d.sector); err != nil {
		return fmt.Errorf("%s: open for cold reads: %w", d.path, err)
	}
	return nil
}

// Sector is the length of a logical sector in bytes.
func (d *Device) Sector() int64 { return d.sector }

// geometry reads the size and the logical sector.
func (d *Device) geometry() error {
	size, err := unix.IoctlGetInt(d.fd, unix.BLKGETSIZE64)
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	sector, err := unix.IoctlGetInt(d.fd, unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("sector size: %w", err)
	}
	if size <= 0 || sector <= 0 {
		return fmt.Errorf("%w: %d bytes in sectors of %d; is a medium attached?", ErrKind, size, sector)
	}
	d.size, d.sector = int64(size), int64(sector)
	return nil
}

// NextData answers "all data": a block device does not tell its holes.
func (d *Device) NextData(off int64) (cbt.Extent, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.mayMap(off); err != nil {
		return cbt.Extent{}, err
	}
	return cbt.Extent{Off: off, Len: d.size - off}, nil
}

// Check asks the device for its size again and, for a loop device, looks at the
// file behind it: a backing file that is cut regrows on write without an error,
// and the device keeps its size.
func (d *Device) Check() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.fd < 0 {
		return d.fail("check", int(d.size), 0, fs.ErrClosed)
	}
	size, err := unix.IoctlGetInt(d.fd, unix.BLKGETSIZE64)
	if err != nil {
		return d.fail("check", int(d.size), 0, err)
	}
	if int64(size) != d.size {
		return fmt.Errorf("%s: %w: size was %d, is %d bytes", d.path, ErrChanged, d.size, size)
	}
	if d.loop != nil {
		if err := d.loop.check(d.fd, d.size); err != nil {
			return fmt.Errorf("%s: %w", d.path, err)
		}
	}
	return nil
}

// Describe says what was found.
func (d *Device) Describe() Description {
	return Description{
		Kind: schemeBlock, Path: d.path, Size: d.size, SectorSize: d.sector, Identity: d.identity,
		CanPunch: deviceCanPunch(d.major, d.minor), Coldness: d.Coldness(), ReadOnly: d.readOnly, Warning: d.warning,
	}
}

// Close releases the device, its claim and the hold of a loop's backing file.
func (d *Device) Close() error {
	err := d.raw.Close()
	if d.loop != nil {
		d.loop.close()
	}
	return err
}
