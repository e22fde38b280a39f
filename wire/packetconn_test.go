package wire

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// faultyUDP fails the next sends as planned.
type faultyUDP struct {
	*net.UDPConn
	plan []syscall.Errno
	sent int
}

func (f *faultyUDP) next() error {
	if len(f.plan) == 0 {
		f.sent++
		return nil
	}
	errno := f.plan[0]
	f.plan = f.plan[1:]
	return &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendmsg", errno)}
}

func (f *faultyUDP) WriteMsgUDP(b, oob []byte, _ *net.UDPAddr) (int, int, error) {
	if err := f.next(); err != nil {
		return 0, 0, err
	}
	return len(b), len(oob), nil
}

func (f *faultyUDP) WriteTo(b []byte, _ net.Addr) (int, error) {
	if err := f.next(); err != nil {
		return 0, err
	}
	return len(b), nil
}

func TestPacketConnErrnos(t *testing.T) {
	for _, c := range []struct {
		errno syscall.Errno
		lost  uint64 // of two packets
	}{
		{unix.ENETUNREACH, 2},
		{unix.EHOSTUNREACH, 2},
		{unix.ENETDOWN, 2},
		{unix.EPERM, 2},
		{unix.ENOBUFS, 2},
		{unix.EAGAIN, 2},
		{unix.EADDRNOTAVAIL, 0},
		{unix.EMSGSIZE, 0},
		{unix.EIO, 0},
		{unix.EBADF, 0},
		{unix.EINVAL, 0},
	} {
		conn := &PacketConn{out: &faultyUDP{plan: slices.Repeat([]syscall.Errno{c.errno}, 4)}}
		n, oobn, err := conn.WriteMsgUDP(make([]byte, 20000), make([]byte, 24), nil)
		n2, err2 := conn.WriteTo(make([]byte, 1200), nil)
		if got := conn.Lost()[c.errno]; got != c.lost {
			t.Errorf("%v: %d lost, want %d", c.errno, got, c.lost)
		}
		if c.lost > 0 && (n != 20000 || oobn != 24 || err != nil || n2 != 1200 || err2 != nil) {
			t.Errorf("%v: %d %d %v, %d %v, want sent packets", c.errno, n, oobn, err, n2, err2)
		}
		if c.lost == 0 && (!errors.Is(err, c.errno) || !errors.Is(err2, c.errno)) {
			t.Errorf("%v: %v, %v, want it to pass", c.errno, err, err2)
		}
	}
}

// Linux refuses the first packet of some sockets; that one must not be lost.
func TestPacketConnFirstEPERM(t *testing.T) {
	f := &faultyUDP{plan: []syscall.Errno{unix.EPERM}}
	c := &PacketConn{out: f}
	if _, _, err := c.WriteMsgUDP([]byte("x"), nil, nil); err != nil || f.sent != 1 || len(c.Lost()) != 0 {
		t.Errorf("sent %d, lost %v, %v", f.sent, c.Lost(), err)
	}
}

func TestListenPacket(t *testing.T) {
	c, hint, err := ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if hint.Want != 8<<20 || hint.Recv <= 0 || hint.Send <= 0 {
		t.Errorf("hint %+v", hint)
	}
	addr := c.LocalAddr().String()
	_, _, err = ListenPacket(addr)
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "ss -lunp") {
		t.Errorf("address in use: %v", err)
	}
	if _, _, err := ListenPacket("127.0.0.1:port"); err == nil {
		t.Error("a bad address works")
	}
}

func TestBufferHint(t *testing.T) {
	if s := (BufferHint{Want: 10, Recv: 10, Send: 20}).String(); s != "" {
		t.Errorf("nothing to say, but: %q", s)
	}
	s := BufferHint{Want: 8 << 20, Recv: 208 << 10, Send: 8 << 20}.String()
	for _, part := range []string{"208 KiB", "net.core.rmem_max=8388608", "net.core.wmem_max=8388608"} {
		if !strings.Contains(s, part) {
			t.Errorf("no %q in %q", part, s)
		}
	}
}
