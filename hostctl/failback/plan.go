package failback

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl"
)

// Plan says what Start would do, with the code that does it. measure compares a
// sample of the disks first; where the mover cannot read a running replica
// otherwise, that makes a snapshot for the time of it, and removes it.
func (e *Engine) Plan(ctx context.Context, s Spec, measure bool) (Plan, error) {
	_, p, err := e.prepare(ctx, "", s)
	if err != nil {
		return Plan{}, err
	}
	if measure && len(p.Problems) == 0 {
		e.measure(ctx, p)
		p.Time = withLimits(p, &s.Limits)
	}
	return *p, nil
}

// prepare finds out all that can be known before anything is done: the record
// that a failback would begin with, and its plan. An error is one of the request
// or the store; what is wrong with hosts and VMs are problems.
func (e *Engine) prepare(ctx context.Context, id string, s Spec) (*record, *Plan, error) {
	s, f := filled(s)
	if f != nil {
		return nil, nil, f
	}
	pair, err := e.pair(ctx, s.VM)
	if err != nil {
		return nil, nil, err
	}
	b := &builder{e: e, ctx: ctx, id: id, pair: pair, c: &record{Format: recordFormat}, p: &Plan{VM: s.VM, Destination: s.Destination}}
	b.c.Digest = digestOf("failback spec v1", s)
	b.c.Status = Status{ID: id, Spec: s, State: Failover, Activity: Waiting, Original: pair.Original, Replica: pair.Replica}
	b.c.Facts.FormerDisks, b.c.Facts.Syncs = pair.Disks, 1
	b.state()
	b.vms()
	if len(b.p.Problems) == 0 {
		b.disks()
	}
	if len(b.p.Problems) == 0 {
		b.abilities()
		b.space()
		b.movers()
		b.claims()
	}
	b.finish()
	return b.c, b.p, nil
}

// builder makes a plan.
type builder struct {
	e               *Engine
	ctx             context.Context
	id              string
	pair            Pair
	c               *record
	p               *Plan
	replica, target hostctl.VM // target: the zero value where it is made
}

func (b *builder) problem(reason, remedy, format string, args ...any) {
	b.p.Problems = append(b.p.Problems, hostctl.Problem{Reason: reason, Text: plain(fmt.Sprintf(format, args...)), Remedy: remedy})
}

func (b *builder) failed(err error) { b.p.Problems = append(b.p.Problems, asProblem(err)) }

func (b *builder) warn(format string, args ...any) {
	b.p.Warnings = append(b.p.Warnings, plain(fmt.Sprintf(format, args...)))
	b.c.warn(format, args...)
}

// state asks the state table.
func (b *builder) state() {
	b.e.view.RLock()
	at := b.e.placeOf(b.pair)
	b.e.view.RUnlock()
	if at.Activity != "" && b.pair.Failback == b.id {
		at.Activity = "" // its own
	}
	d := decide(at, doStart)
	switch {
	case d.refused():
		b.problem(d.Reason, d.Remedy, "VM %s: %s", b.pair.Name, d.Text)
	case d.Activity != Waiting: // another failback's resync
		b.problem(ReasonOpen, "switch or cancel that one", "VM %s: failback %s is open", b.pair.Name, b.pair.Failback)
	}
}

// vms looks at replica, target and original.
func (b *builder) vms() {
	s := &b.c.Status.Spec
	var err error
	if b.replica, err = b.e.find(b.ctx, b.pair.Replica); err != nil {
		b.failed(err)
	} else {
		b.c.Status.Replica = b.replica.Ref
		b.fit(&b.replica)
		switch b.replica.Power {
		case hostctl.On:
		case hostctl.Suspended:
			b.problem(ReasonSuspended, "resume it on its host", "the replica %s is suspended", b.replica.Name)
		default:
			b.problem(ReasonReplicaOff, "power it on, so that it serves its users, or undo the failover", "the replica %s does not run", b.replica.Name)
		}
		if b.replica.CanTrack && !b.replica.Tracking && len(b.replica.Snapshots) > 0 {
			b.problem(ReasonSnapshots, "remove its snapshots, or turn change tracking on without them", "the replica %s has %d snapshots and no change tracking: tracking that begins now would miss changes", b.replica.Name, len(b.replica.Snapshots))
		}
	}
	switch s.Destination {
	case Original:
		b.find(b.pair.Original)
	case Existing:
		b.existing()
	case New:
		b.newTarget()
	}
	b.other()
	b.others()
	if b.target.UUID != "" {
		b.c.Facts.TargetVM = slim(b.target)
	}
	b.c.Facts.ReplicaVM, b.c.Facts.ReplicaOn = slim(b.replica), b.replica.Power == hostctl.On
	b.p.Replica = b.replica
}

// find looks up the target by what is known of it.
func (b *builder) find(ref hostctl.Ref) {
	vm, err := b.e.find(b.ctx, ref)
	if err != nil {
		b.failed(err)
		return
	}
	b.take(vm)
}

func (b *builder) take(vm hostctl.VM) {
	b.target = vm
	b.c.Status.Target = vm.Ref
	b.p.Target = &b.target
	b.fit(&b.target)
	switch {
	case sameVM(vm.Ref, b.c.Status.Replica):
		b.problem(ReasonSameVM, "name another target", "the target %s is the replica itself", vm.Name)
	case vm.Power == hostctl.Suspended:
		b.problem(ReasonSuspended, "shut it down, or discard its suspended state, on its host", "the target %s is suspended", vm.Name)
	case vm.Power == hostctl.On && b.p.Destination == Existing:
		b.problem(ReasonTargetOn, "make sure that nobody uses it and power it off", "the target %s runs: a VM restored to be overwritten does not", vm.Name)
	case vm.Power == hostctl.On:
		b.warn("%s runs: step 1 powers it off", vm.Name)
	}
	if len(vm.Snapshots) > 0 {
		b.warn("%s has %d snapshots; they stay as they are", vm.Name, len(vm.Snapshots))
	}
}

func (b *builder) targetHost() (*hostctl.Host, bool) {
	of := name(b.c.Status.Spec.TargetHost, b.pair.Original.Host)
	h, err := b.e.host(of)
	if err != nil {
		b.failed(err)
		return nil, false
	}
	return h, true
}

func (b *builder) existing() {
	h, ok := b.targetHost()
	if !ok {
		return
	}
	vm, err := h.Compute.Find(b.ctx, b.c.Status.Spec.Target)
	if err != nil {
		b.failed(fmt.Errorf("the target: %w", err))
		return
	}
	vm.Host = h.Name
	b.take(vm)
}

func (b *builder) newTarget() {
	h, ok := b.targetHost()
	if !ok {
		return
	}
	if h.Registry == nil {
		b.problem(ReasonNoAbility, "choose destination original or existing, or another host", "host %s can make no VM", h.Name)
		return
	}
	s := &b.c.Status.Spec
	called := b.replica.Name
	if s.New != nil && s.New.Name != "" {
		called = s.New.Name
	}
	if _, err := h.Compute.Find(b.ctx, hostctl.Query{Name: called}); err == nil {
		b.problem(ReasonNameTaken, "choose another name", "host %s has a VM %q already", h.Name, called)
	} else if asProblem(err).Reason != ReasonVMGone {
		b.failed(err)
	}
	b.c.Status.Target = hostctl.Ref{Host: h.Name, Name: called}
	b.c.Facts.Unlisted = !b.e.c.Mover.Registered(h.Name)
}

// other looks at an original that is not the target: it must not run beside it.
func (b *builder) other() {
	if b.p.Destination == Original || sameVM(b.pair.Original, b.c.Status.Target) {
		return
	}
	vm, err := b.e.find(b.ctx, b.pair.Original)
	if err != nil {
		b.warn("the original %s cannot be looked at (%v): make sure that it does not run", b.pair.Original.Name, err)
		return
	}
	b.c.Status.Original = vm.Ref
	if vm.Power == hostctl.On {
		b.warn("the original %s runs: step 1 powers it off", vm.Name)
	}
	vm = slim(vm)
	b.c.Facts.OriginalVM = &vm
}

// fit looks at what hosts say of any VM.
func (b *builder) fit(vm *hostctl.VM) {
	if vm.Busy != "" {
		b.problem(ReasonBusy, "wait until the host is done with it", "VM %s: the host is at %q with it", vm.Name, vm.Busy)
	}
	if vm.Question != "" {
		b.problem(ReasonQuestion, "answer it on the host", "VM %s waits for an answer: %s", vm.Name, vm.Question)
	}
	if p := b.e.foreign("", vm); p != nil {
		b.p.Problems = append(b.p.Problems, *p)
	}
}

// abilities asks the hosts what would fail later.
func (b *builder) abilities() {
	s := &b.c.Status.Spec
	b.check(b.replica.Ref, hostctl.NeedPower, hostctl.NeedSnapshot, hostctl.NeedTrack, hostctl.NeedMark, hostctl.NeedRead, hostctl.NeedWrite, hostctl.NeedGuard)
	if s.Destination == New {
		b.check(hostctl.Ref{Host: b.c.Status.Target.Host}, hostctl.NeedCreate, hostctl.NeedPower, hostctl.NeedWrite)
	} else {
		b.check(b.target.Ref, hostctl.NeedPower, hostctl.NeedSnapshot, hostctl.NeedMark, hostctl.NeedRead, hostctl.NeedWrite, hostctl.NeedGuard)
	}
	if s.Isolated && s.Destination != New {
		b.problem(ReasonNoAbility, "leave it out and disconnect its NICs on the host, or choose destination new", "isolated: the NICs of a VM that exists are not disconnected")
	}
	if len(s.Networks) > 0 && s.Destination == Original {
		b.problem(ReasonNoAbility, "leave them out: the original keeps its networks", "networks: are mapped for destinations existing and new")
	}
	if s.Tracking == FirstCBT {
		b.problem(ReasonTracking, "use tracking hash: both sides are read and compared", "tracking cbt: nobody has recorded since when the original's tracking is valid, and it does not outlive a power loss")
	}
	if s.NoRollback {
		b.warn("no rollback point on the target: if the failback fails or is taken back, it is no usable VM")
	}
	if s.PowerOnUnproved {
		b.warn("the target is powered on even where a disk is not Verified: as asked")
	}
}

func (b *builder) check(ref hostctl.Ref, needs ...hostctl.Need) {
	h, err := b.e.host(ref.Host)
	if err != nil {
		b.failed(err)
		return
	}
	if h.Checker == nil {
		return
	}
	list, err := h.Checker.Check(b.ctx, ref, needs)
	if err != nil {
		b.failed(err)
		return
	}
	for _, p := range list {
		p.Text, p.Remedy = plain(p.Text), plain(p.Remedy)
		b.p.Problems = append(b.p.Problems, p)
	}
}

// Of free space: a snapshot takes what is written while it is there.
const (
	spaceShare = 20 // one part in so many of the disks, where nothing was measured
	spaceMore  = 1.2
)

// space wants room for the rollback point and for the replica's snapshots.
func (b *builder) space() {
	b.room(b.replica.Ref, "the replica's snapshots", replicaDisks)
	if b.p.Destination != New && !b.c.Status.Spec.NoRollback {
		b.room(b.target.Ref, "the target's rollback point", targetDisks)
	}
}

func (b *builder) room(ref hostctl.Ref, what string, disk func(*record, int) *hostctl.Disk) {
	h, err := b.e.host(ref.Host)
	if err != nil {
		b.failed(err)
		return
	}
	stores, err := h.Storage.Space(b.ctx, ref)
	if err != nil {
		b.failed(err)
		return
	}
	need := map[string]int64{}
	for _, i := range b.c.moved() {
		d := disk(b.c, i)
		need[d.Datastore] += d.Size / spaceShare
	}
	for _, s := range stores {
		if n := need[s.Datastore]; s.Free < n {
			b.problem(ReasonNoSpace, "free space there, or move a disk to another datastore", "datastore %s of host %s has %s free; %s needs %s at least", s.Datastore, ref.Host, sized(s.Free), what, sized(n))
		} else if all := n * spaceShare; s.Free < all {
			b.warn("datastore %s has %s free, and %s can grow to %s", s.Datastore, sized(s.Free), what, sized(all))
		}
	}
}

func (b *builder) movers() {
	rep, tgt, disks := b.c.Status.Replica, b.c.Status.Target, map[string][]Place{}
	for _, i := range b.c.moved() {
		d := &b.c.Status.Disks[i]
		disks[rep.Host] = append(disks[rep.Host], Place{VM: rep, Disk: d.Replica})
		if d.Target.File != "" { // New has none yet
			disks[tgt.Host] = append(disks[tgt.Host], Place{VM: tgt, Disk: d.Target})
		}
	}
	for _, host := range slices.Compact([]string{rep.Host, tgt.Host}) {
		b.p.Problems = append(b.p.Problems, b.e.c.Mover.Check(b.ctx, host, disks[host]...)...)
	}
}

func (b *builder) claims() {
	vms := []*hostctl.VM{&b.replica}
	if b.p.Target != nil {
		vms = append(vms, &b.target)
	}
	p, err := b.e.claimed(b.ctx, b.id, vms...)
	if err != nil {
		b.failed(err)
	} else if p != nil {
		b.p.Problems = append(b.p.Problems, *p)
	}
}

// actions makes the actions from the script. Before it is known which disks of
// which VMs, there is nothing to say: "take a rollback snapshot of" nobody.
func (b *builder) actions() {
	if len(b.c.Status.Disks) == 0 {
		return
	}
	trial := b.c.clone()
	trial.Facts.Finals = 1
	for _, s := range script(trial) {
		if s.skip != "" {
			continue
		}
		a := Action{Step: s.name, Number: s.number, Host: s.host, VM: s.vm, Text: s.text, Overwrites: s.loses, Undo: s.undo}
		if b.e.c.Hooks != nil {
			if hooks := b.e.c.Hooks.Named(s.name); len(hooks) > 0 {
				a.Text += " (" + strings.Join(hooks, "; ") + ")"
			}
		}
		b.p.Actions = append(b.p.Actions, a)
	}
}

// finish fills in what follows from what was found.
func (b *builder) finish() {
	b.actions()
	b.p.Why = why(b.p.Destination)
	b.p.Bytes, b.p.AtMost = 0, 0
	for i := range b.c.Status.Disks {
		d := &b.c.Status.Disks[i]
		pd := PlanDisk{Label: d.Label, Replica: d.Replica, Matched: d.Matched, Excluded: d.Excluded, Mode: "hash", Reason: "both sides are read and compared; only what differs crosses the wire", Differing: -1}
		if b.p.Destination == New {
			pd.Mode, pd.Reason = "full", "the target is empty: all that is not zero crosses the wire"
		}
		if !d.Excluded {
			pd.AtMost = d.Replica.Size
			b.p.AtMost += pd.AtMost
			if b.p.Destination != New {
				t := d.Target
				pd.Target = &t
			}
		}
		b.p.Disks = append(b.p.Disks, pd)
	}
	b.p.Bytes = b.p.AtMost
	b.p.Downtime = shutdownOf(b.c) + 2*assumedSnapshot + powerOnOf(b.c)
	b.p.Reckoned = "nothing was measured: bytes are the most that can be, the downtime is without the final pass"
	b.p.Digest = digestOf("failback plan v1", struct {
		VM          string
		Destination Destination
		Spec        any
		Disks       [][2]string
		Actions     []Action
	}{b.p.VM, b.p.Destination, b.c.Digest, b.pairsOf(), b.p.Actions})
}

func (b *builder) pairsOf() (list [][2]string) {
	for _, i := range b.c.moved() {
		d := &b.c.Status.Disks[i]
		list = append(list, [2]string{diskID(&d.Replica), diskID(&d.Target)})
	}
	return list
}

func why(d Destination) string {
	switch d {
	case Original:
		return "the original's disks are there: only what differs from the replica crosses the wire"
	case Existing:
		return "the restored VM's disks are near the replica's: only what differs crosses the wire"
	}
	return "a new VM is empty: all data of the replica crosses the wire; use original or existing where you can"
}

// filled checks a spec and fills in what was left out.
func filled(s Spec) (Spec, error) {
	if s.Destination == "" {
		s.Destination = Original
	}
	if s.Tracking == "" {
		s.Tracking = FirstHash
	}
	if err := checkSwitch(&s.Switch); err != nil {
		return s, err
	}
	switch s.Destination {
	case Original:
		if s.Target != (hostctl.Query{}) || s.New != nil || s.TargetHost != "" {
			return s, invalid("destination original: the target is the original; leave target, target host and new out")
		}
	case Existing:
		if s.Target == (hostctl.Query{}) || s.New != nil {
			return s, invalid("destination existing: name the target VM, and leave new out")
		}
	case New:
		if s.Target != (hostctl.Query{}) {
			return s, invalid("destination new: the target is made; leave target out")
		}
	default:
		return s, invalid("destination: %q is none of original, existing, new", s.Destination)
	}
	switch {
	case s.Tracking != FirstHash && s.Tracking != FirstCBT:
		return s, invalid("tracking: %q is neither hash nor cbt", s.Tracking)
	case s.Policy.After < 0:
		return s, invalid("policy: after %v is negative", s.Policy.After)
	case s.Grace > 24*time.Hour:
		return s, invalid("grace: %v; 24 h at most", s.Grace)
	}
	seen := map[string]bool{}
	for _, d := range s.Disks {
		if d.Disk == "" || seen[d.Disk] {
			return s, invalid("disks: a rule without a disk, or two for %q", d.Disk)
		}
		seen[d.Disk] = true
		if s.Destination != New && (d.Grow != 0 || d.Thin != nil || d.Datastore != "") {
			return s, invalid("disks: %s: grow, thin and datastore are for destination new", d.Disk)
		}
		if s.Destination == New && d.Target != "" {
			return s, invalid("disks: %s: target: destination new makes the disks", d.Disk)
		}
	}
	return s, nil
}

func checkSwitch(s *Switch) error {
	if s.When == "" {
		s.When = WhenNow
	}
	switch {
	case s.When != WhenNow && s.When != WhenAt && s.When != WhenManual:
		return invalid("switch: %q is none of now, at, manual", s.When)
	case s.When == WhenAt && s.At.IsZero():
		return invalid("switch: at which time?")
	case s.Budget < 0 || s.Passes < 0:
		return invalid("switch: budget and passes are not negative")
	case s.Passes > 100:
		return invalid("switch: %d passes; 100 are allowed", s.Passes)
	}
	return nil
}
