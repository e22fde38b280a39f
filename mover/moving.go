package mover

import "github.com/haulback/haulback/wire"

// Progress adds up the counters of the sessions that peers have begun and that
// run. Halves of this process's own jobs are not among them: who runs those knows.
func (s *Server) Progress() (sum wire.Counters) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		if l.peer == (wire.ID{}) {
			continue
		}
		c := l.progress.Counters()
		sum.Total += c.Total
		sum.Scanned += c.Scanned
		sum.Sent += c.Sent
		sum.Wire += c.Wire
		sum.Durable += c.Durable
	}
	return sum
}

// Held is the number of disks that sessions have in their hands, lingering ones
// too. It takes the locks that every pass needs, none of which is held while a
// disk or a peer is waited for: where it does not return nothing moves any more,
// which is what a watchdog asks.
func (e *Engine) Held() (n int) {
	for _, h := range []*holds{e.targets, e.sources} {
		h.mu.Lock()
		n += len(h.m)
		h.mu.Unlock()
	}
	return n
}
