package wire

import (
	"bytes"
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What one system call sends as several packets must arrive as these, with
// the mark of each, whether the kernel merges them or not.
func TestPacketConnReads(t *testing.T) {
	for _, c := range []struct {
		name, listen, from string
		mark               []byte // to send
		level, kind        int32  // to be received
	}{
		{"IPv4", "127.0.0.1:0", "127.0.0.1:0", tos, unix.IPPROTO_IP, unix.IP_TOS},
		{"IPv6", "[::1]:0", "[::1]:0", class, unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
		{"both", ":0", "127.0.0.1:0", tos, unix.IPPROTO_IP, unix.IP_TOS},
	} {
		for _, o := range []PacketOptions{{}, {NoGRO: true}} {
			name := c.name + "/merged"
			if o.NoGRO {
				name = c.name + "/plain"
			}
			t.Run(name, func(t *testing.T) {
				conn, _, err := o.Listen(c.listen)
				if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
					t.Skip("no IPv6 here")
				}
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				marks(t, conn.UDPConn)
				send, _, err := ListenPacket(c.from)
				if err != nil {
					t.Fatal(err)
				}
				defer send.Close()
				data := numbered(10*1200 + 77)
				to := &net.UDPAddr{IP: send.LocalAddr().(*net.UDPAddr).IP, Port: conn.LocalAddr().(*net.UDPAddr).Port}
				oob := append(cmsg(unix.SOL_UDP, unix.UDP_SEGMENT, 0xb0, 4), c.mark...)
				if _, _, err := send.WriteMsgUDP(data, oob, to); err != nil {
					t.Fatal(err)
				}
				got := readPackets(t, conn, len(data), send.LocalAddr().(*net.UDPAddr).Port, c.level, c.kind)
				if !bytes.Equal(got, data) {
					t.Error("other bytes came")
				}
				st := conn.Stats()
				if st.MergedPackets+st.PlainPackets != 11 || o.NoGRO && (st.MergedReads != 0 || st.GRO != "switched off") {
					t.Errorf("stats %+v", st)
				}
				if !o.NoGRO && st.GRO == "on" && st.MergedReads != 1 {
					t.Errorf("nothing merged: %+v", st)
				}
			})
		}
	}
}

// marks asks for the traffic class, as quic-go does.
func marks(t *testing.T, conn *net.UDPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
	})
}

func readPackets(t *testing.T, conn *PacketConn, size, port int, level, kind int32) (got []byte) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	ms := messages(8, 1452)
	for len(got) < size {
		n, err := conn.ReadBatch(ms, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[:n] {
			if m.N > 1200 || m.Addr.(*net.UDPAddr).Port != port {
				t.Errorf("%d bytes from %v", m.N, m.Addr)
			}
			h, body, _, err := unix.ParseOneSocketControlMessage(m.OOB[:m.NN])
			if err != nil || h.Level != level || h.Type != kind || body[0] == 0 {
				t.Errorf("control % x: %v", m.OOB[:m.NN], err)
			}
			got = append(got, m.Buffers[0][:m.N]...)
		}
	}
	return got
}

// A device that cannot split packets answers EIO, which quic-go has to see.
func TestPacketConnRefused(t *testing.T) {
	c := &PacketConn{out: &faultyUDP{plan: []syscall.Errno{unix.EIO}}}
	if _, _, err := c.WriteMsgUDP(nil, nil, nil); !errors.Is(err, unix.EIO) || c.Stats().Refused != 1 {
		t.Errorf("%v, %d counted", err, c.Stats().Refused)
	}
}

func TestSince5(t *testing.T) {
	for major, want := range map[string]bool{"4": false, "5": true, "6": true, "10": true, "": false, "x": false} {
		if since5(major) != want {
			t.Errorf("Linux %q: %v", major, !want)
		}
	}
}

// Each way to give a socket to quic-go carries data.
func TestPacketOptions(t *testing.T) {
	for name, o := range map[string]PacketOptions{"all": {}, "no GRO": {NoGRO: true}, "stock": {Stock: true}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			a, b := newKeys(t)
			open := func() *PacketConn {
				pc, _, err := o.Listen("127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				return pc
			}
			far, near := open(), open()
			l, err := ListenQUIC(far, b, allow(anybody), ListenConfig{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			link, err := DialQUIC(ctx, near, far.LocalAddr(), a, DialConfig{}, b.id)
			if err != nil {
				t.Fatal(err)
			}
			defer link.CloseWithError(CodeOK, "")
			data := numbered(1 << 20)
			sent := make(chan error, 1)
			go func() { sent <- sendAll(ctx, link, data) }()
			got, err := receiveAll(ctx, l)
			if err := errors.Join(err, <-sent); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, data) {
				t.Error("other bytes came")
			}
			for end, pc := range map[string]*PacketConn{"near": near, "far": far} {
				if n := pc.backlog.tracked(); n != link.Stats().Connections {
					t.Errorf("%s: %d connections tracked, want %d", end, n, link.Stats().Connections)
				}
			}
			st := far.Stats()
			if merges := st.GRO == "on"; merges != (st.MergedReads > 0) {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func sendAll(ctx context.Context, link Link, data []byte) error {
	if _, err := link.Control().Write([]byte{0}); err != nil { // it is what makes a link
		return err
	}
	s, err := link.OpenSend(ctx, StreamID{Kind: StreamData})
	if err != nil {
		return err
	}
	if _, err := s.Write(data); err != nil {
		return err
	}
	return s.CloseWrite()
}

func receiveAll(ctx context.Context, l Listener) ([]byte, error) {
	link, err := l.Accept(ctx)
	if err != nil {
		return nil, err
	}
	s, err := link.OpenReceive(ctx, StreamID{Kind: StreamData})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(s)
	return b.Bytes(), err
}

func (b *backlog) tracked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns)
}
