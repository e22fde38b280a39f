package site

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

// far is a daemon at one address of this machine.
type far struct {
	t       *testing.T
	address string
	key     *wire.Key
	own     *wire.Key // who dials
	peers   *wiretest.Peers
}

// newFar takes an address; UDP and TCP of it say what is behind.
func newFar(t *testing.T) (*far, net.PacketConn, net.Listener) {
	t.Helper()
	f := &far{t: t}
	for _, k := range []**wire.Key{&f.key, &f.own} {
		var err error
		if *k, err = wire.NewKey(); err != nil {
			t.Fatal(err)
		}
	}
	f.peers = wiretest.NewPeers(f.own.ID())
	for range 20 { // the port of one may be taken of the other
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, _, err := wire.ListenPacket(tcp.Addr().String())
		if err != nil {
			tcp.Close()
			continue
		}
		f.address = tcp.Addr().String()
		t.Cleanup(func() { tcp.Close(); udp.Close() })
		return f, udp, tcp
	}
	t.Fatal("no port is free of both")
	return nil, nil, nil
}

// serve takes links off l until the test ends.
func (f *far) serve(l wire.Listener, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			if _, err := l.Accept(context.Background()); err != nil {
				return
			}
		}
	}()
}

func (f *far) quic(udp net.PacketConn) {
	f.serve(wire.ListenQUIC(udp, f.key, f.peers, wire.ListenConfig{}))
}

func (f *far) tls(tcp net.Listener) {
	f.serve(wire.ListenTLS(tcp, f.key, f.peers, wire.ListenConfig{}))
}

// dial makes a link of d to f, which ends with the test.
func (f *far) dial(d *Dialer, transport string) (*routed, error) {
	f.t.Helper()
	link, err := d.Dial(f.t.Context(), transport, f.address, f.own, f.key.ID())
	if err != nil {
		return nil, err
	}
	f.t.Cleanup(func() { link.CloseWithError(wire.CodeOK, ""); d.Close() })
	return link.(*routed), nil
}

func (f *far) want(d *Dialer, transport string, words ...string) {
	f.t.Helper()
	link, err := f.dial(d, Auto)
	if err != nil {
		f.t.Fatalf("auto: %v", err)
	}
	if link.Transport() != transport {
		f.t.Errorf("auto went over %s (%s), want %s", link.Transport(), link.Why(), transport)
	}
	for _, w := range words {
		if !strings.Contains(link.Why(), w) {
			f.t.Errorf("the reason is %q, without %q", link.Why(), w)
		}
	}
}

func TestAutoTCPOnly(t *testing.T) {
	t.Parallel()
	f, _, tcp := newFar(t) // UDP is read by nobody
	f.tls(tcp)
	d := new(Dialer)
	f.want(d, TLS, "UDP")
	if l, ok := d.recall(&place{f.address, f.own, []wire.ID{f.key.ID()}}); !ok || l.route.Transport != TLS {
		t.Errorf("%+v is remembered, want tls", l)
	}
	f.want(d, TLS, "UDP")
}

func TestAutoUDPOnly(t *testing.T) {
	t.Parallel()
	f, udp, tcp := newFar(t)
	f.quic(udp)
	d := new(Dialer)
	// It takes connections, by the kernel, and says nothing: a firewall that
	// swallows what belongs to no connection looks like it.
	f.want(d, QUIC, "answered first")
	tcp.Close()
	f.want(d, QUIC, "answered first")
	f.want(new(Dialer), QUIC, "answered first")
}

// TestAutoNear: TLS is taken where both answer and the path is short. A machine
// with better things to do may keep the handshake beyond the grace.
func TestAutoNear(t *testing.T) {
	t.Parallel()
	f, udp, tcp := newFar(t)
	f.quic(udp)
	f.tls(tcp)
	d := new(Dialer)
	p := &place{f.address, f.own, []wire.ID{f.key.ID()}}
	for range 50 {
		link, err := f.dial(d, Auto)
		if err != nil {
			t.Fatal(err)
		}
		if link.Transport() == TLS {
			if !strings.Contains(link.Why(), "CPU") {
				t.Errorf("tls because of %q", link.Why())
			}
			f.want(d, TLS, "CPU") // without a look at QUIC
			return
		}
		d.learn(p, lesson{route: mover.Route{Transport: QUIC}}) // forget it
		d.mu.Lock()
		delete(d.known, p.name())
		d.mu.Unlock()
	}
	t.Error("50 times TLS did not come on loopback")
}

func TestAutoBothDead(t *testing.T) {
	t.Parallel()
	f, _, tcp := newFar(t)
	tcp.Close()
	d := new(Dialer)
	_, err := d.Dial(t.Context(), Auto, f.address, f.own, f.key.ID())
	if err == nil || !strings.Contains(err.Error(), "neither UDP nor TCP") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the error is %v, want one that tells of both", err)
	}
	if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.CodeUnreachable {
		t.Errorf("%v is not %v", err, wire.CodeUnreachable)
	}
	d.Close()
}

// TestAutoWrongPeer: a stranger at the address is no reason to ask him again.
func TestAutoWrongPeer(t *testing.T) {
	t.Parallel()
	f, udp, tcp := newFar(t)
	f.quic(udp)
	f.tls(tcp)
	d := new(Dialer)
	_, err := d.Dial(t.Context(), Auto, f.address, f.own, f.own.ID())
	if !errors.Is(err, wire.ErrUnknownPeer) || strings.Contains(err.Error(), "neither") {
		t.Errorf("the error is %v, want one about the key, once", err)
	}
	if _, err := d.Dial(t.Context(), Auto, "nowhere.invalid:1", f.own, f.key.ID()); err == nil || strings.Contains(err.Error(), "neither") {
		t.Errorf("the error is %v, want one about the name, once", err)
	}
	d.Close()
}

func TestReroute(t *testing.T) {
	t.Parallel()
	f, udp, tcp := newFar(t)
	f.quic(udp)
	f.tls(tcp)
	d := new(Dialer)
	d.learn(&place{f.address, f.own, []wire.ID{f.key.ID()}}, lesson{route: mover.Route{Transport: QUIC}, silent: true})
	link, err := f.dial(d, Auto)
	if err != nil || link.Transport() != QUIC {
		t.Fatalf("%v, %v: want a link over quic", link, err)
	}
	if !link.May(mover.Route{Transport: TLS}) {
		t.Error("auto may not go over tls")
	}
	next, err := link.Reroute(t.Context(), mover.Route{Transport: TLS}, "loss")
	if err != nil {
		t.Fatal(err)
	}
	defer next.CloseWithError(wire.CodeOK, "")
	if r := next.(mover.Rerouter); next.Transport() != TLS || r.Why() != "loss" {
		t.Errorf("rerouted over %s because of %q", next.Transport(), r.Why())
	}
	f.want(d, TLS, "loss") // remembered
	only, err := f.dial(d, QUIC)
	if err != nil {
		t.Fatal(err)
	}
	if only.May(mover.Route{Transport: TLS}) || only.Why() != "" {
		t.Errorf("quic was asked for: may tls %v, why %q", only.May(mover.Route{Transport: TLS}), only.Why())
	}
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	f, udp, _ := newFar(t)
	f.quic(udp)
	no := errors.New("no")
	d := &Dialer{Admit: func(wire.Link) error { return no }}
	if _, err := d.Dial(t.Context(), QUIC, f.address, f.own, f.key.ID()); !errors.Is(err, no) {
		t.Errorf("a link that is not admitted: %v", err)
	}
	d.Close()
}
