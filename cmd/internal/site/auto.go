package site

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// How transport auto chooses, before a byte of a disk has moved:
//
//  1. what was learned of the peer in the last minutes is dialed first, else QUIC;
//  2. after 300 ms of silence, or at once when that fails, the other is dialed
//     too. The first to shake hands wins;
//  3. on a short path the processor is the limit and not the network. There QUIC
//     gives way to TLS over TCP, if that answers at once.
//
// Later the engine judges by what it sees, and asks for another (Reroute).
const (
	// raceAfter is as long as a person does not notice, and two round trips of a
	// bad line.
	raceAfter = 300 * time.Millisecond
	// shortMaybe is the round trip below which it is worth asking whether the path is
	// a long one (wire.LongPath): the handshake that shows it has waited for the
	// processor as well. On a short path TCP moves the same bytes for a third of the
	// processor, and loses none (docs/performance.md).
	shortMaybe = 5 * time.Millisecond
	// shortGrace is what TLS gets to answer on such a path: several round trips and
	// a handshake on a busy machine. Where a firewall swallows TCP, it is lost.
	shortGrace = 25 * time.Millisecond
	// learned is how long a choice is remembered: long enough for the many disks of
	// a VM, short enough for a firewall that was mended.
	learned = 5 * time.Minute
	// maxLearned bounds the peers that are remembered.
	maxLearned = 1024
)

// Dialer makes links to peers. It remembers, for some minutes, which transport
// was best for which peer. The zero value is ready; safe for concurrent use.
type Dialer struct {
	// Admit, when set before the first Dial, is asked about each link before it is
	// given out; an error closes the link.
	Admit func(wire.Link) error

	mu    sync.Mutex
	known map[string]lesson
	wg    sync.WaitGroup // links that came second
}

// lesson is what is remembered of a peer.
type lesson struct {
	route  mover.Route
	why    string
	silent bool // TCP did not answer on a short path
	until  time.Time
}

// Dial makes a link to the peer at address; a peer that changes its key has two
// identities (Peers.Pins). The link is a mover.Rerouter.
func (d *Dialer) Dial(ctx context.Context, transport, address string, key *wire.Key, id ...wire.ID) (wire.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	p := &place{address: address, key: key, ids: id}
	if transport != Auto {
		link, err := p.over(ctx, mover.Route{Transport: transport})
		if err != nil {
			return nil, err
		}
		return d.give(&routed{d: d, to: p, transport: transport}, link)
	}
	link, why, err := d.auto(ctx, p)
	if err != nil {
		return nil, err
	}
	return d.give(&routed{d: d, to: p, transport: Auto, why: why}, link)
}

// Dial is Dialer.Dial of one that remembers nothing.
func Dial(ctx context.Context, transport, address string, key *wire.Key, id ...wire.ID) (wire.Link, error) {
	return new(Dialer).Dial(ctx, transport, address, key, id...)
}

// Close waits for links that nobody wanted to have ended.
func (d *Dialer) Close() { d.wg.Wait() }

// give hands link out as r.
func (d *Dialer) give(r *routed, link wire.Link) (wire.Link, error) {
	r.closedOnce = &closedOnce{Link: link}
	if d.Admit != nil {
		if err := d.Admit(r); err != nil {
			d.discard(link, wire.CodeUnauthorized, "not paired any more")
			return nil, err
		}
	}
	return r, nil
}

// discard closes a link that is not used; that may take seconds.
func (d *Dialer) discard(link wire.Link, code wire.Code, text string) {
	d.wg.Go(func() { link.CloseWithError(code, text) })
}

// unused is what the peer is told of a link that came second.
const unused = "not used: another link was made"

// auto makes a link over what is best, and says why.
func (d *Dialer) auto(ctx context.Context, p *place) (wire.Link, string, error) {
	quic, tls := mover.Route{Transport: QUIC}, mover.Route{Transport: TLS}
	known, ok := d.recall(p)
	first, second := quic, tls
	if ok && known.route.Transport == TLS {
		first, second = tls, quic
	} else if ok {
		first = known.route
	}
	won, lost := d.race(ctx, p, first, second)
	switch {
	case won.err != nil:
		return nil, "", won.err
	case won.route.Transport != first.Transport:
		why := fmt.Sprintf("no answer over %s within %v", network(first), raceAfter)
		if lost != nil {
			why = fmt.Sprintf("nothing over %s: %v", network(first), lost)
		}
		d.learn(p, lesson{route: won.route, why: why})
		return won.link, why, nil
	case ok && !known.silent:
		return won.link, known.why, nil
	}
	rtt := won.link.Stats().RTT
	if rtt < shortMaybe && !known.silent {
		if link, why, ok := d.short(ctx, p, tls); ok {
			d.discard(won.link, wire.CodeOK, unused)
			return link, why, nil
		}
	}
	return won.link, fmt.Sprintf("it answered first, round trip %v", roundTrip(rtt)), nil
}

// short makes a link over TLS when the peer is near and TCP answers at once.
func (d *Dialer) short(ctx context.Context, p *place, tls mover.Route) (wire.Link, string, bool) {
	ctx, cancel := context.WithTimeout(ctx, shortGrace)
	defer cancel()
	link, err := p.over(ctx, tls)
	if err != nil {
		d.learn(p, lesson{route: mover.Route{Transport: QUIC}, silent: true})
		return nil, "", false
	}
	rtt := link.Stats().MinRTT
	if rtt >= wire.LongPath {
		d.discard(link, wire.CodeOK, unused)
		return nil, "", false
	}
	why := fmt.Sprintf("round trip %v, TCP costs less CPU than QUIC", roundTrip(rtt))
	d.learn(p, lesson{route: tls, why: why})
	return link, why, true
}

// roundTrip is d as people read it.
func roundTrip(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return max(d.Round(100*time.Microsecond), 100*time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// network is what a firewall calls a route.
func network(r mover.Route) string {
	if r.Transport == TLS {
		return "TCP"
	}
	return "UDP"
}

// try is how one attempt went.
type try struct {
	route mover.Route
	link  wire.Link
	err   error
}

// race dials first, after raceAfter or its failure second, and gives the first
// that succeeds. Lost is why first failed, if second won after that. The attempt
// that comes second has ended, or ends a link that nobody sees.
func (d *Dialer) race(ctx context.Context, p *place, first, second mover.Route) (won try, lost error) {
	ctx, cancel := context.WithCancel(ctx)
	tries := make(chan try, 2) // 2: nobody waits for who comes second
	dial := func(r mover.Route) {
		d.wg.Go(func() {
			link, err := p.over(ctx, r)
			tries <- try{r, link, err}
		})
	}
	dial(first)
	running := 1
	silence := time.NewTimer(raceAfter)
	defer silence.Stop()
	defer func() {
		cancel()
		d.wg.Go(func() {
			for range running {
				if t := <-tries; t.err == nil {
					t.link.CloseWithError(wire.CodeOK, unused)
				}
			}
		})
	}()
	both, failed := false, error(nil)
	other := func() {
		if !both {
			both, running = true, running+1
			dial(second)
		}
	}
	for {
		select {
		case <-silence.C:
			other()
		case t := <-tries:
			running--
			switch {
			case t.err == nil:
				return t, lost
			case hopeless(t.err) || errors.Is(ctx.Err(), context.Canceled):
				return t, nil
			case failed != nil && t.route == first:
				return try{err: neither(t.err, failed)}, nil
			case failed != nil:
				return try{err: neither(failed, t.err)}, nil
			}
			failed = t.err
			if t.route == first {
				lost = t.err
			}
			other()
		}
	}
}

// hopeless reports whether another transport cannot do better than err: the name
// leads nowhere, or who is there is somebody else.
func hopeless(err error) bool {
	_, dns := errors.AsType[*net.DNSError](err)
	_, addr := errors.AsType[*net.AddrError](err)
	return dns || addr || errors.Is(err, wire.ErrUnknownPeer) || errors.Is(err, wire.ErrVersion)
}

// neither is the error of two attempts.
func neither(first, second error) error {
	return wire.Errorf(wire.CodeUnreachable, "neither UDP nor TCP gets through: %w; %w", first, second)
}

// recall is what was learned of p.
func (d *Dialer) recall(p *place) (lesson, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, ok := d.known[p.name()]
	return l, ok && time.Now().Before(l.until)
}

// learn remembers l of p.
func (d *Dialer) learn(p *place, l lesson) {
	l.until = time.Now().Add(learned)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) >= maxLearned {
		d.known = make(map[string]lesson)
	}
	d.known[p.name()] = l
}

// name tells one place from another.
func (p *place) name() string { return fmt.Sprint(p.address, " ", p.ids) }

// routed is a link that a Dialer made.
type routed struct {
	*closedOnce
	d         *Dialer
	to        *place
	transport string // as asked for
	why       string
}

// Why implements mover.Rerouter.
func (r *routed) Why() string { return r.why }

// May implements mover.Rerouter.
func (r *routed) May(to mover.Route) bool {
	return to.Connections <= maxConnections && (r.transport == Auto || r.transport == to.Transport)
}

// Reroute implements mover.Rerouter.
func (r *routed) Reroute(ctx context.Context, to mover.Route, why string) (wire.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	link, err := r.to.over(ctx, to)
	if err != nil {
		return nil, err
	}
	if r.transport == Auto {
		r.d.learn(r.to, lesson{route: to, why: why})
	}
	return r.d.give(&routed{d: r.d, to: r.to, transport: r.transport, why: why}, link)
}
