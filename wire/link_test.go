package wire_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

func TestPipe(t *testing.T) {
	a, b := wiretest.Key(t).ID(), wiretest.Key(t).ID()
	wiretest.TestLink(t, func(t *testing.T) (wire.Link, wire.Link) {
		d, l := wire.Pipe(a, b)
		if d.Peer() != b || l.Peer() != a {
			t.Error("the ends are exchanged")
		}
		return d, l
	})
}

// one is for tests that count connections.
var one = wire.DialConfig{Connections: 1}

func TestQUIC(t *testing.T) {
	numbers := []int{1, 2, 5}
	if testing.Short() {
		numbers = numbers[:2]
	}
	for _, n := range numbers {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			a, b := wiretest.Key(t), wiretest.Key(t)
			wiretest.TestLink(t, func(t *testing.T) (wire.Link, wire.Link) {
				near, far := wire.NewSocket(packets(t), a), wire.NewSocket(packets(t), b)
				l, err := far.Listen(wiretest.NewPeers(a.ID()), wire.ListenConfig{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { l.Close(); near.Close(); far.Close() })
				dialer, listener := wiretest.Connect(t, l, func(ctx context.Context) (wire.Link, error) {
					return near.Dial(ctx, udpAddr(t, l), wire.DialConfig{Connections: n}, b.ID())
				})
				for _, link := range []wire.Link{dialer, listener} {
					if s := link.Stats(); s.Connections != n || s.Fewer != "" {
						t.Errorf("%d connections are %+v", n, s)
					}
				}
				return dialer, listener
			})
		})
	}
}

func TestTLS(t *testing.T) {
	a, b := wiretest.Key(t), wiretest.Key(t)
	wiretest.TestLink(t, func(t *testing.T) (wire.Link, wire.Link) {
		l := listenTLS(t, b, wiretest.NewPeers(a.ID()), wire.ListenConfig{})
		return wiretest.Connect(t, l, func(ctx context.Context) (wire.Link, error) {
			return wire.DialTLS(ctx, l.Addr(), a, b.ID())
		})
	})
}

// packets opens a socket on loopback. A private socket closes it itself.
func packets(t *testing.T) *wire.PacketConn {
	t.Helper()
	pc, _, err := wire.ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return pc
}

func udpAddr(t *testing.T, l wire.Listener) *net.UDPAddr {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func listenTLS(t *testing.T, key *wire.Key, peers wire.Peers, cfg wire.ListenConfig) wire.Listener {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := wire.ListenTLS(tcp, key, peers, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
