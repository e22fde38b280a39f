package wire_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

// transport is QUIC or TLS on loopback, for tests that hold for both.
type transport struct {
	name   string
	listen func(t *testing.T, key *wire.Key, peers wire.Peers, cfg wire.ListenConfig) wire.Listener
	dial   func(t *testing.T, ctx context.Context, l wire.Listener, key *wire.Key, want wire.ID) (wire.Link, error)
}

var transports = []transport{
	{
		name: "quic",
		listen: func(t *testing.T, key *wire.Key, peers wire.Peers, cfg wire.ListenConfig) wire.Listener {
			l, err := wire.ListenQUIC(packets(t), key, peers, cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			return l
		},
		dial: func(t *testing.T, ctx context.Context, l wire.Listener, key *wire.Key, want wire.ID) (wire.Link, error) {
			return wire.DialQUIC(ctx, packets(t), udpAddr(t, l), key, one, want)
		},
	},
	{
		name:   "tls",
		listen: listenTLS,
		dial: func(t *testing.T, ctx context.Context, l wire.Listener, key *wire.Key, want wire.ID) (wire.Link, error) {
			return wire.DialTLS(ctx, l.Addr(), key, want)
		},
	},
}

// onEach runs a test on every transport and looks for goroutines after it.
func onEach(t *testing.T, run func(t *testing.T, tr transport)) {
	for _, tr := range transports {
		before := runtime.NumGoroutine()
		t.Run(tr.name, func(t *testing.T) { run(t, tr) })
		wiretest.NoLeak(t, before)
	}
}

// firstError is what a dialer learns: from Dial, or from its first read.
func firstError(link wire.Link, err error) error {
	if err != nil {
		return err
	}
	defer link.CloseWithError(wire.CodeOK, "")
	link.Control().Write([]byte{'!'})
	link.Control().SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err = link.Control().Read(make([]byte, 1))
	return err
}

func TestUnknownKey(t *testing.T) {
	onEach(t, func(t *testing.T, tr transport) {
		a, b := wiretest.Key(t), wiretest.Key(t)
		refusals := new(wire.Refusals)
		l := tr.listen(t, b, wiretest.NewPeers(wiretest.Key(t).ID()), wire.ListenConfig{Refusals: refusals})
		err := firstError(tr.dial(t, t.Context(), l, a, b.ID()))
		e, ok := errors.AsType[*wire.Error](err)
		if !errors.Is(err, wire.ErrUnknownPeer) || !ok || e.Retryable() || !strings.Contains(err.Error(), "haulback peer add "+a.ID().String()) {
			t.Errorf("got %v, want ErrUnknownPeer with the remedy", err)
		}
		for end := time.Now().Add(10 * time.Second); refusals.Unknown.Load() != 1 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if refusals.Unknown.Load() != 1 {
			t.Errorf("%d unknown keys counted", refusals.Unknown.Load())
		}
	})
}

func TestWrongPinnedKey(t *testing.T) {
	onEach(t, func(t *testing.T, tr transport) {
		a, b, other := wiretest.Key(t), wiretest.Key(t), wiretest.Key(t).ID()
		l := tr.listen(t, b, wiretest.NewPeers(a.ID()), wire.ListenConfig{})
		link, err := tr.dial(t, t.Context(), l, a, other)
		if link != nil || !errors.Is(err, wire.ErrUnknownPeer) || !strings.Contains(err.Error(), b.ID().String()) || !strings.Contains(err.Error(), other.String()) {
			t.Errorf("got %v, %v, want ErrUnknownPeer with both IDs", link, err)
		}
		if _, err := tr.dial(t, t.Context(), l, a, wire.ID{}); !errors.Is(err, wire.ErrUnknownPeer) {
			t.Errorf("no pinned key at all: %v", err)
		}
	})
}

// Peers are asked at each handshake; what was accepted lives until the daemon
// closes it.
func TestPeerRemoved(t *testing.T) {
	onEach(t, func(t *testing.T, tr transport) {
		a, b := wiretest.Key(t), wiretest.Key(t)
		peers := wiretest.NewPeers(a.ID())
		l := tr.listen(t, b, peers, wire.ListenConfig{})
		d, accepted := wiretest.Connect(t, l, func(ctx context.Context) (wire.Link, error) { return tr.dial(t, ctx, l, a, b.ID()) })
		if accepted.Peer() != a.ID() || d.Peer() != b.ID() {
			t.Error("wrong peers")
		}
		peers.Remove(a.ID())
		if err := firstError(tr.dial(t, t.Context(), l, a, b.ID())); !errors.Is(err, wire.ErrUnknownPeer) {
			t.Errorf("after removal: %v", err)
		}
		accepted.CloseWithError(wire.CodeUnauthorized, "removed")
		_, err := d.Control().Read(make([]byte, 1))
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeUnauthorized || !e.Remote {
			t.Errorf("the live link ended with %v", err)
		}
	})
}

func TestListenerClose(t *testing.T) {
	onEach(t, func(t *testing.T, tr transport) {
		a, b := wiretest.Key(t), wiretest.Key(t)
		l := tr.listen(t, b, wiretest.NewPeers(a.ID()), wire.ListenConfig{})
		d, accepted := wiretest.Connect(t, l, func(ctx context.Context) (wire.Link, error) { return tr.dial(t, ctx, l, a, b.ID()) })
		defer d.CloseWithError(wire.CodeOK, "")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Accept(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Accept with a cancelled context: %v", err)
		}
		waiting := make(chan error, 1)
		go func() { _, err := l.Accept(t.Context()); waiting <- err }()
		l.Close()
		l.Close()
		if err := <-waiting; !errors.Is(err, wire.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		go accepted.Control().Write([]byte("alive"))
		if _, err := io.ReadFull(d.Control(), make([]byte, 5)); err != nil {
			t.Errorf("an accepted link died with its listener: %v", err)
		}
	})
}

func TestDialCancelled(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // completes TCP, not TLS
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	key, want := wiretest.Key(t), wiretest.Key(t).ID()
	for name, dial := range map[string]func(context.Context) (wire.Link, error){
		"quic": func(ctx context.Context) (wire.Link, error) {
			return wire.DialQUIC(ctx, packets(t), silent.LocalAddr(), key, one, want)
		},
		"tls": func(ctx context.Context) (wire.Link, error) {
			return wire.DialTLS(ctx, mute.Addr().String(), key, want)
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := dial(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: cancelled: %v", name, err)
		}
		cancel()
		_, err := dial(t.Context())
		if e, ok := errors.AsType[*wire.Error](err); !ok || !e.Retryable() || e.Code != wire.CodeUnreachable {
			t.Errorf("%s: no answer: %v", name, err)
		}
	}
}

// Clients that say nothing, at each stage, and garbage do not hold up a peer.
func TestSlowLoris(t *testing.T) {
	onEach(t, func(t *testing.T, tr transport) {
		a, b := wiretest.Key(t), wiretest.Key(t)
		l := tr.listen(t, b, wiretest.NewPeers(a.ID()), wire.ListenConfig{})
		for range 4 { // half of what one network may have open
			if tr.name == "tls" {
				conn, err := net.Dial("tcp", l.Addr())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				continue
			}
			mute, err := tr.dial(t, t.Context(), l, a, b.ID()) // no control stream ever
			if err != nil {
				t.Fatal(err)
			}
			defer mute.CloseWithError(wire.CodeOK, "")
		}
		if tr.name == "quic" {
			sprayGarbage(t, l.Addr())
		}
		start := time.Now()
		d, accepted := wiretest.Connect(t, l, func(ctx context.Context) (wire.Link, error) { return tr.dial(t, ctx, l, a, b.ID()) })
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("a peer had to wait %v", took)
		}
		d.CloseWithError(wire.CodeOK, "")
		accepted.CloseWithError(wire.CodeOK, "")
	})
}

// sprayGarbage sends datagrams that are no QUIC, or only look like it.
func sprayGarbage(t *testing.T, addr string) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 2000 {
		p := make([]byte, 1+i%1400)
		for j := range p {
			p[j] = byte(i * (j + 3))
		}
		if len(p) > 5 && i%2 == 0 {
			copy(p, []byte{0xc0, 0, 0, 0, 1}) // a long header of version 1
		}
		conn.Write(p) // a refused one is fine
	}
}
