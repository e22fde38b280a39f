package failback

import (
	"context"
	"fmt"
	"time"
)

// The bound of passes before the switch, where the operator sets none.
const defaultPasses = 8

// decideNext is what comes after the last step that is known.
func (r *run) decideNext(ctx context.Context, c *record) error {
	switch c.Status.Activity {
	case Committing:
		return r.end(Committed)
	case Undoing:
		return r.end(Undone)
	case Canceling:
		return r.end(Canceled)
	case Deciding:
		return r.decide(ctx, c)
	}
	if c.Facts.Finals > 0 {
		return r.home(c)
	}
	if c.Status.Activity != Standing && r.morePasses(c) {
		return r.anotherPass(nil)
	}
	if wait := r.standing(c); wait != "" || c.Facts.Resync {
		return r.stand(ctx, c, wait)
	}
	if c.Status.Activity == Standing && !c.Facts.Leave { // what was moved is old by now
		return r.anotherPass(func(c *record) { c.Facts.Leave = !c.Status.Spec.Switch.later(r.e.now()) })
	}
	if c.Facts.Stale {
		return r.anotherPass(nil)
	}
	if err := r.takeSlot(ctx, c); err != nil {
		return err
	}
	was := c.Status.Spec.Switch
	return r.change(func(c *record) {
		if c.Status.Spec.Switch != was {
			return // somebody wants it otherwise since
		}
		c.Facts.Finals, c.Status.Activity, c.Status.Wait = 1, Switching, ""
	})
}

func (r *run) anotherPass(f func(*record)) error {
	return r.change(func(c *record) {
		c.Facts.Syncs++
		c.Facts.Stale = false
		c.Status.Activity, c.Status.Wait = Syncing, ""
		if f != nil {
			f(c)
		}
	})
}

// morePasses reports whether another pass now shortens the switch.
func (r *run) morePasses(c *record) bool {
	s := &c.Status.Spec.Switch
	if c.Facts.Leave || s.Budget <= 0 || c.Status.Forecast.Within || c.Facts.Resync {
		return false
	}
	return c.Facts.Syncs < passesOf(s)
}

func passesOf(s *Switch) int {
	if s.Passes > 0 {
		return s.Passes
	}
	return defaultPasses
}

// standing says what the switch waits for, or nothing.
func (r *run) standing(c *record) string {
	s := &c.Status.Spec.Switch
	if others := r.e.before(c); others != "" {
		return others
	}
	switch {
	case c.Facts.Leave:
		return ""
	case s.When == WhenManual:
		return "waits for the word to switch"
	case s.When == WhenAt && r.e.now().Before(s.At):
		return "waits for " + s.At.UTC().Format(time.RFC3339)
	case s.Budget > 0 && !c.Status.Forecast.Within:
		return fmt.Sprintf("%d passes do not bring the downtime below %v: waits for the word to switch", c.Facts.Syncs, s.Budget)
	}
	return ""
}

// stand is state ReadyToSwitch: the replica serves, nothing runs, and what the
// failback waits for is said.
func (r *run) stand(ctx context.Context, c *record, wait string) error {
	if c.Status.State != ReadyToSwitch || c.Status.Activity != Standing || c.Status.Wait != wait {
		err := r.change(func(c *record) {
			if c.Status.Activity != Standing {
				c.Facts.Stood = r.e.now()
			}
			c.Status.State, c.Status.Activity, c.Status.Wait = ReadyToSwitch, Standing, wait
			c.Facts.Resync = false
		})
		if err != nil {
			return err
		}
	}
	if err := r.tellPair(ctx, c.Status.Spec.VM, c.Status.ID, ReadyToSwitch); err != nil {
		return err
	}
	r.giveSlot()
	var until time.Duration
	if s := &c.Status.Spec.Switch; s.When == WhenAt {
		until = max(s.At.Sub(r.e.now()), time.Second)
	}
	r.sleep(ctx, until)
	return nil
}

// tellPair brings the pair's state in line; with what is there already, nothing
// is written.
func (r *run) tellPair(ctx context.Context, vm, id string, s State) error {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	p, err := r.e.pair(ctx, vm)
	if err != nil || p.State == s || p.Failback != id {
		return err
	}
	p.State, p.Since = s, r.e.now()
	_, err = r.e.putPair(p, p.Revision)
	return err
}

// home is the end of step 9: from here an operator decides.
func (r *run) home(c *record) error {
	defer r.giveSlot()
	return r.change(func(c *record) {
		now := r.e.now()
		c.Status.Activity, c.Status.Wait, c.Facts.Home = Deciding, "", now
		if row := c.row(numbered("power-off-replica", 1)); row != nil {
			c.Status.Downtime = now.Sub(row.Began)
		}
	})
}

// decide waits for commit or undo; no time-out changes that unless a policy says
// so (FB-30).
func (r *run) decide(ctx context.Context, c *record) error {
	if !c.Facts.Said {
		if r.e.c.Record != nil {
			if err := r.e.c.Record.Write(ctx, &c.Status); err != nil {
				r.e.c.Log.Warn("the record of a failback is not written, trying again", "job", c.Status.ID, "err", err)
				r.sleep(ctx, heartbeat)
				return nil
			}
		}
		return r.change(func(c *record) { c.Facts.Said = true })
	}
	p := &c.Status.Spec.Policy
	if p.After <= 0 {
		return errSleep
	}
	left := c.Facts.Home.Add(p.After).Sub(r.e.now())
	if left > 0 {
		r.sleep(ctx, left)
		return nil
	}
	if !p.Undo { // which of two that run is right, is nothing for a policy
		err := r.mustBeOff(ctx, c.replica(), "the replica")
		if retryable(err) {
			r.sleep(ctx, heartbeat)
			return nil
		} else if err != nil {
			return err
		}
	}
	return r.change(func(c *record) {
		if c.Status.Activity != Deciding {
			return // somebody was faster
		}
		if p.Undo {
			c.begin(Undoing, 11, "policy", r.e)
		} else {
			c.begin(Committing, 10, "policy", r.e)
		}
	})
}

// end is the last change of a failback.
func (r *run) end(a Activity) error {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	// Before the end is seen: who sees it may begin the next one. Nothing of this
	// one writes any more.
	id := r.rec.Status.ID
	if err := r.e.dropClaims(context.Background(), func(of string) bool { return of != id }); err != nil {
		r.e.c.Log.Warn("claims of an ended failback stay a moment", "job", id, "err", err)
	}
	return r.e.change(r, func(c *record) {
		c.Status.Activity, c.Status.Ended, c.Status.Wait, c.Status.Halted = a, r.e.now(), "", nil
		c.closeRows(a)
	})
}

// closeRows ends the rows of steps that were begun and overtaken by what was
// decided: an ended failback has none that is open.
func (c *record) closeRows(a Activity) {
	for i := range c.Status.Steps {
		s := &c.Status.Steps[i]
		if s.State != Intent && s.State != Compensating {
			continue
		}
		s.State, s.Ended = Compensated, c.Status.Ended
		if a == Committed { // nothing was taken back
			s.State = Skipped
		}
		s.Text = name(s.Text, s.Name) + " (begun and not ended: the failback was " + string(a) + ")"
	}
}

// outlook says what happens next, for people.
func (c *record) outlook() string {
	s := &c.Status
	if s.Halted != nil {
		return "nothing, until somebody continues, undoes or cancels it"
	}
	switch s.Activity {
	case Waiting:
		return "the failback begins when it is its turn"
	case Preparing:
		return "then pass 1 runs while the replica serves"
	case Syncing:
		switch {
		case c.Facts.Leave || s.Spec.Switch.When == WhenNow:
			return "then the replica is powered off and the final pass runs"
		case s.Spec.Switch.When == WhenAt:
			return "then it waits for " + s.Spec.Switch.At.UTC().Format(time.RFC3339) + " to switch"
		}
		return "then it waits for the word to switch"
	case Standing:
		return "one more pass, then the replica is powered off and the final pass runs"
	case Switching:
		if s.Spec.PowerOn {
			return "then the target is powered on and waits for commit or undo"
		}
		return "then the target waits, powered off, for commit or undo"
	case Deciding:
		if p := s.Spec.Policy; p.After > 0 {
			what := "committed"
			if p.Undo {
				what = "undone"
			}
			return "it is " + what + " at " + c.Facts.Home.Add(p.After).Format(time.RFC3339) + " unless somebody decides before"
		}
		return "somebody commits or undoes it"
	case Committing:
		return "then the VM is Ready and its replication goes on"
	case Undoing, Canceling:
		return "then the VM is in Failover: its replica serves"
	}
	return ""
}
