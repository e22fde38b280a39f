package failback

import (
	"context"
	"fmt"
	"strings"

	"github.com/haulback/haulback/hostctl"
)

// Garbage lists what failbacks of this controller have left on the VMs that it
// knows and no live one needs: snapshots, marks, holds of the host, VMs that were
// made. With remove it takes them away, its own only. The protective snapshot of
// a committed failback is a restore point, not garbage.
func (e *Engine) Garbage(ctx context.Context, remove bool) ([]Leftover, error) {
	g := &janitor{e: e, ctx: ctx, runs: map[string]*record{}, seen: map[string]bool{}}
	if err := g.load(); err != nil {
		return nil, err
	}
	for _, ref := range g.refs {
		g.look(ref)
	}
	for _, c := range g.runs {
		g.made(c)
	}
	for i := range g.list {
		if l := &g.list[i]; remove && l.Op != nil && l.Error == "" {
			if err := g.remove(l); err != nil {
				l.Error = plain(err.Error())
			}
		}
	}
	return g.list, nil
}

type janitor struct {
	e    *Engine
	ctx  context.Context
	runs map[string]*record // by run
	refs []hostctl.Ref
	seen map[string]bool
	list []Leftover
}

// load finds the VMs and runs that the store knows.
func (g *janitor) load() error {
	pairs, _, err := g.e.Pairs(g.ctx)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		g.add(append([]hostctl.Ref{p.Original, p.Replica}, p.Excluded...)...)
		if p.Former != nil {
			g.add(*p.Former)
		}
	}
	entries, _, err := g.e.c.Store.List(g.ctx, runKey)
	if err != nil {
		return fromStore(err)
	}
	for _, x := range entries {
		c, err := decodeRecord(x.Key, x.Value)
		if err != nil {
			return fromStore(err)
		}
		g.runs[c.Status.Run] = c
		g.add(c.Status.Original, c.Status.Replica, c.Status.Target)
	}
	return nil
}

func (g *janitor) add(refs ...hostctl.Ref) {
	for _, r := range refs {
		key := r.Host + "/" + name(r.UUID, r.ID)
		if name(r.UUID, r.ID) != "" && !g.seen[key] {
			g.seen[key] = true
			g.refs = append(g.refs, r)
		}
	}
}

// look finds what is left on one VM. A host that does not answer is a leftover
// that could not be looked at.
func (g *janitor) look(ref hostctl.Ref) {
	vm, err := g.e.find(g.ctx, ref)
	if err != nil {
		if reason, text, _ := explain(err); reason != ReasonVMGone {
			g.list = append(g.list, Leftover{Host: ref.Host, VM: ref, Why: "the VM cannot be looked at", Error: text})
		}
		return
	}
	for _, s := range vm.Snapshots {
		run, step, ok := ofRun(s.Name)
		if !ok {
			continue
		}
		if c := g.runs[run]; c != nil && strings.HasPrefix(step, "protect-replica") &&
			(c.Status.Activity == Committed || c.Status.Activity == Committing) && !c.Facts.Commit.DeleteProtective {
			continue
		}
		if c := g.runs[run]; c != nil && step == "protect-target" && c.half() {
			continue // all that there is of what the VM was
		}
		g.found(&vm, "snapshot", s.Name, run, step)
	}
	for _, key := range []string{hostctl.MarkRun, hostctl.MarkInconsistent} {
		value := vm.Marks[key]
		run, controller, _ := strings.Cut(value, "@")
		if value == "" {
			continue
		}
		if c := g.runs[run]; key == hostctl.MarkInconsistent && c != nil && c.half() {
			continue // it says the truth
		}
		if key == hostctl.MarkRun && controller != g.e.c.Controller {
			continue // somebody else's
		}
		g.found(&vm, "mark", key, run, "gc")
		if key == hostctl.MarkRun && len(vm.Disabled) > 0 {
			g.found(&vm, "guard", strings.Join(vm.Disabled, ", "), run, "gc")
		}
	}
}

// half reports whether a failback has left its target half overwritten: something
// may have been written, and neither a commit nor a proved revert followed.
func (c *record) half() bool {
	return c.Facts.Pass > 0 && c.Status.Activity != Committed &&
		c.Facts.Proof["undo-"+restoreTarget] == "" && c.Facts.Proof["cancel-"+restoreTarget] == ""
}

// ofRun takes a snapshot's name apart: a run is a UUID of 36 characters.
func ofRun(snapshot string) (run, step string, ok bool) {
	rest, ok := strings.CutPrefix(snapshot, hostctl.SnapshotPrefix)
	if !ok || len(rest) < 38 || rest[36] != '-' {
		return "", "", false
	}
	return rest[:36], rest[37:], true
}

// found adds what no live run needs.
func (g *janitor) found(vm *hostctl.VM, kind, name, run, step string) {
	l := Leftover{Host: vm.Host, VM: vm.Ref, Kind: kind, Name: name, Run: run, Op: &hostctl.Op{Run: run, Step: step, Started: func(string) error { return nil }}}
	switch c := g.runs[run]; {
	case c == nil && step == "measure":
		if _, err := g.e.c.Store.Get(g.ctx, measureKey+run); err == nil {
			return // at work, or removed at the next start
		}
		l.Why = "of a plan that was cut off"
	case c == nil:
		l.Why, l.Op, l.Error = "of a run that this controller does not know", nil, byHand(kind, name)
	case !c.Status.Activity.Ended():
		return
	default:
		l.Why = fmt.Sprintf("failback %s has ended: %s", c.Status.ID, c.Status.Activity)
	}
	g.list = append(g.list, l)
}

// byHand says how an operator removes what gc must not: the run may be somebody
// else's.
func byHand(kind, name string) string {
	how := "remove it on its host"
	switch kind {
	case "mark":
		how = "take haulback." + name + " out of the VM's advanced settings on its host"
	case "guard":
		how = "enable these methods again on its host"
	}
	return "it may be at work for another controller; if nobody uses it, " + how
}

// made looks for a VM that a run made and did not need in the end.
func (g *janitor) made(c *record) {
	if c.Status.Spec.Destination != New || c.Facts.TargetVM.Path == "" || c.Status.Activity != Canceled && c.Status.Activity != Undone {
		return
	}
	h, err := g.e.host(c.Status.Target.Host)
	if err != nil || h.Registry == nil {
		return
	}
	vm, err := h.Compute.Find(g.ctx, hostctl.Query{Path: c.Facts.TargetVM.Path})
	if err != nil || vm.Marks[hostctl.MarkMade] != c.Status.Run {
		return
	}
	vm.Host = h.Name
	g.found(&vm, "vm", vm.Path, c.Status.Run, "gc")
}

func (g *janitor) remove(l *Leftover) error {
	h, err := g.e.host(l.Host)
	if err != nil {
		return err
	}
	switch l.Kind {
	case "snapshot":
		vm, err := g.e.find(g.ctx, l.VM)
		if err != nil {
			return err
		}
		s := snapshotBy(&vm, l.Name)
		if s == nil {
			return nil
		}
		return h.Storage.Release(g.ctx, l.Op, l.VM, s.ID)
	case "mark":
		return h.Compute.Mark(g.ctx, l.Op, l.VM, l.Name, "")
	case "guard":
		if h.Guard == nil {
			return nil
		}
		return h.Guard.Free(g.ctx, l.Op, l.VM)
	case "vm":
		return h.Registry.Destroy(g.ctx, l.Op, l.Name)
	}
	return fmt.Errorf("a leftover of kind %q is not known", l.Kind)
}
