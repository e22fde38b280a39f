package wire

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// PacketConn is the UDP socket under QUIC. quic-go closes a connection when a
// send fails; a cable that is out for five seconds or a firewall rule that is
// being reloaded is then the end of a session (reliability N2, N4, N6: all
// measured). PacketConn turns such failures into lost packets, which QUIC
// sends again until its idle timeout.
//
// It embeds the *net.UDPConn, not an interface, because quic-go looks for
// SyscallConn, ReadMsgUDP and WriteMsgUDP to use segmentation offload and ECN.
type PacketConn struct {
	*net.UDPConn
	out  udpWriter // the UDPConn, but in tests
	lost [len(lossErrnos)]atomic.Uint64
}

type udpWriter interface {
	WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	WriteTo(b []byte, addr net.Addr) (int, error)
}

// lossErrnos are failures that pass. EADDRNOTAVAIL is not one: the socket's
// own address is gone and no packet will ever leave it. EMSGSIZE and EIO are
// answers that quic-go needs for path MTU discovery and to give up offload.
var lossErrnos = [...]syscall.Errno{
	unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EPERM, unix.ENOBUFS, unix.EAGAIN,
}

// lossPause keeps a sender without a network from spinning.
const lossPause = time.Millisecond

// Lost counts the packets that were not sent, by the reason.
func (c *PacketConn) Lost() map[syscall.Errno]uint64 {
	counts := make(map[syscall.Errno]uint64)
	for i, errno := range lossErrnos {
		if n := c.lost[i].Load(); n > 0 {
			counts[errno] = n
		}
	}
	return counts
}

// absorb reports whether err stands for a lost packet, and counts it.
func (c *PacketConn) absorb(err error) bool {
	for i, errno := range lossErrnos {
		if errors.Is(err, errno) {
			c.lost[i].Add(1)
			time.Sleep(lossPause)
			return true
		}
	}
	return false
}

// WriteMsgUDP sends like net.UDPConn's, but says that a packet was sent that
// the network was not there for. The first EPERM is tried once more: Linux
// answers it to the first packet of some sockets (golang/go#63322).
func (c *PacketConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.out.WriteMsgUDP(b, oob, addr)
	if err != nil && errors.Is(err, unix.EPERM) {
		n, oobn, err = c.out.WriteMsgUDP(b, oob, addr)
	}
	if err != nil && c.absorb(err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// WriteTo sends like WriteMsgUDP.
func (c *PacketConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	n, err := c.out.WriteTo(b, addr)
	if err != nil && c.absorb(err) {
		return len(b), nil
	}
	return n, err
}

// socketBuffer is what we ask of the kernel for each direction: quic-go reads
// bursts late when the CPU is busy, and what does not fit is lost.
const socketBuffer = 8 << 20

// BufferHint tells what the kernel gave of the socket buffers asked for.
type BufferHint struct {
	Want, Recv, Send int // bytes
}

// String is the advice to print, or "" when the buffers are as wanted.
func (h BufferHint) String() string {
	if h.Recv >= h.Want && h.Send >= h.Want {
		return ""
	}
	return fmt.Sprintf("UDP socket buffers are %d KiB (receive) and %d KiB (send) instead of %d KiB, fast links will lose packets; run: sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d",
		h.Recv>>10, h.Send>>10, h.Want>>10, h.Want, h.Want)
}

// ListenPacket opens the UDP socket addr ("host:port") for QUIC with large
// buffers. The hint says whether the kernel allowed them; that is not a
// reason to stop.
func ListenPacket(addr string) (*PacketConn, BufferHint, error) {
	local, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, BufferHint{}, fmt.Errorf("wire: udp address %s: %w", addr, err)
	}
	conn, err := net.ListenUDP("udp", local)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, BufferHint{}, fmt.Errorf("wire: udp %s is in use by another program, see: ss -lunp 'sport = :%d': %w", addr, local.Port, err)
	}
	if err != nil {
		return nil, BufferHint{}, fmt.Errorf("wire: listen on udp %s: %w", addr, err)
	}
	hint, err := raiseBuffers(conn)
	if err != nil {
		conn.Close()
		return nil, BufferHint{}, fmt.Errorf("wire: buffers of udp %s: %w", addr, err)
	}
	return &PacketConn{UDPConn: conn, out: conn}, hint, nil
}

func raiseBuffers(conn *net.UDPConn) (BufferHint, error) {
	hint := BufferHint{Want: socketBuffer}
	raw, err := conn.SyscallConn()
	if err != nil {
		return hint, err
	}
	err = raw.Control(func(fd uintptr) {
		hint.Recv = raiseBuffer(int(fd), unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)
		hint.Send = raiseBuffer(int(fd), unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)
	})
	return hint, err
}

// raiseBuffer returns the size in use. It never lowers it: PID 1 may have set
// a larger one before it handed the socket over. The kernel keeps, and tells,
// twice the size for its own use; force needs CAP_NET_ADMIN.
func raiseBuffer(fd, option, force int) int {
	have := func() int {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
		if err != nil {
			return 0
		}
		return n / 2
	}
	for _, opt := range [...]int{option, force} {
		if have() < socketBuffer {
			// Whether it worked is read back.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, socketBuffer)
		}
	}
	return have()
}
