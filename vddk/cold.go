package vddk

import (
	"io"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The answers of Coldness.
const (
	coldDirect  = "direct"  // O_DIRECT
	coldDropped = "dropped" // the cache of the extent written and dropped first
	coldCached  = "cached"  // there is no device, or no way past the cache
)

// pageAlign is the alignment that every file system and device accepts for
// memory, offset and length of direct I/O, unless statx says more.
const pageAlign = 4096

// coldFD is the second descriptor of a disk, for I/O past the page cache. It
// is an own open of the same inode, so it has an own copy of the error state:
// an error it sees is still reported to Flush on the first one.
type coldFD struct {
	fd    int
	align int64
	how   string
}

// openCold opens the inode of fd again and tries what works: a descriptor that
// takes O_DIRECT may still refuse the first read.
func openCold(fd int, readOnly bool, sector int64) (coldFD, error) {
	flags := unix.O_RDWR
	if readOnly {
		flags = unix.O_RDONLY
	}
	c := coldFD{fd: -1, align: max(pageAlign, sector), how: coldDropped}
	if how, align := coldWay(fd); how == coldDirect {
		c.align = max(c.align, align)
		direct, err := unix.Open(selfFD(fd), flags|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err == nil && probeDirect(direct, c.align) {
			c.fd, c.how = direct, coldDirect
			return c, nil
		}
		if err == nil {
			unix.Close(direct)
		}
	} else {
		c.how = how
	}
	var err error
	c.fd, err = unix.Open(selfFD(fd), flags|unix.O_CLOEXEC, 0)
	return c, err
}

// zfsMagic is the file system type of OpenZFS.
const zfsMagic = 0x2fc12fc1

// coldWay asks the kernel what direct I/O needs. A file in memory has no
// device behind it, and ZFS answers from a cache of its own, with O_DIRECT and
// without the page cache: to call such reads cold would be a lie. btrfs takes
// O_DIRECT and reads compressed extents through the page cache all the same:
// measured, a second direct read of 1 MiB asked the device for 4 KiB.
func coldWay(fd int) (how string, align int64) {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil && isRegular(fd) {
		switch int64(fs.Type) {
		case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.HUGETLBFS_MAGIC, zfsMagic:
			return coldCached, 0
		case unix.BTRFS_SUPER_MAGIC:
			return coldDropped, 0
		}
	}
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stx)
	if err != nil || stx.Mask&unix.STATX_DIOALIGN == 0 {
		return coldDirect, 0 // an older kernel: try
	}
	if stx.Dio_offset_align == 0 {
		return coldDropped, 0
	}
	return coldDirect, int64(max(stx.Dio_offset_align, stx.Dio_mem_align))
}

func isRegular(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

func probeDirect(fd int, align int64) bool {
	b := bounces.Get().(*bounce)
	defer bounces.Put(b)
	if align > int64(len(b.buf)) {
		return false
	}
	_, err := unix.Pread(fd, b.buf[:align], 0)
	return err == nil
}

func (c *coldFD) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

// Coldness says how ReadCold gets past the page cache: "direct" (O_DIRECT),
// "dropped" (written and dropped from the cache first) or "cached" (a file in
// memory: there is nothing colder).
func (r *raw) Coldness() string { return r.cold.how }

func (r *raw) readCold(p []byte, off int64) (int, error) {
	switch r.cold.how {
	case coldDirect:
		return r.cold.readDirect(p, off)
	case coldDropped:
		return r.cold.readDropped(p, off)
	}
	return preadFull(r.cold.fd, p, off)
}

// readDirect reads what is aligned straight into p and the rest (an unaligned
// buffer, head or tail) through an aligned one.
func (c *coldFD) readDirect(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		var m int
		if whole := c.whole(p[n:], off+int64(n)); whole > 0 {
			m, err = preadOnce(c.fd, p[n:n+whole], off+int64(n))
		} else {
			m, err = c.readBounced(p[n:], off+int64(n))
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// whole is the length of the head of p that direct I/O can take as it is.
func (c *coldFD) whole(p []byte, off int64) int {
	align := int(c.align)
	if len(p) < align || off%c.align != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%pageAlign != 0 {
		return 0
	}
	return len(p) - len(p)%align
}

// readBounced reads the aligned neighbourhood of p. At the end of the disk the
// kernel cuts the read short, which is why it is one call and not a loop.
func (c *coldFD) readBounced(p []byte, off int64) (int, error) {
	b := bounces.Get().(*bounce)
	defer bounces.Put(b)
	head := off % c.align
	want := (head + int64(len(p)) + c.align - 1) / c.align * c.align
	room := int64(len(b.buf)) / c.align * c.align
	m, err := preadOnce(c.fd, b.buf[:min(want, room)], off-head)
	if err != nil {
		return 0, err
	}
	if int64(m) <= head {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, b.buf[head:m]), nil
}

// readDropped writes back what is dirty, drops the pages and reads them anew.
// Pages that another program has mapped or is reading stay.
func (c *coldFD) readDropped(p []byte, off int64) (int, error) {
	if err := noIntr(c.fd, unix.Fdatasync); err != nil && err != unix.EROFS && err != unix.EINVAL {
		return 0, err
	}
	start := off / pageAlign * pageAlign
	end := (off + int64(len(p)) + pageAlign - 1) / pageAlign * pageAlign
	if err := unix.Fadvise(c.fd, start, end-start, unix.FADV_DONTNEED); err != nil {
		return 0, err
	}
	return preadFull(c.fd, p, off)
}

// writeDirect writes p past the page cache when that is possible and pays, and
// returns how much of it: the caller writes the rest.
func (r *raw) writeDirect(p []byte, off int64) (int, error) {
	c := &r.cold
	if c.how != coldDirect || len(p) < directMin {
		return 0, nil
	}
	whole := c.whole(p, off)
	for n := 0; n < whole; {
		m, err := unix.Pwrite(c.fd, p[n:whole], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case m == 0 || int64(m)%c.align != 0:
			return n + m, nil
		default:
			n += m
		}
	}
	return whole, nil
}

func preadOnce(fd int, p []byte, off int64) (int, error) {
	for {
		m, err := unix.Pread(fd, p, off)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case m == 0:
			return 0, io.ErrUnexpectedEOF
		default:
			return m, nil
		}
	}
}

// bounce is page-aligned memory for what direct I/O cannot take as it is.
type bounce struct{ buf []byte }

// bounceSize keeps the copy in the second-level cache.
const bounceSize = 256 << 10

var bounces = sync.Pool{New: func() any {
	b := make([]byte, bounceSize+pageAlign)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % pageAlign
	return &bounce{b[skip : skip+bounceSize]}
}}
