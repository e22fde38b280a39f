package wire

import (
	"crypto/tls"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LongPath is the least round trip at which loss and the size of buffers decide
// how fast a link is. Below it, which is within one building, it is the processor.
const LongPath = 2 * time.Millisecond

const (
	// longBuffer is the most that the kernel may keep for each direction of a TCP
	// connection on a long path, its own overhead of a third included. While one lost
	// packet is on its way again, a round trip and more of data waits behind it: of 1
	// Gbit/s and 50 ms 12.5 MB, and what waits in the queue of the line. With half of
	// this, 0.1 % of losses cost a third of the line. A link has as many of them as it
	// has streams, but no more under way than the line holds.
	longBuffer = 32 << 20
	// notSent is how much may wait in the kernel that has not been sent: 8 ms of 1
	// Gbit/s. More would only stand between a frame and a word that is urgent.
	notSent = 1 << 20
	// control is the congestion control that a long path wants: of those that
	// kernels have, the one that does not take every lost packet for a full line
	// (at 50 ms and 0.1 % loss 877 Mbit/s of 1000, cubic 16).
	control = "bbr"
)

// tunePath fits a connection whose handshake is done to its path. Nothing that
// the kernel refuses is a reason not to go on.
func tunePath(conn *tls.Conn) {
	info, _, ok := tcpInfo(conn.NetConn())
	if !ok || time.Duration(info.Min_rtt)*time.Microsecond < LongPath {
		return
	}
	raw, err := tcpOf(conn.NetConn()).SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { setLong(int(fd)) })
}

// setLong is what tunePath asks the kernel for. A buffer that only the limits of
// the system allow is left to the kernel, which lets it grow further than that.
func setLong(fd int) {
	_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, control)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
	_ = force(fd)
}

// force sets both buffers, which needs CAP_NET_ADMIN. The kernel doubles what it
// is asked for. A receive buffer that was set does not grow any more, and with it
// the window of a connection that exists stays at its first 64 KiB, 8 Mbit/s at 50
// ms, unless it is told that it may.
func force(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, longBuffer/2)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, longBuffer/2)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, longBuffer)
	}
	return err
}

// HasBBR reports whether this kernel gives this process the congestion control
// that lossy long paths want.
func HasBBR() bool {
	ok := false
	withTCP(func(fd int) {
		ok = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, control) == nil
	})
	return ok
}

// TCPHint says what keeps TCP slow on long paths here, or "".
func TCPHint() string {
	var refused error
	withTCP(func(fd int) { refused = force(fd) })
	if refused == nil {
		return ""
	}
	for _, name := range []string{"tcp_wmem", "tcp_rmem"} {
		text, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if err != nil {
			continue
		}
		f := strings.Fields(string(text))
		if most, err := strconv.Atoi(f[len(f)-1]); err == nil && most < longBuffer {
			return fmt.Sprintf("net.ipv4.%s allows %d bytes, less than %d: long paths will be slow over TCP; raise it or grant CAP_NET_ADMIN", name, most, longBuffer)
		}
	}
	return ""
}

// withTCP calls f with a TCP socket that is of no other use.
func withTCP(f func(fd int)) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	f(fd)
}
