package vsphere

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// check compares the base with the disk of the snapshot: is it the same count,
// of a disk of the same size, that nothing was done to which it cannot bear. The
// rules are the table of facts/vsphere.md 2.2.
func (q *question) check() error {
	i := slices.IndexFunc(q.shot.Disks, func(d hostctl.Disk) bool { return d.Key == q.key })
	if i < 0 {
		return distrust("the snapshot %q has no disk with key %d", q.shot.Name, q.key)
	}
	d := q.shot.Disks[i]
	if d.Unfit != "" {
		return distrust("disk %s is %s", d.Label, d.Unfit)
	}
	if d.ChangeID == "" {
		return distrust("change tracking was off when the snapshot was made, or the host cannot track disk %s", d.Label)
	}
	if !q.vm.Tracking {
		return distrust("change tracking of %s is off", q.vm.Name)
	}
	now, err := parseChangeID(d.ChangeID)
	switch {
	case err != nil:
		return distrust("the snapshot's disk: %v", err)
	case now.uuid != q.base.uuid:
		return distrust("the host has begun another count since then (tracking was off, the disk was moved, or the host was not stopped cleanly)")
	case now.seq < q.base.seq:
		return distrust("the host's count stands at %d, before %d: the VM was taken back in time", now.seq, q.base.seq)
	case d.Size != q.size:
		return distrust("the snapshot's disk has %d bytes, not %d", d.Size, q.size)
	case q.base.size != 0 && q.base.size != q.size:
		return distrust("the disk had %d bytes then and has %d now: hosts name wrong areas after that (KB 310751)", q.base.size, q.size)
	}
	if err := q.leaf(); err != nil {
		return err
	}
	if err := q.early(); err != nil {
		return err
	}
	return oldHost(q.vm.Version)
}

// leaf compares with the disk as it is now.
func (q *question) leaf() error {
	for _, d := range q.vm.Disks {
		if d.Key == q.key && d.Size != q.size {
			return distrust("the disk has been made larger since the snapshot: %d bytes, not %d", d.Size, q.size)
		}
	}
	return nil
}

// early finds a snapshot below that has no change ID: tracking was turned on with
// it there, and since vSphere 6.5 that is no error but a silently short answer.
func (q *question) early() error {
	byID := map[string]*hostctl.Snapshot{}
	for i := range q.vm.Snapshots {
		byID[q.vm.Snapshots[i].ID] = &q.vm.Snapshots[i]
	}
	for s := byID[q.shot.Parent]; s != nil; s = byID[s.Parent] {
		for _, d := range s.Disks {
			if d.Key == q.key && d.ChangeID == "" {
				return distrust("tracking was turned on above the snapshot %q: it misses changes (Veritas 100033481)", s.Name)
			}
		}
	}
	return nil
}

var product = regexp.MustCompile(`ESXi? (\d+)\.(\d+)\.\d+ build-(\d+)`)

// oldHost knows the hosts whose tracking loses changes.
func oldHost(version string) error {
	m := product.FindStringSubmatch(version)
	if m == nil {
		return nil // a vCenter hides its host from the login: sampling has to do
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	number, _ := strconv.Atoi(m[3])
	switch {
	case major < 6:
		return distrust("%s: tracking of hosts before 6.0 names wrong areas after a disk has grown (KB 310751)", version)
	case major == 6 && minor == 0 && number > 1 && number < 3247720:
		return distrust("%s: before build 3247720 it loses what is written during a consolidation (KB 317933)", version)
	}
	return nil
}

// The bounds of reading a VM's events.
const (
	eventPage = 200
	maxEvents = 20000
	// eventSlack is subtracted from the base's time: an event's time is that of
	// its end, a snapshot's that of its beginning.
	eventSlack = 2 * time.Second
)

// history looks for what happened to the VM since the base and what tracking does
// not survive. Where the login may not read events, or they reach not far enough,
// that is said but is no reason: counts are compared anyway, and hints sampled.
func (c *Client) history(ctx context.Context, q *question) error {
	if q.base.at.IsZero() {
		q.doubt = "the time of the base is not known, so events were not looked at"
		return nil
	}
	bad := ""
	err := c.observe(ctx, "read the events of "+q.vm.Name, func(l *link) (err error) {
		bad, err = eventsSince(ctx, l, vmRef(q.vm.ID), q.base.at.Add(-eventSlack), q)
		return err
	})
	switch {
	case err != nil && (ctx.Err() != nil || retries(err)):
		return err
	case err != nil:
		q.doubt = "the VM's events could not be read (" + clean(err.Error()) + ")"
	case bad != "":
		return distrust("%s", bad)
	}
	return nil
}

// eventsSince pages through a VM's events.
func eventsSince(ctx context.Context, l *link, vm types.ManagedObjectReference, since time.Time, q *question) (bad string, err error) {
	filter := types.EventFilterSpec{
		Entity: &types.EventFilterSpecByEntity{Entity: vm, Recursion: types.EventFilterSpecRecursionOptionSelf},
		Time:   &types.EventFilterSpecByTime{BeginTime: &since},
	}
	h, err := event.NewManager(l.Client).CreateCollectorForEvents(ctx, filter)
	if err != nil {
		return "", err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
		defer cancel()
		_, _ = methods.DestroyCollector(end, l, &types.DestroyCollector{This: h.Reference()}) // the session's end takes it too
	}()
	for n := 0; ; {
		some, err := h.ReadNextEvents(ctx, eventPage)
		if err != nil || len(some) == 0 {
			return "", err
		}
		for _, e := range some {
			if t := e.GetEvent().CreatedTime; t.Before(since) {
				continue
			}
			if bad := spoils(e); bad != "" {
				return fmt.Sprintf("%s (%s)", bad, e.GetEvent().CreatedTime.UTC().Format(time.RFC3339)), nil
			}
		}
		if n += len(some); n >= maxEvents {
			q.doubt = fmt.Sprintf("the VM has more than %d events since then, not all were looked at", maxEvents)
			return "", nil
		}
	}
}

// spoils says what an event means for change tracking, or nothing.
func spoils(e types.BaseEvent) string {
	switch e := e.(type) {
	case *types.VmReconfiguredEvent:
		return spoiledBy(&e.ConfigSpec)
	case *types.VmRestartedOnAlternateHostEvent:
		return "its host failed and it was restarted on another one: the count may not have been saved"
	case *types.VmDasBeingResetEvent, *types.VmDasBeingResetWithScreenshotEvent:
		return "it was reset by high availability: the count may not have been saved"
	case *types.VmOrphanedEvent:
		return "its host lost it: the count may not have been saved"
	case *types.TaskEvent:
		if reverts(e.Info.DescriptionId) || reverts(e.Info.Name) {
			return revertedText
		}
	case *types.EventEx:
		switch {
		case reverts(e.EventTypeId), reverts(e.Message):
			return revertedText
		case strings.Contains(e.EventTypeId, "VmRestartedByHAEvent"), strings.Contains(e.EventTypeId, "vm.failover"):
			return "it was restarted by high availability: the count may not have been saved"
		}
	}
	if reverts(e.GetEvent().FullFormattedMessage) {
		return revertedText
	}
	return ""
}

const revertedText = "it was reverted to a snapshot: hosts report too little after that"

func reverts(s string) bool { return strings.Contains(strings.ToLower(s), "revert") }

// spoiledBy looks at a reconfiguration.
func spoiledBy(s *types.VirtualMachineConfigSpec) string {
	if on := s.ChangeTrackingEnabled; on != nil && !*on {
		return "somebody turned its change tracking off (KB 422164)"
	}
	for _, o := range s.ExtraConfig {
		v := o.GetOptionValue()
		off, _ := v.Value.(string)
		if strings.HasSuffix(v.Key, "ctkEnabled") && strings.EqualFold(off, "false") {
			return "somebody turned change tracking of a disk off (" + clean(v.Key) + ")"
		}
	}
	return ""
}
