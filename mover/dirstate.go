package mover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// StateRoot is the StateDir on a directory of a real file system. Everything
// goes through an os.Root: no name and no symbolic link leads out of it.
type StateRoot struct {
	root *os.Root
}

// DirState opens the directory path as a StateDir, creating the last element
// of path (0700) when it is absent. A directory that others may write is
// refused: a journal somebody else can replace is worth nothing.
func DirState(path string) (*StateRoot, error) {
	if err := makeStateDir(path); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	info, err := root.Stat(".")
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("%s may be written by others (mode %04o); chmod go-w it", path, info.Mode().Perm())
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &StateRoot{root}, nil
}

// makeStateDir creates path and makes its name durable: journals in a
// directory that vanishes with the power are as good as none.
func makeStateDir(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	defer parent.Close()
	return parent.Sync()
}

// stateTries bounds the race of Open with a Rename over the same name. Each
// further try needs another Rename in the microseconds between open and lock.
const stateTries = 16

// Open implements StateDir. The hold is an OFD lock: the kernel frees it when
// the process dies and keeps it while the process is stopped.
func (d *StateRoot) Open(name string) (StateFile, error) {
	if err := checkStateName(name); err != nil {
		return nil, err
	}
	for range stateTries {
		f, err := d.tryOpen(name)
		if f != nil || err != nil {
			return f, err
		}
	}
	return nil, fmt.Errorf("state %s: %w", name, ErrHeld)
}

// tryOpen returns neither file nor error when the name was given to another
// file between open and lock.
func (d *StateRoot) tryOpen(name string) (StateFile, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err := lockState(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("state %s: %w", name, err)
	}
	opened, err1 := f.Stat()
	named, err2 := d.root.Lstat(name)
	if err1 == nil && err2 == nil && !opened.Mode().IsRegular() {
		err1 = fmt.Errorf("state %s: not a regular file", name)
	}
	if err1 == nil && err2 == nil && os.SameFile(opened, named) {
		return &stateFile{f: f}, nil
	}
	f.Close()
	if errors.Is(err2, fs.ErrNotExist) {
		err2 = nil
	}
	return nil, errors.Join(err1, err2)
}

// Rename implements StateDir.
func (d *StateRoot) Rename(old, new string) error {
	if err := errors.Join(checkStateName(old), checkStateName(new)); err != nil {
		return err
	}
	return d.root.Rename(old, new)
}

// Remove implements StateDir.
func (d *StateRoot) Remove(name string) error {
	if err := checkStateName(name); err != nil {
		return err
	}
	return d.root.Remove(name)
}

// Sync implements StateDir.
func (d *StateRoot) Sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return fmt.Errorf("sync state directory: %w", err)
	}
	defer f.Close()
	return f.Sync()
}

// List implements StateDir.
func (d *StateRoot) List() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("list state directory: %w", err)
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("list state directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// Close releases the directory; files opened from it stay open.
func (d *StateRoot) Close() error { return d.root.Close() }

func checkStateName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("state: %q is not a plain file name: %w", name, fs.ErrInvalid)
	}
	return nil
}

func lockState(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrHeld
	}
	return err
}

// stateFile is one open and locked file.
type stateFile struct {
	f    *os.File
	once sync.Once
}

func (s *stateFile) ReadAt(p []byte, off int64) (int, error)  { return s.f.ReadAt(p, off) }
func (s *stateFile) WriteAt(p []byte, off int64) (int, error) { return s.f.WriteAt(p, off) }
func (s *stateFile) Truncate(size int64) error                { return s.f.Truncate(size) }

// Sync is fdatasync: it flushes the size too, but not the times.
func (s *stateFile) Sync() error {
	return s.control("fdatasync", unix.Fdatasync)
}

func (s *stateFile) Size() (int64, error) {
	info, err := s.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Allocate asks the file system and, where it cannot (some network file
// systems), writes the zeros.
func (s *stateFile) Allocate(size int64) error {
	if size <= 0 {
		return fmt.Errorf("allocate %d bytes of %s: %w", size, s.f.Name(), fs.ErrInvalid)
	}
	err := s.control("fallocate", func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return s.fill(size)
}

func (s *stateFile) fill(size int64) error {
	off, err := s.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for off < size {
		n, err := s.f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// control runs one system call on the descriptor, again when a signal cut it.
func (s *stateFile) control(op string, call func(fd int) error) error {
	conn, err := s.f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	err = conn.Control(func(fd uintptr) {
		for {
			if done = call(int(fd)); done != unix.EINTR {
				return
			}
		}
	})
	if err == nil && done != nil {
		err = &fs.PathError{Op: op, Path: s.f.Name(), Err: done}
	}
	return err
}

func (s *stateFile) Close() (err error) {
	s.once.Do(func() { err = s.f.Close() })
	return err
}
