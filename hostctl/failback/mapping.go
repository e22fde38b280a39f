package failback

import (
	"fmt"
	"slices"

	"github.com/haulback/haulback/hostctl"
)

// disks pairs the disks of the replica with those of the target: by an explicit
// rule, by the UUIDs that the pair has, by label and size; never by order.
func (b *builder) disks() {
	rules := map[string]*DiskRule{}
	for i := range b.c.Status.Spec.Disks {
		rules[b.c.Status.Spec.Disks[i].Disk] = &b.c.Status.Spec.Disks[i]
	}
	taken := map[string]string{}
	for _, d := range b.replica.Disks {
		rule := rules[d.Label]
		if rule == nil {
			rule = rules[d.UUID]
		}
		if rule != nil {
			delete(rules, rule.Disk)
		} else {
			rule = &DiskRule{}
		}
		one := Disk{Label: d.Label, Replica: d, Excluded: rule.Exclude}
		switch {
		case rule.Exclude:
			one.Matched = "excluded: the target keeps its own"
			b.warn("disk %s is not brought home: as asked", d.Label)
		case b.c.Status.Spec.Destination == New:
			b.make(&one, rule)
		default:
			b.match(&one, rule, taken)
		}
		b.c.Status.Disks = append(b.c.Status.Disks, one)
	}
	for _, rule := range rules {
		b.problem(ReasonDiskUnmatched, "name a disk by its label or UUID", "the replica has no disk %q that a rule is for", rule.Disk)
	}
	b.left(taken)
	if len(b.c.moved()) == 0 {
		b.problem(ReasonDiskUnmatched, "leave a disk in", "no disk is left to bring home")
	}
	const most = 64 // a record has to hold them
	if n := len(b.c.Status.Disks); n > most {
		b.problem(ReasonNoAbility, "detach disks", "%d disks; %d are allowed", n, most)
	}
	b.c.Facts.Bases = make([]string, len(b.c.Status.Disks))
}

// left looks at disks of the target that have no counterpart.
func (b *builder) left(taken map[string]string) {
	for _, t := range b.target.Disks {
		if taken[diskID(&t)] == "" {
			b.warn("disk %s of the target has no counterpart on the replica: it is not touched", t.Label)
		}
	}
}

// make describes a disk of a new VM.
func (b *builder) make(one *Disk, rule *DiskRule) {
	d := one.Replica
	t := hostctl.Disk{Label: d.Label, Size: d.Size, Thin: d.Thin, Datastore: rule.Datastore}
	if rule.Thin != nil {
		t.Thin = *rule.Thin
	}
	if rule.Grow != 0 {
		t.Size = rule.Grow
	}
	if t.Size < d.Size {
		b.problem(ReasonTooSmall, "ask for as much at least", "disk %s: %s are asked for, the replica's has %s", d.Label, exactly(t.Size), exactly(d.Size))
	}
	one.Target, one.Matched = t, "is made from it"
	b.unfit(&d, "the replica")
}

// match finds the counterpart of a disk.
func (b *builder) match(one *Disk, rule *DiskRule, taken map[string]string) {
	t, how := b.counterpart(&one.Replica, rule, taken)
	if t == nil {
		return
	}
	if other := taken[diskID(t)]; other != "" {
		b.problem(ReasonDiskAmbiguous, "give each disk a rule with its target", "disks %s and %s of the replica both have disk %s of the target as counterpart", other, one.Label, t.Label)
		return
	}
	taken[diskID(t)] = one.Label
	one.Target, one.Matched = *t, how
	if t.Size < one.Replica.Size {
		b.problem(ReasonTooSmall, "grow it on its host, or exclude the disk", "disk %s of the target has %s, fewer than the replica's %s", t.Label, exactly(t.Size), exactly(one.Replica.Size))
	} else if t.Size > one.Replica.Size {
		b.warn("disk %s of the target is %s larger than the replica's: the end is not touched", t.Label, exactly(t.Size-one.Replica.Size))
	}
	b.unfit(&one.Replica, "the replica")
	b.unfit(t, "the target")
}

func (b *builder) unfit(d *hostctl.Disk, of string) {
	if d.Unfit != "" {
		b.problem(ReasonDiskUnfit, "change its mode on the host, or exclude it", "disk %s of %s: %s", d.Label, of, d.Unfit)
	}
}

func (b *builder) counterpart(d *hostctl.Disk, rule *DiskRule, taken map[string]string) (*hostctl.Disk, string) {
	all := b.target.Disks
	if rule.Target != "" {
		i := slices.IndexFunc(all, func(t hostctl.Disk) bool { return t.UUID == rule.Target })
		if i < 0 {
			i = slices.IndexFunc(all, func(t hostctl.Disk) bool { return t.Label == rule.Target })
		}
		if i < 0 {
			b.problem(ReasonDiskUnmatched, "name one of "+labels(all), "the target has no disk %q, which the rule for %s names", rule.Target, d.Label)
			return nil, ""
		}
		return &all[i], "by rule"
	}
	// The pair's UUIDs are those of the original, or of its replacement.
	for _, p := range b.pair.Disks {
		if p.Replica != d.UUID || d.UUID == "" {
			continue
		}
		if i := slices.IndexFunc(all, func(t hostctl.Disk) bool { return t.UUID == p.Original }); i >= 0 {
			return &all[i], "known pair of UUIDs"
		}
		if b.p.Destination == Original {
			b.problem(ReasonDiskUnmatched, "if the disk was replaced on purpose, correct the pair of the VM, or give the disk a rule with its target", "the original has no disk with UUID %s any more, the known counterpart of %s", p.Original, d.Label)
			return nil, ""
		}
	}
	same := slices.IndexFunc(all, func(t hostctl.Disk) bool { return t.Label == d.Label && t.Size >= d.Size })
	if same >= 0 && all[same].Size == d.Size {
		return &all[same], "label and size"
	}
	var fit []int
	for i := range all {
		if all[i].Size == d.Size && taken[diskID(&all[i])] == "" && !slices.ContainsFunc(b.replica.Disks, func(o hostctl.Disk) bool { return o.Label == all[i].Label && o.Size == d.Size }) {
			fit = append(fit, i)
		}
	}
	switch {
	case len(fit) == 1:
		return &all[fit[0]], fmt.Sprintf("the only one of %s", exactly(d.Size))
	case len(fit) > 1:
		b.problem(ReasonDiskAmbiguous, "give the disk a rule with its target", "disk %s of the replica could be %d disks of the target of its size: %s", d.Label, len(fit), labels(all))
		return nil, ""
	case same >= 0:
		return &all[same], "label; the target's is larger"
	}
	if i := slices.IndexFunc(all, func(t hostctl.Disk) bool { return t.Label == d.Label }); i >= 0 {
		return &all[i], "label" // too small: match says so
	}
	b.problem(ReasonDiskUnmatched, "attach one, give the disk a rule with its target, or exclude it", "the target has no counterpart for disk %s of %s; it has %s", d.Label, exactly(d.Size), labels(all))
	return nil, ""
}

func labels(disks []hostctl.Disk) string {
	var list []string
	for _, d := range disks {
		list = append(list, fmt.Sprintf("%s of %s", d.Label, exactly(d.Size)))
	}
	return listed(list)
}
