package mover

import (
	"context"
	"sync"
	"time"

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
	// may prefer that for later links. The link that it is asked of stays, and may
	// have ended before.
	Reroute(ctx context.Context, to Route, why string) (wire.Link, error)
}

// way is what one run goes over, at the end that dials: the judge, and the link
// that it has asked for. Its methods are safe for concurrent use; a nil one is of an
// end that was dialed, and does nothing.
type way struct {
	prog *Progress
	test pathTest

	mu      sync.Mutex
	judge   judge
	link    Rerouter  // of the session now; nil: nothing can be chosen
	next    wire.Link // for the session that follows; nil: it is dialed
	busy    bool      // a change is being made
	last    *turn     // the last change, until the run goes back
	back    *turn     // to be gone back on by the next dial
	control string    // congestion control of the end that sends, as it says
}

// turn is a change that was made.
type turn struct {
	link     Rerouter // that was left
	from, to Route
	since    time.Time // the new link was taken; zero: not yet
	why      string    // of going back
}

// pathTest decides in place of the judge, for tests.
type pathTest struct {
	every time.Duration // 0: pathEvery
	want  func(from Route, c wire.Counters) (Route, bool)
}

func newWay(p *Progress, cfg *Config) *way { return &way{prog: p, test: cfg.path} }

// wrap is r whose next link is the one that was asked for, if there is one, or
// over the old route again, if that one was of no use.
func (w *way) wrap(r *Remote) *Remote {
	by := *r
	by.Dial = func(ctx context.Context) (wire.Link, error) {
		w.mu.Lock()
		next, back := w.next, w.back
		w.next, w.back = nil, nil
		if next != nil {
			w.last.since = time.Now()
		}
		w.mu.Unlock()
		switch {
		case next != nil && next.Err() == nil:
			return next, nil
		case next != nil:
			next.CloseWithError(wire.CodeOK, "")
			if link := w.instead(ctx, next.Err()); link != nil {
				return link, nil
			}
		case back != nil:
			if link, err := back.link.Reroute(ctx, back.from, back.why); err == nil {
				return link, nil
			}
		}
		return r.Dial(ctx)
	}
	return &by
}

// instead makes a link where the one that was asked for has ended with err before
// it was used; nil if there is none to be had.
func (w *way) instead(ctx context.Context, err error) wire.Link {
	w.mu.Lock()
	t := w.last
	w.mu.Unlock()
	to, why := t.to, "the change took long"
	if codeOf(err) != wire.CodeTimeout || !remote(err) { // else nobody spoke on it for too long
		w.goBack(err)
		w.mu.Lock()
		w.back = nil
		w.mu.Unlock()
		to, why = t.from, t.why
	}
	if link, err := t.link.Reroute(ctx, to, why); err == nil {
		return link
	}
	return nil
}

// goBack has the next dial go over the route before the last change, of which
// err has come. Nothing is changed after that.
func (w *way) goBack(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.last
	t.why = t.to.String() + " was of no use: " + oneLine(err)
	w.judge.done, w.last, w.back = true, nil, t
	w.prog.event("goes on over " + t.from.String() + " again: " + t.why)
}

// trial is how long a link after a change has to hold for its end not to be
// blamed on the change.
const trial = 10 * time.Second

// failed takes the error that an attempt has ended with, and gives the one to go
// on with. A link that was changed to and is lost at once is nothing that a run
// ends or waits for: it goes back to what it had. Began says whether the session
// began on it.
func (w *way) failed(ctx context.Context, began bool, err error) error {
	w.mu.Lock()
	t := w.last
	w.mu.Unlock()
	if err == nil || t == nil || t.since.IsZero() || ctx.Err() != nil || !retryable(err) && !waits(err) {
		return err
	}
	switch codeOf(err) {
	case wire.CodeSwitch, wire.CodeDraining, wire.CodeDistrust, wire.CodeFlush, wire.CodeDiskLost:
		return err
	}
	if began && w.prog.advanced() && time.Since(t.since) > trial {
		return err
	}
	w.goBack(err)
	if !began {
		w.prog.switched.Add(-1) // there was no session on it
	}
	return wire.Errorf(wire.CodeSwitch, "changes the transport: %s", t.why)
}

// begin is for a session on link.
func (w *way) begin(link wire.Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = false
	if w.link, _ = link.(Rerouter); w.link == nil {
		return
	}
	route := Route{Transport: link.Transport()}
	if route.Transport == "quic" {
		route.Connections = link.Stats().Connections
	}
	w.judge.may = w.link.May
	w.judge.begin(route)
}

// close gives up a link that was asked for and is not needed any more.
func (w *way) close() {
	w.mu.Lock()
	next := w.next
	w.next = nil
	w.mu.Unlock()
	if next != nil {
		next.CloseWithError(wire.CodeOK, "not used: the copy has ended")
	}
}

// ask shows s to the judge; ok if it wants another route: then change is to be
// called.
func (w *way) ask(s *seen) (to Route, why string, ok bool) {
	if w == nil {
		return to, "", false
	}
	c := w.prog.Counters()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.link == nil || w.busy {
		return to, "", false
	}
	if w.test.want != nil {
		to, w.busy = w.test.want(w.judge.route, c)
		return to, "a test wants it", w.busy
	}
	to, why, w.busy = w.judge.look(s, max(0, c.Total-c.Verified))
	return to, why, w.busy
}

// change makes the link that is to be next; ok if there is one: then the session is
// to be drained and ended. A session that is finished meanwhile ends it.
func (w *way) change(ctx context.Context, to Route, why string, finished <-chan struct{}) (ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer beside(func(stopped <-chan struct{}) {
		select {
		case <-finished:
			cancel()
		case <-stopped:
		}
	})()
	w.mu.Lock()
	link, from := w.link, w.judge.route
	w.mu.Unlock()
	next, err := link.Reroute(ctx, to, why)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.busy = false
		if ctx.Err() != nil { // the session has ended, which says nothing of that route
			return false
		}
		if w.judge.refused(to); w.judge.least >= wire.LongPath {
			w.prog.event("stays with " + from.String() + " though " + why + ": " + to.String() + " is not to be had: " + oneLine(err))
		}
		return false
	}
	w.judge.changed(to)
	w.next, w.last = next, &turn{link: link, from: from, to: to}
	w.prog.event("goes on over " + to.String() + " instead of " + from.String() + ": " + why)
	return true
}

// told notes what the end that sends says of itself.
func (w *way) told(control string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.control = control
}

// sends is the congestion control of the end that sends, as it has said last.
func (w *way) sends() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.control
}

// writes counts how long one data stream keeps its writer waiting. One goroutine
// writes, any may look.
type writes struct {
	mu    sync.Mutex
	since time.Time     // of the write that goes on; zero: none does
	spent time.Duration // in those that are over
}

func (w *writes) enter() {
	w.mu.Lock()
	w.since = time.Now()
	w.mu.Unlock()
}

func (w *writes) leave() {
	w.mu.Lock()
	w.spent += time.Since(w.since)
	w.since = time.Time{}
	w.mu.Unlock()
}

func (w *writes) sum() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		return w.spent
	}
	return w.spent + time.Since(w.since)
}

// waited is a data stream whose writer is timed.
type waited struct {
	wire.Stream
	w *writes
}

// Write implements io.Writer.
func (s *waited) Write(p []byte) (int, error) {
	s.w.enter()
	defer s.w.leave()
	return s.Stream.Write(p)
}

// pathEvery is how often the judge looks, or is told: several times in the second
// after which it may decide.
const pathEvery = 250 * time.Millisecond

// drainWait is how long a session that is to go on elsewhere waits for what it has
// sent to become durable: what the line carries while the writers wait, and the
// second that a target may take for a checkpoint.
const drainWait = 2500 * time.Millisecond

// sight is what a source sees of its link.
type sight struct {
	began   time.Time
	bbr     bool
	packets int64 // before the session began
	lost    int64
	streams []writes
	bytes   func() int64 // given to data streams so far
}

func newSight(link wire.Link, streams int, bytes func() int64) *sight {
	st := link.Stats()
	return &sight{began: time.Now(), bbr: wire.HasBBR(), packets: int64(st.Sent), lost: int64(st.Lost), streams: make([]writes, streams), bytes: bytes}
}

// look is what is seen now.
func (s *sight) look(link wire.Link) (seen, string) {
	st := link.Stats()
	out := seen{at: time.Since(s.began), rtt: st.RTT, packets: int64(st.Sent) - s.packets, lost: int64(st.Lost) - s.lost, bytes: s.bytes(), bbr: s.bbr}
	if link.Transport() == "quic" { // packets go all the time, a frame of a MiB counts when it is gone
		out.bytes = segment * max(0, out.packets-out.lost)
	}
	for i := range s.streams {
		out.waited += s.streams[i].sum() / time.Duration(len(s.streams))
	}
	return out, st.Control
}

// path shows what the source sees of its link to the judge, if that is here, or
// tells it to the end that dialed. When the judge wants another link it drains the
// session and ends it.
func (ss *sourceSession) path(ctx context.Context) error {
	if ss.l.link.Transport() == "pipe" {
		return nil
	}
	every := pathEvery
	if ss.cfg.path.every > 0 {
		every = ss.cfg.path.every
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-ss.finished:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		now, control := ss.sight.look(ss.l.link)
		if !ss.by.tells {
			if n%2 != 0 { // half as often: it costs a packet
				continue
			}
			if err := ss.l.send(now.frame(control)); err != nil {
				return err
			}
			continue
		}
		if to, why, ok := ss.way.ask(&now); ok && ss.way.change(ctx, to, why, ss.finished) {
			close(ss.halted)
			return ss.drain(ctx, why)
		}
	}
}

// frame is s for the end that dialed.
func (s *seen) frame(control string) *wire.Path {
	return &wire.Path{
		Op: wire.PathSeen, BBR: s.bbr, RTT: uint32(s.rtt.Microseconds()), At: s.at.Microseconds(), Waited: s.waited.Microseconds(),
		Bytes: s.bytes, Packets: s.packets, Lost: s.lost, Control: control,
	}
}

// seenOf is what a frame says.
func seenOf(f *wire.Path) *seen {
	us := func(n int64) time.Duration { return time.Duration(min(n, int64(1)<<50)) * time.Microsecond }
	return &seen{
		at: us(f.At), rtt: us(int64(f.RTT)), waited: us(f.Waited), bytes: f.Bytes, packets: f.Packets, lost: f.Lost, bbr: f.BBR,
	}
}

// toDrain takes the dialer's word that it wants to go on over another link.
func (ss *sourceSession) toDrain(ctx context.Context, body []byte) error {
	var f wire.Path
	if err := wire.Parse(&f, body); err != nil {
		return err
	}
	if f.Op != wire.PathDrain || ss.by.tells {
		return wire.Errorf(wire.CodeFrame, "a Path %d from the target", f.Op)
	}
	if ss.draining.CompareAndSwap(false, true) { // who says so twice is not heard twice
		close(ss.halted) // before the next Ack makes room
		ss.group.Go(func() error { return ss.drain(ctx, "the other end asks for it") })
	}
	return nil
}

// drain, where no more batches are handed out, waits until all that was sent is
// durable, and ends the session so that it goes on over another link. What is sent
// and not yet durable after drainWait may have to be sent again.
func (ss *sourceSession) drain(ctx context.Context, why string) error {
	wait, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	_ = ss.inflight.Acquire(wait, ss.cfg.Checkpoint+ss.cfg.Window) // in time or not
	select {
	case <-ss.finished: // there was not more than this
		return nil
	default:
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return wire.Errorf(wire.CodeSwitch, "changes the transport: %s", why)
}

// hears shows what the source says of the link to the judge of this end, which
// dialed.
func (ts *targetSession) hears(ctx context.Context, body []byte) error {
	var f wire.Path
	if err := wire.Parse(&f, body); err != nil {
		return err
	}
	if f.Op != wire.PathSeen || ts.way == nil {
		return wire.Errorf(wire.CodeFrame, "a Path %d from the source", f.Op)
	}
	ts.way.told(f.Control)
	to, why, ok := ts.way.ask(seenOf(&f))
	if !ok {
		return nil
	}
	ts.group.Go(func() error { // to make a link takes time
		if !ts.way.change(ctx, to, why, ts.finished) {
			return nil
		}
		if err := ts.l.send(&wire.Path{Op: wire.PathDrain}); err != nil {
			return err
		}
		late := time.NewTimer(drainWait + firstFrame/2)
		defer late.Stop()
		select {
		case <-late.C: // it does not end the link: then this end does
			return wire.Errorf(wire.CodeSwitch, "changes the transport: %s", why)
		case <-ts.finished:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return nil
}
