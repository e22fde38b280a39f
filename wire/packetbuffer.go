package wire

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

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

func raiseBuffers(raw syscall.RawConn) (BufferHint, error) {
	hint := BufferHint{Want: socketBuffer}
	err := raw.Control(func(fd uintptr) {
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
