package main

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// homeFlags are those that say how a VM comes home, as typed.
type homeFlags struct {
	destination, target, targetHost           string
	name, datacenter, folder, pool, server    string
	exclude, mapping, grow, thin, thick, data []string
	network                                   []string
	moment, tracking, verify, priority        string
	budget, grace, undoAfter, commitAfter     time.Duration
	passes, order                             int
	powerOn, isolated, noRollback, unproved   bool
	limits                                    limitFlags
}

// limitFlags are the rates of a transfer, as typed.
type limitFlags struct {
	rate, readRate, latency string
	windows                 []string
}

func (f *limitFlags) add(cmd *cobra.Command) {
	p := cmd.Flags()
	p.StringVar(&f.rate, "rate", "", "at most `SIZE` per second on the wire")
	p.StringVar(&f.readRate, "read-rate", "", "at most `SIZE` per second read and hashed, at each end")
	p.StringVar(&f.latency, "latency", "", "back off when the storage at either end takes longer than `TIME` for 256 KiB")
	p.StringArrayVar(&f.windows, "window", nil, "`TIME` of the week with rates of its own, as in 'Mon-Fri 08:00-18:00 10MiB'; may be repeated, the first that holds counts")
}

func (f *limitFlags) limits() (job.Limits, error) {
	return (&jobFlags{flags: flags{rate: f.rate, readRate: f.readRate, latency: f.latency}, windows: f.windows}).limits()
}

func (f *homeFlags) add(cmd *cobra.Command) {
	p := cmd.Flags()
	p.StringVar(&f.destination, "destination", "original", "`WHERE` to: original, existing (a VM restored beforehand) or new")
	p.StringVar(&f.target, "target", "", "existing: the `HOST/VM` to overwrite, by name, UUID, id:ID or [datastore] path")
	p.StringVar(&f.targetHost, "target-host", "", "new: `HOST` to make the VM on (default that of the original)")
	p.StringVar(&f.name, "name", "", "new: `NAME` of the VM (default that of the replica)")
	p.StringVar(&f.datacenter, "datacenter", "", "new: `DATACENTER`, where there are several")
	p.StringVar(&f.folder, "folder", "", "new: `FOLDER` for the VM")
	p.StringVar(&f.pool, "pool", "", "new: resource `POOL`")
	p.StringVar(&f.server, "server", "", "new: `SERVER` (ESXi) that runs it")
	p.StringArrayVar(&f.data, "datastore", nil, "new: `DATASTORE` of the VM, or DISK=DATASTORE of one disk; may be repeated")
	p.StringArrayVar(&f.exclude, "exclude", nil, "`DISK` of the replica (scsi0:1, or its UUID) that does not come home; may be repeated")
	p.StringArrayVar(&f.mapping, "map", nil, "`DISK=TARGETDISK` where the pairing is not plain; may be repeated")
	p.StringArrayVar(&f.grow, "grow", nil, "new: `DISK=SIZE` of a disk that becomes larger; may be repeated")
	p.StringArrayVar(&f.thin, "thin", nil, "new: `DISK` that becomes thin; may be repeated")
	p.StringArrayVar(&f.thick, "thick", nil, "new: `DISK` that becomes thick; may be repeated")
	p.StringArrayVar(&f.network, "network", nil, "existing, new: `OLD=NEW` network of the replica and at home; may be repeated")
	p.StringVar(&f.moment, "switch", "manual", "`WHEN` the replica is powered off: manual (when you say so), now (as soon as the disks allow), or a time, as in 2026-11-22T03:00 or 03:00")
	p.DurationVar(&f.budget, "downtime-budget", 0, "repeat passes until the switch is expected to take less than `TIME`")
	p.IntVar(&f.passes, "passes", 0, "at most `N` passes for the budget (default 8)")
	p.BoolVar(&f.powerOn, "power-on", false, "power the VM on at home, when all disks are verified")
	p.BoolVar(&f.isolated, "isolated", false, "new: power it on with its network unplugged, to look at it before commit; refused for others")
	p.DurationVar(&f.grace, "grace", 5*time.Minute, "`TIME` for a guest to shut down, then its power is cut; 0: at once")
	p.StringVar(&f.tracking, "tracking", "hash", "`HOW` pass 1 finds what differs: hash (both sides are read), or cbt (change tracking of both hosts; refused today, nobody can know that it is right)")
	p.StringVar(&f.verify, "verify", "pass", "`HOW` to prove it: pass (what was written is read back), or full (everything is read again)")
	p.StringVar(&f.priority, "priority", "normal", "`HOW` urgent: low, normal or high")
	p.IntVar(&f.order, "order", 0, "in a group: switch when all with a lower `N` have")
	p.BoolVar(&f.noRollback, "no-rollback-point", false, "DANGER: make no rollback point on the target; what it had is then lost for good")
	p.DurationVar(&f.undoAfter, "auto-undo-after", 0, "undo by itself when nobody commits within `TIME`")
	p.DurationVar(&f.commitAfter, "auto-commit-after", 0, "commit by itself when nobody undoes within `TIME`")
	p.BoolVar(&f.unproved, "power-on-unproved", false, "DANGER: power on although a disk is not verified; recorded with your name")
	f.limits.add(cmd)
}

// spec is what the flags ask for. What is there, and what fits, is the
// controller's to say.
func (f *homeFlags) spec(vm string, now time.Time) (s failback.Spec, err error) {
	s = failback.Spec{
		VM: vm, Destination: failback.Destination(f.destination), TargetHost: f.targetHost, PowerOn: f.powerOn || f.isolated || f.unproved, Isolated: f.isolated,
		Grace: f.grace, NoRollback: f.noRollback, Tracking: failback.FirstPass(f.tracking), Order: f.order, PowerOnUnproved: f.unproved,
	}
	for _, check := range []func(*failback.Spec) error{f.place, f.words, f.rules, f.policy} {
		if err := check(&s); err != nil {
			return s, err
		}
	}
	if s.Networks, err = pairs("network", f.network); err != nil {
		return s, err
	}
	if s.Limits, err = f.limits.limits(); err != nil {
		return s, err
	}
	if s.Switch, err = moment("--switch", f.moment, now); err != nil {
		return s, err
	}
	if f.budget < 0 || f.passes < 0 {
		return s, usage("--downtime-budget and --passes cannot be negative")
	}
	s.Switch.Budget, s.Switch.Passes = f.budget, f.passes
	return s, nil
}

// place checks the destination and what goes with each.
func (f *homeFlags) place(s *failback.Spec) error {
	made := f.name + f.datacenter + f.folder + f.pool + f.server + strings.Join(slices.Concat(f.data, f.grow, f.thin, f.thick), "")
	switch s.Destination {
	case failback.Original, failback.Existing:
		if made != "" {
			return usage("--name, --datacenter, --folder, --pool, --server, --datastore, --grow, --thin and --thick go with --destination new")
		}
	case failback.New:
		s.New = &failback.NewTarget{Name: f.name, Place: hostctl.Placement{Datacenter: f.datacenter, Folder: f.folder, Pool: f.pool, Server: f.server}}
	default:
		return usage("--destination %q: original, existing or new", f.destination)
	}
	switch {
	case s.Destination == failback.Existing && f.target == "":
		return usage("--destination existing: say which VM is overwritten, as in --target home/web-restored")
	case s.Destination != failback.Existing && f.target != "":
		return usage("--target goes with --destination existing")
	case s.Destination != failback.New && f.targetHost != "":
		return usage("--target-host goes with --destination new; of an existing VM --target has the host")
	case f.target == "":
		return nil
	}
	host, query, err := parseVM("--target", f.target)
	s.TargetHost, s.Target = host, query
	return err
}

func (f *homeFlags) words(s *failback.Spec) (err error) {
	switch s.Tracking {
	case failback.FirstHash, failback.FirstCBT:
	default:
		return usage("--tracking %q: hash or cbt", f.tracking)
	}
	switch f.verify {
	case "pass":
	case "full":
		s.Full = true
	default:
		return usage("--verify %q: pass or full", f.verify)
	}
	switch {
	case f.grace < 0:
		return usage("--grace %s: a time of 0 or more", f.grace)
	case f.grace == 0:
		s.Grace = -1 // power off at once
	}
	s.Priority, err = parsePriority(f.priority)
	return err
}

func parsePriority(word string) (job.Priority, error) {
	switch word {
	case "low":
		return job.Low, nil
	case "normal":
		return job.Normal, nil
	case "high":
		return job.High, nil
	}
	return 0, usage("--priority %q: low, normal or high", word)
}

// rules are the exceptions for disks, one for each disk that is named.
func (f *homeFlags) rules(s *failback.Spec) error {
	all := map[string]*failback.DiskRule{}
	var order []string
	rule := func(disk string) *failback.DiskRule {
		if all[disk] == nil {
			all[disk] = &failback.DiskRule{Disk: disk}
			order = append(order, disk)
		}
		return all[disk]
	}
	for _, disk := range f.exclude {
		rule(disk).Exclude = true
	}
	mapping, err := pairs("map", f.mapping)
	if err != nil {
		return err
	}
	for _, disk := range sorted(mapping) {
		rule(disk).Target = mapping[disk]
	}
	grow, err := pairs("grow", f.grow)
	if err != nil {
		return err
	}
	for _, disk := range sorted(grow) {
		if rule(disk).Grow, err = size.Parse(grow[disk]); err != nil {
			return usage("--grow %s: %w", disk, err)
		}
	}
	for _, text := range f.data {
		disk, store, of := strings.Cut(text, "=")
		switch {
		case of:
			rule(disk).Datastore = store
		case s.New.Place.Datastore != "":
			return usage("--datastore: both %q and %q are to be that of the VM; write DISK=DATASTORE for a disk", s.New.Place.Datastore, text)
		default:
			s.New.Place.Datastore = text
		}
	}
	yes, no := true, false
	for word, list := range map[string][]string{"thin": f.thin, "thick": f.thick} {
		for _, disk := range list {
			r := rule(disk)
			if r.Thin != nil {
				return usage("--thin and --thick: %s is named twice", disk)
			}
			if r.Thin = &no; word == "thin" {
				r.Thin = &yes
			}
		}
	}
	slices.Sort(order)
	for _, disk := range order {
		if disk == "" {
			return usage("a disk without a name; write its label, as in scsi0:1, or its UUID")
		}
		s.Disks = append(s.Disks, *all[disk])
	}
	return nil
}

func (f *homeFlags) policy(s *failback.Spec) error {
	switch {
	case f.undoAfter < 0 || f.commitAfter < 0:
		return usage("--auto-undo-after and --auto-commit-after: a time above 0")
	case f.undoAfter > 0 && f.commitAfter > 0:
		return usage("--auto-undo-after and --auto-commit-after: choose one")
	}
	s.Policy = failback.Policy{After: f.undoAfter + f.commitAfter, Undo: f.undoAfter > 0}
	return nil
}

// pairs reads KEY=VALUE, each key once.
func pairs(flag string, list []string) (map[string]string, error) {
	var out map[string]string
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" || value == "" {
			return nil, usage("--%s %q: write two names with = between them", flag, text)
		}
		if out[key] != "" {
			return nil, usage("--%s: %s is named twice", flag, key)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[key] = value
	}
	return out, nil
}

func sorted(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// parseVM reads HOST/VM; the VM is a name, a UUID, id:ID, or the path of its
// configuration, "[ds] web/web.vmx".
func parseVM(what, text string) (host string, q hostctl.Query, err error) {
	host, vm, ok := strings.Cut(text, "/")
	if !ok || host == "" || vm == "" {
		return "", q, usage("%s %q: write HOST/VM, with the name that the controller's configuration has for the host", what, text)
	}
	id, isID := strings.CutPrefix(vm, "id:")
	switch {
	case isID:
		q.ID = id
	case strings.HasPrefix(vm, "["):
		q.Path = vm
	case uuid.Validate(vm) == nil && len(vm) == 36:
		q.UUID = vm
	default:
		q.Name = vm
	}
	return host, q, nil
}

// moments are the ways to write a time; one without a date is the next such.
var moments = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "15:04"}

func moment(what, text string, now time.Time) (failback.Switch, error) {
	switch when := failback.When(text); when {
	case failback.WhenNow, failback.WhenManual:
		return failback.Switch{When: when}, nil
	}
	for _, layout := range moments {
		t, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil {
			continue
		}
		if layout == "15:04" {
			if t = time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location()); !t.After(now) {
				t = t.AddDate(0, 0, 1)
			}
		}
		if t.Before(now) {
			return failback.Switch{}, usage("%s %s: %s is over; write now to switch at once", what, text, t.Format(time.RFC3339))
		}
		return failback.Switch{When: failback.WhenAt, At: t}, nil
	}
	return failback.Switch{}, usage("%s %q: now, manual, or a time as in 2026-11-22T03:00 or 03:00", what, text)
}

// newID is an ID that a person can read aloud: the VM, the second, and what tells
// two of one second apart.
func newID(vm string, now time.Time) string {
	const longest = 40
	var more [2]byte
	_, _ = rand.Read(more[:]) // never fails
	return fmt.Sprintf("%s-%s-%x", vm[:min(len(vm), longest)], now.UTC().Format("20060102-150405"), more)
}
