package vddk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
)

// Disk is an open virtual disk of any driver. Package mover declares what it
// needs in smaller interfaces and states their contracts; this is their sum.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() int64
	Identity() string
	Flush() error
	Zero(e cbt.Extent, how cbt.Allocation) error
	NextData(off int64) (cbt.Extent, error)
	ReadCold(p []byte, off int64) (int, error)
	Coldness() string
	Check() error
	Describe() Description
}

// Mode says what a disk is opened for.
type Mode uint8

const (
	// ReadOnly shares the disk with other readers.
	ReadOnly Mode = iota
	// ReadWrite holds the disk alone.
	ReadWrite
)

// Options says how Open opens. The zero value reads.
type Options struct {
	Mode Mode
	// Create makes a raw file or a VMDK of CreateSize bytes, all hole, when
	// there is none. A file that is there must be empty (a creation that was
	// cut) or have that size; it is never shortened. Needs ReadWrite.
	Create     bool
	CreateSize int64
	// Track names the change tracking that the disk is asked for later, with
	// Tracker: "bitmap:NAME" of an NBD export, "fiemap:PATH" of a raw file, with
	// the path of a clone of it (cp --reflink) on xfs or btrfs. Empty asks for
	// none; a driver that has none refuses it.
	Track string
	// Log gets what the processes say that a driver starts: the VDDK worker and
	// its library. Nil drops it.
	Log *slog.Logger
}

// Tracker is the optional ability to say where a disk changed. It needs
// Options.Track.
type Tracker interface {
	// Changed asks the tracker. The answer is a hint and never the proof. An
	// error means that there is none: the whole disk may have changed.
	Changed(ctx context.Context) (cbt.Hint, error)
}

// Description is what "haulback probe" prints about a disk.
type Description struct {
	Kind       string // the scheme of the driver
	Path       string // as given
	Size       int64  // bytes
	SectorSize int64  // bytes; the logical sector of a device, 1 for a file
	Identity   string
	CanPunch   bool   // zeros can give their space back; for a file known only in ReadWrite
	CanMap     bool   // holes are told from data
	Coldness   string // how ReadCold gets past the cache
	ReadOnly   bool
	Warning    string // what an operator should know, or empty
	// SourceWarning is what matters only when the disk is a source, or empty.
	SourceWarning string
	Detail        string   // what else the driver knows about the format or the way, or empty
	Transport     string   // how the bytes are reached, where there is a choice, or empty
	Bitmaps       []string // change tracking on offer, as Options.Track takes it
}

// Open opens the disk that uri names with the driver of its scheme.
func Open(ctx context.Context, uri string, opts Options) (Disk, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := opts.validate(u); err != nil {
		return nil, fmt.Errorf("disk %s: %w", uri, err)
	}
	switch u.Scheme {
	case "nbd", "nbds", "nbd+unix", "nbds+unix":
		return openNBD(ctx, u.Text, opts)
	case schemeVDDK:
		return openVDDK(ctx, u.Text, opts)
	case schemeVMDK:
		if opts.Track != "" {
			return nil, fmt.Errorf("%s: %q: %w: only raw files are tracked by their blocks", u.Path, opts.Track, ErrTrack)
		}
		return openVMDK(u, opts)
	}
	if d, ok := registered(u.Scheme); ok {
		return d.Open(ctx, u.Text, opts)
	}
	disk, err := openLocal(u, opts)
	if err != nil {
		return nil, withRemedy(err)
	}
	return disk, nil
}

func (o Options) validate(u URI) error {
	switch {
	case !o.Create:
		return nil
	case !u.CanCreate():
		return fmt.Errorf("create: %w: only raw files and VMDKs are created, not %s", ErrKind, u.Scheme)
	case o.Mode != ReadWrite || o.CreateSize <= 0:
		return fmt.Errorf("create: needs mode ReadWrite and a size, got %d bytes", o.CreateSize)
	}
	return nil
}

// openLocal looks at what is there without opening it (a pipe would block, a
// tape would rewind), then opens the very same inode through the descriptor.
func openLocal(u URI, opts Options) (Disk, error) {
	fd, err := unix.Open(u.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && opts.Create && u.Scheme != schemeBlock {
		if _, err := createFile(u.Path, opts.CreateSize); err != nil {
			return nil, err
		}
		fd, err = unix.Open(u.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.Path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", u.Path, err)
	}
	return openInode(u, fd, &st, opts)
}

func openInode(u URI, fd int, st *unix.Stat_t, opts Options) (Disk, error) {
	what := inodeKind(st.Mode)
	switch {
	case what == "file" && u.Scheme != schemeBlock:
		f, err := openFile(u.Path, fd, opts)
		if err != nil {
			return nil, err
		}
		if opts.Track != "" {
			return openTracked(f, opts.Track)
		}
		return f, nil
	case opts.Track != "":
		return nil, fmt.Errorf("%s: %q: %w: only raw files are tracked by their blocks, it is a %s", u.Path, opts.Track, ErrTrack, what)
	case what == "block device" && u.Scheme != schemeFile && !opts.Create:
		return openDevice(u.Path, fd, opts)
	case what == "block device" && opts.Create:
		return nil, fmt.Errorf("%s: %w: it is a block device and cannot be created", u.Path, ErrKind)
	}
	want := "file or block device"
	switch {
	case u.Scheme == schemeFile && what == "block device":
		want = "file: write block://" + u.Path
	case u.Scheme == schemeBlock && what == "file":
		want = "block device: write file://" + u.Path
	case u.Scheme != "":
		want = map[string]string{schemeFile: "file", schemeBlock: "block device"}[u.Scheme]
	}
	return nil, fmt.Errorf("%s: %w: it is a %s, not a %s", u.Path, ErrKind, what, want)
}

func inodeKind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFBLK:
		return "block device"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFIFO:
		return "pipe"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFCHR:
		return "character device"
	}
	return "thing of an unknown kind"
}
