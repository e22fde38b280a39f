package mover

import (
	"context"
	"fmt"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// serveSource runs the source half for a peer that pulls. What is compared
// outlives the link, as in push.
func (e *Engine) serveSource(ctx context.Context, l *lane, exp *Export, spec passSpec, hello *wire.Hello, by terms, p *Progress) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer l.whenDone(ctx, cancel)()
	key := fmt.Sprintf("%s %v %d %d %v", exp.key(), spec.run, spec.pass, spec.mode, l.link.Peer())
	h, err := e.sources.acquire(ctx, key, spec.run, 0, cancel, e.cfg.bug)
	if err != nil {
		return err
	}
	defer func() {
		linger := e.cfg.Linger
		if err == nil || !retryable(err) && codeOf(err) != wire.CodeTicket && codeOf(err) != wire.CodeSuperseded {
			linger = 0 // of a link of the same run that came before this one has ended it goes on with what is compared
		}
		_ = e.sources.release(h, linger) // a source: nothing can be lost
	}()
	spec.full = hello.Full
	s, err := e.pulled(ctx, l, h, exp, spec, hello, p)
	if err != nil {
		return err
	}
	s.by, s.gate = by, e.gateFor(by, s.disk.Identity(), p)
	defer s.gate.Disk.Release()
	_, v, err := s.session(ctx, l)
	dropped := s.hinted() && codeOf(err) == wire.CodeDistrust
	err = s.learn(err)
	if cause := context.Cause(ctx); cause != nil && err != nil && !dropped && codeOf(err) != wire.CodeDiskLost {
		err = cause
	}
	if err != nil {
		return err
	}
	return s.conclude(&Report{}, &v)
}

// pulled is the source of h, opened anew where there is none yet, or where it
// was lost. The peer hears meanwhile that somebody is there: opening a disk and
// asking for its changes may take minutes.
func (e *Engine) pulled(ctx context.Context, l *lane, h *hold, exp *Export, spec passSpec, hello *wire.Hello, p *Progress) (*source, error) {
	defer l.knock()()
	s, ok := h.res.(*source)
	if !ok {
		return e.openPulled(ctx, h, exp, spec, hello, p)
	}
	if err := exp.grant.fits(s.disk); err != nil {
		return nil, err
	}
	s.watchOver(p)
	s.retold(exp.told)
	if err := s.retrack(hello.Track, hello.Full); err != nil {
		return nil, err
	}
	return s, s.ready(ctx, exp.Open, exp.Hint)
}

func (e *Engine) openPulled(ctx context.Context, h *hold, exp *Export, spec passSpec, hello *wire.Hello, p *Progress) (*source, error) {
	disk, err := exp.Open.patiently(ctx, ReadOnly)
	if err != nil {
		return nil, diskError(wire.CodeOpen, "source", "open", cbt.Extent{}, err)
	}
	if err = exp.grant.fits(disk); err == nil {
		err = e.fit(disk, spec, exp.whole)
	}
	if err == nil {
		s := newSource(&e.cfg, e.pool, disk, spec, p)
		s.tell(exp.told)
		if err = s.narrow(ctx, hello.Track, exp.Hint); err == nil {
			e.sources.fill(h, s)
			return s, nil
		}
	}
	_ = disk.Close() // only read
	return nil, err
}

// watchOver makes s count in p from here on.
func (s *source) watchOver(p *Progress) {
	if s.prog == p {
		return
	}
	c := s.prog.Counters()
	p.step(func() { p.set(&c) }) // the link before has done that
	s.prog = p
}
