package failback

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/haulback/haulback/hostctl"
)

// How long a step is tried again by itself: a vCenter restarts in minutes.
const (
	patience   = 30 * time.Minute
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// step is one step of a failback. Its row in the journal goes Intent -> Done.
//
//  1. Intent is durable
//  2. observe: is the end state there already?
//  3. act, only if it is not; the host's reference to what it does is durable
//     before its end is waited for
//  4. observe again: only what was seen is believed
//  5. Done is durable, with what later steps have to know
//
// After a restart a row that is Intent begins at 2.
type step struct {
	name     string
	number   int      // of the failback page
	activity Activity // of the failback while it is at it
	host, vm string   // whom it is about, for people
	text     string   // what it does
	loses    string   // what is overwritten
	undo     string   // how it is taken back
	skip     string   // why it is not done, or empty
	optional bool     // what the host refuses is a warning, and the failback goes on
	slot     bool     // runs only while the failback has its turn
	// observe looks whether the end state is there. save takes what was found
	// into the record together with Done.
	observe func(ctx context.Context, r *run, c *record) (sight, error)
	// act makes it so. It is idempotent; its error says whether to try again.
	act func(ctx context.Context, r *run, c *record, op *hostctl.Op) error
}

// sight is what observe has seen.
type sight struct {
	there bool
	seen  string
	save  func(*record)
}

// do makes one step's end state true.
func (r *run) do(ctx context.Context, s *step) error {
	if s.skip != "" {
		return r.change(func(c *record) {
			now := r.e.now()
			c.Status.Activity = s.activity
			r.put(c, Step{Name: s.name, Number: s.number, State: Skipped, Host: s.host, VM: s.vm, Began: now, Ended: now, Text: s.text + ": " + s.skip})
		})
	}
	if !r.e.bugs.noIntent {
		if err := r.intend(s); err != nil {
			return r.storeTrouble(ctx, err)
		}
	}
	began, wait, hooked := r.e.now(), firstPause, false
	for {
		err := error(nil)
		if !hooked {
			err = r.hook(ctx, r.get(), s, false)
		}
		if err == nil {
			hooked = true
			err = r.try(ctx, s)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		if s.optional && !retryable(err) {
			return r.passOver(s, err)
		}
		if !retryable(err) || r.e.now().Sub(began) > patience {
			return err
		}
		reason, text, _ := explain(err)
		r.e.c.Log.Warn("step is tried again", "job", r.get().Status.ID, "step", s.name, "reason", reason, "err", text)
		r.waitFor("tries " + s.name + " again: " + text)
		r.pause(ctx, wait)
		if wait *= 2; wait > lastPause {
			wait = lastPause
		}
	}
}

// intend writes the row before anything is done.
func (r *run) intend(s *step) error {
	return r.change(func(c *record) {
		c.Status.Activity = s.activity
		row := c.row(s.name)
		if row == nil {
			row = r.put(c, Step{Name: s.name, Number: s.number, State: Intent, Began: r.e.now()})
		}
		row.State, row.Host, row.VM, row.Text = Intent, s.host, s.vm, s.text
		row.Attempt++
		row.Epoch = r.e.fence
	})
}

// put adds a row, or replaces the one of that name.
func (r *run) put(c *record, row Step) *Step {
	row.Epoch = r.e.fence
	if old := c.row(row.Name); old != nil {
		*old = row
		return old
	}
	c.Status.Steps = append(c.Status.Steps, row)
	return &c.Status.Steps[len(c.Status.Steps)-1]
}

// try is one round of observe, act, observe.
func (r *run) try(ctx context.Context, s *step) error {
	c := r.get()
	got, err := s.observe(ctx, r, c)
	if err != nil {
		return err
	}
	before := got.seen
	if !got.there || r.e.bugs.blind {
		if err := r.act(ctx, s, c, before); err != nil {
			return err
		}
		c = r.get()
		if got, err = s.observe(ctx, r, c); err != nil {
			return err
		}
		if !got.there {
			// Its task is over: the next try has to ask anew.
			if err := r.change(func(c *record) {
				if row := c.row(s.name); row != nil {
					row.Task = ""
				}
			}); err != nil {
				return &again{err.Error()}
			}
			return &again{fmt.Sprintf("step %s: the host says that it is done, and it is not: %s", s.name, got.seen)}
		}
	}
	if err := r.hook(ctx, c, s, true); err != nil {
		return err
	}
	err = r.change(func(c *record) {
		row := c.row(s.name)
		if row == nil {
			row = r.put(c, Step{Name: s.name, Number: s.number, Host: s.host, VM: s.vm, Text: s.text, Began: r.e.now()})
		}
		if row.Before == "" {
			row.Before = plain(before)
		}
		row.State, row.Ended = Done, r.e.now()
		c.Status.Wait = ""
		if got.save != nil {
			got.save(c)
		}
	})
	if err != nil {
		return &again{err.Error()}
	}
	return nil
}

// act asks for the change, with the reference of an earlier try.
func (r *run) act(ctx context.Context, s *step, c *record, before string) error {
	if err := r.e.mine(ctx); err != nil {
		return err
	}
	op := &hostctl.Op{Run: c.Status.Run, Step: s.name}
	if row := c.row(s.name); row != nil {
		op.Task = row.Task
	}
	op.Started = func(task string) error {
		return r.change(func(c *record) {
			if row := c.row(s.name); row != nil {
				row.Task = plain(task)
				row.Before = name(row.Before, plain(before))
			}
		})
	}
	// What was asked of a host is waited for: it would happen anyway. Passes
	// look at their context themselves.
	return s.act(ctx, r, c, op)
}

// passOver goes on without an optional step.
func (r *run) passOver(s *step, err error) error {
	_, text, _ := explain(err)
	return r.change(func(c *record) {
		row := c.row(s.name)
		if row == nil {
			row = r.put(c, Step{Name: s.name, Number: s.number, Began: r.e.now()})
		}
		row.State, row.Ended, row.Text = Skipped, r.e.now(), "not done: "+text
		c.Status.Wait = ""
		c.warn("%s was not done: %s", s.name, text)
	})
}

// storeTrouble waits a moment for a store that takes nothing.
func (r *run) storeTrouble(ctx context.Context, err error) error {
	if !retryable(err) {
		return err
	}
	r.pause(ctx, firstPause)
	return nil
}

func (r *run) waitFor(text string) {
	if r.get().Status.Wait == text {
		return
	}
	_ = r.change(func(c *record) { c.Status.Wait = text }) // for people; the log has it
}

func (r *run) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// outside makes ctx one that verbs do not stop: for host actions. The end of the
// controller does.
func (r *run) outside(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); !errors.Is(cause, errTurn) {
			cancel(cause)
		}
	})
	return out, func() { stop(); cancel(nil) }
}
