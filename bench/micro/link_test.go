package micro

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

// BenchmarkLink sends payload over loopback on one data stream, 1 MiB a write as
// the mover does; both ends are in this process. Lost are packets of this end.
func BenchmarkLink(b *testing.B) {
	for _, transport := range []struct {
		name string
		make func(*testing.B) (dialer, listener wire.Link)
	}{{"pipe", pipe}, {"tls", dialTLS}, {"quic", dialQUIC}} {
		b.Run("transport="+transport.name, func(b *testing.B) {
			near, far := transport.make(b)
			defer far.CloseWithError(wire.CodeOK, "")
			defer near.CloseWithError(wire.CodeOK, "")
			payload(b, near, far)
		})
	}
}

func payload(b *testing.B, near, far wire.Link) {
	const size = 1 << 20
	id := wire.StreamID{Kind: wire.StreamData}
	arrived := make(chan error, 1)
	received := make(chan int64, 1)
	go func() {
		s, err := far.OpenReceive(b.Context(), id)
		if err != nil {
			arrived <- err
			return
		}
		buf := make([]byte, 256<<10)
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, buf)
		received <- n
		arrived <- err
	}()
	s, err := near.OpenSend(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	block := content(b, "random")[:size]
	sent := int64(0)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(block); err != nil {
			b.Fatal(err)
		}
		sent += size
	}
	if err := s.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	n := <-received
	if err := <-arrived; err != nil || n != sent {
		b.Fatalf("%d of %d bytes arrived: %v", n, sent, err)
	}
	b.ReportMetric(float64(near.Stats().Lost), "lost")
}

func pipe(b *testing.B) (near, far wire.Link) {
	return wire.Pipe(wiretest.Key(b).ID(), wiretest.Key(b).ID())
}

func dialTLS(b *testing.B) (near, far wire.Link) {
	key, peer := wiretest.Key(b), wiretest.Key(b)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	l, err := wire.ListenTLS(tcp, peer, wiretest.NewPeers(key.ID()), wire.ListenConfig{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return wiretest.Connect(b, l, func(ctx context.Context) (wire.Link, error) {
		return wire.DialTLS(ctx, l.Addr(), key, peer.ID())
	})
}

func dialQUIC(b *testing.B) (near, far wire.Link) {
	key, peer := wiretest.Key(b), wiretest.Key(b)
	socket := func(k *wire.Key) *wire.Socket {
		pc, _, err := wire.ListenPacket("127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		s := wire.NewSocket(pc, k)
		b.Cleanup(func() { s.Close() })
		return s
	}
	from, to := socket(key), socket(peer)
	l, err := to.Listen(wiretest.NewPeers(key.ID()), wire.ListenConfig{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	addr, err := net.ResolveUDPAddr("udp", l.Addr())
	if err != nil {
		b.Fatal(err)
	}
	return wiretest.Connect(b, l, func(ctx context.Context) (wire.Link, error) {
		return from.Dial(ctx, addr, wire.DialConfig{}, peer.ID())
	})
}
