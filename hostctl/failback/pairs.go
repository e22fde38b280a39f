package failback

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
)

// PutPair declares a VM or changes it: expected is 0 for a new one, else its
// revision. State, claims and holds are the engine's own; of a new pair the State
// is taken, Ready or Failover. A VM that has a name alone is asked for at its host.
func (e *Engine) PutPair(ctx context.Context, p Pair, expected uint64) (Pair, error) {
	for side, r := range map[string]*hostctl.Ref{"original": &p.Original, "replica": &p.Replica} {
		if f := e.resolve(ctx, "vm "+p.Name+": "+side, r); f != nil {
			return Pair{}, f
		}
	}
	if f := checkPair(&p); f != nil {
		return Pair{}, f
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead != nil {
		return Pair{}, e.dead
	}
	if expected == 0 {
		p.Since, p.Held, p.Failback, p.Former = e.now(), "", "", nil
		value, err := encode(stored{recordFormat, e.fence, p})
		if err != nil {
			return Pair{}, fromStore(err)
		}
		p.Revision, err = e.c.Store.Create(ctx, pairKey+p.Name, value)
		if errors.Is(err, store.ErrExists) {
			return Pair{}, refuse(ReasonExists, 10, "VM "+p.Name+" is known already", "name its revision to change it")
		} else if err != nil {
			return Pair{}, e.storeErr(err)
		}
		return p, nil
	}
	old, err := e.pair(ctx, p.Name)
	if err != nil {
		return Pair{}, err
	}
	if f := conflict(expected, old.Revision, "VM "+p.Name); f != nil {
		return Pair{}, f
	}
	if at := e.placeOf(old); at.Activity != "" && !at.Activity.Ended() {
		return Pair{}, refuse(ReasonOpen, 11, "VM "+p.Name+" has failback "+old.Failback+" open", "wait for its end, or cancel or undo it")
	}
	p.State, p.Since, p.Held, p.Failback, p.Former = old.State, old.Since, old.Held, old.Failback, old.Former
	return e.putPair(p, old.Revision)
}

// resolve gives a VM that has a name alone the identity by which its host knows
// it: names change, and a pair must not change with them.
func (e *Engine) resolve(ctx context.Context, what string, r *hostctl.Ref) *job.Failure {
	if r.Host == "" || r.Name == "" || r.UUID != "" || r.ID != "" {
		return nil // checkPair says what is missing
	}
	h, err := e.host(r.Host)
	var vm hostctl.VM
	if err == nil {
		vm, err = h.Compute.Find(ctx, hostctl.Query{Name: r.Name})
	}
	if err != nil {
		p := asProblem(fmt.Errorf("%s: %s on host %s: %w", what, plain(r.Name), plain(r.Host), err))
		return refuse(p.Reason, exitOf(p.Reason), p.Text, p.Remedy)
	}
	host := r.Host
	*r = vm.Ref
	r.Host = host
	return nil
}

func checkPair(p *Pair) *job.Failure {
	switch {
	case len(p.Name) == 0 || len(p.Name) > 64 || strings.Contains(p.Name, ".") || store.CheckKey(p.Name) != nil:
		return invalid("vm: %q is not 1 to 64 letters, digits, _ and -", p.Name)
	case p.Original.Host == "" || p.Original.UUID == "" && p.Original.ID == "":
		return invalid("vm %s: original: names no host, or neither UUID nor ID", p.Name)
	case p.Replica.Host == "" || p.Replica.UUID == "" && p.Replica.ID == "":
		return invalid("vm %s: replica: names no host, or neither UUID nor ID", p.Name)
	case sameVM(p.Original, p.Replica):
		return invalid("vm %s: original and replica are one VM", p.Name)
	case p.State == "":
		p.State = Ready
	case p.State != Ready && p.State != Failover:
		return invalid("vm %s: state: a new VM is Ready or in Failover, not %q", p.Name, p.State)
	}
	left, right := map[string]bool{}, map[string]bool{}
	for _, d := range p.Disks {
		if d.Replica == "" || d.Original == "" || left[d.Replica] || right[d.Original] {
			return invalid("vm %s: disks: a UUID is missing or named twice (%q, %q)", p.Name, d.Replica, d.Original)
		}
		left[d.Replica], right[d.Original] = true, true
	}
	return nil
}

func conflict(expected, is uint64, what string) *job.Failure {
	if expected == 0 || expected == is {
		return nil
	}
	return refuse(ReasonConflict, 10, what+" changed meanwhile", "look at it again and repeat what you still want")
}

// putPair stores a pair at its revision; with mu held.
func (e *Engine) putPair(p Pair, expected uint64) (Pair, error) {
	if e.dead != nil {
		return Pair{}, e.dead
	}
	value, err := encode(stored{recordFormat, e.fence, p})
	if err != nil {
		return Pair{}, fromStore(err)
	}
	p.Revision, err = e.c.Store.Update(context.Background(), pairKey+p.Name, value, expected)
	if err != nil {
		return Pair{}, e.storeErr(err)
	}
	return p, nil
}

func (e *Engine) pair(ctx context.Context, name string) (Pair, error) {
	if store.CheckKey(pairKey+name) != nil {
		return Pair{}, refuse(ReasonUnknownVM, 10, "no VM "+name, "\"haulback failback vm list\" has the known ones")
	}
	x, err := e.c.Store.Get(ctx, pairKey+name)
	if errors.Is(err, store.ErrNotFound) {
		return Pair{}, refuse(ReasonUnknownVM, 10, "no VM "+name, "\"haulback failback vm list\" has the known ones")
	} else if err != nil {
		return Pair{}, fromStore(err)
	}
	return decodePair(x.Key, x.Value, x.Revision)
}

// Pair answers one VM.
func (e *Engine) Pair(ctx context.Context, name string) (Pair, error) { return e.pair(ctx, name) }

// Pairs answers all VMs by name, and the revision of the store at that moment.
func (e *Engine) Pairs(ctx context.Context) (list []Pair, at uint64, err error) {
	entries, at, err := e.c.Store.List(ctx, pairKey)
	if err != nil {
		return nil, 0, fromStore(err)
	}
	for _, x := range entries {
		p, err := decodePair(x.Key, x.Value, x.Revision)
		if err != nil {
			return nil, 0, fromStore(err)
		}
		list = append(list, p)
	}
	return list, at, nil
}

// others has a plan take nothing that belongs to another VM of the controller: its
// replica may serve users, and its original is what it comes home to. Two replicas
// of one original are in nobody's way.
func (b *builder) others() {
	pairs, _, err := b.e.Pairs(b.ctx)
	if err != nil {
		b.failed(err)
		return
	}
	taken := func(vm hostctl.Ref, what string, of *Pair, role string) {
		b.problem(ReasonOtherVM, "name another VM, or if "+of.Name+" is not to come home any more: haulback failback vm remove "+of.Name,
			"the %s %s is the %s of VM %s, too", what, vm.Name, role, of.Name)
	}
	for i := range pairs {
		p, target := &pairs[i], b.target.Ref
		if p.Name == b.pair.Name {
			continue
		}
		if sameVM(b.replica.Ref, p.Replica) {
			taken(b.replica.Ref, "replica", p, "replica")
		}
		switch {
		case sameVM(target, p.Replica):
			taken(target, "target", p, "replica")
		case sameVM(target, p.Original) && b.p.Destination != Original:
			taken(target, "target", p, "original")
		}
	}
}

// placeOf is where a VM stands; with mu or view held.
func (e *Engine) placeOf(p Pair) place {
	at := place{State: p.State}
	if r := e.runs[p.Failback]; r != nil {
		at = r.rec.place()
		at.State = p.State
	}
	return at
}

// ofVM does a verb of a VM.
func (e *Engine) ofVM(ctx context.Context, name string, expected uint64, v verb, f func(Pair, verdict) (Pair, error)) (Pair, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, err := e.pair(ctx, name)
	if err != nil {
		return Pair{}, err
	}
	if f := conflict(expected, p.Revision, "VM "+name); f != nil {
		return Pair{}, f
	}
	d := decide(e.placeOf(p), v)
	if d.refused() {
		return Pair{}, refuse(d.Reason, verbExit(d.Reason), "VM "+name+": "+d.Text, d.Remedy)
	}
	return f(p, d)
}

func verbExit(reason string) int {
	if reason == ReasonOpen {
		return 11
	}
	return 10
}

func (e *Engine) setState(p Pair, d verdict) (Pair, error) {
	p.State, p.Since = d.State, e.now()
	return e.putPair(p, p.Revision)
}

// Failover says that the replica of a VM serves its users now.
func (e *Engine) Failover(ctx context.Context, name string, expected uint64) (Pair, error) {
	return e.ofVM(ctx, name, expected, doFailover, e.setState)
}

// UndoFailover says that the original of a VM serves again, as it was before the
// failover.
func (e *Engine) UndoFailover(ctx context.Context, name string, expected uint64) (Pair, error) {
	return e.ofVM(ctx, name, expected, doUndoFailover, e.setState)
}

// RemovePair forgets a VM.
func (e *Engine) RemovePair(ctx context.Context, name string, expected uint64) error {
	_, err := e.ofVM(ctx, name, expected, doRemove, func(p Pair, _ verdict) (Pair, error) {
		if err := e.c.Store.Delete(context.Background(), pairKey+name, p.Revision); err != nil {
			return Pair{}, e.storeErr(err)
		}
		return p, nil
	})
	return err
}

// CheckReplication refuses where the VM must not be replicated now: whoever
// replicates asks before each run (FB-17).
func (e *Engine) CheckReplication(ctx context.Context, name string) error {
	p, err := e.pair(ctx, name)
	switch {
	case err != nil:
		return err
	case p.Held != "":
		return refuse(ReasonHeld, 11, "replication of "+name+" is held by failback "+p.Held, "commit or undo it")
	case p.State != Ready:
		return refuse(ReasonReplicationOver, 11, "the replica of "+name+" serves its users (state "+string(p.State)+"): replication would overwrite it", "fail back and commit, or undo the failover")
	}
	return nil
}
