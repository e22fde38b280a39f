package vddk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
)

// trackFiemap begins Options.Track of a raw file.
const trackFiemap = "fiemap:"

// trackedFile is a raw file that was cloned (cp --reflink) when it equalled the
// other disk. Blocks that it still shares with the clone have not changed: on
// xfs and btrfs, whoever writes to a shared block gets another one.
type trackedFile struct {
	*File
	base *File // nil when there is no answer, for the reason why
	why  error
}

var _ Tracker = (*trackedFile)(nil)

// openTracked opens the clone that text names beside f, and takes f over. A
// clone that is not there, or no clone, is no reason to open no disk: it is
// told when changes are asked for, and then the whole disk is compared.
func openTracked(f *File, text string) (Disk, error) {
	t := &trackedFile{File: f}
	path, ok := strings.CutPrefix(text, trackFiemap)
	if !ok || path == "" {
		return nil, errors.Join(fmt.Errorf("%s: %q: %w: a raw file is tracked by fiemap:/path/of/its/clone", f.path, text, ErrTrack), f.Close())
	}
	base, err := openLocal(URI{Scheme: schemeFile, Path: path}, Options{})
	if err != nil {
		t.why = fmt.Errorf("track changes of %s by %s: %w", f.path, text, err)
		return t, nil
	}
	t.base = base.(*File)
	if err := sameMedium(f, t.base); err != nil {
		t.why = errors.Join(fmt.Errorf("track changes of %s by %s: %w", f.path, text, err), t.base.Close())
		t.base = nil
	}
	return t, nil
}

// sameMedium says why the places of the two files cannot be compared.
func sameMedium(disk, base *File) error {
	if disk.dev == base.dev && disk.ino == base.ino {
		return errors.New("it is the disk itself")
	}
	var places [2]placement
	for i, f := range []*File{disk, base} {
		var err error
		if places[i], err = placementOf(f); err != nil {
			return err
		}
	}
	if places[0] != places[1] {
		return fmt.Errorf("%s is on another file system than %s", base.path, disk.path)
	}
	return nil
}

// placement is what two files must have in common before their places on the
// medium mean the same.
type placement struct {
	magic int64
	dev   uint64   // of xfs
	fsid  [16]byte // of btrfs, where each subvolume has a device number of its own
}

// placementOf knows the two file systems that share blocks and say so. It asks
// by the name of the file system: overlayfs, for one, answers with the places
// of the file beneath, which may be on one disk or on another.
func placementOf(f *File) (p placement, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &st); err != nil {
		return p, fmt.Errorf("%s: %w", f.path, err)
	}
	switch p.magic = int64(st.Type); p.magic {
	case unix.XFS_SUPER_MAGIC:
		p.dev = f.dev
		err = refuseRealtime(f)
	case unix.BTRFS_SUPER_MAGIC:
		p.fsid, err = btrfsID(f)
	default:
		err = fmt.Errorf("%s: not on xfs or btrfs, so no block is shared with a clone", f.path)
	}
	return p, err
}

// refuseRealtime: places on the realtime device of xfs and on its data device
// are counted from 0 each.
func refuseRealtime(f *File) error {
	const (
		fsIocGetXattr = 0x801c581f // _IOR('X', 31, struct fsxattr)
		realtime      = 1
	)
	var attr [28]byte
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), fsIocGetXattr, uintptr(unsafe.Pointer(&attr)))
	if errno != 0 {
		return fmt.Errorf("%s: attributes: %w", f.path, errno)
	}
	if binary.NativeEndian.Uint32(attr[:])&realtime != 0 {
		return fmt.Errorf("%s: on the realtime device of xfs", f.path)
	}
	return nil
}

func btrfsID(f *File) (id [16]byte, err error) {
	const btrfsIocFsInfo = 0x8400941f // _IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)
	var info [1024]byte
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), btrfsIocFsInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return id, fmt.Errorf("%s: file system ID: %w", f.path, errno)
	}
	return [16]byte(info[16:32]), nil
}

// Changed tells where the file may differ from its clone, by the places of
// their blocks on the medium. What was written before the call is in the
// answer; what is written meanwhile may be. It never tells too little: blocks
// whose place means nothing (compressed, inline) count as changed.
func (t *trackedFile) Changed(ctx context.Context) (cbt.Hint, error) {
	if t.base == nil {
		return cbt.Hint{}, t.why
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.base.mu.RLock()
	defer t.base.mu.RUnlock()
	hint, err := t.compare(ctx)
	if err != nil {
		return cbt.Hint{}, fmt.Errorf("track changes of %s by %s%s: %w", t.path, trackFiemap, t.base.path, err)
	}
	return hint, nil
}

func (t *trackedFile) compare(ctx context.Context) (cbt.Hint, error) {
	hint := cbt.Hint{Provider: "fiemap", Since: t.base.path, Size: t.size, Granularity: 4096, Trust: cbt.Exact}
	if t.fd < 0 || t.base.fd < 0 {
		return hint, unix.EBADF
	}
	var before, after unix.Stat_t
	if err := errors.Join(unix.Fstat(t.base.fd, &before), noIntr(t.base.fd, unix.Fdatasync), noIntr(t.fd, unix.Fdatasync)); err != nil {
		return hint, err
	}
	if before.Size != t.base.size {
		return hint, fmt.Errorf("%w: %s had %d bytes, has %d", ErrChanged, t.base.path, t.base.size, before.Size)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(t.fd, &st); err != nil {
		return hint, err
	}
	hint.Granularity = max(int64(st.Bsize), 1)
	c := comparison{hint: &hint}
	common := min(t.size, t.base.size)
	if err := c.windows(ctx, ask(t.fd), ask(t.base.fd), common); err != nil {
		return hint, err
	}
	if t.size > common {
		c.beyond(common)
	}
	if err := unix.Fstat(t.base.fd, &after); err != nil {
		return hint, err
	}
	if before.Ctim != after.Ctim || before.Size != after.Size {
		return hint, fmt.Errorf("%w: somebody writes to %s", ErrChanged, t.base.path)
	}
	c.judge()
	return hint, nil
}

// comparison collects the differences of two files.
type comparison struct {
	hint          *cbt.Hint
	disk          fiemapBuffer
	first, second fiemapBuffer // of the base, before and after the disk was asked
	unknown       int64        // bytes whose place was not told
	grain         int64        // bytes that areas are rounded out to; 0: not at all
}

const (
	// maxAreas bounds the areas in memory (16 MiB): a file may have one every
	// 8 KiB. Beyond it they are rounded out to blocks of coarseGrain, which 1 TiB
	// has as many of; a larger disk to larger ones.
	maxAreas    = 1 << 20
	coarseGrain = 1 << 20
)

// asker returns a page of the map of a file, from off on, as fiemapBuffer.read.
type asker func(b *fiemapBuffer, off, size int64) ([]run, int64, error)

func ask(fd int) asker {
	return func(b *fiemapBuffer, off, size int64) ([]run, int64, error) { return b.read(fd, off, size) }
}

// windows goes through both maps page by page. The base is asked before and
// after the disk, and must say the same: when the file system moved one of its
// blocks in between (a balance of btrfs), the place that it left could have
// been taken by new data of the disk, and the two would seem to share it.
func (c *comparison) windows(ctx context.Context, disk, base asker, size int64) error {
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, told2, err := base(&c.first, off, size)
		if err != nil {
			return err
		}
		a, told1, err := disk(&c.disk, off, size)
		if err != nil {
			return err
		}
		again, _, err := base(&c.second, off, size)
		if err != nil {
			return err
		}
		if !slices.Equal(b, again) {
			return errors.New("the file system moves the blocks of the clone (a balance, or a defragmentation); try again when it is done")
		}
		end := min(told1, told2)
		walk(a, b, off, end, c.differ)
		off = end
	}
	return nil
}

// differ adds [off, end) and merges it with what it touches.
func (c *comparison) differ(off, end int64, unknown bool) {
	if unknown {
		c.unknown += end - off
	}
	c.add(off, end)
	for len(c.hint.Areas) > maxAreas {
		c.coarsen()
	}
}

func (c *comparison) add(off, end int64) {
	if c.grain > 1 {
		off, end = off&^(c.grain-1), min((end+c.grain-1)&^(c.grain-1), c.hint.Size)
	}
	areas := c.hint.Areas
	if n := len(areas); n > 0 && areas[n-1].End() >= off {
		areas[n-1].Len = max(areas[n-1].End(), end) - areas[n-1].Off
		return
	}
	c.hint.Areas = append(areas, cbt.Extent{Off: off, Len: end - off})
}

// coarsen rounds all areas out to larger blocks, in place: more counts as
// changed, never less.
func (c *comparison) coarsen() {
	c.grain = max(coarseGrain, c.grain*2)
	fine := c.hint.Areas
	c.hint.Areas = fine[:0]
	for _, e := range fine {
		c.add(e.Off, e.End())
	}
}

// beyond adds what lies behind the end of the clone, from the block with that
// end on.
func (c *comparison) beyond(end int64) {
	start := end / c.hint.Granularity * c.hint.Granularity
	if n := len(c.hint.Areas); n > 0 {
		start = max(start, c.hint.Areas[n-1].End())
	}
	c.differ(start, c.hint.Size, false)
}

// judge says how exact the answer is.
func (c *comparison) judge() {
	if c.grain > 0 {
		c.hint.Trust = cbt.OverReports
		c.hint.Remark = fmt.Sprintf("more than %d areas changed; they are told in blocks of %d bytes", maxAreas, c.grain)
	}
	if c.unknown > 0 {
		c.hint.Trust = cbt.OverReports
		c.hint.Remark = fmt.Sprintf("the place of %d bytes says nothing (compressed, inline or packed blocks); they count as changed", c.unknown)
	}
}

// Describe says what the file is tracked by, too.
func (t *trackedFile) Describe() Description {
	d := t.File.Describe()
	if t.base != nil {
		d.Detail = "changes tracked by " + trackFiemap + t.base.path
	}
	return d
}

// Close releases the file and its clone.
func (t *trackedFile) Close() error {
	err := t.File.Close()
	if t.base != nil {
		err = errors.Join(err, t.base.Close())
	}
	return err
}
