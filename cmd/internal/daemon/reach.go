package daemon

import (
	"context"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/wire"
)

// reach is how jobs, probes and orders of this daemon get to peers. It knows
// every link that it has made, so that those to a peer that is removed end.
type reach struct{ d *Daemon }

// Self implements transfer.Reach.
func (r reach) Self() (wire.ID, error) { return r.d.key.ID(), nil }

// Peers implements transfer.Reach.
func (r reach) Peers() (site.Peers, error) { return *r.d.peers.Load(), nil }

// Dial implements transfer.Reach.
func (r reach) Dial(ctx context.Context, transport, address string, id wire.ID) (wire.Link, error) {
	if !r.d.Allowed(id) {
		return nil, notPaired(id)
	}
	return r.d.dialer.Dial(ctx, transport, address, r.d.key, r.d.peers.Load().Pins(id)...)
}

// mayLink is site.Dialer.Admit: the peer may have gone since it was pinned.
func (d *Daemon) mayLink(link wire.Link) error {
	d.dialled.add(link)
	if !d.Allowed(link.Peer()) { // it was removed meanwhile
		return notPaired(link.Peer())
	}
	return nil
}

func notPaired(id wire.ID) error {
	return wire.Errorf(wire.CodeUnauthorized, "this daemon is not paired with %v any more", id)
}
