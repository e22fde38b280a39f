package mover

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/haulback/haulback/wire"
)

// TicketPolicy makes an export want a ticket besides its list of peers.
type TicketPolicy struct {
	Self        []wire.ID // this daemon: its key, and the one before while that is changed
	Controllers []wire.ID // whose signatures count
}

// TicketFunc gives the newest ticket that the caller has, at each try to
// connect. It is how tickets are renewed.
type TicketFunc func(ctx context.Context) ([]byte, error)

// grant is a ticket that opened an export. The nil grant is of an export that
// wants none.
type grant struct {
	*wire.Ticket
	until time.Time   // by the monotonic clock
	timer *time.Timer // ends the session then; set by expires
}

// ticketError is the one answer to a session whose ticket is missing, wrong, or
// over. It is only ever told to peers that the export lists.
func ticketError(export, reason string) error {
	return wire.Errorf(wire.CodeTicket, "export %q opens only with a ticket that one of its controllers signed for this use: %s", export, reason)
}

// open is the second lock of an export. What the ticket says of the disk is
// compared when the disk is open (fits), and the peer of an order when it is
// named (pushesTo).
func (p *TicketPolicy) open(peer wire.ID, h *wire.Hello) (*grant, error) {
	if len(h.Ticket) == 0 {
		return nil, ticketError(h.Export, "there is none")
	}
	t, err := wire.ParseTicket(h.Ticket)
	if err != nil {
		return nil, ticketError(h.Export, "it is not valid")
	}
	left, err := t.Good(time.Now())
	here, there := t.Target, t.Source // of a push, and of a comparison that the peer reads
	if h.Op == wire.OpPull || h.Op == wire.OpOrder {
		here, there = t.Source, t.Target
	}
	switch {
	case !slices.Contains(p.Controllers, t.Signer()):
		return nil, ticketError(h.Export, "it is signed by another key")
	case err != nil:
		return nil, ticketError(h.Export, err.Error())
	case h.Op != wire.OpOrder && there != peer:
		return nil, ticketError(h.Export, "it is for another peer")
	case !slices.Contains(p.Self, here):
		return nil, ticketError(h.Export, "it is for another daemon")
	case t.Export != h.Export:
		return nil, ticketError(h.Export, "it is for another export")
	case t.Run != h.Run:
		return nil, ticketError(h.Export, "it is for another run")
	case t.Pass != 0 && t.Pass != h.Pass:
		return nil, ticketError(h.Export, "it is for another pass")
	case t.Op != opOf(h):
		return nil, ticketError(h.Export, "it is to "+t.Op.String()+", this is to "+opOf(h).String())
	}
	return &grant{Ticket: t, until: time.Now().Add(left)}, nil
}

// opOf is what a session does to the export that it names.
func opOf(h *wire.Hello) wire.TicketOp {
	switch {
	case h.Mode == wire.ModeVerify:
		return wire.TicketVerify
	case h.Op == wire.OpPush:
		return wire.TicketWrite
	}
	return wire.TicketRead
}

// pushesTo refuses an order to push to another than the ticket names.
func (g *grant) pushesTo(export string, to wire.ID) error {
	if g != nil && g.Target != to {
		return ticketError(export, "it is for another target")
	}
	return nil
}

// fits refuses a disk that is not the one of the ticket.
func (g *grant) fits(disk Disk) error {
	switch {
	case g == nil:
	case g.Identity != disk.Identity():
		return ticketError(g.Export, "it is for another disk than the one that is there now")
	case g.Size != disk.Size():
		return ticketError(g.Export, "it is for a disk of another size")
	}
	return nil
}

// fence is the epoch of who opened the export; 0: none is known.
func (exp *Export) fence() uint64 {
	if exp.grant != nil {
		return exp.grant.Epoch
	}
	return exp.floor
}

// fence is that of the export that the session came by.
func (t *target) fence() uint64 {
	if t.grant != nil {
		return t.grant.Epoch
	}
	return t.floor
}

// fenced reports whether there is a fence to go by.
func (t *target) fenced() bool { return t.grant != nil || t.floor > 0 }

// expires cancels when the grant is over. The function it returns stops that.
func (g *grant) expires(export string, cancel context.CancelCauseFunc) (stop func() bool) {
	if g == nil {
		return func() bool { return true }
	}
	g.timer = time.AfterFunc(time.Until(g.until), func() { cancel(ticketError(export, "its time is over")) })
	return g.timer.Stop
}

// renewable is what can be renewed of an order that runs.
type renewable struct {
	exp   *Export
	hello wire.Hello
	peer  wire.ID // who gave the order
	to    wire.ID

	mu     sync.Mutex
	target []byte // the ticket for the target's daemon
}

// ticket is the TicketFunc of the order's push.
func (r *renewable) ticket(context.Context) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.target, nil
}

// take takes over the tickets of a Renew.
func (r *renewable) take(body []byte) error {
	var f wire.Renew
	if err := wire.Parse(&f, body); err != nil {
		return err
	}
	if len(f.Target) > 0 {
		r.mu.Lock()
		r.target = f.Target
		r.mu.Unlock()
	}
	if len(f.Source) == 0 || r.exp.grant == nil {
		return nil
	}
	r.hello.Ticket = f.Source
	g, err := r.exp.Tickets.open(r.peer, &r.hello)
	if err == nil {
		err = g.pushesTo(r.hello.Export, r.to)
	}
	if err == nil && (g.Identity != r.exp.grant.Identity || g.Size != r.exp.grant.Size) {
		err = ticketError(r.hello.Export, "it is for another disk")
	}
	if err != nil {
		return err
	}
	r.exp.grant.timer.Reset(time.Until(g.until))
	return nil
}

// renewEvery is how often one who gave an order looks for new tickets: far less
// than the minute by which clocks may be apart.
const renewEvery = 10 * time.Second

// tellTickets sends new tickets for an order, as they come, until the link ends.
func tellTickets(ctx context.Context, l *lane, source, target TicketFunc, shown, given []byte, stopped <-chan struct{}) {
	if source == nil && target == nil {
		return
	}
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stopped:
			return
		case <-ctx.Done():
			return
		}
		f := wire.Renew{Source: later(ctx, source, &shown), Target: later(ctx, target, &given)}
		if len(f.Source)+len(f.Target) > 0 && l.send(&f) != nil {
			return // who reads from the link sees why
		}
	}
}

// later is the ticket that f gives if it is another than the last.
func later(ctx context.Context, f TicketFunc, last *[]byte) []byte {
	if f == nil {
		return nil
	}
	b, err := f(ctx)
	if err != nil || bytes.Equal(b, *last) {
		return nil
	}
	*last = b
	return b
}

// fencedOff says that a controller has given the disk to a later epoch.
func fencedOff(mine, now uint64) error {
	return wire.Errorf(wire.CodeFenced, "the ticket's epoch %d is over: the disk is at epoch %d of its controller", mine, now)
}

// show puts the newest ticket into the Hello of the next link.
func (r *Remote) show(ctx context.Context, hello *wire.Hello) (err error) {
	if r.Ticket != nil {
		hello.Ticket, err = r.Ticket(ctx)
	}
	return err
}

// renewError ends a link for want of a good ticket, and there is a later one.
type renewError struct{ err error }

func (e *renewError) Error() string   { return e.err.Error() }
func (e *renewError) Unwrap() error   { return e.err }
func (e *renewError) Retryable() bool { return true }

// renewed makes err one that is worth another try, if the peer wants a better
// ticket than the one that it was shown and there is another now.
func (r *Remote) renewed(ctx context.Context, err error, shown []byte) error {
	if err == nil || r.Ticket == nil || codeOf(err) != wire.CodeTicket || !remote(err) {
		return err
	}
	if b, terr := r.Ticket(ctx); terr == nil && len(b) > 0 && !bytes.Equal(b, shown) {
		return &renewError{err}
	}
	return err
}

// renewPatience is how long a run that does not try again otherwise goes on
// with new tickets that get it no further.
const renewPatience = time.Minute
