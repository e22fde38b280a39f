package mover

import (
	"context"

	"github.com/haulback/haulback/wire"
)

// Route is what a link goes over.
type Route struct {
	Transport   string // "quic" or "tls"
	Connections int    // of QUIC; 0 means 1
}

// over notes what the pass goes over.
func (rep *Report) over(link wire.Link) {
	rep.Transport, rep.Why, rep.Conns = link.Transport(), "", link.Stats().Connections
	if r, ok := link.(Rerouter); ok {
		rep.Why = r.Why()
	}
}

// Rerouter is a link whose dialer may be asked for another one. What Remote.Dial
// makes may be one; a link that is none stays what it is.
type Rerouter interface {
	wire.Link
	// Why says why the link goes over what it does, for reports; empty where
	// nothing else was allowed.
	Why() string
	// May reports whether Reroute could make a link over to.
	May(to Route) bool
	// Reroute makes another link to the same peer, over to, for the reason why, and
	// may prefer that for later links. The link that it is asked of stays.
	Reroute(ctx context.Context, to Route, why string) (wire.Link, error)
}
