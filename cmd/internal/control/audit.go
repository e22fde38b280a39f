package control

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/time/rate"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
)

// Entry is one line of an audit: a call that could change something, done or
// not, or a call that was refused.
type Entry struct {
	Time   time.Time
	Caller string // "uid 0", "cert backup.example.org"
	Role   Role   // empty: he has none
	From   string // address, of TCP
	Method string // "/haulback.v1.Jobs/Submit"
	Object string // ID of the job, if one was named
	Code   string // "ok", or the code of the error
	Reason string // of the error
	Text   string // of the error
	Missed int    // refusals right before this one that were too many to tell
}

func (c *call) entry(method, object string, err *connect.Error) Entry {
	e := Entry{Time: time.Now().UTC(), Caller: c.who.Name, Role: c.who.Role, Method: method, Object: object, Code: "ok"}
	if c.state != nil {
		e.From = c.conn.RemoteAddr().String()
	}
	if err != nil {
		e.Code, e.Text = err.Code().String(), err.Message()
		if info, ok := jobpb.Info(err); ok {
			e.Reason = info.Reason
		}
	}
	return e
}

// auditor tells the audit, one entry at a time.
type auditor struct {
	to   func(context.Context, Entry)
	rate int

	mu     sync.Mutex
	limit  *rate.Limiter
	missed int
}

// done tells what a caller did or tried. It outlives his giving up.
func (a *auditor) done(ctx context.Context, e Entry) {
	if a.to == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	e.Missed, a.missed = a.missed, 0
	a.to(context.WithoutCancel(ctx), e)
}

// refused tells of a refusal, unless there are too many: an audit that is
// written to a disk for every knock is a way to fill it.
func (a *auditor) refused(ctx context.Context, e Entry) {
	if a.to == nil {
		return
	}
	a.mu.Lock()
	if a.limit == nil {
		a.limit = rate.NewLimiter(rate.Limit(a.rate), 10*a.rate)
	}
	if !a.limit.Allow() {
		a.missed++
		a.mu.Unlock()
		return
	}
	a.mu.Unlock()
	a.done(ctx, e)
}
