package osd

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// op is one thing that is asked of a server.
type op struct {
	method string // of the API
	thing  string // for messages
	long   bool   // with Config.Long
}

// call runs an op with the context and options of one try.
type call func(ctx context.Context, o ...grpc.CallOption) error

// limit is the deadline of one try.
func (c *Client) limit(o op) time.Duration {
	if o.long {
		return c.cfg.Long
	}
	return c.cfg.Timeout
}

// observe runs a call that changes nothing, and again after what may be better
// later.
func (c *Client) observe(ctx context.Context, o op, f call) error {
	for try := 1; ; try++ {
		err := c.once(ctx, o, f)
		if e, ok := errors.AsType[*Error](err); !ok || !e.again() || try >= c.wait.tries {
			return err
		}
		c.log.Debug("call is repeated", "method", o.method, "volume", o.thing, "err", err)
		if c.pause(ctx, try) != nil {
			return err
		}
	}
}

// change runs a call that changes something. When its outcome is not known, or is
// a failure that may pass, done looks whether the end state is there, and only if
// not the call is made again.
func (c *Client) change(ctx context.Context, o op, f call, done func(ctx context.Context) (bool, error)) error {
	unsure := false
	for try := 1; ; try++ {
		err := c.once(ctx, o, f)
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return err
		}
		unsure = unsure || e.Class == Unknown
		if e.unsure = unsure; !e.again() {
			return err
		}
		c.log.Debug("call is looked after", "method", o.method, "volume", o.thing, "err", err)
		if c.pause(ctx, try) != nil {
			return err
		}
		is, look := done(ctx)
		switch {
		case look == nil && is:
			return nil
		case look == nil && try < c.wait.tries:
		case look == nil:
			return err
		case hopeless(look):
			return look
		default:
			e.Class = Unknown
			return e
		}
	}
}

// hopeless reports whether a look has found what no retry helps against.
func hopeless(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.err == nil && !e.Retryable()
}

// once makes one try. A token that is refused is read again, and if it is another
// one then, used once: what was refused was not done.
func (c *Client) once(ctx context.Context, o op, f call) error {
	token, err := c.bearer(o, false)
	if err != nil {
		return err
	}
	err = c.try(ctx, o, token, f)
	if !isClass(err, Auth) || c.token.path == "" {
		return err
	}
	fresh, rerr := c.bearer(o, true)
	if rerr != nil {
		return rerr
	}
	if fresh == token {
		return err
	}
	return c.try(ctx, o, fresh, f)
}

// bearer reads the token. A file that has none is not a guest's.
func (c *Client) bearer(o op, again bool) (secret, error) {
	token, err := c.token.get(again)
	if err != nil {
		e := c.refuse(o.method, o.thing, "%s", clean(err.Error()))
		e.Class = Auth
		return "", e
	}
	return token, nil
}

// try makes one try, and tells who counts.
func (c *Client) try(ctx context.Context, o op, token secret, f call) error {
	err := c.attempt(ctx, o, token, f)
	if c.cfg.Called != nil {
		class := "ok"
		if e, ok := errors.AsType[*Error](err); ok {
			class = e.Class.String()
		} else if err != nil {
			class = "ended" // by the caller
		}
		c.cfg.Called(o.method, class)
	}
	return err
}

// attempt makes the call with its deadline and metadata.
func (c *Client) attempt(ctx context.Context, o op, token secret, f call) error {
	own := time.Now().Add(c.limit(o))
	limited, cancel := context.WithDeadline(ctx, own)
	defer cancel()
	pairs := []string{"correlation-context-id", uuid.NewString(), "correlation-context-origin", "haulback"}
	if c.cfg.Driver != "" {
		pairs = append(pairs, "driver", c.cfg.Driver)
	}
	var options []grpc.CallOption
	if token != "" {
		options = append(options, grpc.PerRPCCredentials(bearer{token: token, local: !c.tls()}))
	}
	err := f(metadata.AppendToOutgoingContext(limited, pairs...), options...)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	if err = c.fail(ctx, o, token, err); isClass(err, gone) {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Code == codes.DeadlineExceeded && e.err == nil {
		// The server's clock for the context may run out before ours does.
		if end, ok := ctx.Deadline(); ok && own.After(end) {
			e.err, e.Text = context.DeadlineExceeded, "the time of the caller is over"
		}
	}
	return err
}

// pause waits before the next try: at random between half and the whole of what
// doubles with each.
func (c *Client) pause(ctx context.Context, try int) error {
	d := min(c.wait.least<<min(try-1, 16), c.wait.most)
	return sleep(ctx, d/2+rand.N(d/2+1))
}

// sleep waits, or ends with the context.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
