package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/quic-go/quic-go"
)

// preambleLen is what a one-way stream of QUIC begins with: kind, index and
// two zero bytes.
const preambleLen = 4

// quicLink is a Link on one QUIC connection.
type quicLink struct {
	*ending
	conn    *quic.Conn
	socket  *Socket
	peer    ID
	addr    net.Addr // where the peer was at first; QUIC may follow it elsewhere
	control Stream
	opened  claims
	coming  arrivals
}

func newQUICLink(s *Socket, conn *quic.Conn, peer ID) *quicLink {
	return &quicLink{ending: newEnding(), conn: conn, socket: s, peer: peer, addr: conn.RemoteAddr()}
}

// start makes the link live; the socket's reference on it is held already.
// All that runs for a link ends with its connection.
func (l *quicLink) start(control *quic.Stream) {
	l.control = &stream{in: control, out: quicWriter{control}, explain: l.explain}
	l.watch()
	go l.acceptStreams()
}

// watch ends the link when the connection has ended.
func (l *quicLink) watch() {
	context.AfterFunc(l.conn.Context(), func() {
		l.end(l.reason(context.Cause(l.conn.Context())))
		l.socket.release()
	})
}

func (l *quicLink) Peer() ID           { return l.peer }
func (l *quicLink) RemoteAddr() string { return l.conn.RemoteAddr().String() }
func (l *quicLink) Transport() string  { return "quic" }
func (l *quicLink) Control() Stream    { return l.control }

// Stats implements Link.
func (l *quicLink) Stats() LinkStats {
	st := l.conn.ConnectionStats()
	return LinkStats{RTT: st.SmoothedRTT, Connections: 1, Sent: st.PacketsSent, Lost: st.PacketsLost, Control: "reno"}
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
	if err := l.opened.take(id); err != nil {
		return nil, err
	}
	s, err := l.conn.OpenUniStreamSync(ctx)
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

func (l *quicLink) OpenReceive(ctx context.Context, id StreamID) (Stream, error) {
	return l.coming.wait(ctx, id, l.ending)
}

// acceptStreams takes the peer's streams until the connection ends. A stream
// that is slow to say what it is does not hold up the next.
func (l *quicLink) acceptStreams() {
	for {
		s, err := l.conn.AcceptUniStream(l.conn.Context())
		if err != nil {
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
		if l.conn.Context().Err() == nil {
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
	state := l.conn.ConnectionState().TLS
	return state.ExportKeyingMaterial(label, context, n)
}

func (l *quicLink) CloseWithError(code Code, text string) {
	text = clean(text)
	if l.end(closedHere(code, text)) {
		l.conn.CloseWithError(quic.ApplicationErrorCode(code), text)
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
