package wire

import (
	"sync"

	"github.com/quic-go/quic-go"
)

// The windows of QUIC are memory promises: what a peer has sent and nobody has
// read is kept. A link promises linkWindow, over all its connections together.
// Each connection has a window from its first packet on, because growing to it
// costs round trips, and may grow while the link has something left; of that,
// leastWindow for each connection that may still come is set aside.
const (
	linkWindow = 32 << 20
	// firstWindow and streamWindow are for a link of one connection: a stream
	// has twice 1 Gbit/s x 50 ms, and what is beyond it is for the others.
	firstWindow  = 16 << 20
	streamWindow = 12 << 20
	// secondWindow is for the two connections of a fast network: 8 ms at 500
	// MiB/s, in which a receiver may be late.
	secondWindow = 4 << 20
	// leastWindow is for the many connections of a lossy line: one that loses 1
	// packet in 1000 at 50 ms has 75 to 100 KB in flight.
	leastWindow = 128 << 10

	maxStreamWindow = 16 << 20
	maxConnWindow   = 24 << 20
)

// connWindow is what a link gives its next connection when it has n.
func connWindow(n int) uint64 {
	switch n {
	case 0:
		return firstWindow
	case 1:
		return secondWindow
	}
	return leastWindow
}

// budget is what is left of a link's promise.
type budget struct {
	mu   sync.Mutex
	left uint64 // beyond leastWindow for each of MaxConnections
}

func newBudget() *budget { return &budget{left: linkWindow - MaxConnections*leastWindow} }

// take reports whether n bytes were left, which are gone then.
func (b *budget) take(n uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.left {
		return false
	}
	b.left -= n
	return true
}

// join takes what a connection with this window has beyond its share.
func (b *budget) join(window uint64) bool { return b.take(window - leastWindow) }

// quicConfig is common to both ends of a connection that begins with window. A
// stream's credit does not come back when it completes, so the counts are those
// of a connection's whole life.
func (s *Socket) quicConfig(control int64, window uint64) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     min(streamWindow, window),
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: window,
		MaxConnectionReceiveWindow:     maxConnWindow,
		AllowConnectionWindowIncrease:  s.mayGrow,
		MaxIncomingStreams:             control,
		MaxIncomingUniStreams:          maxOneWay,
		RequireStreamCreditRelease:     true,
	}
}

// noStreams is quic.Config's way to say zero.
const noStreams = -1

// offer is the window of the connection that is about to come from info. The
// further connections of a link come from the address of the first, so what
// matters is how many are there already; another link from there grows, later.
func (s *Socket) offer(info *quic.ClientInfo) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offered, s.offeredTo = connWindow(s.from[info.RemoteAddr.String()]), info
	return s.offered
}

// arrive counts the connection, and gives the window that was offered to it;
// not to know it must not be a way to more. It is asked after offer, with the
// same info.
func (s *Socket) arrive(info *quic.ClientInfo) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from[info.RemoteAddr.String()]++
	if s.offeredTo != info {
		return firstWindow
	}
	return s.offered
}

func (s *Socket) depart(info *quic.ClientInfo) {
	addr := info.RemoteAddr.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[addr]--; s.from[addr] == 0 {
		delete(s.from, addr)
	}
}

// mayGrow is asked by quic-go under locks of the connection: it must not call
// it. One that belongs to no link stays as it is.
func (s *Socket) mayGrow(conn *quic.Conn, delta uint64) bool {
	s.mu.Lock()
	b := s.budgets[conn]
	s.mu.Unlock()
	return b != nil && b.take(delta)
}
