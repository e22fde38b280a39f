package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// work is what a command that compares or moves disks has opened.
type work struct {
	reach    *reach
	journals *mover.StateRoot
	engine   *mover.Engine
}

// open makes an engine on the site of g. It compares one grain in sample of what
// change tracking calls unchanged; 0 means the default.
func (g *global) open(sample int64, refine mover.Choice, compress mover.Choice) (*work, error) {
	s, err := g.site()
	if err != nil {
		return nil, err
	}
	w := &work{reach: &reach{site: s}}
	if w.journals, err = s.Journals(); err != nil {
		return nil, err
	}
	w.engine, err = mover.NewEngine(mover.Config{Agent: build.Agent("haulback"), Sampling: cbt.Sampling{Every: sample}, Refine: refine, Compress: compress}, w.journals)
	if err != nil {
		w.journals.Close()
		return nil, err
	}
	return w, nil
}

func (w *work) close() {
	if err := errors.Join(w.engine.Close(), w.journals.Close()); err != nil {
		fmt.Fprintln(os.Stderr, "haulback: close: "+report.OneLine(err.Error()))
	}
}

// reach is transfer.Reach with the key and the peers of a site. The key is
// loaded, or made, when a peer is asked for. Not safe for concurrent use.
type reach struct {
	site   *site.Site
	key    *wire.Key
	dialer site.Dialer
}

// Self implements transfer.Reach.
func (r *reach) Self() (id wire.ID, err error) {
	if r.key == nil {
		if r.key, err = r.site.Key(); err != nil {
			return id, err
		}
	}
	return r.key.ID(), nil
}

// Peers implements transfer.Reach.
func (r *reach) Peers() (site.Peers, error) {
	peers, err := r.site.Peers()
	if err != nil {
		return nil, peersError(err)
	}
	return peers, nil
}

// Dial implements transfer.Reach. Self was called before: nobody is dialled who
// was not pinned.
func (r *reach) Dial(ctx context.Context, transport, address string, id wire.ID) (wire.Link, error) {
	peers, err := r.Peers()
	if err != nil {
		return nil, err
	}
	return r.dialer.Dial(ctx, transport, address, r.key, peers.Pins(id)...)
}
