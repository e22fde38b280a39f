package osd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/haulback/haulback/hostctl"
)

// incomplete ends the name of a snapshot that some volumes do not have yet.
const incomplete = "-incomplete"

// snapshots are those that haulback has made of a workload, oldest first. One is
// what was asked for together, of each volume: there is no group snapshot in the
// API, so only while the workload is off they are one moment. A try that was cut
// off, or whose volumes are not all made yet, is told by its name; what comes of it
// after its caller is gone stays apart from a later try's.
func (h *Host) snapshots(ctx context.Context, f *found) ([]hostctl.Snapshot, error) {
	byTry := map[string]*hostctl.Snapshot{}
	disks := h.disks(f)
	for i, live := range f.live {
		list, err := h.members(ctx, f, &live)
		if err != nil {
			return nil, err
		}
		for _, v := range list {
			id := snapshotID(&v)
			s := byTry[id]
			if s == nil {
				s = &hostctl.Snapshot{ID: id, Name: nameOf(&v), Text: v.Labels[labelText], Created: v.Created}
				byTry[id] = s
			}
			if n := len(s.Disks); v.Unfit != "" || n > 0 && s.Disks[n-1].UUID == live.ID {
				continue // still being made; or a twin, which a lost reply has made: the oldest counts
			}
			d := disks[i]
			d.File, d.Size, d.Unfit = File(live.ID, v.ID), v.Size, ""
			s.Disks = append(s.Disks, d)
			if v.Created.After(s.Created) {
				s.Created = v.Created
			}
		}
	}
	var all []hostctl.Snapshot
	for _, s := range byTry {
		if len(s.Disks) < len(f.live) {
			s.Name += incomplete
		}
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b hostctl.Snapshot) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all, nil
}

// members are the snapshots of one volume of a workload that are ours.
func (h *Host) members(ctx context.Context, f *found, live *Volume) ([]Volume, error) {
	list, err := h.server.Snapshots(ctx, live.ID, map[string]string{labelVM: f.UUID, labelDisk: live.ID})
	if err != nil {
		return nil, fmt.Errorf("host %s: snapshots of volume %s: %w", h.cfg.Name, live.Name, err)
	}
	return slices.DeleteFunc(list, func(v Volume) bool {
		l := v.Labels
		return v.Parent != live.ID || l[labelVM] != f.UUID || l[labelDisk] != live.ID || l[labelJob] == "" || l[labelStep] == "" || l[labelTry] == ""
	}), nil
}

// nameOf is the name of the snapshot that v is a part of, and snapshotID the handle.
func nameOf(v *Volume) string {
	return hostctl.SnapshotName(&hostctl.Op{Run: v.Labels[labelJob], Step: v.Labels[labelStep]})
}

func snapshotID(v *Volume) string { return "snapshot-" + v.Labels[labelTry] }

// labelsOf are those of a snapshot that op makes, for one of the volumes.
func labelsOf(op *hostctl.Op, try, vm, disk, text string) map[string]string {
	role := roleSource
	if strings.HasPrefix(op.Step, "protect-") {
		role = roleProtect
	}
	l := map[string]string{labelVM: vm, labelJob: op.Run, labelStep: op.Step, labelTry: try, labelDisk: disk, labelRole: role}
	if text != "" {
		l[labelText] = text
	}
	return l
}

// Protect implements hostctl.Storage. What a workload that is off has written is on
// its volumes when they are detached, so that is waited for; of one that runs the
// snapshots are what a crash would leave, each volume by itself.
func (h *Host) Protect(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, text string) (hostctl.Snapshot, error) {
	f, is, err := h.seen(ctx, ref)
	if err != nil {
		return hostctl.Snapshot{}, err
	}
	if is == hostctl.Off {
		if err := h.detached(ctx, f, h.times.detach); err != nil {
			return hostctl.Snapshot{}, err
		}
	}
	want := hostctl.SnapshotName(op)
	if s, err := h.named(ctx, f, want); err == nil || !errors.Is(err, hostctl.ErrNotFound) {
		return s, err
	}
	// What an earlier try has left may be what there is no space for.
	older := func(v *Volume) bool { return nameOf(v) == want }
	if err := h.remove(ctx, f, older, func() error { return nil }); err != nil {
		h.cfg.Log.Warn("an earlier try's snapshots are left for now", "host", h.cfg.Name, "vm", f.Name(), "err", err)
	}
	try := random()
	if err := op.Started("snapshot " + want + " try " + try); err != nil {
		return hostctl.Snapshot{}, err
	}
	for i, v := range f.live {
		if _, err := h.server.Snapshot(ctx, v.ID, fmt.Sprintf("%s-%d", want, i), labelsOf(op, try, f.UUID, v.ID, clean(text))); err != nil {
			return hostctl.Snapshot{}, fmt.Errorf("host %s: snapshot of volume %s of workload %s: %w", h.cfg.Name, v.Name, f.Name(), err)
		}
	}
	// What an earlier try has left is in nobody's way any more.
	if err := h.remove(ctx, f, func(v *Volume) bool { return nameOf(v) == want && v.Labels[labelTry] != try }, func() error { return nil }); err != nil {
		return hostctl.Snapshot{}, err
	}
	s, err := h.named(ctx, f, want)
	if errors.Is(err, hostctl.ErrNotFound) {
		err = &later{h.refuse("snapshot %s of workload %s is not on all of its volumes", want, f.Name())}
	}
	return s, err
}

// named finds a snapshot that is whole by its name.
func (h *Host) named(ctx context.Context, f *found, name string) (hostctl.Snapshot, error) {
	return h.search(ctx, f, name, func(s *hostctl.Snapshot) bool { return s.Name == name })
}

func (h *Host) search(ctx context.Context, f *found, what string, is func(s *hostctl.Snapshot) bool) (hostctl.Snapshot, error) {
	list, err := h.snapshots(ctx, f)
	if err != nil {
		return hostctl.Snapshot{}, err
	}
	for _, s := range list {
		if is(&s) {
			return s, nil
		}
	}
	return hostctl.Snapshot{}, fmt.Errorf("host %s: snapshot %s of workload %s: %w", h.cfg.Name, clean(what), f.Name(), hostctl.ErrNotFound)
}

// Restore implements hostctl.Storage. With RestoreMover, and where the server
// cannot, its error is final: the caller moves back what differs from the snapshot.
// As long as the server may still restore it can be retried, and nobody may write.
func (h *Host) Restore(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, snapshot string) error {
	f, err := h.of(ctx, ref)
	if err != nil {
		return err
	}
	s, err := h.search(ctx, f, snapshot, func(s *hostctl.Snapshot) bool { return s.ID == snapshot })
	if err != nil {
		return err
	}
	is, err := h.power(ctx, f)
	switch {
	case err != nil:
		return err
	case is != hostctl.Off:
		return h.refuse("workload %s runs: it is restored when it is off", f.Name())
	case len(s.Disks) != len(f.live):
		return h.refuse("snapshot %s of workload %s is not on all of its volumes", snapshot, f.Name())
	case h.server.Config().Restore != RestoreServer:
		return h.refuse("the profile says restore = %q", RestoreMover)
	}
	if err := h.detached(ctx, f, h.times.detach); err != nil {
		return err
	}
	if err := op.Started("restore " + snapshot); err != nil {
		return err
	}
	for i, v := range f.live {
		_, id, _ := strings.Cut(s.Disks[i].File, "@")
		if err := h.server.Restore(ctx, v.ID, id); err != nil {
			return fmt.Errorf("host %s: restore volume %s of workload %s: %w", h.cfg.Name, v.Name, f.Name(), err)
		}
	}
	return nil
}

// Release implements hostctl.Storage: what has not all of our labels is not ours.
func (h *Host) Release(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, snapshot string) error {
	f, err := h.of(ctx, ref)
	if err != nil {
		return err
	}
	return h.remove(ctx, f, func(v *Volume) bool { return snapshotID(v) == snapshot }, func() error { return op.Started("release " + snapshot) })
}

// remove deletes those of our snapshots that pick chooses; begin is called before
// the first.
func (h *Host) remove(ctx context.Context, f *found, pick func(v *Volume) bool, begin func() error) error {
	begun := false
	for _, live := range f.live {
		list, err := h.members(ctx, f, &live)
		if err != nil {
			return err
		}
		for _, v := range list {
			if !pick(&v) {
				continue
			}
			if !begun {
				if err := begin(); err != nil {
					return err
				}
				begun = true
			}
			if err := h.server.Delete(ctx, v.ID); err != nil {
				return fmt.Errorf("host %s: remove snapshot %s of volume %s: %w", h.cfg.Name, v.Name, live.Name, err)
			}
		}
	}
	return nil
}
