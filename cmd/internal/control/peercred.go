package control

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a unix socket, as the kernel noted when he
// connected. It stays true although he may change his identity later.
type peer struct {
	uid  int
	gids []int // primary and supplementary
}

// peerOf asks the kernel.
func peerOf(c *net.UnixConn) (p peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner != nil {
			return
		}
		p.uid, p.gids = int(cred.Uid), []int{int(cred.Gid)}
		var more []uint32
		more, inner = peerGroups(int(fd))
		for _, g := range more {
			p.gids = append(p.gids, int(g))
		}
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return p, fmt.Errorf("credentials of the peer: %w", err)
	}
	return p, nil
}

// peerGroups is SO_PEERGROUPS, for which x/sys/unix has no wrapper: its string
// options end at the first zero byte.
func peerGroups(fd int) ([]uint32, error) {
	const most = 65536 // NGROUPS_MAX
	buf := make([]uint32, 64)
	for {
		size := uint32(len(buf) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return buf[:size/4], nil
		case errno == unix.ENODATA: // a peer without a thread, socketpair
			return nil, nil
		case errno == unix.ERANGE && size/4 > uint32(len(buf)) && size/4 <= most:
			buf = make([]uint32, size/4)
		default:
			return nil, os.NewSyscallError("getsockopt", syscall.Errno(errno))
		}
	}
}

// mayUse reports whether p has authority over this daemon: root, the daemon's
// own user, or a member of the group (-1: none).
func (p peer) mayUse(own, group int) bool {
	return p.uid == 0 || p.uid == own || group >= 0 && slices.Contains(p.gids, group)
}

func (p peer) String() string { return "uid " + strconv.Itoa(p.uid) }

// groupID finds a group by name or number; an empty name is -1, no group.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("control: group %q: %w; make it with groupadd --system, or leave the group out", name, err)
	}
	return strconv.Atoi(g.Gid)
}
