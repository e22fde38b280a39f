package mover

import (
	"context"
	"fmt"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// serveSource runs the source half for a peer that pulls. What is compared
// outlives the link, as in push.
func (e *Engine) serveSource(ctx context.Context, l *lane, exp *Export, spec passSpec, hello *wire.Hello, p *Progress) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer l.whenDone(ctx, cancel)()
	key := fmt.Sprintf("%s %v %d %v", exp.Name, spec.run, spec.pass, l.link.Peer())
	h, err := e.sources.acquire(ctx, key, spec.run, cancel, e.cfg.bug)
	if err != nil {
		return err
	}
	defer func() {
		linger := e.cfg.Linger
		if err == nil || !retryable(err) || codeOf(err) == wire.CodeDiskLost {
			linger = 0
		}
		_ = e.sources.release(h, linger) // a source: nothing can be lost
	}()
	s, ok := h.res.(*source)
	if !ok {
		disk, err := exp.Open.patiently(ctx, ReadOnly)
		if err != nil {
			return diskError(wire.CodeOpen, "source", "open", cbt.Extent{}, err)
		}
		if err := e.fit(disk, spec, false); err != nil {
			_ = disk.Close() // only opened
			return err
		}
		s = newSource(&e.cfg, e.pool, disk, spec, newLimit(hello.Rate), p)
		if err := s.narrow(ctx, hello.Track, exp.Hint); err != nil {
			_ = disk.Close() // only read
			return err
		}
		e.sources.fill(h, s)
	}
	s.watchOver(p)
	_, v, err := s.session(ctx, l)
	if codeOf(err) == wire.CodeDistrust && s.hinted() {
		if e := s.distrust(err); e != nil {
			return e
		}
		return err
	}
	if cause := context.Cause(ctx); cause != nil && err != nil && codeOf(err) != wire.CodeDiskLost {
		err = cause
	}
	if err != nil {
		return err
	}
	return s.conclude(&Report{}, &v)
}

// watchOver makes s count in p from here on.
func (s *source) watchOver(p *Progress) {
	if s.prog == p {
		return
	}
	c := s.prog.Counters()
	p.set(&c)
	s.prog = p
}
