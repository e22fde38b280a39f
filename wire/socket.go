package wire

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// Socket runs QUIC on one packet connection: any number of dialed links, and
// at most one listener, share it. Close ends them all.
type Socket struct {
	key *Key
	pc  net.PacketConn
	tr  *quic.Transport
	// backlog is nil where pc is not a PacketConn.
	backlog *backlog

	mu      sync.Mutex
	users   int  // links and the listener
	private bool // closes itself after its last user
	guard   *guard
}

// NewSocket takes pc over: nothing else may use it, and Close closes it. A
// *PacketConn is meant; anything else works with less speed.
func NewSocket(pc net.PacketConn, key *Key) *Socket {
	// The same key after a restart lets peers notice the restart at once
	// instead of after the idle timeout.
	reset := quic.StatelessResetKey(key.derive("haulback quic stateless reset"))
	s := &Socket{key: key, pc: pc}
	s.tr = &quic.Transport{Conn: pc, StatelessResetKey: &reset, VerifySourceAddress: s.mustProve, ConnContext: s.admit}
	if c, ok := pc.(*PacketConn); ok {
		c.attach(s.tr)
		s.backlog = c.backlog
	}
	return s
}

// track counts the packets that conn processes, so that the reader of the
// socket does not run ahead of it. It is called for every connection as soon as
// its handshake is done: packets of one that is not tracked look unprocessed,
// and are waited for in vain.
func (s *Socket) track(conn *quic.Conn) {
	if s.backlog != nil {
		s.backlog.track(conn.Context(), conn)
	}
}

// Close ends all links of the socket, without a word to the peers, and its
// listener.
func (s *Socket) Close() error {
	err := s.tr.Close()
	if cerr := s.pc.Close(); err == nil {
		err = cerr
	}
	return err
}

// linger is how long a private socket outlives its last link: when the packet
// that carries the reason of a close is lost, the peer's next one is answered
// with it again. Three round trips of a bad line.
const linger = time.Second

func (s *Socket) acquire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
}

func (s *Socket) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 && s.private {
		time.AfterFunc(linger, func() { s.Close() })
	}
}

// quicConfig is common to both ends. A stream's credit does not come back when
// it completes, so the counts are those of a link's whole life.
func quicConfig(control int64) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         streamWindow,
		InitialConnectionReceiveWindow: linkWindow,
		MaxConnectionReceiveWindow:     linkWindow,
		MaxIncomingStreams:             control,
		MaxIncomingUniStreams:          maxOneWay,
		RequireStreamCreditRelease:     true,
	}
}

// noStreams is quic.Config's way to say zero.
const noStreams = -1

// Dial connects to the peer want at addr; a peer that is about to change its
// key has two identities. That the peer in turn does not know
// us shows at the first read, because TLS 1.3 is done at our end before the
// peer has seen our key.
func (s *Socket) Dial(ctx context.Context, addr net.Addr, want ...ID) (Link, error) {
	conf, err := dialConfig(s.key, want...)
	if err != nil {
		return nil, err
	}
	s.acquire()
	conn, err := s.tr.Dial(ctx, addr, conf, quicConfig(noStreams))
	if err != nil {
		s.release()
		if isType[*quic.IdleTimeoutError](err) { // quic-go's word for silence, also here
			return nil, Errorf(CodeUnreachable, "no answer from %s over UDP within %v: %w", addr, handshakeTimeout, err)
		}
		return nil, explainQUIC(err, addr, s.key.id)
	}
	s.track(conn)
	peer, err := verifiedID(conn.ConnectionState().TLS)
	if err != nil { // not after that handshake
		conn.CloseWithError(quic.ApplicationErrorCode(CodeUnauthorized), "")
		s.release()
		return nil, err
	}
	link := newQUICLink(s, conn, peer)
	control, err := conn.OpenStream()
	if err != nil {
		link.CloseWithError(CodeFrame, "no control stream")
		return nil, explainQUIC(err, addr, s.key.id)
	}
	link.start(control)
	return link, nil
}

// DialQUIC connects to the peer want at addr over pc, which the link takes
// over: pc is closed a second after the link has ended. Use a Socket for
// several links on one pc.
func DialQUIC(ctx context.Context, pc net.PacketConn, addr net.Addr, key *Key, want ...ID) (Link, error) {
	s := NewSocket(pc, key)
	link, err := s.Dial(ctx, addr, want...)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.private = true
	if s.users == 0 {
		time.AfterFunc(linger, func() { s.Close() })
	}
	return link, nil
}

// ListenQUIC accepts links on pc, which it takes over: pc is closed a second
// after the listener was closed and the last link has ended.
func ListenQUIC(pc net.PacketConn, key *Key, peers Peers, cfg ListenConfig) (Listener, error) {
	s := NewSocket(pc, key)
	s.private = true
	l, err := s.Listen(peers, cfg)
	if err != nil {
		s.Close()
		return nil, err
	}
	return l, nil
}
