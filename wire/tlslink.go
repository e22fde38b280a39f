package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tlsLink is a Link on TLS connections over TCP, one per stream. The end that
// dialed the first dials the others as well; the other end waits for them.
type tlsLink struct {
	*ending
	wire    *controlConn
	control Stream
	peer    ID
	self    ID
	addr    net.Addr
	token   attachToken
	pumped  chan struct{} // closed when the pump has returned

	dial  *tlsDialer // nil at the listening end
	onEnd func()     // may be nil; set before start

	opened   claims   // dialer: OpenSend
	received claims   // dialer: OpenReceive
	sending  arrivals // listener: connections for OpenSend
	coming   arrivals // listener: connections for OpenReceive

	mu    sync.Mutex
	conns []*tls.Conn // of the one-way streams
}

// newTLSLink makes a link of an authenticated control connection.
func newTLSLink(conn *tls.Conn, peer, self ID) (*tlsLink, error) {
	state := conn.ConnectionState()
	token, err := state.ExportKeyingMaterial(attachLabel, nil, len(attachToken{}))
	if err != nil {
		return nil, err
	}
	l := &tlsLink{ending: newEnding(), peer: peer, self: self, addr: conn.RemoteAddr(), token: attachToken(token), pumped: make(chan struct{})}
	l.wire = newControlConn(conn, l.done)
	l.control = &stream{in: l.wire, out: l.wire, explain: l.explain}
	return l, nil
}

// start runs the pump, which ends with the control connection.
func (l *tlsLink) start() {
	go func() {
		defer close(l.pumped)
		err := l.wire.pump()
		if l.end(explainTLS(err, l.addr, l.self)) {
			l.hangUp()
		}
	}()
}

func (l *tlsLink) Peer() ID           { return l.peer }
func (l *tlsLink) RemoteAddr() string { return l.addr.String() }
func (l *tlsLink) Transport() string  { return "tls" }
func (l *tlsLink) Control() Stream    { return l.control }

// Stats implements Link, by the kernel's TCP_INFO.
func (l *tlsLink) Stats() LinkStats {
	s := LinkStats{}
	if info, cc, ok := tcpInfo(l.wire.conn.NetConn()); ok {
		s.RTT, s.MinRTT, s.Control = time.Duration(info.Rtt)*time.Microsecond, time.Duration(info.Min_rtt)*time.Microsecond, cc
		s.count(info)
	}
	s.Connections = 1
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		s.Connections++
		if info, _, ok := tcpInfo(conn.NetConn()); ok {
			s.count(info)
		}
	}
	return s
}

func (s *LinkStats) count(info *unix.TCPInfo) {
	s.Sent += uint64(info.Data_segs_out)
	s.Lost += uint64(info.Total_retrans)
}

// verdictTimeout is how long a stream whose connection broke waits for the
// reason to arrive on the control connection, on which it was sent first.
const verdictTimeout = 2 * time.Second

// explain is for errors of streams. A deadline is the caller's own; anything
// else means that a connection is broken, and that ends the link.
func (l *tlsLink) explain(err error) error {
	if ended := l.Err(); ended != nil {
		return ended
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	select {
	case <-l.done:
	case <-time.After(verdictTimeout):
		if l.end(explainTLS(err, l.addr, l.self)) {
			l.hangUp()
		}
	}
	return l.Err()
}

func (l *tlsLink) OpenSend(ctx context.Context, id StreamID) (Stream, error) {
	if l.dial == nil {
		return l.sending.wait(ctx, id, l.ending)
	}
	if err := l.opened.take(id); err != nil {
		return nil, err
	}
	conn, err := l.attach(ctx, attachHeader{id: id, token: l.token})
	if err != nil {
		l.opened.drop(id)
		return nil, err
	}
	return &stream{out: conn, explain: l.explain}, nil
}

func (l *tlsLink) OpenReceive(ctx context.Context, id StreamID) (Stream, error) {
	if l.dial == nil {
		return l.coming.wait(ctx, id, l.ending)
	}
	if err := l.received.take(id); err != nil {
		return nil, err
	}
	conn, err := l.attach(ctx, attachHeader{id: id, reverse: true, token: l.token})
	if err != nil {
		l.received.drop(id)
		return nil, err
	}
	return &stream{in: conn, explain: l.explain}, nil
}

// attach dials one more connection for the link.
func (l *tlsLink) attach(ctx context.Context, h attachHeader) (*tls.Conn, error) {
	if err := l.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-l.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := l.dial.connect(ctx, h)
	if err == nil {
		err = l.keep(conn)
	}
	if ended := l.Err(); err != nil && ended != nil {
		return nil, ended
	}
	return conn, err
}

// keep makes conn end with the link.
func (l *tlsLink) keep(conn *tls.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.Err(); err != nil {
		conn.NetConn().Close()
		return err
	}
	l.conns = append(l.conns, conn)
	return nil
}

// arrive takes a connection that the dialer attached.
func (l *tlsLink) arrive(h attachHeader, conn *tls.Conn) error {
	if err := l.keep(conn); err != nil {
		return err
	}
	if h.reverse {
		return l.sending.arrive(h.id, &stream{out: conn, explain: l.explain})
	}
	return l.coming.arrive(h.id, &stream{in: conn, explain: l.explain})
}

func (l *tlsLink) ExportKey(label string, context []byte, n int) ([]byte, error) {
	state := l.wire.conn.ConnectionState()
	return state.ExportKeyingMaterial(label, context, n)
}

func (l *tlsLink) CloseWithError(code Code, text string) {
	e := closedHere(code, text)
	if l.end(e) {
		l.interrupt()
		if l.dial != nil { // a program that dials may be about to exit
			l.sayGoodbye(e)
			return
		}
		go l.sayGoodbye(e)
	}
}

// interrupt makes the calls that wait on one-way streams return. The
// connections stay: their end must not overtake the reason.
func (l *tlsLink) interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		conn.NetConn().SetDeadline(time.Unix(1, 0))
	}
}

// sayGoodbye sends the reason, then waits until the peer has hung up: closing
// a TCP connection with unread bytes resets it, and the peer would lose what
// it has not read yet. A peer that does not answer gets the reset: the reason
// stands behind bytes that its session does not read.
func (l *tlsLink) sayGoodbye(e *Error) {
	l.wire.sayClose(e)
	select {
	case <-l.pumped:
	case <-time.After(goodbyeTimeout):
		resetOnClose(l.wire.conn.NetConn())
	}
	l.hangUp()
}

// goodbyeTimeout is several round trips of a bad line.
const goodbyeTimeout = 2 * time.Second

// hangUp closes all connections; whoever ended the link calls it, once. What
// waits to be sent on a one-way stream is of no use to anybody any more.
func (l *tlsLink) hangUp() {
	if l.onEnd != nil {
		l.onEnd()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		resetOnClose(conn.NetConn())
		conn.NetConn().Close()
	}
	l.wire.conn.NetConn().Close()
}
