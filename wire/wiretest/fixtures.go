package wiretest

import (
	"sync"
	"testing"

	"github.com/haulback/haulback/wire"
)

// Key makes a key in memory.
func Key(t testing.TB) *wire.Key {
	t.Helper()
	key, err := wire.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Peers is a wire.Peers that tests can change.
type Peers struct {
	mu      sync.Mutex
	allowed map[wire.ID]bool
}

// NewPeers allows ids.
func NewPeers(ids ...wire.ID) *Peers {
	p := &Peers{allowed: map[wire.ID]bool{}}
	for _, id := range ids {
		p.allowed[id] = true
	}
	return p
}

// Allowed implements wire.Peers.
func (p *Peers) Allowed(id wire.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allowed[id]
}

// Remove takes the pin of id away.
func (p *Peers) Remove(id wire.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.allowed, id)
}
