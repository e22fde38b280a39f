package wire

import (
	"context"
	"sync"
	"time"
)

// roster has the living links of a listener by the name that their further
// connections call.
type roster struct {
	mu    sync.Mutex
	links map[moreName]*quicLink
	grown chan struct{} // closed and replaced when links grows
}

func newRoster() *roster {
	return &roster{links: map[moreName]*quicLink{}, grown: make(chan struct{})}
}

// learn makes link known until it ends.
func (r *roster) learn(link *quicLink) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links[link.secret.name] = link
	close(r.grown)
	r.grown = make(chan struct{})
	go func() {
		<-link.done
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.links, link.secret.name)
	}()
}

// find waits for the link of this name: the dialer may be ahead of our own
// reading of the first connection.
func (r *roster) find(ctx context.Context, name moreName) (*quicLink, error) {
	late := time.NewTimer(openTimeout)
	defer late.Stop()
	for {
		r.mu.Lock()
		link, grown := r.links[name], r.grown
		r.mu.Unlock()
		if link != nil {
			return link, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ErrClosed
		case <-late.C:
			return nil, Errorf(CodeUnauthorized, "a connection of no link")
		}
	}
}
