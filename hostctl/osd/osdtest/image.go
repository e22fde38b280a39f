package osdtest

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// makeImage makes a file of zeros that takes no space.
func makeImage(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// fill writes the bytes of content at the beginning of an image.
func fill(path string, size int64, content io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(content, size+1))
	if err == nil && n > size {
		err = fmt.Errorf("content has more than %d bytes", size)
	}
	return errors.Join(err, f.Close())
}

// copyImage makes a copy of size bytes that shares its blocks where the file system
// can, and has holes where not.
func copyImage(from, to string, size int64) error {
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(copyInto(from, dst, size), dst.Close()); err != nil {
		os.Remove(to)
		return err
	}
	return nil
}

// overwrite gives a file, which stays the same inode, the first size bytes of another.
func overwrite(from, to string, size int64) error {
	dst, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(dst.Truncate(0), copyInto(from, dst, size), dst.Sync(), dst.Close())
}

// overwriteHead does so with the first size bytes alone.
func overwriteHead(from, to string, size int64) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = io.CopyN(dst, src, size)
	return errors.Join(err, dst.Sync(), dst.Close())
}

func copyInto(from string, dst *os.File, size int64) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		if err := copyData(src, dst); err != nil {
			return err
		}
	}
	return dst.Truncate(size)
}

// copyData copies what is no hole.
func copyData(src, dst *os.File) error {
	fd := int(src.Fd())
	for off := int64(0); ; {
		begin, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		if off, err = unix.Seek(fd, begin, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, begin), io.NewSectionReader(src, begin, off-begin)); err != nil {
			return err
		}
	}
}

// allocated is how many bytes of disk a file takes.
func allocated(path string) int64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Blocks * 512
}
