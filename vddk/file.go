package vddk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
)

// fsIocGetVersion asks for the generation of an inode, which tells a file from
// an earlier one with the same inode number. _IOR('v', 1, long) on 64 bit.
const fsIocGetVersion = 0x80087601

// File is a raw image in a file: byte n of the disk is byte n of the file.
type File struct {
	raw
	dev, ino uint64
	canMap   bool
	warning  string
}

// createFile makes path durably, with its size, before it is opened and locked
// like any other file.
func createFile(path string, size int64) (made bool, err error) {
	return createFileAt(unix.AT_FDCWD, path, path, size)
}

// createFileAt makes the file name of the directory at; path is for messages.
func createFileAt(at int, name, path string, size int64) (made bool, err error) {
	fd, err := unix.Openat(at, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EEXIST) {
		return false, nil // somebody was faster; openFile judges the size
	}
	if errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("%s: create: %w; make the directory %s first", path, err, filepath.Dir(path))
	}
	if err != nil {
		return false, fmt.Errorf("%s: create: %w", path, err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Ftruncate(fd, size), unix.Fsync(fd), syncDirAt(at, filepath.Dir(name))); err != nil {
		_ = unix.Unlinkat(at, name, 0) // if it stays, the next creation takes it for one that was cut
		return false, fmt.Errorf("%s: create with %d bytes: %w", path, size, err)
	}
	return true, nil
}

func syncDirAt(at int, path string) error {
	dir, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	defer unix.Close(dir)
	if err := unix.Fsync(dir); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// openFile opens the inode that pathFD stands for.
func openFile(path string, pathFD int, opts Options) (*File, error) {
	flags := unix.O_RDONLY
	if opts.Mode == ReadWrite {
		flags = unix.O_RDWR
	}
	fd, err := unix.Open(selfFD(pathFD), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f := &File{raw: raw{path: path, fd: fd, sector: 1, readOnly: opts.Mode == ReadOnly}}
	f.cold.fd = -1
	if err := f.init(opts); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *File) init(opts Options) error {
	if err := lockInode(f.fd, f.path, opts.Mode); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.dev, f.ino = st.Dev, st.Ino
	if err := f.refuseLoop(); err != nil {
		return err
	}
	var err error
	if f.size, err = f.wantedSize(st.Size, opts); err != nil {
		return err
	}
	f.identity = fileIdentity(f.fd, &st)
	f.warnContainer()
	f.canMap = canSeekData(f.fd)
	if f.readOnly {
		_ = unix.Fadvise(f.fd, 0, 0, unix.FADV_SEQUENTIAL) // advice: its failure changes nothing
	}
	if f.cold, err = openCold(f.fd, f.readOnly, 1); err != nil {
		return fmt.Errorf("%s: open for cold reads: %w", f.path, err)
	}
	return nil
}

// refuseLoop looks for a loop device on the file. Two caches over one file
// overwrite each other, so a target must not have one; a source is warned.
func (f *File) refuseLoop() error {
	loop := loopOn(f.dev, f.ino)
	if loop == "" {
		return nil
	}
	if f.readOnly {
		f.warning = "the file backs " + loop + ", which may change it while it is read"
		return nil
	}
	return &LockedError{
		Path: f.path, By: "the file backs the loop device " + loop,
		Remedy: fmt.Sprintf("open block://%s instead, or unmount it and `losetup -d %s`", loop, loop),
	}
}

// containers are files that hold a disk in a format of their own, by their
// first bytes. The first bytes of a raw image are the guest's to choose, so
// they decide nothing: they are worth a warning.
var containers = []struct{ magic, is, instead string }{
	{"# Disk DescriptorFile", "the descriptor of a VMDK", "name it vmdk:///PATH"},
	{"KDMV", "a sparse VMDK", vmdkConvert},
	{"COWD", "a snapshot of a VMDK", vmdkConsolidate},
	{"QFI\xfb", "a qcow2 image", "serve it with qemu-nbd and name nbd+unix:///?socket=PATH"},
	{"vhdxfile", "a VHDX image", "serve it with qemu-nbd and name nbd+unix:///?socket=PATH"},
	{"conectix", "a VHD image", "serve it with qemu-nbd and name nbd+unix:///?socket=PATH"},
}

// warnContainer warns when the file looks like a disk image that is not raw:
// then its bytes are not those of the disk in it.
func (f *File) warnContainer() {
	var head [32]byte
	n, _ := unix.Pread(f.fd, head[:], 0) // what fails here fails again at the first read
	for _, c := range containers {
		if strings.HasPrefix(string(head[:max(n, 0)]), c.magic) {
			if f.warning != "" {
				f.warning += "; "
			}
			f.warning += fmt.Sprintf("the file looks like %s and is taken as it is, not as the disk in it; if that is not meant, %s", c.is, c.instead)
			return
		}
	}
}

// wantedSize is the size of the disk: what is there, or what was to be created.
func (f *File) wantedSize(have int64, opts Options) (int64, error) {
	if !opts.Create || have == opts.CreateSize {
		return have, nil
	}
	if have != 0 {
		return 0, fmt.Errorf("%s: create with %d bytes: the file exists and has %d bytes", f.path, opts.CreateSize, have)
	}
	if err := errors.Join(unix.Ftruncate(f.fd, opts.CreateSize), unix.Fsync(f.fd)); err != nil {
		return 0, fmt.Errorf("%s: create with %d bytes: %w", f.path, opts.CreateSize, err)
	}
	return opts.CreateSize, nil
}

func fileIdentity(fd int, st *unix.Stat_t) string {
	id := fmt.Sprintf("file:%x:%d", st.Dev, st.Ino)
	if gen, err := unix.IoctlGetInt(fd, fsIocGetVersion); err == nil {
		id += fmt.Sprintf(":%d", uint32(gen))
	}
	return id
}

func canSeekData(fd int) bool {
	_, err := unix.Seek(fd, 0, unix.SEEK_DATA)
	return err == nil || err == unix.ENXIO
}

// NextData returns the first allocated extent at or after off. A file system
// that does not know answers "all data".
func (f *File) NextData(off int64) (cbt.Extent, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.mayMap(off); err != nil {
		return cbt.Extent{}, err
	}
	if !f.canMap {
		return cbt.Extent{Off: off, Len: f.size - off}, nil
	}
	f.seekMu.Lock()
	defer f.seekMu.Unlock()
	start, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
	if err == unix.ENXIO || (err == nil && start >= f.size) {
		return cbt.Extent{}, io.EOF
	}
	if err != nil {
		return cbt.Extent{}, f.fail("map", int(f.size-off), off, err)
	}
	end, err := unix.Seek(f.fd, start, unix.SEEK_HOLE)
	if err != nil {
		return cbt.Extent{}, f.fail("map", int(f.size-start), start, err)
	}
	return cbt.Extent{Off: start, Len: min(end, f.size) - start}, nil
}

// Check compares the file with what it was when it was opened. A file that was
// removed is a change too: nobody will find what is written to it.
func (f *File) Check() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 {
		return f.fail("check", int(f.size), 0, fs.ErrClosed)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return f.fail("check", int(f.size), 0, err)
	}
	switch {
	case st.Size != f.size:
		return fmt.Errorf("%s: %w: size was %d, is %d bytes", f.path, ErrChanged, f.size, st.Size)
	case st.Dev != f.dev || st.Ino != f.ino:
		return fmt.Errorf("%s: %w: inode was %d, is %d", f.path, ErrChanged, f.ino, st.Ino)
	case st.Nlink == 0:
		return fmt.Errorf("%s: %w: the file was removed", f.path, ErrChanged)
	}
	return nil
}

// Describe says what was found.
func (f *File) Describe() Description {
	return Description{
		Kind: schemeFile, Path: f.path, Size: f.size, SectorSize: f.sector, Identity: f.identity,
		CanPunch: f.canPunch(), CanMap: f.canMap, Coldness: f.Coldness(), ReadOnly: f.readOnly, Warning: f.warning,
	}
}

// canPunch punches behind the end, where there is nothing to lose.
func (f *File) canPunch() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.readOnly || f.fd < 0 {
		return false
	}
	return f.fallocate(cbt.Extent{Off: f.size, Len: pageAlign}, cbt.Deallocate) == nil
}
