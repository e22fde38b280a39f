package osd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/haulback/haulback/hostctl"
)

// The labels of what haulback makes. Live volumes never get one: some servers copy
// the labels of a volume to its snapshots and clones.
const (
	labelVM    = "haulback.vm"    // UUID of the workload
	labelJob   = "haulback.job"   // run
	labelStep  = "haulback.step"  // of the run
	labelTry   = "haulback.try"   // of the step: what was asked for together
	labelDisk  = "haulback.disk"  // id of the live volume
	labelRole  = "haulback.role"  // RoleProtect, RoleSource
	labelText  = "haulback.text"  // for people
	labelMark  = "haulback.mark"  // of a marker volume: the key
	labelValue = "haulback.value" // and its value
)

// The values of labelRole.
const (
	roleProtect = "protect" // an undo needs it
	roleSource  = "source"  // a pass is read from it
)

// markSize is what a marker volume has; nothing is written to it. Some servers
// make no smaller one.
const markSize = 1 << 30

// markers are the marker volumes of a workload, of one key or of all.
func (h *Host) markers(ctx context.Context, uuid, key string) ([]Volume, error) {
	want := map[string]string{labelVM: uuid}
	if key != "" {
		want[labelMark] = key
	}
	list, err := h.server.Labelled(ctx, want)
	if err != nil {
		return nil, fmt.Errorf("host %s: marks: %w", h.cfg.Name, err)
	}
	list = slices.DeleteFunc(list, func(v Volume) bool {
		return v.Labels[labelMark] == "" || key != "" && v.Labels[labelMark] != key || v.Labels[labelVM] != uuid || v.Parent != "" ||
			!strings.HasPrefix(v.Name, markPrefix)
	})
	return list, nil
}

const markPrefix = "haulback-mark-"

// Mark implements hostctl.Compute. A mark is an empty volume that is labelled with
// it: everybody who looks at the cluster sees it, another controller too.
func (h *Host) Mark(ctx context.Context, op *hostctl.Op, ref hostctl.Ref, key, value string) error {
	if key == "" || clean(key) != key || clean(value) != value {
		return h.refuse("mark %q: a mark is one line of plain text", clean(key))
	}
	f, err := h.of(ctx, ref)
	if err != nil {
		return err
	}
	there, err := h.markers(ctx, f.UUID, key)
	if err != nil {
		return err
	}
	keep := slices.IndexFunc(there, func(v Volume) bool { return value != "" && v.Labels[labelValue] == value })
	if len(there) == 0 && value == "" || len(there) == 1 && keep == 0 {
		return nil
	}
	if err := op.Started("mark " + key); err != nil {
		return err
	}
	if keep >= 0 {
		there = slices.Delete(there, keep, keep+1)
	} else if value != "" {
		// Before the old one goes: whatever happens in between, the workload is marked.
		labels := map[string]string{labelVM: f.UUID, labelMark: key, labelValue: value, labelJob: op.Run, labelText: "workload " + f.Name()}
		if _, err := h.server.Create(ctx, markPrefix+key+"-"+f.UUID+"-"+random(), markSize, labels); err != nil {
			return fmt.Errorf("host %s: mark %s: %w", h.cfg.Name, f.Name(), err)
		}
	}
	for _, old := range there {
		if err := h.server.Delete(ctx, old.ID); err != nil {
			return fmt.Errorf("host %s: take mark %s off %s: %w", h.cfg.Name, key, f.Name(), err)
		}
	}
	return nil
}
