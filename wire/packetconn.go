package wire

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
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
// It also looks for ReadBatch, which here lets the kernel merge packets
// (groReader) and does not run ahead of the connections (backlog).
type PacketConn struct {
	*net.UDPConn
	out     udpWriter // the UDPConn, but in tests
	lost    [len(lossErrnos)]atomic.Uint64
	stats   packetCounters
	options PacketOptions
	groOff  string     // why the kernel does not merge
	gro     *groReader // nil then
	plain   batchReader
	backlog *backlog
}

type batchReader interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
}

// PacketOptions are the switches of a PacketConn, for kernels and devices that
// do offload wrong, and for comparison. The zero value is what is fastest. What
// goes out is split by the kernel as well (GSO); the environment variable
// QUIC_GO_DISABLE_GSO=true is quic-go's own switch for that.
type PacketOptions struct {
	NoGRO bool // the kernel does not merge what comes in
	// Stock gives quic-go the bare socket, without anything of ours.
	Stock bool
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
//
// EIO for packets in one buffer is how a device without checksum offload
// refuses to split it; quic-go then sends one by one on that connection.
func (c *PacketConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.out.WriteMsgUDP(b, oob, addr)
	if err != nil && errors.Is(err, unix.EPERM) {
		n, oobn, err = c.out.WriteMsgUDP(b, oob, addr)
	}
	if err != nil && c.absorb(err) {
		return len(b), len(oob), nil
	}
	if err != nil && errors.Is(err, unix.EIO) {
		c.stats.refused.Add(1)
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

// ListenPacket opens the UDP socket addr ("host:port") for QUIC with large
// buffers. The hint says whether the kernel allowed them; that is not a
// reason to stop.
func ListenPacket(addr string) (*PacketConn, BufferHint, error) {
	return PacketOptions{}.Listen(addr)
}

// Listen is ListenPacket with o.
func (o PacketOptions) Listen(addr string) (*PacketConn, BufferHint, error) {
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
	return o.Use(conn)
}

// Use is Listen with a socket that somebody else has opened, as a service manager
// does. It is closed when it cannot be used.
func (o PacketOptions) Use(conn *net.UDPConn) (*PacketConn, BufferHint, error) {
	addr := conn.LocalAddr()
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, BufferHint{}, fmt.Errorf("wire: use udp %s: %w", addr, err)
	}
	c := &PacketConn{UDPConn: conn, out: conn, options: o}
	hint, err := raiseBuffers(raw)
	if err == nil {
		err = c.prepare(raw)
	}
	if err != nil {
		conn.Close()
		return nil, BufferHint{}, fmt.Errorf("wire: options of udp %s: %w", addr, err)
	}
	return c, hint, nil
}
