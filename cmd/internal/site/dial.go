package site

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// The transports that can be asked for. Auto is both: see Dialer.
const (
	Auto = "auto"
	QUIC = "quic"
	TLS  = "tls"
)

// dialTimeout bounds one attempt, name lookup included; who wants more tries
// again.
const dialTimeout = 10 * time.Second

// CheckTransport says what is wrong with the name of a transport that is to be
// dialed.
func CheckTransport(name string) error {
	if name == Auto {
		return nil
	}
	if CheckListen(name) != nil {
		return fmt.Errorf("transport %q: auto, quic or tls", name)
	}
	return nil
}

// CheckListen says what is wrong with the name of a transport that is to be
// listened on.
func CheckListen(name string) error {
	if name == QUIC || name == TLS {
		return nil
	}
	return fmt.Errorf("transport %q: quic or tls", name)
}

// place is a peer and where it is.
type place struct {
	address string
	key     *wire.Key
	ids     []wire.ID // a peer that changes its key has two (Peers.Pins)
}

// over makes a link over one transport. Every QUIC link has a socket of its own,
// so that one that hangs takes no other down.
func (p *place) over(ctx context.Context, by mover.Route) (wire.Link, error) {
	if by.Transport == TLS {
		return wire.DialTLS(ctx, p.address, p.key, p.ids...)
	}
	addr, err := resolve(ctx, p.address)
	if err != nil {
		return nil, err
	}
	pc, err := openUDP()
	if err != nil {
		return nil, err
	}
	return wire.DialQUIC(ctx, pc, addr, p.key, wire.DialConfig{Connections: by.Connections}, p.ids...)
}

// maxConnections is how many connections over may put under one link of QUIC.
const maxConnections = wire.MaxConnections

// closedOnce is a link whose CloseWithError returns when the first call of it
// has returned, that is when the last packet of QUIC has left: a process that
// exits before that leaves its peer waiting, and holding the disk, until the
// idle timeout.
type closedOnce struct {
	wire.Link
	mu sync.Mutex
}

// CloseWithError implements wire.Link.
func (l *closedOnce) CloseWithError(code wire.Code, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Link.CloseWithError(code, text)
}

// resolve is net.ResolveUDPAddr that ends with ctx.
func resolve(ctx context.Context, address string) (*net.UDPAddr, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	use := ips[0]
	for _, ip := range ips {
		if ip.IP.To4() != nil { // as package net does: "localhost" is 127.0.0.1
			use = ip
			break
		}
	}
	return &net.UDPAddr{IP: use.IP, Port: n, Zone: use.Zone}, nil
}

// Pair joins the daemon at address, which has made code, and gives its identity.
// Own is where the daemon of this site is, or empty. Auto asks over TCP where
// nothing answers over UDP.
func Pair(ctx context.Context, transport, address string, key *wire.Key, code wire.PairCode, own, agent string) (wire.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	if transport == TLS {
		return wire.PairTLS(ctx, address, key, code, own, agent)
	}
	addr, err := resolve(ctx, address)
	if err != nil {
		return wire.ID{}, err
	}
	pc, err := openUDP()
	if err != nil {
		return wire.ID{}, err
	}
	id, err := wire.PairQUIC(ctx, pc, addr, key, code, own, agent)
	if err == nil || transport != Auto || hopeless(err) || ctx.Err() != nil {
		return id, err
	}
	id, second := wire.PairTLS(ctx, address, key, code, own, agent)
	if second == nil || hopeless(second) {
		return id, second
	}
	return id, neither(err, second)
}
