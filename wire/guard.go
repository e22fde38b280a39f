package wire

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Caps on handshakes that have not finished (reliability C5): with them a
// flood costs 18 MiB instead of 211. One cap for all locked paired peers out
// when a flood filled it, hence the cap per prefix and the reserve.
const (
	maxOpening       = 64
	maxOpeningPrefix = 8
	reservedOpening  = 16
	// retryOpening is where addresses have to be proved first, which makes
	// forged ones worthless. A prefix that is half full has to, as well.
	retryOpening       = 32
	retryOpeningPrefix = maxOpeningPrefix / 2
	// refusalLogEvery keeps a flood out of the log.
	refusalLogEvery = 10 * time.Second
)

// ListenConfig is what a listener may be told. The zero value works.
type ListenConfig struct {
	// KnownAddrs reports addresses of paired peers: slots are reserved for
	// them, and others have to prove theirs before anything is kept for them.
	// Nil knows none. It must not block.
	KnownAddrs func(netip.Addr) bool
	// Inviter pairs with those who hold a pairing code; nil never does.
	Inviter Inviter
	// Refusals counts handshakes that came to nothing; may be nil.
	Refusals *Refusals
	// Log gets at most one line in 10 s about them; nil is silent.
	Log *slog.Logger
}

// Refusals counts the handshakes that a listener did not turn into a link.
type Refusals struct {
	Busy    atomic.Uint64 // a cap was reached
	Unknown atomic.Uint64 // the key is not pinned
	Failed  atomic.Uint64 // silence, garbage, another protocol
}

// guard bounds and counts the handshakes in progress of one listener.
type guard struct {
	known    func(netip.Addr) bool // may be nil
	refusals *Refusals
	log      *slog.Logger

	mu       sync.Mutex
	open     int // without the reserved ones
	reserved int
	prefixes map[netip.Prefix]int
	lastLog  time.Time
}

func newGuard(cfg ListenConfig) *guard {
	g := &guard{known: cfg.KnownAddrs, refusals: cfg.Refusals, log: cfg.Log, prefixes: map[netip.Prefix]int{}}
	if g.refusals == nil {
		g.refusals = new(Refusals)
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	return g
}

// prefixOf is the network that one site or one attacker has: /24, or /56.
func prefixOf(addr netip.Addr) netip.Prefix {
	bits := 56
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// ipOf is the zero Addr for anything that is not IP; such addresses share one
// prefix.
func ipOf(addr net.Addr) netip.Addr {
	switch a := addr.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// admit takes a slot for a handshake from addr; release gives it back, once.
// Without a slot the handshake must be refused.
func (g *guard) admit(addr net.Addr) (release func(), ok bool) {
	ip := ipOf(addr)
	prefix, known := prefixOf(ip), g.known != nil && g.known(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.open < maxOpening && g.prefixes[prefix] < maxOpeningPrefix:
		g.open++
		g.prefixes[prefix]++
		return sync.OnceFunc(func() { g.release(prefix) }), true
	case known && g.reserved < reservedOpening:
		g.reserved++
		return sync.OnceFunc(g.releaseReserved), true
	}
	g.refusals.Busy.Add(1)
	g.reportLocked(addr, errBusy)
	return nil, false
}

var errBusy = errors.New("wire: too many handshakes in progress")

func (g *guard) release(prefix netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.prefixes[prefix]--; g.prefixes[prefix] == 0 {
		delete(g.prefixes, prefix)
	}
}

func (g *guard) releaseReserved() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reserved--
}

// mustProve reports whether addr has to show that it gets our packets before
// a slot is taken for it (QUIC's Retry).
func (g *guard) mustProve(addr net.Addr) bool {
	ip := ipOf(addr)
	if g.known != nil && !g.known(ip) {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open+g.reserved > retryOpening || g.prefixes[prefixOf(ip)] >= retryOpeningPrefix
}

// failed counts a handshake that had a slot and came to nothing.
func (g *guard) failed(addr net.Addr, err error) {
	if notWanted(err) {
		return
	}
	if errors.Is(err, ErrUnknownPeer) {
		g.refusals.Unknown.Add(1)
	} else {
		g.refusals.Failed.Add(1)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reportLocked(addr, err)
}

// notWanted reports whether the peer has ended in order what became no link: of
// two that it made the dialer wants the other, and one that is cancelled before
// its control stream is here, too, is nothing to warn of.
func notWanted(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Remote && e.Code == CodeOK
	}
	app, ok := errors.AsType[*quic.ApplicationError](err)
	return ok && app.Remote && app.ErrorCode == quic.ApplicationErrorCode(CodeOK)
}

// reportLocked logs the first refusal and then at most one in 10 s, with the
// counts that stand for the others.
func (g *guard) reportLocked(addr net.Addr, err error) {
	now := time.Now()
	if !g.lastLog.IsZero() && now.Sub(g.lastLog) < refusalLogEvery {
		return
	}
	g.lastLog = now
	g.log.Warn("handshake refused", "addr", addr.String(), "err", clean(err.Error()),
		"busy", g.refusals.Busy.Load(), "unknown", g.refusals.Unknown.Load(), "failed", g.refusals.Failed.Load())
}
