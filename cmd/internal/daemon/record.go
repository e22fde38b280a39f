package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// recorder is the daemon's end of the audit log. When nothing can be recorded it
// says so: who changes who may come in does not, and copies go on.
type recorder struct {
	site *site.Site
	log  *slog.Logger

	mu      sync.Mutex
	audit   *audit.Log // nil: could not be opened
	closed  bool
	waiting map[string]*refusals
	warned  time.Time
}

// refusals are equal refusals since the last that was recorded.
type refusals struct {
	entry audit.Entry
	n     int
	since time.Time
}

const (
	// refusedEvery and maxRefused keep a flood out of the log: of each kind one
	// record in 10 s, and only so many kinds.
	refusedEvery = 10 * time.Second
	maxRefused   = 64
	warnEvery    = time.Minute
)

func (r *recorder) open(s *site.Site, log *slog.Logger) {
	r.site, r.log, r.waiting = s, log, make(map[string]*refusals)
	if _, err := r.opened(); err != nil {
		log.Error("nothing is recorded, and nobody can join", "err", err)
	}
}

// opened is the log, opened anew if that failed before.
func (r *recorder) opened() (*audit.Log, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.audit != nil {
		return r.audit, nil
	}
	if r.site == nil || r.closed {
		return nil, fmt.Errorf("audit: %w", net.ErrClosed)
	}
	l, err := r.site.Audit()
	r.audit = l
	return l, err
}

// Append records e, durably when it returns without an error.
func (r *recorder) Append(ctx context.Context, e audit.Entry) error {
	l, err := r.opened()
	if err != nil {
		return err
	}
	return l.Append(ctx, e)
}

// head is the newest record, or zeros when there is none.
func (r *recorder) head() (uint64, [32]byte) {
	l, err := r.opened()
	if err != nil {
		return 0, [32]byte{}
	}
	seq, hash := l.Head()
	return seq, hash
}

// note records what has happened anyway.
func (r *recorder) note(ctx context.Context, e audit.Entry) {
	if err := r.Append(context.WithoutCancel(ctx), e); err != nil {
		r.mu.Lock()
		due := time.Since(r.warned) > warnEvery
		if due {
			r.warned = time.Now()
		}
		r.mu.Unlock()
		if due {
			r.log.Error("cannot be recorded; copies go on, nobody can join", "action", e.Action, "err", err)
		}
	}
}

// refused records a refusal, or counts it with equal ones.
func (r *recorder) refused(ctx context.Context, e audit.Entry) {
	key := e.Action + " " + e.Actor + " " + e.Object
	if host, _, err := net.SplitHostPort(e.Actor); err == nil {
		e.Actor = host // ports change
		key = e.Action + " " + host + " " + e.Object
	}
	r.mu.Lock()
	if len(r.waiting) >= maxRefused && r.waiting[key] == nil {
		e.Actor, e.Object, key = "many", "", e.Action
	}
	w := r.waiting[key]
	if w != nil {
		w.n++
		r.mu.Unlock()
		return
	}
	r.waiting[key] = &refusals{entry: e, since: time.Now()}
	r.mu.Unlock()
	r.note(ctx, e)
}

// flushes records what was counted until ctx is done.
func (r *recorder) flushes(ctx context.Context) {
	tick := time.NewTicker(refusedEvery / 10)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.flush(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// flush records what was counted.
func (r *recorder) flush(ctx context.Context) {
	var due []audit.Entry
	r.mu.Lock()
	for key, w := range r.waiting {
		if time.Since(w.since) < refusedEvery && !r.closed {
			continue
		}
		delete(r.waiting, key)
		if w.n > 0 {
			e := w.entry
			e.Details = map[string]string{"times": strconv.Itoa(w.n), "since": w.since.UTC().Format(time.RFC3339)}
			due = append(due, e)
		}
	}
	r.mu.Unlock()
	for _, e := range due {
		r.note(ctx, e)
	}
}

func (r *recorder) drain(ctx context.Context, sessions int) {
	r.note(ctx, audit.Entry{Actor: "daemon", Action: "daemon.drain", Outcome: "ok", Details: map[string]string{"sessions": strconv.Itoa(sessions)}})
}

func (r *recorder) close() error {
	if r.site == nil {
		return nil
	}
	r.mu.Lock()
	again := r.closed
	r.closed = true
	r.mu.Unlock()
	if again {
		return nil
	}
	ctx := context.Background() // the end of a daemon is no caller's
	r.flush(ctx)
	r.note(ctx, audit.Entry{Actor: "daemon", Action: "daemon.stop", Outcome: "ok"})
	r.mu.Lock()
	l := r.audit
	r.audit = nil
	r.mu.Unlock()
	if l == nil {
		return nil
	}
	if err := l.Close(); err != nil {
		r.log.Error("the last head of the record is not signed", "err", err)
	}
	return nil
}

// Audit records what the control API does; it is the hook that its handlers are
// given.
func (d *Daemon) Audit(ctx context.Context, e audit.Entry) error { return d.record.Append(ctx, e) }

func reloaded(err error) audit.Entry {
	e := audit.Entry{Actor: "daemon", Action: "config.reload", Outcome: "ok"}
	if err != nil {
		e.Outcome, e.Details = "failed", map[string]string{"err": err.Error()}
	}
	return e
}

// observe records the sessions of peers.
func (d *Daemon) observe(ctx context.Context, ev mover.SessionEvent) {
	h := &ev.Hello
	name := ev.Peer.String()
	if p, ok := d.peers.Load().WithID(ev.Peer); ok {
		name = p.Name
	}
	e := audit.Entry{Actor: "peer " + name, Object: h.Export, Outcome: "ok", Details: map[string]string{
		"addr": ev.Addr, "op": h.Op.String(), "run": h.Run.String(), "pass": strconv.FormatUint(uint64(h.Pass), 10),
	}}
	if h.Mode == wire.ModeVerify {
		e.Details["op"] += ", only compares"
	}
	if t, err := wire.ParseTicket(h.Ticket); err == nil {
		e.Details["ticket"], e.Details["epoch"] = t.Signer().String(), strconv.FormatUint(t.Epoch, 10)
	}
	if ev.Err != nil {
		e.Outcome, e.Details["err"] = "failed", ev.Err.Error()
	}
	switch {
	case !ev.Granted:
		e.Action, e.Outcome = "session.refused", "refused"
		if we, ok := errors.AsType[*wire.Error](ev.Err); ok && we.Code == wire.CodeTicket {
			e.Action = "ticket.refused"
		}
		d.record.refused(ctx, e)
	case ev.Ended:
		e.Action = "session.end"
		d.record.note(ctx, e)
	default:
		e.Action = "session.begin"
		d.record.note(ctx, e)
	}
}
