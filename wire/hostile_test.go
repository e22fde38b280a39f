package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// These tests play a paired peer, or a stranger, that breaks the rules below
// the frames; so they use the keys and configurations from inside.

type allow func(ID) bool

func (a allow) Allowed(id ID) bool { return a(id) }

func anybody(ID) bool { return true }

func newKeys(t *testing.T) (a, b *Key) {
	t.Helper()
	a, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err = NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// rawQUIC is a link on the listener's side with the bare connection of its
// dialer.
func rawQUIC(t *testing.T) (*quic.Conn, Link) {
	t.Helper()
	a, b := newKeys(t)
	pc, _, err := ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far := NewSocket(pc, b)
	l, err := far.Listen(allow(anybody), ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); far.Close() })
	conf, err := dialConfig(a, b.id)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := quic.DialAddr(t.Context(), l.Addr(), conf, new(Socket).quicConfig(noStreams, firstWindow))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseWithError(0, "") })
	s, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	s.Write([]byte{'!'})
	link, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return conn, link
}

func TestQUICPreamble(t *testing.T) {
	for name, preambles := range map[string][]string{
		"unknown kind": {"\x07\x00\x00\x00"},
		"no kind":      {"\x00\x00\x00\x00"},
		"index":        {"\x02\x08\x00\x00"},
		"reserved":     {"\x02\x00\x00\x01"},
		"twice":        {"\x02\x00\x00\x00", "\x02\x00\x00\x00"},
		"short":        {"\x02\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, link := rawQUIC(t)
			for _, p := range preambles {
				s, err := conn.OpenUniStream()
				if err != nil {
					t.Fatal(err)
				}
				s.Write([]byte(p))
				s.Close()
			}
			select {
			case <-link.Done():
			case <-time.After(10 * time.Second):
				t.Fatal("the link lives")
			}
			<-conn.Context().Done()
			app, ok := errors.AsType[*quic.ApplicationError](context.Cause(conn.Context()))
			if !ok || !app.Remote || Code(app.ErrorCode) != CodeFrame {
				t.Errorf("the peer got %v", context.Cause(conn.Context()))
			}
		})
	}
}

// The peer can never open more streams than the protocol has, not even one
// after another.
func TestQUICStreamLimit(t *testing.T) {
	conn, link := rawQUIC(t)
	defer link.CloseWithError(CodeOK, "")
	if _, err := conn.OpenStream(); err == nil {
		t.Error("a second bidirectional stream")
	}
	ids := []StreamID{{Kind: StreamManifest}, {Kind: StreamPlan}, {Kind: StreamRefine}, {Kind: StreamParts}}
	for i := range MaxDataStreams {
		ids = append(ids, StreamID{Kind: StreamData, Index: uint8(i)})
	}
	for i, id := range ids {
		s, err := conn.OpenUniStream()
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		s.Write([]byte{byte(id.Kind), id.Index, 0, 0})
		s.Close()
		in, err := link.OpenReceive(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := conn.OpenUniStreamSync(ctx); err == nil {
		t.Error("one stream more than there are names")
	}
}

// quic-go must find in PacketConn what it needs for segmentation offload.
func TestPacketConnGSO(t *testing.T) {
	conn, link := rawQUIC(t)
	defer link.CloseWithError(CodeOK, "")
	if want := conn.ConnectionState().GSO; link.(*quicLink).first.ConnectionState().GSO != want {
		t.Errorf("a bare UDPConn has GSO %v, ours not", want)
	}
}

func TestALPN(t *testing.T) {
	a, b := newKeys(t)
	conf, err := dialConfig(a, b.id)
	if err != nil {
		t.Fatal(err)
	}
	conf.NextProtos = []string{"haulback/2"}
	t.Run("quic", func(t *testing.T) {
		pc, _, err := ListenPacket("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := ListenQUIC(pc, b, allow(anybody), ListenConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, err = quic.DialAddr(t.Context(), l.Addr(), conf, new(Socket).quicConfig(noStreams, firstWindow))
		if err = explainQUIC(err, pc.LocalAddr(), a.id); !errors.Is(err, ErrVersion) {
			t.Errorf("got %v, want ErrVersion", err)
		}
	})
	for name, protos := range map[string][]string{"other": {"haulback/2"}, "none": nil} {
		t.Run("tls "+name, func(t *testing.T) {
			l := listenTLSHere(t, b, nil)
			conf := conf.Clone()
			conf.NextProtos = protos
			conf.VerifyConnection = nil // ours would refuse first
			conn, err := tls.Dial("tcp", l.Addr(), conf)
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			alert, ok := remoteAlert(err)
			if !ok || alert != alertNoALPN && protos != nil {
				t.Errorf("got %v, want an alert", err)
			}
		})
	}
}

func listenTLSHere(t *testing.T, key *Key, refusals *Refusals) Listener {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ListenTLS(tcp, key, allow(anybody), ListenConfig{Refusals: refusals})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestAttachHeader(t *testing.T) {
	token := attachToken{1, 2, 3}
	for _, h := range []attachHeader{
		{},
		{id: StreamID{Kind: StreamManifest}, token: token},
		{id: StreamID{Kind: StreamData, Index: 7}, reverse: true, token: token},
	} {
		b := h.append(nil)
		if len(b) != attachHeaderLen {
			t.Fatalf("%d bytes", len(b))
		}
		if got, err := parseAttach([attachHeaderLen]byte(b)); err != nil || got != h {
			t.Errorf("%+v came back as %+v, %v", h, got, err)
		}
	}
	const golden = "\x02\x03\x00\x01HBT1\x01\x02\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	if got := string(attachHeader{id: StreamID{Kind: StreamData, Index: 3}, reverse: true, token: token}.append(nil)); got != golden {
		t.Errorf("% x, want % x", got, golden)
	}
	for name, bad := range map[string]string{
		"magic":           "\x02\x03\x00\x00HBT2" + golden[8:],
		"flags":           "\x02\x03\x00\x02HBT1" + golden[8:],
		"kind":            "\x06\x00\x00\x00HBT1" + golden[8:],
		"index":           "\x02\x08\x00\x00HBT1" + golden[8:],
		"control token":   "\x00\x00\x00\x00HBT1" + golden[8:],
		"control reverse": "\x00\x00\x00\x01HBT1" + strings.Repeat("\x00", 16),
	} {
		if _, err := parseAttach([attachHeaderLen]byte([]byte(bad))); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A connection gets into a link with the link's token and peer only.
func TestAttachStranger(t *testing.T) {
	a, b := newKeys(t)
	other, _ := newKeys(t)
	refusals := new(Refusals)
	l := listenTLSHere(t, b, refusals)
	link, err := DialTLS(t.Context(), l.Addr(), a, b.id)
	if err != nil {
		t.Fatal(err)
	}
	defer link.CloseWithError(CodeOK, "")
	accepted, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conf, err := dialConfig(other, b.id)
	if err != nil {
		t.Fatal(err)
	}
	d := &tlsDialer{addr: l.Addr(), self: other.id, conf: conf, turn: make(chan struct{}, 1)}
	token := link.(*tlsLink).token
	conn, err := d.connect(t.Context(), attachHeader{id: StreamID{Kind: StreamData}, token: token})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another peer may attach: %v", err)
	}
	if accepted.Err() != nil || link.Err() != nil {
		t.Errorf("a stranger ended the link: %v, %v", accepted.Err(), link.Err())
	}
	if refusals.Unknown.Load() != 1 {
		t.Errorf("%d counted", refusals.Unknown.Load())
	}
}

// A dead TCP connection, of the control stream or of another, ends the link
// with an error that is worth a retry, and never looks like the end of data.
func TestTLSCut(t *testing.T) {
	for _, victim := range []string{"control", "stream"} {
		for _, reset := range []bool{true, false} {
			a, b := newKeys(t)
			l := listenTLSHere(t, b, nil)
			d, err := DialTLS(t.Context(), l.Addr(), a, b.id)
			if err != nil {
				t.Fatal(err)
			}
			accepted, err := l.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			out, err := d.OpenSend(t.Context(), StreamID{Kind: StreamData})
			if err != nil {
				t.Fatal(err)
			}
			in, err := accepted.OpenReceive(t.Context(), StreamID{Kind: StreamData})
			if err != nil {
				t.Fatal(err)
			}
			out.Write([]byte("record"))
			if _, err := io.ReadFull(in, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			conn := d.(*tlsLink).wire.conn
			if victim == "stream" {
				conn = out.(*stream).out.(*tls.Conn)
			}
			if reset {
				resetOnClose(conn.NetConn())
			}
			conn.NetConn().Close()
			_, err = in.Read(make([]byte, 1))
			e, ok := errors.AsType[*Error](err)
			if !ok || !e.Retryable() || errors.Is(err, io.EOF) {
				t.Errorf("%s, reset %v: read %v (%T)", victim, reset, err, err)
			}
			<-accepted.Done()
			d.CloseWithError(CodeOK, "")
		}
	}
}

// Bad chunks on the control connection end the link.
func TestTLSBadChunk(t *testing.T) {
	for name, chunk := range map[string]string{
		"too long":      "\x40\x00",
		"long text":     "\xff\xff\x00\x02\x01\x01" + strings.Repeat("x", 257),
		"text controls": "\xff\xff\x00\x02\x00\x02\x1b[",
	} {
		a, b := newKeys(t)
		l := listenTLSHere(t, b, nil)
		d, err := DialTLS(t.Context(), l.Addr(), a, b.id)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d.(*tlsLink).wire.conn.Write([]byte(chunk))
		<-accepted.Done()
		if !errors.Is(accepted.Err(), ErrFrame) {
			t.Errorf("%s: %v, want ErrFrame", name, accepted.Err())
		}
		d.CloseWithError(CodeOK, "")
	}
}
