package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// tlsListener turns TCP connections into links and their streams:
//
//  1. run accepts, and closes what the guard has no slot for;
//  2. serve, one goroutine per connection, shakes hands and reads the header;
//  3. a control connection becomes a link, which Accept takes over;
//     any other is attached to the link that its token names.
//
// Everything before the end of serve is bounded by the slots.
type tlsListener struct {
	inner  net.Listener
	key    *Key
	conf   *tls.Config
	guard  *guard
	inv    Inviter // may be nil
	links  chan *tlsLink
	closed <-chan struct{}
	stop   context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup // run and the serves

	mu    sync.Mutex
	known map[attachToken]*tlsLink
	grown chan struct{} // closed and replaced when known grows
}

// ListenTLS accepts links on inner, which it takes over. After Close the
// streams that the peer has not opened by then cannot come any more.
func ListenTLS(inner net.Listener, key *Key, peers Peers, cfg ListenConfig) (Listener, error) {
	conf, err := listenConfig(key, peers, cfg.Inviter)
	if err != nil {
		return nil, err
	}
	// Close is what ends a listener, no context of a caller's.
	ctx, stop := context.WithCancel(context.Background())
	l := &tlsListener{
		inner: inner, key: key, conf: conf, guard: newGuard(cfg), inv: cfg.Inviter,
		links: make(chan *tlsLink), closed: ctx.Done(), stop: stop,
		known: map[attachToken]*tlsLink{}, grown: make(chan struct{}),
	}
	l.wg.Go(func() { l.run(ctx) })
	return l, nil
}

// acceptPause is the wait after a failure to accept: out of descriptors,
// mostly, which other connections will give back.
const acceptPause = 50 * time.Millisecond

func (l *tlsListener) run(ctx context.Context) {
	for {
		conn, err := l.inner.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil {
			l.guard.log.Warn("accept failed", "addr", l.Addr(), "err", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		release, ok := l.guard.admit(conn.RemoteAddr())
		if !ok {
			conn.Close()
			continue
		}
		l.wg.Go(func() {
			defer release()
			l.serve(ctx, conn)
		})
	}
}

// serve takes tcp to a link. A panic costs this connection only.
func (l *tlsListener) serve(ctx context.Context, tcp net.Conn) {
	defer func() {
		if p := recover(); p != nil {
			l.guard.log.Error("panic in a connection", "addr", tcp.RemoteAddr().String(), "err", p, "stack", string(debug.Stack()))
			tcp.Close()
		}
	}()
	tuneTCP(tcp)
	conn := tls.Server(rawConn{tcp}, l.conf)
	err := l.open(ctx, conn)
	if err != nil {
		l.guard.failed(tcp.RemoteAddr(), explainTLS(err, tcp.RemoteAddr(), l.key.id))
		hangUpSlowly(tcp)
	}
}

// open does the handshake and what the header asks for.
func (l *tlsListener) open(ctx context.Context, conn *tls.Conn) error {
	if err := l.shake(ctx, conn); err != nil {
		return err
	}
	tunePath(conn)
	if state := conn.ConnectionState(); state.NegotiatedProtocol == pairALPN && l.inv != nil {
		err := invite(ctx, l.inv, l.key.id, conn.RemoteAddr(), state, conn)
		_ = conn.CloseWrite()
		hangUpSlowly(conn.NetConn().(rawConn).Conn)
		return err
	}
	h, peer, err := greet(ctx, conn)
	if err != nil {
		return err
	}
	if h.id.Kind != 0 {
		return l.attach(ctx, h, peer, conn)
	}
	return l.deliver(peer, conn)
}

// shake does the handshake. It ends with ctx.
func (l *tlsListener) shake(ctx context.Context, conn *tls.Conn) error {
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	return handshake(ctx, conn)
}

// greet finds out who connects and what for. It ends with ctx; what comes
// after it does not.
func greet(ctx context.Context, conn *tls.Conn) (h attachHeader, peer ID, err error) {
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	if peer, err = verifiedID(conn.ConnectionState()); err != nil {
		return h, peer, err
	}
	conn.SetReadDeadline(time.Now().Add(openTimeout))
	var head [attachHeaderLen]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return h, peer, fmt.Errorf("wire: no header: %w", err)
	}
	conn.SetReadDeadline(time.Time{})
	if !stop() {
		return h, peer, ErrClosed
	}
	h, err = parseAttach(head)
	return h, peer, err
}

// deliver makes a link of a control connection and waits until it is taken.
func (l *tlsListener) deliver(peer ID, conn *tls.Conn) error {
	link, err := newTLSLink(conn, peer, l.key.id)
	if err != nil {
		return err
	}
	l.learn(link)
	link.start()
	select {
	case l.links <- link:
	case <-link.done:
	case <-l.closed:
		link.CloseWithError(CodeDraining, "the daemon is about to stop")
	}
	return nil
}

// learn makes link known by its token until it ends.
func (l *tlsListener) learn(link *tlsLink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[link.token] = link
	close(l.grown)
	l.grown = make(chan struct{})
	link.onEnd = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.known, link.token)
	}
}

// attach gives conn to its link. The dialer may be ahead of our reading of the
// link's own header, so an unknown token is given some time.
func (l *tlsListener) attach(ctx context.Context, h attachHeader, peer ID, conn *tls.Conn) error {
	late := time.NewTimer(openTimeout)
	defer late.Stop()
	for {
		l.mu.Lock()
		link, grown := l.known[h.token], l.grown
		l.mu.Unlock()
		if link != nil && link.peer == peer {
			return l.join(link, h, conn)
		}
		if link != nil {
			return Errorf(CodeUnauthorized, "%w: the token of another peer's link", ErrUnknownPeer)
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ErrClosed
		case <-late.C:
			return Errorf(CodeFrame, "%w: a stream of no link", ErrFrame)
		}
	}
}

// join ends a link whose dialer breaks the protocol.
func (l *tlsListener) join(link *tlsLink, h attachHeader, conn *tls.Conn) error {
	err := link.arrive(h, conn)
	if err != nil {
		link.CloseWithError(CodeFrame, err.Error())
	}
	return err
}

// hangUpSlowly closes a connection so that an alert that was sent on it
// arrives: to close with unread bytes would reset it.
func hangUpSlowly(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.CloseWrite()
		tcp.SetReadDeadline(time.Now().Add(closeTimeout))
		io.CopyN(io.Discard, tcp, 64<<10)
	}
	conn.Close()
}

func (l *tlsListener) Accept(ctx context.Context) (Link, error) {
	select {
	case link := <-l.links:
		return link, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, ErrClosed
	}
}

func (l *tlsListener) Addr() string { return l.inner.Addr().String() }

func (l *tlsListener) Close() error {
	var err error
	l.once.Do(func() {
		l.stop()
		err = l.inner.Close()
		l.wg.Wait()
	})
	return err
}
