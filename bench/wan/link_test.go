package wan

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func newLink(t *testing.T, c Config) *Link {
	t.Helper()
	l, err := New(c)
	if errors.Is(err, ErrRoot) {
		t.Skip("the emulated link is not tested: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("the loop ended: %v", err)
		}
	})
	return l
}

// dial connects A to a listener on B.
func dial(t *testing.T, l *Link) (a, b net.Conn) {
	t.Helper()
	var listener net.Listener
	if err := l.B.Do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", l.B.Addr.String()+":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := l.A.Do(func() (err error) {
		a, err = new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

// TestLink sends bytes over a link that loses 2 % of the packets: all arrive, in
// parts of the kernel's bunches where they have to, and not faster than the link.
func TestLink(t *testing.T) {
	if testing.Short() {
		t.Skip("real time")
	}
	const rtt = 4 * time.Millisecond
	l := newLink(t, Symmetric(200*mbit, rtt, 20*time.Millisecond, 0.02, 1))
	began := time.Now()
	a, b := dial(t, l)
	if d := time.Since(began); d < rtt {
		t.Errorf("connected after %v, want at least %v", d, rtt)
	}
	data := make([]byte, 2<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	sent := make(chan error, 1)
	began = time.Now()
	go func() {
		_, err := io.Copy(a, bytes.NewReader(data))
		sent <- errors.Join(err, a.(*net.TCPConn).CloseWrite())
	}()
	h := sha256.New()
	n, err := io.Copy(h, b)
	d := time.Since(began)
	if err := errors.Join(err, <-sent); err != nil || n != int64(len(data)) {
		t.Fatalf("%d of %d bytes arrived: %v", n, len(data), err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
		t.Error("the bytes arrived changed")
	}
	if least := time.Duration(n * 8 * int64(time.Second) / (200 * mbit)); d < least {
		t.Errorf("%d bytes in %v: faster than the link, which takes %v", n, d, least)
	}
	s := l.Stats()
	t.Logf("%v: %+v", d, s)
	if s.Out.Lost == 0 || s.Back.Lost != 0 || s.Out.Failed+s.Back.Failed != 0 {
		t.Errorf("%+v: want losses from A to B, none back, and nothing refused", s)
	}
	if s.Out.Bytes < n || s.Out.Reads >= s.Out.Packets {
		t.Errorf("%d packets of %d bytes in %d reads: want all bytes, and the kernel's bunches", s.Out.Packets, s.Out.Bytes, s.Out.Reads)
	}
}

// TestLinkDatagrams sends datagrams of several sizes; they arrive whole or not at all.
func TestLinkDatagrams(t *testing.T) {
	l := newLink(t, Config{})
	var a, b net.PacketConn
	listen := func(s *Side, c *net.PacketConn) {
		t.Helper()
		if err := s.Do(func() (err error) {
			*c, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp4", s.Addr.String()+":0")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*c).Close() })
	}
	listen(l.A, &a)
	listen(l.B, &b)
	for _, size := range []int{1, 100, 1472, 4000} { // the last goes in fragments
		data := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := a.WriteTo(data, b.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5000)
		_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, from, err := b.ReadFrom(got)
		if err != nil || !bytes.Equal(got[:n], data) || from.String() != a.LocalAddr().String() {
			t.Errorf("%d bytes from %v: got %d from %v: %v", size, a.LocalAddr(), n, from, err)
		}
	}
}

// TestStart shows that a program lives in the namespace, and this one does not.
func TestStart(t *testing.T) {
	l := newLink(t, Config{})
	cat := func() (string, *exec.Cmd) {
		return "/proc/net/dev", exec.CommandContext(context.WithoutCancel(t.Context()), "cat", "/proc/net/dev")
	}
	for _, inside := range []bool{true, false} {
		name, cmd := cat()
		var out bytes.Buffer
		cmd.Stdout = &out
		start := cmd.Start
		if inside {
			start = func() error { return l.A.Start(cmd) }
		}
		if err := errors.Join(start(), cmd.Wait()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), device); got != inside {
			t.Errorf("%s of a program in the namespace (%v) has the device: %v", name, inside, got)
		}
	}
}

// TestRefused wants errors, and nothing left behind: the second Close is no work.
func TestRefused(t *testing.T) {
	if _, err := New(Config{Out: Path{Loss: 2}}); err == nil {
		t.Error("a loss of 200 % is taken")
	}
	l := newLink(t, Config{})
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if err := l.A.Do(func() error { return nil }); err == nil {
		t.Error("a closed namespace is entered")
	}
}
