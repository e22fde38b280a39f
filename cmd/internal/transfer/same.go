package transfer

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// sameDisk looks through links, device nodes and loop devices. A VMDK and its
// extents, and two ways to one server are told apart when the target is opened.
func sameDisk(a, b *Endpoint) bool {
	switch {
	case a.Remote() || b.Remote():
		return a.Remote() && b.Remote() && a.Address == b.Address && a.Export == b.Export
	case a.open != nil || b.open != nil:
		return a.unit == b.unit
	case a.Disk == b.Disk:
		return true
	case !a.Disk.Local() || !b.Disk.Local():
		return false
	}
	return sameInode(a.Disk.Path, b.Disk.Path) || backs(a.Disk.Path, b.Disk.Path) || backs(b.Disk.Path, a.Disk.Path)
}

// backs reports whether disk is the file behind the loop device, or behind the
// one that loop is a partition of. Whoever copies between the two reads what it
// writes, and calls it equal.
func backs(disk, loop string) bool {
	st, err := os.Stat(loop)
	if err != nil || st.Mode()&fs.ModeType != fs.ModeDevice {
		return false
	}
	rdev := st.Sys().(*syscall.Stat_t).Rdev
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(rdev), unix.Minor(rdev))
	for _, of := range []string{"/loop", "/../loop"} {
		file, err := os.ReadFile(dir + of + "/backing_file")
		if path := strings.TrimSuffix(string(file), "\n"); err == nil && (sameInode(disk, path) || backs(disk, path)) {
			return true
		}
	}
	return false
}

func sameInode(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	if err1 != nil || err2 != nil {
		return false
	}
	if os.SameFile(x, y) {
		return true
	}
	const device = fs.ModeDevice
	xs, ok1 := x.Sys().(*syscall.Stat_t)
	ys, ok2 := y.Sys().(*syscall.Stat_t)
	return ok1 && ok2 && x.Mode()&device != 0 && x.Mode()&device == y.Mode()&device && xs.Rdev == ys.Rdev
}
