package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
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

	mu        sync.Mutex
	users     int  // connections and the listener
	private   bool // closes itself after its last user
	guard     *guard
	budgets   map[*quic.Conn]*budget // of the links that the connections belong to
	from      map[string]int         // connections that came to the listener, by address
	offered   uint64                 // window of the connection that is being admitted
	offeredTo *quic.ClientInfo
}

// NewSocket takes pc over: nothing else may use it, and Close closes it. A
// *PacketConn is meant; anything else works with less speed.
func NewSocket(pc net.PacketConn, key *Key) *Socket {
	// The same key after a restart lets peers notice the restart at once
	// instead of after the idle timeout.
	reset := quic.StatelessResetKey(key.derive("haulback quic stateless reset"))
	s := &Socket{key: key, pc: pc, budgets: map[*quic.Conn]*budget{}, from: map[string]int{}}
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

// enter keeps the socket open for a connection of a link, and lets its window
// grow from the link's budget.
func (s *Socket) enter(conn *quic.Conn, b *budget) {
	s.mu.Lock()
	s.budgets[conn] = b
	s.mu.Unlock()
	s.acquire()
}

func (s *Socket) leave(conn *quic.Conn) {
	s.mu.Lock()
	delete(s.budgets, conn)
	s.mu.Unlock()
	s.release()
}

// DialConfig is what a dialer may ask for. The zero value works.
type DialConfig struct {
	// Connections is how many QUIC connections the link is to have, at most
	// MaxConnections; 0 means DefaultConnections. A link that cannot have so
	// many does with fewer: see LinkStats.
	Connections int
}

// DefaultConnections is for a fast network: what this program has processors
// for, at most 2.
func DefaultConnections() int { return min(runtime.GOMAXPROCS(0), 2) }

// Dial connects to the peer want at addr; a peer that is about to change its
// key has two identities. That the peer in turn does not know
// us shows at the first read, because TLS 1.3 is done at our end before the
// peer has seen our key.
func (s *Socket) Dial(ctx context.Context, addr net.Addr, cfg DialConfig, want ...ID) (Link, error) {
	if cfg.Connections == 0 {
		cfg.Connections = DefaultConnections()
	}
	if cfg.Connections < 1 || cfg.Connections > MaxConnections {
		return nil, fmt.Errorf("wire: %d connections, 1 to %d may be", cfg.Connections, MaxConnections)
	}
	conf, err := dialConfig(s.key, want...)
	if err != nil {
		return nil, err
	}
	s.acquire()
	defer s.release()
	conn, err := s.connect(ctx, addr, conf, connWindow(0))
	if err != nil {
		return nil, err
	}
	link, err := s.open(conn)
	if err != nil {
		conn.CloseWithError(quic.ApplicationErrorCode(AsError(err, CodeUnauthorized).Code), "")
		return nil, err
	}
	link.widen(ctx, cfg.Connections)
	return link, nil
}

// connect makes one connection.
func (s *Socket) connect(ctx context.Context, addr net.Addr, conf *tls.Config, window uint64) (*quic.Conn, error) {
	conn, err := s.tr.Dial(ctx, addr, conf, s.quicConfig(noStreams, window))
	switch {
	case err == nil:
		s.track(conn)
		return conn, nil
	case isType[*quic.IdleTimeoutError](err): // quic-go's word for silence, also here
		return nil, Errorf(CodeUnreachable, "no answer from %s over UDP within %v: %w", addr, handshakeTimeout, err)
	}
	return nil, explainQUIC(err, addr, s.key.id)
}

// open makes a link of the connection that was dialed first.
func (s *Socket) open(conn *quic.Conn) (*quicLink, error) {
	peer, err := verifiedID(conn.ConnectionState().TLS)
	if err != nil { // not after that handshake
		return nil, err
	}
	link, err := newQUICLink(s, conn, peer, connWindow(0))
	if err != nil {
		return nil, err
	}
	control, err := conn.OpenStream()
	if err != nil {
		link.CloseWithError(CodeFrame, "no control stream")
		return nil, explainQUIC(err, link.addr, s.key.id)
	}
	link.setControl(control)
	return link, nil
}

// DialQUIC connects to the peer want at addr over pc, which the link takes
// over: pc is closed a second after the link has ended. Use a Socket for
// several links on one pc.
func DialQUIC(ctx context.Context, pc net.PacketConn, addr net.Addr, key *Key, cfg DialConfig, want ...ID) (Link, error) {
	s := NewSocket(pc, key)
	link, err := s.Dial(ctx, addr, cfg, want...)
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
