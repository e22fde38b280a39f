package mover

import (
	"errors"
	"io"
)

// ErrHeld means that another process, or another handle of this one, has the
// state file open.
var ErrHeld = errors.New("mover: state file is held by another process or session")

// StateDir is where journals and checkpoints live: a flat directory of files,
// never on a target disk. [DirState] is the real one;
// movertest.CrashableState loses what was not synced.
//
// Names are plain file names. Creating, renaming and removing are durable only
// after Sync of the directory. Safe for concurrent use.
type StateDir interface {
	// Open opens the file, creating it empty when it is absent, and takes the
	// exclusive hold of it: a second Open before Close returns ErrHeld.
	Open(name string) (StateFile, error)
	// Rename replaces the name new by the file old, atomically. An open handle
	// of old stays valid and holds the file under its new name.
	Rename(old, new string) error
	// Remove takes the name away. To remove what is not there is an error
	// that is fs.ErrNotExist.
	Remove(name string) error
	// Sync makes every Open, Rename and Remove before it durable.
	Sync() error
	// List returns the names of all files, sorted.
	List() ([]string, error)
}

// StateFile is one file of a StateDir. Reads and writes follow io.ReaderAt and
// io.WriterAt; a write beyond the end grows the file.
type StateFile interface {
	io.ReaderAt
	io.WriterAt
	// Sync makes the bytes and the size durable. After an error nothing
	// written since the last good Sync may be believed (rule K3): close, open
	// anew and read what is there.
	Sync() error
	// Allocate reserves the space of the first size bytes, so that ENOSPC
	// strikes now and not in the run, and makes the file at least that long.
	// New bytes read as zeros. It never shrinks.
	Allocate(size int64) error
	// Size is the length of the file in bytes.
	Size() (int64, error)
	// Truncate cuts or extends the file to size bytes.
	Truncate(size int64) error
	// Close releases the file and its hold. It is idempotent and syncs
	// nothing.
	Close() error
}
