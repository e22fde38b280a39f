package selfcheck

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/wire"
)

const (
	// peerPatience bounds one handshake.
	peerPatience = 3 * time.Second
	// refusal is how long a peer that does not know us may take to say so: it
	// does right after the handshake.
	refusal = 500 * time.Millisecond
	// diskPatience bounds the opening of one disk; a VM's takes seconds.
	diskPatience = 30 * time.Second
)

// peersAnswer shakes hands with every peer that has an address, over both
// transports, all at the same time.
func (c *checks) peersAnswer(ctx context.Context) {
	if c.site == nil {
		return
	}
	if _, err := os.Lstat(c.site.KeyFile()); err != nil {
		return // Key would make one
	}
	key, err := c.site.Key()
	if err != nil {
		return // told already
	}
	results := make([]Result, len(c.peers))
	away := make([]time.Duration, len(c.peers))
	var wg sync.WaitGroup
	for i, p := range c.peers {
		wg.Go(func() { results[i], away[i] = answers(ctx, key, p) })
	}
	wg.Wait()
	c.far = slices.Max(append(away, 0))
	for _, r := range results {
		c.tell(r)
	}
}

// answers is how a peer answers, and the round trip to it.
func answers(ctx context.Context, key *wire.Key, p site.Peer) (Result, time.Duration) {
	r := Result{Name: "peer " + p.Name, Level: OK}
	if p.Address == "" {
		r.Text = "has no address: it dials us"
		return r, 0
	}
	var said [2]string
	var away [2]time.Duration
	var errs [2]error
	var wg sync.WaitGroup
	for i, transport := range []string{site.QUIC, site.TLS} {
		wg.Go(func() {
			began := time.Now()
			if away[i], errs[i] = shake(ctx, transport, p, key); errs[i] != nil {
				said[i] = fmt.Sprintf("%s: %v", transport, errs[i])
				return
			}
			said[i] = fmt.Sprintf("%s answers in %v", transport, max(time.Since(began)-refusal, time.Millisecond).Round(time.Millisecond))
		})
	}
	wg.Wait()
	r.Text = p.Address + ": " + strings.Join(said[:], "; ")
	switch {
	case errs[0] != nil && errs[1] != nil:
		r.Level, r.Remedy = Fail, "there: systemctl status haulbackd; haulback peer list (is "+key.ID().String()+" in it?); and "+pass(p.Address)
	case errs[0] != nil:
		r.Level, r.Remedy = Warn, "copies go over TLS; for QUIC let UDP through, there: "+pass(p.Address)
	case errs[1] != nil:
		r.Level, r.Remedy = Warn, "copies go over QUIC; for TLS let TCP through, there: "+pass(p.Address)
	}
	return r, max(away[0], away[1])
}

// pass is the command that lets haulback through the firewall of a peer.
func pass(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		port = site.DefaultPort
	}
	return fmt.Sprintf("firewall-cmd --add-port=%[1]s/udp --add-port=%[1]s/tcp, or nft add rule inet filter input meta l4proto '{ tcp, udp }' th dport %[1]s accept", port)
}

// shake dials and waits for the peer to refuse us: that shows after the
// handshake, when it has seen our key. It returns the round trip.
func shake(ctx context.Context, transport string, p site.Peer, key *wire.Key) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	link, err := site.Dial(ctx, transport, p.Address, key, p.ID)
	if err != nil {
		return 0, err
	}
	defer link.CloseWithError(wire.CodeOK, "selfcheck")
	wait := time.NewTimer(refusal)
	defer wait.Stop()
	select {
	case <-link.Done():
		return 0, link.Err()
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-wait.C:
		return link.Stats().MinRTT, nil
	}
}
