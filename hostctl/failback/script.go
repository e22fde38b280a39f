package failback

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/haulback/haulback/hostctl"
)

// script is the steps of a failback, as far as they are known, in order. It is a
// pure function of the record: a plan prints it, a driver does it.
func script(c *record) []step {
	switch c.Status.Activity {
	case Committing:
		return commitScript(c)
	case Undoing:
		return backScript(c, 11)
	case Canceling:
		return backScript(c, 12)
	}
	list := prepareScript(c)
	for n := 1; n <= c.Facts.Syncs; n++ {
		list = append(list, syncScript(c, n)...)
	}
	for k := 1; k <= c.Facts.Finals; k++ {
		if k == c.Facts.Finals { // those before are void
			list = append(list, finalScript(c, k)...)
		}
	}
	if c.Facts.Finals > 0 {
		list = append(list, homeScript(c)...)
	}
	return list
}

// of fills in whom a step is about.
func (s step) of(ref hostctl.Ref) step {
	s.host, s.vm = ref.Host, name(ref.Name, name(ref.UUID, ref.ID))
	return s
}

// who is a VM of the record.
type who func(*record) hostctl.Ref

func theReplica(c *record) hostctl.Ref  { return c.Status.Replica }
func theTarget(c *record) hostctl.Ref   { return c.Status.Target }
func theOriginal(c *record) hostctl.Ref { return c.Status.Original }

// power makes a VM on or off. ask says of whom it is looked at before power-on.
func power(st step, of who, want hostctl.Power, grace func(*record) time.Duration) step {
	st.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		vm, err := r.find(ctx, of(c))
		if err != nil {
			return sight{}, err
		}
		if vm.Power == hostctl.Suspended {
			return sight{}, halting(ReasonSuspended, "resume it or shut it down on the host, then continue", "VM %s is suspended: neither on nor safely off", vm.Name)
		}
		return sight{there: vm.Power == want, seen: vm.Power.String()}, nil
	}
	st.act = onHost(of, func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error {
		return h.Compute.SetPower(ctx, op, of(c), want, grace(c))
	})
	return st
}

// onHost does something on the host of a VM. What was asked of a host is waited for
// when the failback is told to stop: see run.outside.
func onHost(of who, do func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error) func(context.Context, *run, *record, *hostctl.Op) error {
	return func(ctx context.Context, r *run, c *record, op *hostctl.Op) error {
		h, err := r.e.host(of(c).Host)
		if err != nil {
			return err
		}
		out, done := r.outside(ctx)
		defer done()
		return do(out, r, c, h, op)
	}
}

// defaultGrace is what a guest gets to shut down: Windows with updates needs
// minutes, and a database to close its files.
const defaultGrace = 5 * time.Minute

func graceOf(c *record) time.Duration {
	switch g := c.Status.Spec.Grace; {
	case g == 0:
		return defaultGrace
	case g < 0:
		return 0
	default:
		return g
	}
}

func atOnce(*record) time.Duration { return 0 }

func graceWord(c *record) string {
	if g := graceOf(c); g > 0 {
		return fmt.Sprintf("guest shutdown, powered off after %v", g)
	}
	return "powered off at once"
}

// mark sets a mark, or takes it away where value is empty.
func mark(st step, of who, key string, value func(*record, *Engine) string) step {
	st.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		vm, err := r.find(ctx, of(c))
		if err != nil {
			return sight{}, err
		}
		is, want := vm.Marks[key], value(c, r.e)
		if key == hostctl.MarkRun && want != "" {
			if p := r.e.foreign(c.Status.Run, &vm); p != nil {
				return sight{}, halting(p.Reason, p.Remedy, "%s", p.Text)
			}
		}
		return sight{there: is == want, seen: fmt.Sprintf("%s=%q", key, is)}, nil
	}
	st.act = onHost(of, func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error {
		return h.Compute.Mark(ctx, op, of(c), key, value(c, r.e))
	})
	return st
}

func runMark(c *record, e *Engine) string  { return c.Status.Run + "@" + e.c.Controller }
func halfMark(c *record, _ *Engine) string { return c.Status.Run }
func noMarkAtAll(*record, *Engine) string  { return "" }

// guard keeps a host from moving a VM, or lets it again. What a host has not, is
// not asked for.
func guard(st step, of who, hold bool) step {
	st.observe = func(_ context.Context, r *run, c *record) (sight, error) {
		h, err := r.e.host(of(c).Host)
		if err != nil {
			return sight{}, err
		}
		// A hold is not seen in VM.Disabled on every host, and asking again is
		// the host's own to make harmless: the row says whether it was.
		row := c.row(st.name)
		return sight{there: h.Guard == nil || row != nil && row.Task == asked, seen: "not known"}, nil
	}
	st.act = onHost(of, func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error {
		change := h.Guard.Free
		if hold {
			change = h.Guard.Hold
		}
		if err := change(ctx, op, of(c)); err != nil {
			return err
		}
		return op.Started(asked)
	})
	return st
}

// asked is the reference of an action that cannot be observed: it was asked for,
// and answered.
const asked = "answered"

// snapshotBy finds a snapshot of a VM by name.
func snapshotBy(vm *hostctl.VM, name string) *hostctl.Snapshot {
	for i := range vm.Snapshots {
		if vm.Snapshots[i].Name == name {
			return &vm.Snapshots[i]
		}
	}
	return nil
}

func snapshotID(vm *hostctl.VM, id string) *hostctl.Snapshot {
	for i := range vm.Snapshots {
		if vm.Snapshots[i].ID == id && id != "" {
			return &vm.Snapshots[i]
		}
	}
	return nil
}

// protect makes a snapshot, named by run and step.
func protect(st step, of who, keep func(*record, *hostctl.Snapshot)) step {
	st.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		vm, err := r.find(ctx, of(c))
		if err != nil {
			return sight{}, err
		}
		if err := inHands(&vm); err != nil {
			return sight{}, err
		}
		s := snapshotBy(&vm, hostctl.SnapshotName(&hostctl.Op{Run: c.Status.Run, Step: st.name}))
		if s == nil {
			return sight{seen: "no snapshot of that name"}, nil
		}
		return sight{there: true, seen: "snapshot " + s.ID, save: func(c *record) { keep(c, s) }}, nil
	}
	st.act = onHost(of, func(ctx context.Context, r *run, c *record, h *hostctl.Host, op *hostctl.Op) error {
		_, err := h.Storage.Protect(ctx, op, of(c), fmt.Sprintf("haulback: failback of %s, step %s; made by the run, do not remove", c.Status.Spec.VM, st.name))
		return err
	})
	return st
}

// release removes those snapshots of a VM that pick chooses.
func release(st step, of who, pick func(*record, *hostctl.Snapshot) bool, keep func(*record)) step {
	st.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		vm, err := r.find(ctx, of(c))
		if err != nil {
			return sight{}, err
		}
		if err := inHands(&vm); err != nil { // consolidation: the next snapshot waits for its end
			return sight{}, err
		}
		for i := range vm.Snapshots {
			if pick(c, &vm.Snapshots[i]) {
				return sight{seen: "snapshot " + vm.Snapshots[i].Name}, nil
			}
		}
		return sight{there: true, seen: "none", save: keep}, nil
	}
	st.act = func(ctx context.Context, r *run, c *record, op *hostctl.Op) error {
		ref := of(c)
		vm, err := r.find(ctx, ref)
		if err != nil {
			return err
		}
		h, err := r.e.host(ref.Host)
		if err != nil {
			return err
		}
		out, done := r.outside(ctx)
		defer done()
		for i := len(vm.Snapshots) - 1; i >= 0; i-- { // children first
			if !pick(c, &vm.Snapshots[i]) {
				continue
			}
			if err := h.Storage.Release(out, op, ref, vm.Snapshots[i].ID); err != nil && !errors.Is(err, hostctl.ErrNotFound) {
				return err
			}
			op.Task = "" // it was about this one
		}
		return nil
	}
	return st
}

// onPair changes the VM's pair: one value, all of it or nothing.
func onPair(st step, there func(*Pair, *record) bool, f func(*Pair, *record), save func(*record)) step {
	st.observe = func(ctx context.Context, r *run, c *record) (sight, error) {
		p, err := r.e.pair(ctx, c.Status.Spec.VM)
		if err != nil {
			return sight{}, err
		}
		return sight{there: there(&p, c), seen: "state " + string(p.State) + ", original " + p.Original.UUID, save: save}, nil
	}
	st.act = func(ctx context.Context, r *run, c *record, _ *hostctl.Op) error {
		r.e.mu.Lock()
		defer r.e.mu.Unlock()
		p, err := r.e.pair(ctx, c.Status.Spec.VM)
		if err != nil {
			return err
		}
		if there(&p, c) {
			return nil
		}
		before := p.State
		f(&p, c)
		if p.State != before {
			p.Since = r.e.now()
		}
		_, err = r.e.putPair(p, p.Revision)
		return err
	}
	return st
}

// replication holds or releases whoever replicates.
func replication(st step, call func(context.Context, Replication, *Pair, string) error) step {
	st.observe = func(_ context.Context, r *run, c *record) (sight, error) {
		row := c.row(st.name)
		return sight{there: r.e.c.Replication == nil || row != nil && row.Task == asked, seen: "not known"}, nil
	}
	st.act = func(ctx context.Context, r *run, c *record, op *hostctl.Op) error {
		p, err := r.e.pair(ctx, c.Status.Spec.VM)
		if err != nil {
			return err
		}
		out, done := r.outside(ctx)
		defer done()
		if err := call(out, r.e.c.Replication, &p, c.Status.ID); err != nil {
			if reason, _, _ := explain(err); reason == ReasonHostRefused {
				return halting(ReasonReplication, "look at what replicates the VM, then continue", "replication of %s: %v", p.Name, err)
			}
			return err
		}
		return op.Started(asked)
	}
	return st
}
