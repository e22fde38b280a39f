package mover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// Role is what an export may be used for.
type Role uint8

// The roles of an export.
const (
	RoleSource Role = 1 // may be read: pulled, verified, ordered to be pushed
	RoleTarget Role = 2 // may be overwritten, and verified
	RoleHost   Role = 3 // the disks of a host's VMs, by names beneath its own; what a ticket says may be done with them
)

// String is the role's word in configuration and messages.
func (r Role) String() string {
	switch r {
	case RoleTarget:
		return "target"
	case RoleHost:
		return "host"
	}
	return "source"
}

// Export is a disk that peers may use. The name is only ever looked up here:
// nothing a peer says becomes a path.
type Export struct {
	Name      string
	Role      Role
	Kind      string    // for probes: "file", "block device"
	Peers     []wire.ID // who may use it
	Operators []wire.ID // who may order this daemon to push it to another
	Open      OpenDisk
	Tickets   *TicketPolicy  // nil: the list of peers is enough
	grant     *grant         // of one session: the ticket that opened it
	floor     uint64         // of a target in this process: Job.Fence
	base      uint32         // of a target in this process: Job.Base
	told      *told          // of one session: what its peer knows of the changes
	held      uint64         // the epoch that the run of a puller had last; 0: none
	way       *way           // of a target in this process, which dials
	track     *wire.Tracking // of a target in this process: what was asked for; nil: what the source says
	Hint      HintFunc       // of a source: asks for its changes; nil: the disk itself, if it is a Tracker

	// Beneath finds the disks of RoleHost. It always wants Tickets; probes are for
	// their Controllers alone. What is here of Open and Kind is not used.
	Beneath Beneath
	unit    string // of one of these disks: the name that sessions of it share, whatever they call it
	whole   bool   // it may be a source whatever its journal says: its host has frozen it
}

// DialPeer makes the link that an order asks for; an error that the order's
// peer is not paired is a *wire.Error with CodeUnauthorized.
type DialPeer func(ctx context.Context, o *wire.Order) (wire.Link, error)

// Server answers links: it is the listening side of a daemon. Make it with
// NewServer; safe for concurrent use.
type Server struct {
	e       *Engine
	dial    DialPeer // nil: takes no orders
	here    bool     // peers are the other half of a job of this process
	exports atomic.Pointer[map[string]*Export]

	// Self is this daemon, for orders whose target is an export of its own; zero
	// takes none. Set it before Serve.
	Self wire.ID

	// Observe is told of every session but probes, before it begins and after it
	// has ended, and of everything that is refused; nil is not. Set it before Serve. It may be called from many
	// goroutines, and the session waits for it.
	Observe func(context.Context, SessionEvent)

	wg       sync.WaitGroup
	mu       sync.Mutex
	links    map[*served]struct{}
	draining bool
	allowed  func(wire.ID) bool // of the last Revoke; nil: all that the listener let in
}

// served is one link in work.
type served struct {
	peer     wire.ID
	cancel   context.CancelCauseFunc
	progress Progress
}

// NewServer returns a server without exports.
func NewServer(e *Engine, dial DialPeer) *Server {
	s := &Server{e: e, dial: dial, links: make(map[*served]struct{})}
	s.SetExports(nil)
	return s
}

// SetExports replaces all exports. Sessions that are running keep theirs;
// Revoke ends them.
func (s *Server) SetExports(list []Export) {
	m := make(map[string]*Export, len(list))
	for i := range list {
		m[list[i].Name] = &list[i]
	}
	s.exports.Store(&m)
}

// Revoke ends the sessions of peers that are not allowed any more. It is kept and
// asked for each link from here on: the handshake of one may have been done a
// moment before.
func (s *Server) Revoke(allowed func(wire.ID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = allowed
	for l := range s.links {
		if !allowed(l.peer) {
			l.cancel(revoked(l.peer))
		}
	}
}

func revoked(peer wire.ID) *wire.Error {
	return wire.Errorf(wire.CodeUnauthorized, "this daemon is not paired with %v any more", peer)
}

// Sessions is the number of links in work.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links)
}

// Serve accepts links from l until ctx is done or l is closed. Sessions go on
// after it returns: Drain ends them.
func (s *Server) Serve(ctx context.Context, l wire.Listener) error {
	for {
		link, err := l.Accept(ctx)
		switch {
		case errors.Is(err, wire.ErrClosed) || ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		s.start(context.WithoutCancel(ctx), link)
	}
}

// Drain ends all sessions with CodeDraining, after a last checkpoint of each
// target, and waits for them. Peers go on when the daemon is back.
func (s *Server) Drain() {
	s.mu.Lock()
	s.draining = true
	for l := range s.links {
		l.cancel(wire.Errorf(wire.CodeDraining, "the daemon is about to stop; the copy goes on when it is back"))
	}
	s.mu.Unlock()
	s.wait()
}

func (s *Server) wait() { s.wg.Wait() }

// start serves one link in a goroutine that Drain waits for.
func (s *Server) start(ctx context.Context, link wire.Link) {
	ctx, cancel := context.WithCancelCause(ctx)
	v := &served{peer: link.Peer(), cancel: cancel}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		link.CloseWithError(wire.CodeDraining, "the daemon is about to stop")
		cancel(nil)
		return
	case s.allowed != nil && !s.allowed(v.peer):
		e := revoked(v.peer)
		link.CloseWithError(e.Code, e.Text)
		cancel(nil)
		return
	case len(s.links) >= s.e.cfg.Sessions:
		link.CloseWithError(wire.CodeLimit, "too many sessions")
		cancel(nil)
		return
	}
	s.links[v] = struct{}{}
	s.wg.Go(func() {
		defer cancel(nil)
		defer s.survive(link)
		s.serve(ctx, link, &v.progress)
		s.mu.Lock()
		delete(s.links, v)
		s.mu.Unlock()
	})
}

// survive keeps a mistake of ours in one session from ending all the others.
func (s *Server) survive(link wire.Link) {
	if r := recover(); r != nil {
		s.logOf(link).Error("session ended by a bug, please report it", "err", fmt.Sprint(r), "stack", string(debug.Stack()))
		link.CloseWithError(wire.CodeInternal, "a bug in this daemon; its log has more")
	}
}

// logOf names the peer of a link; one within this process has none.
func (s *Server) logOf(link wire.Link) *slog.Logger {
	if link.Peer() == (wire.ID{}) {
		return s.e.cfg.Log
	}
	return s.e.cfg.Log.With("peer", link.Peer().String(), "addr", link.RemoteAddr())
}

// serve runs what one link asks for and logs how it went, once.
func (s *Server) serve(ctx context.Context, link wire.Link, p *Progress) {
	began := time.Now()
	l := newLane(link)
	var h wire.Hello
	ev := SessionEvent{Peer: link.Peer(), Addr: link.RemoteAddr()}
	err := s.handle(ctx, l, &h, p, &ev)
	if ev.Hello.Export != "" {
		ev.Err = err
		ev.Ended = true
		s.observe(ctx, ev)
	}
	log := s.logOf(link).With("export", h.Export, "run", h.Run.String())
	c := p.Counters()
	attrs := []any{
		"op", h.Op.String(), "dur", time.Since(began).Round(time.Millisecond), "scanned", c.Scanned, "skipped", c.Skipped, "sampled", c.Sampled, "differing", c.Differing,
		"received", c.Sent, "durable", c.Durable, "verified", c.Verified,
	}
	switch {
	case h.Mode == wire.ModeVerify && c.Differing > 0 && (err == nil || codeOf(err) == wire.CodeVerify):
		log.Warn("session done: the disks differ", attrs...) // which was the question
	case err == nil:
		log.Info("session done", attrs...)
	case h.Op == 0 && codeOf(err) == wire.CodeOK && remote(err):
		log.Debug("link not used") // the dialer tried two transports, or looks whether somebody is here
	case codeOf(err) == wire.CodeCanceled || codeOf(err) == wire.CodeSuperseded || errors.Is(err, context.Canceled):
		log.Info("session cancelled", append(attrs, "reason", err)...)
	case codeOf(err) == wire.CodeSwitch:
		log.Info("session goes on over another transport", append(attrs, "reason", err)...)
	case retryable(err) || gone(err):
		log.Warn("session interrupted", append(attrs, "reason", err)...)
	default:
		log.Error("session refused or failed", append(attrs, "code", codeOf(err).String(), "err", err)...)
	}
	l.end(err)
}

// handle reads the Hello and does what it asks for.
func (s *Server) handle(ctx context.Context, l *lane, h *wire.Hello, p *Progress, ev *SessionEvent) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { l.end(context.Cause(ctx)) })
	defer stop()
	if err := l.expect(h); err != nil {
		return helloError(err)
	}
	if h.Op != wire.OpProbe {
		ev.Hello = *h
	}
	exp, err := s.admit(l.link, h)
	if err != nil {
		ev.Hello = *h // of a probe, too: that is how somebody looks for exports
		return err
	}
	ev.Granted = true
	if h.Op != wire.OpProbe {
		s.observe(ctx, *ev)
	}
	defer exp.grant.expires(h.Export, cancel)()
	if err := l.send(&wire.Welcome{Agent: s.e.cfg.Agent}); err != nil {
		return err
	}
	if exp, err = l.hear(exp, h); err != nil {
		return err
	}
	spec := passSpec{run: h.Run, pass: h.Pass, mode: h.Mode}
	s.logOf(l.link).Info("session begins", "export", h.Export, "run", h.Run.String(), "pass", h.Pass, "op", h.Op.String())
	switch h.Op {
	case wire.OpPush:
		defer s.counts(l, h, p, &err)()
		_, err = s.e.receive(ctx, l, exp, spec, s.terms(l, h), p, firstFrame)
	case wire.OpPull:
		defer s.counts(l, h, p, &err)()
		err = s.e.serveSource(ctx, l, exp, spec, h, s.terms(l, h), p)
	case wire.OpProbe:
		err = s.probe(ctx, l, exp)
	case wire.OpOrder:
		err = s.order(ctx, l, exp, h, p)
	}
	return err
}

// counts makes a half that a peer began part of the engine's Stats until the
// function it returns is called.
func (s *Server) counts(l *lane, h *wire.Hello, p *Progress, err *error) func() {
	end := s.e.cfg.tally.begin(Half{Target: h.Op == wire.OpPush, Verify: h.Mode == wire.ModeVerify}, p)
	s.e.cfg.tally.over(p, l.link)
	return func() { end(*err) }
}

// terms are what a session that a peer began is limited by at first.
func (s *Server) terms(l *lane, h *wire.Hello) terms {
	_, own := l.link.(*ownLink)
	by := terms{job: new(throttle.Throttle), here: s.here || own}
	_ = by.job.SetPeer(throttle.Limits{Wire: atLeast(h.Rate)}) // in range
	return by
}

// SessionEvent is the begin or the end of a session, or that it was refused.
type SessionEvent struct {
	Peer    wire.ID
	Addr    string // where the peer is
	Hello   wire.Hello
	Granted bool // the export table and the ticket let it in
	Ended   bool
	Err     error // with Ended; nil: it did what it was to do
}

func (s *Server) observe(ctx context.Context, ev SessionEvent) {
	if s.Observe != nil {
		s.Observe(context.WithoutCancel(ctx), ev)
	}
}

// helloError makes a wrong first frame one with a code of its own.
func helloError(err error) error {
	switch {
	case errors.Is(err, wire.ErrVersion):
		return wire.Errorf(wire.CodeVersion, "%w", err)
	case errors.Is(err, wire.ErrFrame):
		return wire.Errorf(wire.CodeFrame, "%w", err)
	}
	return err
}

// admit finds the export a peer asks for and says no as precisely as the peer
// may know: who may not use an export does not learn whether it exists.
func (s *Server) admit(link wire.Link, h *wire.Hello) (*Export, error) {
	peer, shower := link.Peer(), link.Peer()
	if _, own := link.(*ownLink); own {
		shower = s.Self // the disk that is read is of this daemon
	}
	exp, err := s.find(peer, shower, h)
	if err != nil {
		return nil, err
	}
	switch {
	case h.Op == wire.OpOrder && !slices.Contains(exp.Operators, peer):
		return nil, wire.Errorf(wire.CodeUnauthorized, "this peer may use %q but not order it to be pushed: list it under operators", h.Export)
	case h.Op != wire.OpOrder && h.Op != wire.OpProbe && !slices.Contains(exp.Peers, peer):
		return nil, wire.Errorf(wire.CodeUnauthorized, "this peer may order %q to be pushed but not use it itself: list it under peers", h.Export)
	case h.Op == wire.OpPush && h.Mode == wire.ModeCopy && exp.Role != RoleTarget:
		return nil, wire.Errorf(wire.CodeRole, "export %q is a source and will not be overwritten", h.Export)
	case (h.Op == wire.OpPull || h.Op == wire.OpOrder) && h.Mode == wire.ModeCopy && exp.Role != RoleSource:
		return nil, wire.Errorf(wire.CodeRole, "export %q is a target and is not read by copies", h.Export)
	case h.Pass == 0 && h.Op != wire.OpProbe:
		return nil, wire.Errorf(wire.CodeFrame, "pass 0")
	case exp.Tickets == nil || h.Op == wire.OpProbe:
		return exp, nil
	}
	g, err := exp.Tickets.open(shower, h)
	if err != nil {
		return nil, err
	}
	opened := *exp
	opened.grant = g
	return &opened, nil
}

// probe tells about an export, without the right to change anything.
func (s *Server) probe(ctx context.Context, l *lane, exp *Export) error {
	if exp.Role == RoleHost { // to see that it is there
		return s.tell(ctx, l, &wire.Probed{Kind: exp.Role.String()})
	}
	if p, ok := s.e.live(exp); ok {
		return s.tell(ctx, l, &p)
	}
	disk, err := exp.Open.patiently(ctx, ReadOnly)
	if err != nil {
		return diskError(wire.CodeOpen, exp.Role.String(), "open", cbt.Extent{}, err)
	}
	_, coldness := cold(disk)
	p := wire.Probed{Size: disk.Size(), Target: exp.Role == RoleTarget, Identity: disk.Identity(), Kind: exp.Kind, Cold: coldness}
	_ = disk.Close() // only read; before the answer, after which the peer may want to write
	if p.Target {
		st, err := ReadJournal(s.e.state, p.Identity)
		if err != nil {
			return err
		}
		p.State, p.Run, p.Pass, p.Epoch, p.Durable, p.Root = st.State, st.Run, st.Pass, st.Epoch, st.Durable.Len(), st.Root
		p.Skipped, p.Sampled = st.Skipped, st.Sampled
	}
	return s.tell(ctx, l, &p)
}

// tell sends a probe's answer.
func (s *Server) tell(ctx context.Context, l *lane, p *wire.Probed) error {
	if err := l.send(p); err != nil {
		return err
	}
	l.farewell(ctx)
	return nil
}

// live tells about an export whose disk a session holds, from that session.
func (e *Engine) live(exp *Export) (p wire.Probed, ok bool) {
	t, use := e.targets.held(exp.key())
	if t == nil || t.journal == nil {
		return p, false
	}
	t.journalMu.Lock()
	st := t.journal.state
	p = wire.Probed{
		Size: t.disk.Size(), Target: true, State: st.State, Run: st.Run, Pass: st.Pass, Epoch: st.Epoch, Durable: st.Durable.Len(),
		Root: st.Root, Skipped: st.Skipped, Sampled: st.Sampled, Identity: t.disk.Identity(), Kind: exp.Kind, Cold: t.cold, Use: use,
	}
	t.journalMu.Unlock()
	return p, true
}

// Probe asks a peer about an export.
func (e *Engine) Probe(ctx context.Context, r *Remote) (p wire.Probed, err error) {
	hello := wire.Hello{Op: wire.OpProbe, Mode: wire.ModeVerify, Export: r.Export, Agent: e.cfg.Agent}
	l, err := dial(ctx, r, &hello, nil)
	if err != nil {
		return p, err
	}
	err = l.expectWithin(openWait, &p)
	l.end(err)
	return p, err
}
