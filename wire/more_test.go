package wire

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// These tests play a paired peer that lies about which link a connection
// belongs to, or has too many of them.

// morePeer is a dialer with one link, and what it needs to break the rules of
// further connections.
type morePeer struct {
	t      *testing.T
	key    *Key
	socket *Socket
	link   *quicLink // of the dialer
	far    *quicLink // the same, of the listener
}

// moreRig is a listener that admits anybody.
type moreRig struct {
	t   *testing.T
	key *Key
	l   Listener
	ref *Refusals
}

func newMoreRig(t *testing.T) *moreRig {
	t.Helper()
	key, _ := newKeys(t)
	pc, _, err := ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far := NewSocket(pc, key)
	ref := new(Refusals)
	l, err := far.Listen(allow(anybody), ListenConfig{Refusals: ref})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); far.Close() })
	return &moreRig{t: t, key: key, l: l, ref: ref}
}

// peer dials a link of n connections with key.
func (r *moreRig) peer(key *Key, n int) *morePeer {
	r.t.Helper()
	pc, _, err := ListenPacket("127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	p := &morePeer{t: r.t, key: key, socket: NewSocket(pc, key)}
	r.t.Cleanup(func() { p.socket.Close() })
	addr, err := net.ResolveUDPAddr("udp", r.l.Addr())
	if err != nil {
		r.t.Fatal(err)
	}
	link, err := p.socket.Dial(r.t.Context(), addr, DialConfig{Connections: n}, r.key.id)
	if err != nil {
		r.t.Fatal(err)
	}
	link.Control().Write([]byte{'!'})
	far, err := r.l.Accept(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	p.link, p.far = link.(*quicLink), far.(*quicLink)
	return p
}

// further makes a connection that says it is one of p's link, with a header of
// its own making.
func (p *morePeer) further(header func(conn *quic.Conn) []byte) (*quic.Conn, *quic.Stream) {
	p.t.Helper()
	conf, err := pinned(p.key, moreALPN, []ID{p.link.peer})
	if err != nil {
		p.t.Fatal(err)
	}
	conn, err := p.socket.connect(p.t.Context(), p.link.addr, conf, leastWindow)
	if err != nil {
		p.t.Fatal(err)
	}
	st, err := conn.OpenStream()
	if err != nil {
		p.t.Fatal(err)
	}
	st.Write(header(conn))
	return conn, st
}

// answer is nil when the listener has taken the connection into a link.
func answer(st *quic.Stream) error {
	st.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := io.ReadFull(st, make([]byte, 1))
	return err
}

// header is that of an honest dialer with this secret.
func (s *moreSecret) header(t *testing.T, conn *quic.Conn) []byte {
	proof, err := s.proof(conn)
	if err != nil {
		t.Fatal(err)
	}
	return moreHeader{s.name, proof}.append(nil)
}

func TestMoreHeader(t *testing.T) {
	h := moreHeader{moreName{1, 2}, [32]byte{3, 31: 4}}
	golden := "HBQ1\x01\x02" + strings.Repeat("\x00", 14) + "\x03" + strings.Repeat("\x00", 30) + "\x04"
	if got := string(h.append(nil)); got != golden {
		t.Fatalf("% x, want % x", got, golden)
	}
	if got, err := parseMore([moreHeaderLen]byte([]byte(golden))); err != nil || got != h {
		t.Errorf("%+v came back as %+v, %v", h, got, err)
	}
	if _, err := parseMore([moreHeaderLen]byte([]byte("HBQ2" + golden[4:]))); !errors.Is(err, ErrFrame) {
		t.Errorf("another magic: %v", err)
	}
	s := moreSecret{key: [32]byte{1}}
	const seal = "795989d500040a67"
	if got := s.seal([]byte("bound")); hex.EncodeToString(got[:8]) != seal {
		t.Errorf("proof %x, want %s...", got, seal)
	}
}

// A connection gets into a link with the link's own key, on itself, from the
// link's peer, and while the link lives. Refusing it costs no link anything.
func TestMoreStranger(t *testing.T) {
	a, _ := newKeys(t)
	other, _ := newKeys(t)
	r := newMoreRig(t)
	mine, theirs := r.peer(a, 1), r.peer(other, 1)
	second := r.peer(a, 1)
	honest := func(p *morePeer) func(*quic.Conn) []byte {
		return func(conn *quic.Conn) []byte { return p.link.secret.header(t, conn) }
	}
	var stolen []byte
	cases := []struct {
		name   string
		by     *morePeer
		header func(*quic.Conn) []byte
		code   Code // 0: it is taken
	}{
		{"honest", mine, func(conn *quic.Conn) []byte { stolen = mine.link.secret.header(t, conn); return stolen }, 0},
		{"replayed", mine, func(*quic.Conn) []byte { return stolen }, CodeUnauthorized},
		{"replayed by another", theirs, func(*quic.Conn) []byte { return stolen }, CodeUnauthorized},
		{"another peer who knows all", theirs, honest(mine), CodeUnauthorized},
		{"key of another link", mine, func(conn *quic.Conn) []byte {
			return (&moreSecret{second.link.secret.name, mine.link.secret.key}).header(t, conn)
		}, CodeUnauthorized},
		{"proof of zeros", mine, func(*quic.Conn) []byte { return moreHeader{name: mine.link.secret.name}.append(nil) }, CodeUnauthorized},
		{"not a header", mine, func(*quic.Conn) []byte { return make([]byte, moreHeaderLen) }, CodeFrame},
	}
	for _, c := range cases {
		conn, st := c.by.further(c.header)
		err := answer(st)
		if c.code == 0 {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if app, ok := errors.AsType[*quic.ApplicationError](err); !ok || Code(app.ErrorCode) != c.code {
			t.Errorf("%s: %v, want code %v", c.name, err, c.code)
			conn.CloseWithError(0, "")
		}
	}
	for _, p := range []*morePeer{mine, theirs, second} {
		if p.link.Err() != nil || p.far.Err() != nil {
			t.Errorf("a link ended: %v, %v", p.link.Err(), p.far.Err())
		}
	}
	if n := mine.far.Stats().Connections; n != 2 {
		t.Errorf("%d connections, want that of the honest", n)
	}
	if got, want := r.ref.Unknown.Load()+r.ref.Failed.Load(), uint64(len(cases)-1); got != want {
		t.Errorf("%d refusals counted, want %d", got, want)
	}
}

// After the end of its link, and without one, a connection waits for a link of
// that name and is refused.
func TestMoreWithoutLink(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 5 s: -short")
	}
	a, _ := newKeys(t)
	r := newMoreRig(t)
	gone, lives := r.peer(a, 2), r.peer(a, 1)
	gone.link.CloseWithError(CodeOK, "done")
	<-gone.far.Done()
	var wg sync.WaitGroup
	for name, header := range map[string]func(*quic.Conn) []byte{
		"ended":   func(conn *quic.Conn) []byte { return gone.link.secret.header(t, conn) },
		"unknown": func(*quic.Conn) []byte { return moreHeader{name: moreName{9}}.append(nil) },
		"silent":  func(*quic.Conn) []byte { return []byte(moreMagic) },
	} {
		_, st := lives.further(header)
		wg.Go(func() {
			if err := answer(st); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v, want a refusal", name, err)
			}
		})
	}
	wg.Wait()
	if lives.far.Err() != nil {
		t.Errorf("the living link ended: %v", lives.far.Err())
	}
}

// The listener keeps the number, whatever the dialer wants, and the link goes
// on with what it has.
func TestMoreTooMany(t *testing.T) {
	a, _ := newKeys(t)
	r := newMoreRig(t)
	want := MaxConnections
	if testing.Short() {
		want = 6
	}
	p := r.peer(a, want)
	n, s := p.far.Stats().Connections, p.link.Stats()
	if n != s.Connections || n < want && s.Fewer == "" || n < 2 {
		t.Fatalf("%d connections at the listener, %+v at the dialer", n, s)
	}
	p.far.mu.Lock()
	p.far.conns = append(p.far.conns, make([]*quic.Conn, MaxConnections-len(p.far.conns))...)
	p.far.mu.Unlock()
	_, st := p.further(func(conn *quic.Conn) []byte { return p.link.secret.header(t, conn) })
	if app, ok := errors.AsType[*quic.ApplicationError](answer(st)); !ok || Code(app.ErrorCode) != CodeLimit {
		t.Errorf("one more: %v", app)
	}
	p.far.mu.Lock()
	p.far.conns = p.far.conns[:n]
	p.far.mu.Unlock()
	if p.far.Err() != nil {
		t.Errorf("the link ended: %v", p.far.Err())
	}
	if _, err := p.socket.Dial(t.Context(), p.link.addr, DialConfig{Connections: MaxConnections + 1}, r.key.id); err == nil {
		t.Error("a dialer may ask for one more")
	}
	p.link.CloseWithError(CodeNoSpace, "full")
	<-p.far.Done()
	if e, ok := errors.AsType[*Error](p.far.Err()); !ok || e.Code != CodeNoSpace || !e.Remote {
		t.Errorf("the end of the link: %v", p.far.Err())
	}
}

// A listener that does not know further connections gets one only.
func TestMoreOldPeer(t *testing.T) {
	a, b := newKeys(t)
	pc, _, err := ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conf, err := listenConfig(b, allow(anybody), nil)
	if err != nil {
		t.Fatal(err)
	}
	far := NewSocket(pc, b)
	defer far.Close()
	far.tr.ConnContext, far.tr.VerifySourceAddress = nil, nil
	if _, err := far.tr.Listen(conf, far.quicConfig(1, firstWindow)); err != nil {
		t.Fatal(err)
	}
	near, _, err := ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link, err := DialQUIC(t.Context(), near, pc.LocalAddr(), a, DialConfig{Connections: 4}, b.id)
	if err != nil {
		t.Fatal(err)
	}
	defer link.CloseWithError(CodeOK, "")
	if s := link.Stats(); s.Connections != 1 || !strings.Contains(s.Fewer, "one connection") {
		t.Errorf("%+v", s)
	}
}

// The loss of any connection ends the link, at both ends, so that the session
// is resumed: what was on it is on no other.
func TestMoreLost(t *testing.T) {
	a, _ := newKeys(t)
	r := newMoreRig(t)
	for i := range 3 {
		p := r.peer(a, 3)
		p.link.conns[i].CloseWithError(quic.ApplicationErrorCode(CodeTimeout), "lost")
		<-p.link.Done()
		<-p.far.Done()
		for _, conn := range append(p.link.conns, p.far.conns...) {
			<-conn.Context().Done()
		}
		if e, ok := errors.AsType[*Error](p.far.Err()); !ok || !e.Retryable() {
			t.Errorf("connection %d: %v, want what is worth a retry", i, p.far.Err())
		}
	}
}

// Whatever connections a link has, in whatever order they want to grow: its
// promise holds, and each of the 64 has its share.
func TestBudget(t *testing.T) {
	for _, n := range []int{1, 2, 3, MaxConnections} {
		for _, early := range []bool{false, true} { // growth before the others come
			b := newBudget()
			windows := make([]uint64, n)
			grow := func() {
				for i := range windows {
					for windows[i] > 0 && windows[i] < maxConnWindow && b.take(min(windows[i], maxConnWindow-windows[i])) {
						windows[i] = min(2*windows[i], maxConnWindow)
					}
				}
			}
			var sum uint64
			for i := range windows {
				w := connWindow(i)
				if i == 1 && early {
					w = leastWindow // what is left
				}
				if !b.join(w) {
					t.Fatalf("connection %d of %d has no room", i, n)
				}
				if windows[i] = w; early {
					grow()
				}
			}
			grow()
			for _, w := range windows {
				sum += w
			}
			if sum > linkWindow || n == 1 && sum != maxConnWindow {
				t.Errorf("%d connections, early %v: %d bytes in all", n, early, sum)
			}
		}
	}
	if newBudget().join(firstWindow) && !newBudget().join(secondWindow) || (&budget{}).join(firstWindow) {
		t.Error("a window that is not there can be had")
	}
}

// A peer that never stops sending to a session that does not read is stopped
// at what the link promises, over all its connections, from either end.
func TestMoreBounded(t *testing.T) {
	numbers := []int{MaxDataStreams, 1, 2}
	if testing.Short() {
		numbers = numbers[:1]
	}
	for _, n := range numbers {
		a, _ := newKeys(t)
		p := newMoreRig(t).peer(a, n)
		for from, l := range map[string]*quicLink{"dialer": p.link, "listener": p.far} {
			if testing.Short() && l == p.far {
				continue
			}
			if total := flood(t, l, n); total > linkWindow+n*streamLead || total < n*leastWindow {
				t.Errorf("%d connections: %d bytes went out from the %s, at most %d may", n, total, from, linkWindow)
			}
		}
		p.link.CloseWithError(CodeOK, "")
	}
}

// streamLead is what quic-go takes of a Write before it has credit for it.
const streamLead = 4 << 10

// flood writes on a data stream of each connection until nothing goes any more,
// and gives the bytes that went.
func flood(t *testing.T, l *quicLink, n int) int {
	t.Helper()
	var mu sync.Mutex
	var total int
	var wg sync.WaitGroup
	chunk := bytes.Repeat([]byte("haulback"), 8<<10)
	for i, conn := range l.conns {
		wg.Go(func() {
			s, err := conn.OpenUniStreamSync(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			s.Write([]byte{byte(StreamData), byte(i), 0, 0})
			for {
				s.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				k, err := s.Write(chunk)
				mu.Lock()
				total += k
				mu.Unlock()
				if err != nil {
					if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.Canceled) {
						t.Errorf("write: %v", err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	return total
}
