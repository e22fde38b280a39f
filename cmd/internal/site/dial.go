package site

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/haulback/haulback/wire"
)

// The transports that can be asked for.
const (
	QUIC = "quic"
	TLS  = "tls"
)

// dialTimeout bounds one attempt, name lookup included; who wants more tries
// again.
const dialTimeout = 10 * time.Second

// CheckTransport says what is wrong with the name of a transport.
func CheckTransport(name string) error {
	if name == QUIC || name == TLS {
		return nil
	}
	return fmt.Errorf("transport %q: quic or tls", name)
}

// Dial makes a link to the peer at address; a peer that changes its key has two
// identities (Peers.Pins). Every QUIC link has a socket of
// its own, so that one that hangs takes no other down.
func Dial(ctx context.Context, transport, address string, key *wire.Key, id ...wire.ID) (wire.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	link, err := dial(ctx, transport, address, key, id)
	if err != nil {
		return nil, err
	}
	return &closedOnce{Link: link}, nil
}

func dial(ctx context.Context, transport, address string, key *wire.Key, id []wire.ID) (wire.Link, error) {
	if transport == TLS {
		return wire.DialTLS(ctx, address, key, id...)
	}
	addr, err := resolve(ctx, address)
	if err != nil {
		return nil, err
	}
	pc, _, err := wire.ListenPacket(":0") // the hint about buffers is the daemon's to give
	if err != nil {
		return nil, err
	}
	return wire.DialQUIC(ctx, pc, addr, key, id...)
}

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
// Own is where the daemon of this site is, or empty.
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
	pc, _, err := wire.ListenPacket(":0")
	if err != nil {
		return wire.ID{}, err
	}
	return wire.PairQUIC(ctx, pc, addr, key, code, own, agent)
}
