package wire

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// quicListener turns connections into links:
//
//  1. admit takes a slot for every first packet, or refuses (quic-go's server
//     goroutine);
//  2. quic-go does the handshake, verify checks the key (its goroutines);
//  3. serve waits for the control stream, one goroutine per connection, so
//     that a silent one delays nobody;
//  4. Accept takes the link over, which frees the slot; a further connection
//     of a link frees its own when the link has it.
//
// Everything before Accept is therefore bounded by the slots.
type quicListener struct {
	socket *Socket
	inner  *quic.Listener
	guard  *guard
	inv    Inviter // may be nil
	roster *roster
	links  chan *quicLink
	closed <-chan struct{}
	stop   context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup // run and the serves
}

// Listen makes the socket accept links from peers. A socket has one listener.
func (s *Socket) Listen(peers Peers, cfg ListenConfig) (Listener, error) {
	conf, err := listenConfig(s.key, peers, cfg.Inviter, moreALPN)
	if err != nil {
		return nil, err
	}
	g := newGuard(cfg)
	s.mu.Lock()
	if s.guard != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("wire: %s has a listener already", s.pc.LocalAddr())
	}
	s.guard = g
	s.mu.Unlock()
	quicConf := s.quicConfig(1, firstWindow)
	quicConf.GetConfigForClient = func(info *quic.ClientInfo) (*quic.Config, error) {
		return s.quicConfig(1, s.offer(info)), nil
	}
	inner, err := s.tr.Listen(conf, quicConf)
	if err != nil {
		return nil, fmt.Errorf("wire: listen on %s: %w", s.pc.LocalAddr(), err)
	}
	s.acquire()
	// Close is what ends a listener, no context of a caller's.
	ctx, stop := context.WithCancel(context.Background())
	l := &quicListener{socket: s, inner: inner, guard: g, inv: cfg.Inviter, roster: newRoster(), links: make(chan *quicLink), closed: ctx.Done(), stop: stop}
	l.wg.Go(func() { l.run(ctx) })
	return l, nil
}

// attempt is a handshake's slot, carried by the connection's context.
type attempt struct {
	release func()
	window  uint64      // that the connection began with
	done    atomic.Bool // the handshake succeeded
}

type attemptKey struct{}

// listening is the guard, which is there before the first packet comes.
func (s *Socket) listening() *guard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.guard
}

func (s *Socket) mustProve(addr net.Addr) bool { return s.listening().mustProve(addr) }

// admit is asked by quic-go before it keeps any state for a connection. ctx
// ends with the connection, also with one whose handshake fails.
func (s *Socket) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	g := s.listening()
	release, ok := g.admit(info.RemoteAddr)
	if !ok {
		return nil, errBusy
	}
	a := &attempt{release: release, window: s.arrive(info)}
	context.AfterFunc(ctx, func() {
		defer a.release()
		s.depart(info)
		if !a.done.Load() {
			g.failed(info.RemoteAddr, explainQUIC(context.Cause(ctx), info.RemoteAddr, s.key.id))
		}
	})
	return context.WithValue(ctx, attemptKey{}, a), nil
}

func (l *quicListener) run(ctx context.Context) {
	for {
		conn, err := l.inner.Accept(ctx)
		if err != nil {
			return // only after Close, of the listener or the socket
		}
		l.socket.track(conn)
		l.wg.Go(func() { l.serve(ctx, conn) })
	}
}

// serve makes a link of conn. A panic costs this connection only.
func (l *quicListener) serve(ctx context.Context, conn *quic.Conn) {
	slot := conn.Context().Value(attemptKey{}).(*attempt) // admit put it there
	slot.done.Store(true)
	defer func() {
		if p := recover(); p != nil {
			l.guard.log.Error("panic in a connection", "addr", conn.RemoteAddr().String(), "err", p, "stack", string(debug.Stack()))
			conn.CloseWithError(quic.ApplicationErrorCode(CodeInternal), "bug")
		}
		slot.release()
	}()
	switch proto := conn.ConnectionState().TLS.NegotiatedProtocol; {
	case proto == pairALPN && l.inv != nil:
		l.pair(ctx, conn)
		return
	case proto == moreALPN:
		if err := l.more(ctx, conn, slot.window); err != nil {
			l.refuse(conn, err)
		}
		return
	}
	id, err := verifiedID(conn.ConnectionState().TLS)
	if err != nil {
		conn.CloseWithError(quic.ApplicationErrorCode(CodeUnauthorized), err.Error())
		return
	}
	link, err := newQUICLink(l.socket, conn, id, slot.window)
	if err != nil {
		l.refuse(conn, err)
		return
	}
	l.roster.learn(link) // before the control stream comes: connections may be sooner
	control, err := acceptControl(ctx, conn)
	if err != nil {
		if ended := link.Err(); ended != nil { // it knows who has ended it
			err = ended
		}
		l.guard.failed(conn.RemoteAddr(), err)
		link.CloseWithError(CodeTimeout, err.Error())
		return
	}
	link.setControl(control)
	select {
	case l.links <- link:
	case <-link.done:
	case <-l.closed:
		link.CloseWithError(CodeDraining, "the daemon is about to stop")
	}
}

// refuse counts and closes a connection that becomes nothing.
func (l *quicListener) refuse(conn *quic.Conn, err error) {
	l.guard.failed(conn.RemoteAddr(), explainQUIC(err, conn.RemoteAddr(), l.socket.key.id))
	conn.CloseWithError(quic.ApplicationErrorCode(AsError(err, CodeTimeout).Code), clean(err.Error()))
}

// pair lets the one at the other end join. The connection ends with it: the
// joiner closes it when it has the answer, and it is closed here before long.
func (l *quicListener) pair(ctx context.Context, conn *quic.Conn) {
	control, err := acceptControl(ctx, conn)
	if err == nil {
		err = invite(ctx, l.inv, l.socket.key.id, conn.RemoteAddr(), conn.ConnectionState().TLS, control)
		_ = control.Close()
		select {
		case <-conn.Context().Done():
		case <-time.After(closeTimeout):
		case <-ctx.Done():
		}
	}
	code := CodeOK
	if err != nil {
		l.guard.failed(conn.RemoteAddr(), err)
		code = AsError(err, CodeTimeout).Code
	}
	conn.CloseWithError(quic.ApplicationErrorCode(code), "")
}

func (l *quicListener) Accept(ctx context.Context) (Link, error) {
	select {
	case link := <-l.links:
		return link, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, ErrClosed
	}
}

func (l *quicListener) Addr() string { return l.inner.Addr().String() }

func (l *quicListener) Close() error {
	var err error
	l.once.Do(func() {
		l.stop()
		err = l.inner.Close()
		l.wg.Wait()
		l.socket.release()
	})
	return err
}
