package selfcheck

import (
	"context"
	"fmt"
	"os"
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
	var wg sync.WaitGroup
	for i, p := range c.peers {
		wg.Go(func() { results[i] = answers(ctx, key, p) })
	}
	wg.Wait()
	for _, r := range results {
		c.tell(r)
	}
}

func answers(ctx context.Context, key *wire.Key, p site.Peer) Result {
	r := Result{Name: "peer " + p.Name, Level: OK}
	if p.Address == "" {
		r.Text = "has no address: it dials us"
		return r
	}
	var said [2]string
	var errs [2]error
	var wg sync.WaitGroup
	for i, transport := range []string{site.QUIC, site.TLS} {
		wg.Go(func() {
			began := time.Now()
			if errs[i] = shake(ctx, transport, p, key); errs[i] != nil {
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
		r.Level, r.Remedy = Fail, "is haulbackd running there, is this site paired there (haulback peer list), does a firewall let UDP and TCP through?"
	case errs[0] != nil:
		r.Level, r.Remedy = Warn, "use --transport tls, or let UDP through"
	case errs[1] != nil:
		r.Level, r.Remedy = Warn, "nothing for QUIC; for --transport tls let TCP through"
	}
	return r
}

// shake dials and waits for the peer to refuse us: that shows after the
// handshake, when it has seen our key.
func shake(ctx context.Context, transport string, p site.Peer, key *wire.Key) error {
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	link, err := site.Dial(ctx, transport, p.Address, key, p.ID)
	if err != nil {
		return err
	}
	defer link.CloseWithError(wire.CodeOK, "selfcheck")
	wait := time.NewTimer(refusal)
	defer wait.Stop()
	select {
	case <-link.Done():
		return link.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return nil
	}
}
