package mover

import (
	"context"
	"errors"
	"time"

	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// statusEvery is how often one who gave an order hears how it goes.
const statusEvery = 200 * time.Millisecond

// Order asks the daemon behind from to push its export to another daemon, and
// follows it. The order ends when this link does: a copy that nobody watches
// is a job, and jobs have their own interface.
func (e *Engine) Order(ctx context.Context, from *Remote, spec Job, o wire.Order, p *Progress) (Report, error) {
	if spec.Pass == 0 {
		spec.Pass = 1
	}
	if err := spec.limit(); err != nil {
		return Report{}, err
	}
	tells := spec.tells()
	hello := wire.Hello{Op: wire.OpOrder, Mode: spec.Mode, Run: spec.Run, Pass: spec.Pass, Export: from.Export, Track: spec.Track, Agent: e.cfg.Agent}
	if tells != nil {
		hello.Track = spec.Track.Tell()
	}
	rep := Report{Run: spec.Run, Pass: spec.Pass, Track: spec.Track}
	err := e.retry(ctx, spec.Retry, p, func(ctx context.Context) (bool, error) {
		l, err := dial(ctx, from, &hello, tells)
		if err != nil {
			return false, from.renewed(ctx, err, hello.Ticket)
		}
		if to := spec.Target.Remote; to != nil && to.Ticket != nil {
			if o.Ticket, err = to.Ticket(ctx); err != nil {
				l.end(err)
				return false, err
			}
		}
		now, _, _ := spec.Throttle.Now()
		o.Rate = now.Wire
		stop := beside(func(stopped <-chan struct{}) {
			var target TicketFunc
			if to := spec.Target.Remote; to != nil {
				target = to.Ticket
			}
			tellTickets(ctx, l, from.Ticket, target, hello.Ticket, o.Ticket, stopped)
		})
		began, err := follow(ctx, l, &o, spec.Throttle, &rep, p)
		stop()
		l.end(err)
		return began, from.renewed(ctx, err, hello.Ticket)
	})
	rep.Counters = p.Counters()
	return rep, err
}

// follow gives the order and reads how it goes until the report.
func follow(ctx context.Context, l *lane, o *wire.Order, thr *throttle.Throttle, rep *Report, p *Progress) (began bool, err error) {
	stop := context.AfterFunc(ctx, func() {
		l.link.CloseWithError(wire.CodeCanceled, "cancelled by the one who ordered it")
	})
	defer stop()
	by := terms{job: thr, tells: true, told: wire.Pace{Wire: o.Rate}}
	if err := by.begin(l); err != nil {
		return false, err
	}
	if err := l.send(o); err != nil {
		return false, err
	}
	defer beside(func(stopped <-chan struct{}) {
		_ = by.tellPace(ctx, l, stopped) // a link that fails is seen below
	})()
	for {
		t, body, err := l.receive()
		if err != nil {
			return began, err
		}
		switch t {
		case wire.TypeStatus:
			var s wire.Status
			if err := wire.Parse(&s, body); err != nil {
				return began, err
			}
			began = began || s.Counters.Scanned > 0
			p.set(&s.Counters)
			if s.Text != "" {
				p.event(s.Text)
			}
		case wire.TypeReport:
			var r wire.Report
			if err := wire.Parse(&r, body); err != nil {
				return began, err
			}
			return began, fromReport(&r, rep, p)
		default:
			return began, wire.Errorf(wire.CodeFrame, "frame of type %d after an order", t)
		}
	}
}

// order pushes exp as the peer asks, telling it how it goes.
func (s *Server) order(ctx context.Context, l *lane, exp *Export, h *wire.Hello, p *Progress) error {
	var o wire.Order
	by := terms{job: new(throttle.Throttle)}
	if err := l.expectAlive(firstFrame, &o, &by); err != nil {
		return err
	}
	own := s.Self != (wire.ID{}) && o.Peer == s.Self
	if s.dial == nil && !own {
		return wire.Errorf(wire.CodeUnauthorized, "this daemon takes no orders")
	}
	if err := exp.grant.pushesTo(h.Export, o.Peer); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer l.whenDone(ctx, func(error) {
		cancel(wire.Errorf(wire.CodeCanceled, "the one who ordered the copy is gone"))
	})()
	events := make(chan string, 16) // 16: an event that does not fit is in the log anyway
	p.Event = func(text string) {
		select {
		case events <- text:
		default:
		}
	}
	if !by.heard {
		_ = by.job.SetPeer(throttle.Limits{Wire: atLeast(o.Rate)}) // in range
	}
	tickets := &renewable{exp: exp, hello: *h, peer: l.link.Peer(), to: o.Peer, target: o.Ticket}
	s.wg.Go(func() { cancel(by.follow(l, tickets)) }) // ends with the link
	job := Job{
		Unproved: exp.whole, Run: h.Run, Pass: h.Pass, Mode: h.Mode, Full: o.Full, Throttle: by.job, Retry: time.Duration(o.Retry) * time.Second,
		Track: h.Track, grant: exp.grant, Base: exp.told.from(), Sample: s.e.sampleOf(exp.told, h.Mode), Source: Endpoint{Name: exp.Name, Open: exp.Open, Hint: exp.Hint},
		Target: Endpoint{Name: o.Address, Remote: &Remote{
			Name: o.Address, Export: o.Export, Dial: func(ctx context.Context) (wire.Link, error) { return s.dial(ctx, &o) },
			Ticket: tickets.ticket,
		}},
	}
	if own {
		job.Target.Remote.here, job.Target.Remote.Dial = true, s.within(l.link.Peer())
	}
	type result struct {
		rep Report
		err error
	}
	done := make(chan result, 1) // 1: so that it ends without a reader
	s.wg.Go(func() {
		rep, err := s.e.Run(ctx, job, p)
		done <- result{rep, err}
	})
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		text := ""
		select {
		case r := <-done:
			if err := l.send(reportFrame(&r.rep, r.err)); err != nil {
				return err
			}
			l.farewell(ctx)
			return r.err
		case text = <-events:
		case <-tick.C:
		}
		if err := l.send(&wire.Status{Counters: p.Counters(), Text: text}); err != nil {
			cancel(err)
			<-done
			return err
		}
	}
}

// follow takes what the one who gave the order says later, until the link ends.
func (by *terms) follow(l *lane, tickets *renewable) error {
	for {
		t, body, err := l.receive()
		if err != nil {
			return wire.Errorf(wire.CodeCanceled, "the one who ordered the copy is gone")
		}
		switch t {
		case wire.TypePace:
			err = by.takePace(body)
		case wire.TypeRenew:
			err = tickets.take(body)
		default:
			err = wire.Errorf(wire.CodeFrame, "frame of type %d after an order", t)
		}
		if err != nil {
			return err
		}
	}
}

// reportFrame says how a run ended to the one who ordered it.
func reportFrame(rep *Report, err error) *wire.Report {
	r := &wire.Report{
		State: rep.State, Epoch: rep.Epoch, Root: rep.Root, Larger: rep.Larger, Counters: rep.Counters, Cold: rep.Cold,
		Transport: rep.Transport, Source: rep.Source, Target: rep.Target, Bad: rep.Bad,
		Hinted: rep.Hinted, Reason: rep.Reason, Why: rep.Why, Control: rep.Control, Conns: rep.Conns,
	}
	if err == nil {
		return r
	}
	e := wire.AsError(err, wire.CodeInternal)
	if _, ok := errors.AsType[*linkError](err); ok {
		e.Code = wire.CodeUnreachable
	}
	r.Code, r.Text = e.Code, oneLine(err)
	return r
}

// fromReport turns the last word on an order into what Run would have said.
func fromReport(r *wire.Report, rep *Report, p *Progress) error {
	p.set(&r.Counters)
	rep.State, rep.Epoch, rep.Root, rep.Cold, rep.Transport = r.State, r.Epoch, r.Root, r.Cold, r.Transport
	rep.Larger, rep.Source, rep.Target, rep.Bad = r.Larger, r.Source, r.Target, r.Bad
	rep.Hinted, rep.Reason, rep.Why, rep.Control, rep.Conns = r.Hinted, r.Reason, r.Why, r.Control, r.Conns
	rep.Equal = r.Code == wire.CodeOK && r.Counters.Skipped == 0
	if r.Code == wire.CodeOK {
		return nil
	}
	// The other daemon has tried for as long as it was told to.
	var err error = &finalError{&wire.Error{Code: r.Code, Text: r.Text, Remote: true}}
	switch r.Code {
	case wire.CodeUnreachable, wire.CodeTimeout, wire.CodeDraining, wire.CodeNoSpace, wire.CodeCanceled, wire.CodeTicket:
		if r.Epoch > 0 {
			err = &IncompleteError{Err: err}
		}
	}
	return err
}
