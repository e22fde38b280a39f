package vddk

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func sysDir(major, minor uint32) string {
	return fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)
}

// wholeDisk is the sysfs directory of the disk that the device is, or is a
// partition of, and the partition's number or "".
func wholeDisk(major, minor uint32) (dir, partition string) {
	dir, err := filepath.EvalSymlinks(sysDir(major, minor))
	if err != nil {
		return sysDir(major, minor), ""
	}
	if partition = sysText(dir, "partition"); partition != "" {
		dir = filepath.Dir(dir)
	}
	return dir, partition
}

// sysText reads an attribute as one printable word, or "".
func sysText(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	printable := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, string(b))
	return strings.Join(strings.Fields(printable), "_")
}

// deviceIdentity is "block:MAJ:MIN" and whatever tells the medium from another
// one that gets the same number later. The number stays in: identifiers are not
// unique everywhere (cloned LUNs, cheap bridges), and two disks taken for one
// cost data, one taken for two costs only a comparison.
func deviceIdentity(major, minor uint32, loop *loopBacking) string {
	id := fmt.Sprintf("block:%d:%d", major, minor)
	if loop != nil {
		return fmt.Sprintf("%s:loop=%x:%d+%d", id, loop.info.Device, loop.info.Inode, loop.info.Offset)
	}
	dir, partition := wholeDisk(major, minor)
	for _, name := range []string{"wwid", "device/wwid", "dm/uuid", "serial", "device/serial", "loop/backing_file"} {
		if text := sysText(dir, name); text != "" {
			id += ":" + filepath.Base(name) + "=" + text
			break
		}
	}
	if partition != "" {
		id += ":partition=" + partition
	}
	return id
}

// deviceCanPunch asks whether the queue takes WRITE ZEROES; without it
// fallocate says EOPNOTSUPP and zeros are written.
func deviceCanPunch(major, minor uint32) bool {
	dir, _ := wholeDisk(major, minor)
	n, err := strconv.ParseInt(sysText(dir, "queue/write_zeroes_max_bytes"), 10, 64)
	return err == nil && n > 0
}

// mountWarning says where a source is mounted for writing: what is read from it
// may be torn.
func mountWarning(major, minor uint32) string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		if point, ok := mountedAt(line, major, minor); ok {
			return "the device is mounted read-write at " + point + ": it may change while it is read"
		}
	}
	return ""
}

// mountedAt reads one line: ID parent maj:min root point options tags... -
// type source superoptions. btrfs shows a number of its own, hence the source.
func mountedAt(line string, major, minor uint32) (point string, ok bool) {
	left, right, found := strings.Cut(line, " - ")
	mount, super := strings.Fields(left), strings.Fields(right)
	if !found || len(mount) < 6 || len(super) < 3 {
		return "", false
	}
	if options := "," + super[2] + ","; !strings.Contains(options, ",rw,") {
		return "", false
	}
	if mount[2] == fmt.Sprintf("%d:%d", major, minor) {
		return mount[4], true
	}
	var st unix.Stat_t
	same := strings.HasPrefix(super[1], "/dev/") && unix.Stat(super[1], &st) == nil &&
		st.Mode&unix.S_IFMT == unix.S_IFBLK && unix.Major(st.Rdev) == major && unix.Minor(st.Rdev) == minor
	return mount[4], same
}
