package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// tlsDialer makes the TCP connections of one link.
type tlsDialer struct {
	addr string
	self ID
	conf *tls.Config
	// turn has capacity 1: one handshake at a time, because the listener
	// gives a network of 256 addresses eight.
	turn chan struct{}
}

// DialTLS connects to the peer want at addr ("host:port") over TCP; a peer that
// is about to change its key has two identities. That the
// peer does not know us shows at the first read, as with QUIC.
func DialTLS(ctx context.Context, addr string, key *Key, want ...ID) (Link, error) {
	conf, err := dialConfig(key, want...)
	if err != nil {
		return nil, err
	}
	d := &tlsDialer{addr: addr, self: key.id, conf: conf, turn: make(chan struct{}, 1)}
	conn, err := d.connect(ctx, attachHeader{})
	if err != nil {
		return nil, err
	}
	peer, err := verifiedID(conn.ConnectionState())
	if err != nil {
		conn.NetConn().Close()
		return nil, err
	}
	if d.conf, err = dialConfig(key, peer); err != nil { // all streams of a link to one key
		return nil, err
	}
	l, err := newTLSLink(conn, peer, key.id)
	if err != nil {
		conn.NetConn().Close()
		return nil, err
	}
	l.dial = d
	l.start()
	return l, nil
}

// connect dials, shakes hands and says what the connection is for.
func (d *tlsDialer) connect(ctx context.Context, h attachHeader) (*tls.Conn, error) {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	tcp, err := (&net.Dialer{Timeout: openTimeout}).DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, d.explain(ctx, Errorf(CodeUnreachable, "no connection: %w", err))
	}
	tuneTCP(tcp)
	conn := tls.Client(rawConn{tcp}, d.conf)
	err = handshake(ctx, conn)
	if err == nil {
		tunePath(conn)
		tcp.SetWriteDeadline(time.Now().Add(openTimeout))
		_, err = conn.Write(h.append(nil))
		tcp.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		err = d.explain(ctx, explainTLS(err, tcp.RemoteAddr(), d.self))
		tcp.Close()
		return nil, err
	}
	return conn, nil
}

// explain prefers the caller's own cancel to what it did to the connection.
func (d *tlsDialer) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("wire: dial tls %s: %w", d.addr, err)
}
