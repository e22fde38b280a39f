package simvs

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockHost stands in lock files as the name of the host that holds them.
const lockHost = "esx.simvs.invalid"

// relock makes the lock files of a VM that is on agree with its files, and takes
// those of one that is off away. m.mu is held.
//
// An ESXi host keeps, on NFS, a file .lck- and the number of the inode, least
// byte first, for each file that it has open, and NAME.vmx.lck.
func (m *machine) relock() {
	want := map[string]bool{}
	if m.power != off {
		if path, err := m.s.file(m.vmx); err == nil {
			want[path+".lck"] = true
		}
		for _, d := range m.disks {
			want[inodeLock(d.leaf.flat())] = true
		}
		for _, p := range m.points {
			for _, l := range p.disks {
				want[inodeLock(l.flat())] = true
			}
		}
		delete(want, "")
	}
	for _, path := range m.locks {
		if !want[path] {
			os.Remove(path)
		}
	}
	m.locks = m.locks[:0]
	for path := range want {
		if os.WriteFile(path, lockText(), 0o600) == nil {
			m.locks = append(m.locks, path)
		}
	}
}

func inodeLock(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".lck-%016x", bits.ReverseBytes64(st.Ino)))
}

// lockText is binary with the name of the host in it, 84 bytes as on a host.
func lockText() []byte {
	text := make([]byte, 84)
	binary.LittleEndian.PutUint32(text, 1)
	copy(text[16:], lockHost)
	return text
}

// isLocked reports whether another program has the file open with a lock of the
// kernel's, as the drivers of haulback do.
func isLocked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
}

// removeOldLocks takes away what a simulator that was killed has left.
func removeOldLocks(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if !strings.HasPrefix(e.Name(), ".lck-") && !strings.HasSuffix(e.Name(), ".vmx.lck") {
			continue
		}
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), lockHost) {
			os.Remove(name)
		}
	}
}
