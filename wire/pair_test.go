package wire_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

// invitation is an Inviter with one code.
type invitation struct {
	mu    sync.Mutex
	key   [sha256.Size]byte
	open  bool
	tries int
	by    *wire.Applicant
	err   error // what to say to one with the right code
}

func (i *invitation) Inviting() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.open
}

func (i *invitation) Joins(_ context.Context, a *wire.Applicant) (key [sha256.Size]byte, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tries++
	if !i.open || !a.Knows(i.key) {
		return key, wire.Errorf(wire.CodeUnauthorized, "wrong code")
	}
	if i.err != nil {
		return key, i.err
	}
	i.open, i.by = false, a
	return i.key, nil
}

// paired is who joined, nil for nobody, and how many tried.
func (i *invitation) paired() (*wire.Applicant, int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.by, i.tries
}

func (i *invitation) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
}

func newInvitation(t *testing.T, id wire.ID) (*invitation, wire.PairCode) {
	t.Helper()
	code, err := wire.NewPairCode(id, "")
	if err != nil {
		t.Fatal(err)
	}
	return &invitation{key: code.Key(), open: true}, code
}

// pair joins l's end over tr.
func pair(t *testing.T, tr transport, l wire.Listener, key *wire.Key, code wire.PairCode, address string) (wire.ID, error) {
	t.Helper()
	if tr.name == "tls" {
		return wire.PairTLS(t.Context(), l.Addr(), key, code, address, "test")
	}
	return wire.PairQUIC(t.Context(), packets(t), udpAddr(t, l), key, code, address, "test")
}

func TestPair(t *testing.T) {
	onEach(t, func(t *testing.T, tr transport) {
		a, b := wiretest.Key(t), wiretest.Key(t)
		inv, code := newInvitation(t, b.ID())
		l := tr.listen(t, b, wiretest.NewPeers(), wire.ListenConfig{Inviter: inv})
		id, err := pair(t, tr, l, a, code, "a:7420")
		if err != nil || id != b.ID() {
			t.Fatalf("got %v, %v", id, err)
		}
		if by, _ := inv.paired(); by == nil || by.ID != a.ID() || by.Address != "a:7420" || by.Agent != "test" {
			t.Fatalf("the inviter knows %+v", by)
		}
		// The invitation is used up: the next is refused by the handshake.
		if _, err := pair(t, tr, l, wiretest.Key(t), code, ""); !errors.Is(err, wire.ErrUnknownPeer) || !strings.Contains(err.Error(), "no invitation is open") {
			t.Fatalf("a second joiner: %v", err)
		}
		if _, tries := inv.paired(); tries != 1 {
			t.Fatalf("%d asked", tries)
		}
	})
}

func TestPairRefused(t *testing.T) {
	onEach(t, func(t *testing.T, tr transport) {
		a, b := wiretest.Key(t), wiretest.Key(t)
		inv, code := newInvitation(t, b.ID())
		l := tr.listen(t, b, wiretest.NewPeers(), wire.ListenConfig{Inviter: inv})

		_, other := newInvitation(t, b.ID())
		_, err := pair(t, tr, l, a, other, "")
		if e, ok := errors.AsType[*wire.Error](err); !ok || !e.Remote || e.Code != wire.CodeUnauthorized || e.Text != "wrong code" {
			t.Errorf("a wrong secret: %v", err)
		}
		_, stranger := newInvitation(t, wiretest.Key(t).ID())
		if _, err = pair(t, tr, l, a, stranger, ""); !errors.Is(err, wire.ErrUnknownPeer) {
			t.Errorf("a code of another inviter: %v", err)
		}
		inv.fail(wire.Errorf(wire.CodeNoSpace, "full"))
		_, err = pair(t, tr, l, a, code, "")
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeNoSpace {
			t.Errorf("an inviter that cannot: %v", err)
		}
		// A listener that never pairs has no such protocol.
		deaf := tr.listen(t, b, wiretest.NewPeers(), wire.ListenConfig{})
		if _, err = pair(t, tr, deaf, a, code, ""); !errors.Is(err, wire.ErrVersion) {
			t.Errorf("no pairing there: %v", err)
		}
		if by, _ := inv.paired(); by != nil {
			t.Errorf("paired with %v", by.ID)
		}
	})
}

// TestPairGivesNothingElse is an unknown key with an open invitation: it gets
// no link, and one who is paired gets one all the same.
func TestPairGivesNothingElse(t *testing.T) {
	onEach(t, func(t *testing.T, tr transport) {
		a, b := wiretest.Key(t), wiretest.Key(t)
		inv, _ := newInvitation(t, b.ID())
		l := tr.listen(t, b, wiretest.NewPeers(a.ID()), wire.ListenConfig{Inviter: inv})
		if err := firstError(tr.dial(t, t.Context(), l, wiretest.Key(t), b.ID())); !errors.Is(err, wire.ErrUnknownPeer) {
			t.Errorf("an unknown key: %v", err)
		}
		link, err := tr.dial(t, t.Context(), l, a, b.ID())
		if err != nil {
			t.Fatal(err)
		}
		defer link.CloseWithError(wire.CodeOK, "")
		link.Control().Write([]byte{1})
		if _, err := l.Accept(t.Context()); err != nil {
			t.Errorf("a paired key: %v", err)
		}
	})
}

// hostile connects with the pairing protocol and says what it likes.
func hostile(t *testing.T, l wire.Listener) *tls.Conn {
	t.Helper()
	conf, err := wire.HostileConfig(wiretest.Key(t))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", l.Addr(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func TestPairHostile(t *testing.T) {
	b := wiretest.Key(t)
	inv, _ := newInvitation(t, b.ID())
	refusals := new(wire.Refusals)
	l := listenTLS(t, b, wiretest.NewPeers(), wire.ListenConfig{Inviter: inv, Refusals: refusals})
	long := append([]byte{32, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 256)...)
	for name, said := range map[string][]byte{
		"garbage":           []byte("GET / HTTP/1.1\r\n\r\n"),
		"a Hello":           wire.AppendFrame(nil, &wire.Hello{Op: wire.OpProbe, Mode: wire.ModeVerify, Export: "vm1"}),
		"too long":          {32, 0, 0, 0, 0, 0, 0x10, 0},
		"fields missing":    {32, 0, 0, 0, 0, 0, 0, 32},
		"a wrong body":      long,
		"a wrong proof":     wire.AppendFrame(nil, &wire.Join{Agent: "x"}),
		"two wrong proofs":  append(wire.AppendFrame(nil, &wire.Join{}), wire.AppendFrame(nil, &wire.Join{})...),
		"a header of links": append(make([]byte, 4), []byte("HBT1")...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := hostile(t, l)
			if _, err := conn.Write(said); err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(conn) // until it hangs up: within pairTimeout
			if len(got) > 0 && got[0] != byte(wire.TypeError) {
				t.Errorf("answered % x", got)
			}
		})
	}
	t.Cleanup(func() {
		if by, _ := inv.paired(); by != nil || refusals.Failed.Load()+refusals.Unknown.Load() == 0 {
			t.Errorf("paired %v, %d refusals", by, refusals.Failed.Load())
		}
	})
}

// TestPairRelay puts somebody between: he has both connections, passes every
// byte on, and gains nothing.
func TestPairRelay(t *testing.T) {
	a, b, m := wiretest.Key(t), wiretest.Key(t), wiretest.Key(t)
	inv, code := newInvitation(t, b.ID())
	l := listenTLS(t, b, wiretest.NewPeers(), wire.ListenConfig{Inviter: inv})
	conf, err := wire.HostileConfig(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.PairTLS(t.Context(), relay(t, l, conf), a, code, "", ""); !errors.Is(err, wire.ErrUnknownPeer) {
		t.Errorf("through another key: %v", err)
	}
	// A joiner that does not look at the key proves the code to nobody else.
	blind, err := wire.HostileConfig(a)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", relay(t, l, conf), blind)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = wire.JoinAnyone(conn, a, code)
	by, tries := inv.paired()
	if err == nil || by != nil {
		t.Errorf("a relay paired: %v, %v", err, by)
	}
	if tries != 1 {
		t.Errorf("the inviter was asked %d times", tries)
	}
}

// relay passes the bytes of one connection on to l and back, inside TLS.
func relay(t *testing.T, l wire.Listener, conf *tls.Config) (addr string) {
	t.Helper()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		front.Close()
		wg.Wait()
	})
	wg.Go(func() {
		tcp, err := front.Accept()
		if err != nil {
			return
		}
		in := tls.Server(tcp, conf)
		defer in.Close()
		out, err := tls.Dial("tcp", l.Addr(), conf)
		if err != nil {
			return
		}
		wg.Go(func() {
			io.Copy(out, in)
			out.Close()
		})
		io.Copy(in, out)
	})
	return front.Addr().String()
}

// TestTwoPins dials a peer that is about to change its key.
func TestTwoPins(t *testing.T) {
	onEach(t, func(t *testing.T, tr transport) {
		a, old, next := wiretest.Key(t), wiretest.Key(t), wiretest.Key(t)
		for _, now := range []*wire.Key{old, next} {
			l := tr.listen(t, now, wiretest.NewPeers(a.ID()), wire.ListenConfig{})
			var link wire.Link
			var err error
			if tr.name == "tls" {
				link, err = wire.DialTLS(t.Context(), l.Addr(), a, old.ID(), next.ID())
			} else {
				link, err = wire.DialQUIC(t.Context(), packets(t), udpAddr(t, l), a, one, old.ID(), next.ID())
			}
			if err != nil {
				t.Fatal(err)
			}
			if link.Peer() != now.ID() {
				t.Errorf("the link says %v, the peer is %v", link.Peer(), now.ID())
			}
			link.CloseWithError(wire.CodeOK, "")
		}
		l := tr.listen(t, wiretest.Key(t), wiretest.NewPeers(a.ID()), wire.ListenConfig{})
		var err error
		if tr.name == "tls" {
			_, err = wire.DialTLS(t.Context(), l.Addr(), a, old.ID(), next.ID())
		} else {
			_, err = wire.DialQUIC(t.Context(), packets(t), udpAddr(t, l), a, one, old.ID(), next.ID())
		}
		if !errors.Is(err, wire.ErrUnknownPeer) {
			t.Errorf("a third key: %v", err)
		}
	})
}
