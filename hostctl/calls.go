package hostctl

import (
	"maps"
	"sync"
)

// Call is one kind of call of a host or a storage server.
type Call struct {
	To     string // name of the host, or of the profile
	Method string // of its API
	Class  string // "ok", or in a word why not
}

// Calls counts calls, each try for itself. The zero value counts; it is safe for
// concurrent use. Each call has crossed the network: a lock is nothing.
type Calls struct {
	mu sync.Mutex
	n  map[Call]uint64
}

// Of counts the calls of one host.
func (c *Calls) Of(to string) func(method, class string) {
	return func(method, class string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.n == nil {
			c.n = make(map[Call]uint64)
		}
		c.n[Call{to, method, class}]++
	}
}

// All returns the counts so far.
func (c *Calls) All() map[Call]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}
