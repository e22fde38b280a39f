package failback

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
)

// verb does what somebody asks of a failback, where the state table allows it.
func (e *Engine) verb(ctx context.Context, id string, v verb, expected uint64, f func(r *run, d verdict) error) (Status, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return Status{}, err
	}
	r := e.runs[id]
	if r == nil {
		ended, err := e.read(ctx, id)
		if err != nil {
			return Status{}, err
		}
		r = ended
	}
	if f := conflict(expected, r.revision, "failback "+id); f != nil {
		return Status{}, f
	}
	d := decide(r.rec.place(), v)
	if d.refused() {
		return Status{}, refuse(d.Reason, verbExit(d.Reason), "failback "+id+" of VM "+r.rec.Status.Spec.VM+": "+d.Text, d.Remedy)
	}
	if !d.Same {
		if err := f(r, d); err != nil {
			return Status{}, err
		}
	}
	return r.status(), nil
}

// read is a failback that is not in memory: one that has ended.
func (e *Engine) read(ctx context.Context, id string) (*run, error) {
	unknown := refuse(ReasonUnknown, 10, "no failback "+id, "\"haulback failback list\" has the known ones")
	if store.CheckKey(runKey+id) != nil {
		return nil, unknown
	}
	x, err := e.c.Store.Get(ctx, runKey+id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, unknown
	} else if err != nil {
		return nil, fromStore(err)
	}
	c, err := decodeRecord(x.Key, x.Value)
	if err != nil {
		return nil, fromStore(err)
	}
	if c.Draft {
		return nil, unknown
	}
	return newRun(e, c, x.Revision), nil
}

// Switch changes when the replica is powered off. Of one that is ReadyToSwitch,
// WhenNow is the word.
func (e *Engine) Switch(ctx context.Context, id string, s Switch, expected uint64) (Status, error) {
	if f := checkSwitch(&s); f != nil {
		return Status{}, f
	}
	return e.verb(ctx, id, doSwitch, expected, func(r *run, d verdict) error {
		err := e.change(r, func(c *record) {
			c.Status.Spec.Switch = s
			c.decided(e, "switch", Caller(ctx), s.text())
			if s.later(e.now()) { // also after the word, as long as the replica serves
				c.Facts.Leave = false
			}
			if d.Activity == Standing && s.When == WhenNow && e.before(c) == "" {
				c.Facts.Leave = true
				c.Facts.Syncs++
				c.Facts.Stale = false
				c.Status.Activity, c.Status.Wait = Syncing, ""
			}
		})
		r.kick()
		return err
	})
}

// later reports whether a switch has to wait for a word or a time.
func (s *Switch) later(now time.Time) bool {
	return s.When == WhenManual || s.When == WhenAt && now.Before(s.At)
}

// Commit goes back to the target for good.
func (e *Engine) Commit(ctx context.Context, id string, o CommitOptions, expected uint64) (Status, error) {
	return e.verb(ctx, id, doCommit, expected, func(r *run, d verdict) error {
		err := e.change(r, func(c *record) {
			c.Facts.Commit = o
			c.begin(Committing, 10, o.By, e)
		})
		r.turn()
		return err
	})
}

// Undo goes back to the replica, as it was before the failback. Before state
// Failback it is a cancel.
func (e *Engine) Undo(ctx context.Context, id string, o UndoOptions, expected uint64) (Status, error) {
	return e.verb(ctx, id, doUndo, expected, func(r *run, d verdict) error {
		err := e.change(r, func(c *record) {
			c.Facts.Undo = o
			if d.Activity == Undoing {
				c.begin(Undoing, 11, o.By, e)
			} else {
				c.begin(Canceling, 12, o.By, e)
			}
		})
		r.turn()
		return err
	})
}

// Cancel takes a failback back before the VM is home.
func (e *Engine) Cancel(ctx context.Context, id string, expected uint64) (Status, error) {
	return e.verb(ctx, id, doCancel, expected, func(r *run, _ verdict) error {
		err := e.change(r, func(c *record) { c.begin(Canceling, 12, Caller(ctx), e) })
		r.turn()
		return err
	})
}

// Continue goes on with the step that is halted. Of one that is ReadyToSwitch it
// makes another pass.
func (e *Engine) Continue(ctx context.Context, id string, expected uint64) (Status, error) {
	return e.verb(ctx, id, doContinue, expected, func(r *run, d verdict) error { return e.proceed(ctx, r, d) })
}

func (e *Engine) proceed(ctx context.Context, r *run, d verdict) error {
	err := e.change(r, func(c *record) {
		if h := c.Status.Halted; h != nil {
			c.decided(e, "continue", Caller(ctx), "halted at "+h.Step+": "+h.Text)
			c.Status.Halted, c.Facts.Alarms = nil, 0
			if h.Reason == ReasonSnapshotGone {
				c.asItIs(h.Step)
			}
			c.Facts.TargetGone = c.Facts.TargetGone || h.withoutTarget(c.Status.Activity)
			return
		}
		if d.Activity == Syncing {
			c.decided(e, "continue", Caller(ctx), "another pass")
			c.Facts.Syncs++
			c.Facts.Stale = false
			c.Facts.Resync = true
			c.Status.Activity, c.Status.Wait = Syncing, ""
		}
	})
	r.kick()
	return err
}

// SetLimits changes what a failback may take, now.
func (e *Engine) SetLimits(ctx context.Context, id string, l job.Limits, p job.Priority) (Status, error) {
	if err := job.Validate(job.Spec{Mode: job.Copy, Limits: l, Priority: p, Disks: []job.Disk{{Source: "a", Target: "b"}}}); err != nil {
		return Status{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.runs[id]
	if r == nil || r.rec.Status.Activity.Ended() {
		if _, err := e.read(ctx, id); err != nil {
			return Status{}, err
		}
		return Status{}, refuse(ReasonConflict, 10, "failback "+id+" is over", "")
	}
	l.Windows = slices.Clone(l.Windows)
	err := e.change(r, func(c *record) {
		c.Status.Spec.Limits, c.Status.Spec.Priority = l, p
		c.decided(e, "limits", Caller(ctx), fmt.Sprintf("wire %d and read %d bytes a second, priority %d", l.Wire, l.Read, p))
	})
	if err != nil {
		return Status{}, err
	}
	r.mu.Lock()
	close(r.limited)
	r.limited = make(chan struct{})
	r.mu.Unlock()
	return r.status(), nil
}

// before names the failbacks of the same group that have to switch first. It
// takes view.
func (e *Engine) before(c *record) string {
	s := &c.Status.Spec
	if s.Group == "" {
		return ""
	}
	e.view.RLock()
	defer e.view.RUnlock()
	var first []string
	for _, o := range e.runs {
		of := &o.rec.Status
		if of.ID == c.Status.ID || of.Spec.Group != s.Group || of.Spec.Order >= s.Order {
			continue
		}
		switch of.Activity {
		case Waiting, Preparing, Syncing, Standing, Switching:
			vm := of.Spec.VM
			if of.Halted != nil {
				vm += " (halted: continue or cancel it)"
			}
			first = append(first, vm)
		}
	}
	if len(first) == 0 {
		return ""
	}
	slices.Sort(first)
	return "waits until " + strings.Join(first, ", ") + " of group " + s.Group + " switched"
}
