package wire

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// The windows of QUIC are memory promises: what a peer has sent and nobody has
// read is kept. A link promises linkWindow, over all its connections together.
// Each connection begins with little and grows while its path needs more and
// the link has something left; of that, leastWindow for each connection that
// may still come is set aside.
//
// Little, because data in flight leave the processor's cache before they are
// read: on a fast network a window of megabytes halves the rate. On a long path
// Reno begins with less than firstWindow and doubles no faster than the window.
const (
	linkWindow = 32 << 20
	// firstWindow is for the connections that a link of a fast network has. One
	// that takes no part in a link never has more.
	firstWindow = 1 << 20
	// leastWindow is for the many connections of a lossy line: one that loses 1
	// packet in 1000 at 50 ms has 75 to 100 KB in flight.
	leastWindow = 128 << 10

	maxStreamWindow = 16 << 20
	maxConnWindow   = 24 << 20

	// pathRate in bytes per second is the most that a window is made for.
	pathRate = 1_000_000_000
)

// connWindow is what a link gives its next connection when it has n.
func connWindow(n int) uint64 {
	if n < 2 {
		return firstWindow
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
		InitialStreamReceiveWindow:     max(window/2, leastWindow),
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

// growth is the window of a connection of a link.
type growth struct {
	link *budget
	rtt  atomic.Int64 // least of the path, in ns; 0: not known

	mu     sync.Mutex
	window uint64
}

// measure takes the round trip from conn.
func (g *growth) measure(conn *quic.Conn) { g.rtt.Store(int64(conn.ConnectionStats().MinRTT)) }

// take reports whether the path needs more than there is, and delta more could
// be had.
func (g *growth) take(delta uint64) bool {
	need := uint64(time.Duration(g.rtt.Load()).Seconds() * pathRate)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.window >= need || !g.link.take(delta) {
		return false
	}
	g.window += delta
	return true
}

// mayGrow is asked by quic-go whenever a window was used up within a few round
// trips, under locks of the connection: it must not call it. So it decides by
// the round trip that was measured when it was asked before: the first ones of
// a connection are long, and what has grown stays. A connection that belongs to
// no link stays as it is.
func (s *Socket) mayGrow(conn *quic.Conn, delta uint64) bool {
	s.mu.Lock()
	g := s.windows[conn]
	s.mu.Unlock()
	if g == nil {
		return false
	}
	go g.measure(conn)
	return g.take(delta)
}
