package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// preambleLen is what a one-way stream of QUIC begins with: kind, index and
// two zero bytes.
const preambleLen = 4

// quicLink is a Link on one QUIC connection or several, all between the same
// two sockets. When one of them ends, the link does.
type quicLink struct {
	*ending
	socket  *Socket
	peer    ID
	addr    net.Addr   // where the peer was at first; QUIC may follow it elsewhere
	first   *quic.Conn // has the control stream; the link's keys are its keys
	secret  moreSecret
	control Stream
	opened  claims
	coming  arrivals
	came    atomic.Int32 // one-way streams of the peer, on all connections
	windows *budget

	mu    sync.Mutex
	conns []*quic.Conn // first is first; all that end with the link
	using int          // of conns, the first: both ends know that they belong to it
	fewer string       // why there are fewer than were asked for
}

// newQUICLink makes a link of an authenticated connection that began with
// window. All that runs for a link ends with its connections.
func newQUICLink(s *Socket, conn *quic.Conn, peer ID, window uint64) (*quicLink, error) {
	secret, err := newMoreSecret(conn)
	if err != nil {
		return nil, err
	}
	l := &quicLink{ending: newEnding(), socket: s, peer: peer, addr: conn.RemoteAddr(), first: conn, secret: secret, windows: newBudget()}
	if err := l.add(conn, window); err != nil {
		return nil, err
	}
	return l, l.use(conn)
}

// setControl makes the link complete.
func (l *quicLink) setControl(control *quic.Stream) {
	l.control = &stream{in: control, out: quicWriter{control}, explain: l.explain}
}

// add makes conn end with the link. It is not used yet.
func (l *quicLink) add(conn *quic.Conn, window uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	if len(l.conns) == MaxConnections || !l.windows.join(window) {
		return Errorf(CodeLimit, "no more than %d connections in %d MiB", len(l.conns), linkWindow>>20)
	}
	l.conns = append(l.conns, conn)
	l.socket.enter(conn, l.windows)
	context.AfterFunc(conn.Context(), func() {
		if l.lost(conn) {
			l.fail(l.reason(context.Cause(conn.Context())))
		}
		l.socket.leave(conn)
	})
	return nil
}

// use lets streams come and go on conn; from here on the link needs it.
func (l *quicLink) use(conn *quic.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.conns, conn)
	if i < 0 {
		return l.reason(context.Cause(conn.Context()))
	}
	l.conns[i], l.conns[l.using] = l.conns[l.using], l.conns[i]
	l.using++
	go l.acceptStreams(conn)
	return nil
}

// lost reports whether the link needed conn, which has ended.
func (l *quicLink) lost(conn *quic.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.conns, conn)
	if i < l.using {
		return true
	}
	l.conns = slices.Delete(l.conns, i, i+1)
	return false
}

// lacks keeps the first reason why there are fewer connections than asked for.
func (l *quicLink) lacks(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fewer == "" {
		l.fewer = clean(err.Error())
	}
}

func (l *quicLink) Peer() ID           { return l.peer }
func (l *quicLink) RemoteAddr() string { return l.first.RemoteAddr().String() }
func (l *quicLink) Transport() string  { return "quic" }
func (l *quicLink) Control() Stream    { return l.control }

// Stats implements Link.
func (l *quicLink) Stats() LinkStats {
	l.mu.Lock()
	conns, fewer := slices.Clone(l.conns[:l.using]), l.fewer
	l.mu.Unlock()
	sum := LinkStats{Connections: len(conns), Fewer: fewer, Control: "reno"}
	for _, conn := range conns {
		st := conn.ConnectionStats()
		sum.Sent += st.PacketsSent
		sum.Lost += st.PacketsLost
		if conn == l.first {
			sum.RTT, sum.MinRTT = st.SmoothedRTT, st.MinRTT
		}
	}
	return sum
}

// reason is the error that ended the connection, in our words.
func (l *quicLink) reason(err error) error {
	return explainQUIC(err, l.addr, l.socket.key.id)
}

// explain prefers why the link ended to what that did to a stream. quic-go
// tells streams a moment before the connection's context, and all errors that
// end a connection, and no others, are net.ErrClosed; waiting for the end makes
// Err agree with what a call returned.
func (l *quicLink) explain(err error) error {
	if errors.Is(err, net.ErrClosed) {
		<-l.done
	}
	if ended := l.Err(); ended != nil {
		return ended
	}
	return l.reason(err)
}

// quicWriter gives quic-go's Close its name in Stream.
type quicWriter struct{ quicSendStream }

type quicSendStream interface {
	io.WriteCloser
	SetWriteDeadline(time.Time) error
}

func (w quicWriter) CloseWrite() error { return w.Close() }

func (l *quicLink) OpenSend(ctx context.Context, id StreamID) (Stream, error) {
	if err := l.Err(); err != nil { // its connections may be about to end
		return nil, err
	}
	if err := l.opened.take(id); err != nil {
		return nil, err
	}
	s, err := l.carrier(id).OpenUniStreamSync(ctx)
	if err != nil {
		l.opened.drop(id)
		return nil, l.explain(err)
	}
	// This never waits: four bytes fit the packet that is being filled.
	if _, err := s.Write([]byte{byte(id.Kind), id.Index, 0, 0}); err != nil {
		return nil, l.explain(err)
	}
	return &stream{out: quicWriter{s}, explain: l.explain}, nil
}

// carrier is the connection that a stream goes on: data are spread over all.
func (l *quicLink) carrier(id StreamID) *quic.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id.Kind != StreamData {
		return l.first
	}
	return l.conns[int(id.Index)%l.using]
}

func (l *quicLink) OpenReceive(ctx context.Context, id StreamID) (Stream, error) {
	return l.coming.wait(ctx, id, l.ending)
}

// acceptStreams takes the peer's streams until conn ends. A stream that is slow
// to say what it is does not hold up the next.
func (l *quicLink) acceptStreams(conn *quic.Conn) {
	for {
		s, err := conn.AcceptUniStream(conn.Context())
		if err != nil {
			return
		}
		if l.came.Add(1) > maxOneWay {
			l.CloseWithError(CodeFrame, "more streams than there are names")
			return
		}
		go l.acceptStream(s)
	}
}

// acceptStream reads the preamble. Whatever is wrong with it ends the link: a
// paired peer that breaks the protocol has a bug that must be seen.
func (l *quicLink) acceptStream(s *quic.ReceiveStream) {
	s.SetReadDeadline(time.Now().Add(openTimeout))
	var p [preambleLen]byte
	if _, err := io.ReadFull(s, p[:]); err != nil {
		if !errors.Is(err, net.ErrClosed) { // the connection has ended
			l.CloseWithError(CodeFrame, fmt.Sprintf("stream without a preamble: %v", err))
		}
		return
	}
	s.SetReadDeadline(time.Time{})
	id := StreamID{Kind: StreamKind(p[0]), Index: p[1]}
	if binary.BigEndian.Uint16(p[2:]) != 0 {
		l.CloseWithError(CodeFrame, fmt.Sprintf("stream preamble % x", p))
		return
	}
	if err := l.coming.arrive(id, &stream{in: s, explain: l.explain}); err != nil {
		l.CloseWithError(CodeFrame, err.Error())
	}
}

func (l *quicLink) ExportKey(label string, context []byte, n int) ([]byte, error) {
	state := l.first.ConnectionState().TLS
	return state.ExportKeyingMaterial(label, context, n)
}

func (l *quicLink) CloseWithError(code Code, text string) {
	l.fail(closedHere(code, text))
}

// fail ends the link and its connections, and tells the peer why on each.
func (l *quicLink) fail(err error) {
	if !l.end(err) {
		return
	}
	e := AsError(err, CodeInternal)
	l.mu.Lock()
	conns := slices.Clone(l.conns)
	l.mu.Unlock()
	for _, conn := range conns {
		conn.CloseWithError(quic.ApplicationErrorCode(e.Code), clean(e.Text))
	}
}

// acceptControl waits for the stream that the dialer opens first, on an accepted
// connection.
func acceptControl(ctx context.Context, conn *quic.Conn) (*quic.Stream, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, os.ErrDeadlineExceeded)
	defer cancel()
	control, err := conn.AcceptStream(ctx)
	if err != nil && context.Cause(ctx) == os.ErrDeadlineExceeded {
		return nil, Errorf(CodeTimeout, "no control stream within %v", openTimeout)
	}
	return control, err
}
