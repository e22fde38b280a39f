package wire

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestSetLong: what a long path wants is what the socket has afterwards, as far
// as this process may.
func TestSetLong(t *testing.T) {
	withTCP(func(fd int) {
		setLong(fd)
		if n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT); n != notSent || err != nil {
			t.Errorf("TCP_NOTSENT_LOWAT %d, %v; want %d", n, err, notSent)
		}
		if cc, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil || HasBBR() && cc[:3] != control {
			t.Errorf("congestion control %q, %v; the kernel has %s: %v", cc, err, control, HasBBR())
		}
		if force(fd) != nil {
			return // without the capability buffers are the kernel's
		}
		for _, opt := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
			if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt); n != longBuffer || err != nil {
				t.Errorf("buffer %d is %d, %v; want %d", opt, n, err, longBuffer)
			}
		}
		if n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP); n != longBuffer || err != nil {
			t.Errorf("the window may grow to %d, %v; want %d", n, err, longBuffer)
		}
		if hint := TCPHint(); hint != "" {
			t.Errorf("buffers can be forced, and the hint is %q", hint)
		}
	})
}
