package vddk

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/haulback/haulback/cbt"
)

// Conditions a caller branches on.
var (
	// ErrReadOnly means a write to a disk opened with ReadOnly.
	ErrReadOnly = errors.New("disk is open for reading only")
	// ErrChanged means that the disk no longer has the size or the identity
	// it had when it was opened.
	ErrChanged = errors.New("disk changed since it was opened")
	// ErrKind means that the path is no disk: a directory, a pipe, a socket, a
	// character device, or a file where a device was asked for.
	ErrKind = errors.New("not a disk")
	// ErrTrack means that Options.Track is not of the kind that the disk has.
	ErrTrack = errors.New("no such change tracking")
)

// LockedError means that another program holds the disk. errors.Is finds
// syscall.EBUSY.
type LockedError struct {
	Path   string
	By     string // what holds it, as far as the kernel tells
	Remedy string // what the operator can do
}

// Error names the disk, the holder and the remedy.
func (e *LockedError) Error() string {
	return fmt.Sprintf("%s: %s; %s", e.Path, e.By, e.Remedy)
}

// Unwrap is syscall.EBUSY.
func (e *LockedError) Unwrap() error { return syscall.EBUSY }

// setupError is an error that the operator mends on this machine.
type setupError struct{ err error }

func (e *setupError) Error() string { return e.err.Error() }

func (e *setupError) Unwrap() error { return e.err }

// Usage is true.
func (e *setupError) Usage() bool { return true }

// ioError is a failed transfer: read 1 MiB at 5368709120 of /p: input/output error.
type ioError struct {
	op     string
	path   string
	extent cbt.Extent
	err    error
}

func (e *ioError) Error() string {
	return fmt.Sprintf("%s %s at %d of %s: %v", e.op, sizeText(e.extent.Len), e.extent.Off, e.path, e.err)
}

func (e *ioError) Unwrap() error { return e.err }

// withRemedy adds what helps to an error of an open that the operator can mend.
// The words that lead to the path are those of the caller.
func withRemedy(err error) error {
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w; give this user access to it and to its directory, or run as one who has it", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; remount it for writing, or name another target", err)
	}
	return err
}

// sizeText is n in the largest unit that divides it.
func sizeText(n int64) string {
	switch {
	case n > 0 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n > 0 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n > 0 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
