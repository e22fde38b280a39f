package vddk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
)

// VMDK is a virtual disk of VMware's: a descriptor, which is a text file, and
// beside it the files with the bytes, as on a datastore that is mounted here
// (NFS) or in a directory of Workstation or qemu. Only flat extents are opened;
// a snapshot, which has only what changed, is refused.
//
// All files are held from open to close: the descriptor and each extent with
// the lock of a raw file. ESXi does not ask for that lock; its own lock files
// are looked for at open and at each Check, and a disk that a host has locked
// is not written.
//
// Before the first byte is written the content ID (CID) of the descriptor is
// changed, durably, as VMware's and qemu's writers do: a snapshot that was made
// of the disk must no longer match it, because its base is not what it was. For
// the same reason a disk that a descriptor beside it names as its parent is not
// opened for writing at all.
type VMDK struct {
	path     string
	size     int64
	identity string
	readOnly bool
	warning  string
	text     *vmdkText
	parts    []vmdkPart
	desc     *File // the descriptor
	base     string
	made     []string // names of the files that this open created

	mu  sync.RWMutex // guards dir against Close: a call under way holds it
	dir int          // the directory of all files; -1 once closed

	cidMu   sync.Mutex // one writer changes the content ID, the others wait
	renewed atomic.Bool

	flushMu sync.Mutex
	lost    atomic.Pointer[ioError] // the first failed Flush
}

// vmdkPart is an extent of the descriptor: bytes [Off, End) of the disk lie at
// byte at of the file.
type vmdkPart struct {
	cbt.Extent
	file *File // nil: the extent reads as zeros and takes no data
	at   int64
}

// openVMDK opens the descriptor at u.Path and the files that it names.
func openVMDK(u URI, opts Options) (Disk, error) {
	v := &VMDK{path: u.Path, dir: -1, readOnly: opts.Mode == ReadOnly}
	if err := v.open(u, opts); err != nil {
		v.unmake()
		v.Close()
		return nil, withRemedy(err)
	}
	return v, nil
}

// unmake removes the files that a creation made that was refused afterwards. The
// lock on the descriptor is still held: nobody else has begun to use them.
func (v *VMDK) unmake() {
	if v.desc == nil {
		return // another holds it
	}
	for _, name := range v.made {
		_ = unix.Unlinkat(v.dir, name, 0) // the refusal says more
	}
}

func (v *VMDK) open(u URI, opts Options) error {
	if err := v.openDescriptor(opts); err != nil {
		return err
	}
	text, err := v.readText()
	if err == nil && len(text) == 0 && opts.Create {
		text, err = v.create(opts.CreateSize, u.CreateType)
	}
	if err != nil {
		return err
	}
	if v.text, err = parseVMDK(text); err != nil {
		return fmt.Errorf("%s: %w", v.path, err)
	}
	if err := v.openExtents(opts.Mode); err != nil {
		return err
	}
	if want := wholeSectors(opts.CreateSize); opts.Create && v.size != want {
		return fmt.Errorf("%s: create with %d bytes: the VMDK exists and has %d bytes", v.path, want, v.size)
	}
	return v.checkOthers()
}

// wholeSectors is n rounded up: a VMDK has whole sectors.
func wholeSectors(n int64) int64 {
	return n + (vmdkSector-n%vmdkSector)%vmdkSector
}

// openDescriptor resolves the path once, to the directory and the name in it.
// Whatever is opened later is opened there.
func (v *VMDK) openDescriptor(opts Options) error {
	real, err := filepath.EvalSymlinks(v.path)
	if errors.Is(err, unix.ENOENT) && opts.Create {
		var made bool
		if made, err = createFile(v.path, 0); err != nil {
			return err
		}
		if made {
			v.made = append(v.made, filepath.Base(v.path))
		}
		real, err = filepath.EvalSymlinks(v.path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", v.path, bare(err))
	}
	v.base = filepath.Base(real)
	if v.dir, err = unix.Open(filepath.Dir(real), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("%s: directory: %w", v.path, err)
	}
	v.desc, err = v.openBeside(v.base, v.path, opts.Mode, nil)
	return err
}

// bare takes the path out of an error that names it: the caller does.
func bare(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return err
}

// openBeside opens a regular file of the directory, never through a link.
func (v *VMDK) openBeside(name, path string, mode Mode, seen map[inode]string) (*File, error) {
	fd, err := unix.Openat(v.dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if kind := inodeKind(st.Mode); kind != "file" {
		return nil, fmt.Errorf("%s: %w: it is a %s, not a file", path, ErrKind, kind)
	}
	if seen != nil {
		id := inode{st.Dev, st.Ino}
		if other := seen[id]; other != "" {
			return nil, fmt.Errorf("%s: %w: it is the same file as %q", path, ErrFormat, other)
		}
		seen[id] = name
	}
	return openFile(path, fd, Options{Mode: mode})
}

type inode struct{ dev, ino uint64 }

// readText reads the descriptor and one byte more than it may have.
func (v *VMDK) readText() ([]byte, error) {
	text := make([]byte, min(v.desc.Size(), vmdkMaxText+1))
	if n, err := v.desc.ReadAt(text, 0); err != nil && err != io.EOF {
		return nil, err
	} else if n < len(text) {
		return nil, fmt.Errorf("%s: %w", v.path, io.ErrUnexpectedEOF)
	}
	return text, nil
}

// openExtents opens each file once and lays the extents end to end.
func (v *VMDK) openExtents(mode Mode) error {
	seen := map[inode]string{{v.desc.dev, v.desc.ino}: v.base}
	for i := range v.text.extents {
		e := &v.text.extents[i]
		part := vmdkPart{Extent: cbt.Extent{Off: v.size, Len: e.size}, at: e.at}
		if e.access == "RDONLY" && mode == ReadWrite {
			return fmt.Errorf("%s: %w: extent %d is RDONLY", v.path, ErrReadOnly, i+1)
		}
		if e.kind != "ZERO" {
			var err error
			if part.file, err = v.openExtent(e, mode, seen); err != nil {
				return fmt.Errorf("extent %d of %s: %w", i+1, v.path, err)
			}
		}
		v.parts = append(v.parts, part)
		v.size += e.size
	}
	v.identity = v.identify()
	return nil
}

func (v *VMDK) openExtent(e *vmdkExtent, mode Mode, seen map[inode]string) (*File, error) {
	f, err := v.openBeside(e.name, filepath.Join(filepath.Dir(v.path), e.name), mode, seen)
	if err != nil {
		return nil, err
	}
	if need := e.at + e.size; f.Size() < need {
		f.Close()
		return nil, fmt.Errorf("%s: %w: the file has %d bytes, the descriptor needs %d", f.path, ErrFormat, f.Size(), need)
	}
	return f, nil
}

// identify is the identity of the bytes: that of the file when the disk is one
// file from its first byte to its last, so that a journal and its marks are
// found again under file://. The descriptor is not in it: VMware's tools write
// it anew, as another file.
func (v *VMDK) identify() string {
	first, h := "", sha256.New()
	for i := range v.parts {
		p := &v.parts[i]
		id := "zero"
		if p.file != nil {
			id = p.file.Identity()
		}
		if first == "" {
			first = id
		}
		fmt.Fprintf(h, "%s %d %d\n", id, p.at, p.Len)
	}
	if p := &v.parts[0]; len(v.parts) == 1 && p.file != nil && p.at == 0 && p.file.Size() == v.size {
		return first
	}
	if !strings.HasPrefix(first, "file:") { // nothing but zeros may come first in many disks
		first += ":" + v.desc.Identity()
	}
	return fmt.Sprintf("vmdk:%s:%x", first, h.Sum(nil)[:8])
}

// Size is the sum of the extents in bytes.
func (v *VMDK) Size() int64 { return v.size }

// Identity names the files with the bytes, whatever descriptor led to them.
func (v *VMDK) Identity() string { return v.identity }

// Close releases all files, after the calls under way returned.
func (v *VMDK) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.dir >= 0 {
		unix.Close(v.dir)
		v.dir = -1
	}
	var err error
	for i := range v.parts {
		if f := v.parts[i].file; f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if v.desc != nil {
		err = errors.Join(err, v.desc.Close())
	}
	return err
}

// Describe says what was found.
func (v *VMDK) Describe() Description {
	d := Description{
		Kind: schemeVMDK, Path: v.path, Size: v.size, SectorSize: 1, Identity: v.identity, CanPunch: true, CanMap: true,
		Coldness: v.Coldness(), ReadOnly: v.readOnly, Warning: v.warning, Detail: v.detail(),
	}
	for i := range v.parts {
		if f := v.parts[i].file; f != nil {
			d.CanPunch = d.CanPunch && f.canPunch()
			d.CanMap = d.CanMap && f.canMap
		}
	}
	return d
}

func (v *VMDK) detail() string {
	s := fmt.Sprintf("type %s, %d extents", v.text.createType, len(v.parts))
	if len(v.parts) == 1 {
		s = fmt.Sprintf("type %s, 1 extent", v.text.createType)
	}
	if v.text.adapter != "" {
		s += ", adapter " + v.text.adapter
	}
	if v.text.thin {
		s += ", thin"
	}
	return s
}
