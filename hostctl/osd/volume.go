package osd

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/libopenstorage/openstorage/api"
)

// Volume is a volume, snapshot or clone as the server says it is now.
type Volume struct {
	ID, Name   string
	Size       int64  // bytes
	Parent     string // id of what it was made of, or empty
	ReadOnly   bool   // says the server: not every one keeps to it
	Labels     map[string]string
	Created    time.Time
	Attached   bool   // to a node, or on the way to or from it
	AttachedOn string // that node's id; some servers never say
	Path       string // of its device where it is attached; secure_device_path where there is one
	Restoring  bool
	Unfit      string // why it cannot be used: an error, down, in the trash can; or empty

	driver  string // of the server
	device  string // device_path: what Attach answers may be this one or Path
	here    bool   // Attached, and on the endpoint's node
	pending bool   // is still being made
	gone    bool   // deleted, or in the trash can
	fault   string // Volume.error, but for the one of a moment
}

// LabelPrefix begins all labels of ours.
const LabelPrefix = "haulback."

// ours reports whether the volume has a label of ours.
func (v *Volume) ours() bool {
	for k := range v.Labels {
		if strings.HasPrefix(k, LabelPrefix) {
			return true
		}
	}
	return false
}

// frozen reports whether v is a snapshot as far as a server tells: read-only with a
// parent, or with a parent and our labels where snapshots are writable. Clones of
// others are volumes.
func (v *Volume) frozen() bool {
	return v.Parent != "" && (v.ReadOnly || v.ours())
}

// volume makes a Volume of an answer. An id or a size that cannot be is refused:
// ids come into names, sizes are compared with devices.
func (c *Client) volume(ctx context.Context, method string, r *api.SdkVolumeInspectResponse) (Volume, error) {
	a, err := c.known(ctx)
	if err != nil {
		return Volume{}, err
	}
	w := r.GetVolume()
	v := Volume{
		ID: w.GetId(), Name: clean(cmp.Or(r.GetName(), w.GetLocator().GetName())),
		Parent: w.GetSource().GetParent(), ReadOnly: w.GetReadonly(),
		Labels:     maps.Clone(w.GetLocator().GetVolumeLabels()),
		AttachedOn: clean(w.GetAttachedOn()), driver: a.Driver,
	}
	if v.Labels == nil {
		v.Labels = maps.Clone(r.GetLabels())
	}
	switch size := w.GetSpec().GetSize(); {
	case !plain(v.ID, maxName):
		return Volume{}, c.refuse(method, clean(v.ID), "it answers a volume whose id is not 1 to %d of %s", maxName, nameRule)
	case v.Parent != "" && !plain(v.Parent, maxName):
		return Volume{}, c.refuse(method, v.ID, "it answers a volume whose parent's id is not 1 to %d of %s", maxName, nameRule)
	case size > math.MaxInt64:
		return Volume{}, c.refuse(method, v.ID, "it answers a volume of %d bytes", size)
	default:
		v.Size = int64(size)
	}
	if t := w.GetCtime(); t != nil {
		v.Created = t.AsTime()
	}
	v.judge(w)
	if v.Attached {
		v.device = w.GetDevicePath()
		v.Path = cmp.Or(w.GetSecureDevicePath(), v.device)
		v.here = v.AttachedOn == "" || v.AttachedOn == a.Node || v.AttachedOn == a.Hostname ||
			v.AttachedOn == a.Scheduler || slices.Contains(a.addresses, v.AttachedOn)
	}
	return v, nil
}

// judge reads state, status and error.
func (v *Volume) judge(w *api.Volume) {
	switch w.GetState() {
	case api.VolumeState_VOLUME_STATE_ATTACHED, api.VolumeState_VOLUME_STATE_DETATCHING, api.VolumeState_VOLUME_STATE_TRY_DETACHING:
		v.Attached = true
	case api.VolumeState_VOLUME_STATE_PENDING:
		v.pending, v.Unfit = true, "it is still being made"
	case api.VolumeState_VOLUME_STATE_ERROR:
		v.Unfit = "its state is an error"
	case api.VolumeState_VOLUME_STATE_DELETED:
		v.gone, v.Unfit = true, "it is deleted"
	case api.VolumeState_VOLUME_STATE_RESTORE:
		v.Restoring = true
	}
	v.Attached = v.Attached || v.AttachedOn != ""
	switch s := w.GetStatus(); {
	case v.pending:
	case s == api.VolumeStatus_VOLUME_STATUS_UP, s == api.VolumeStatus_VOLUME_STATUS_DEGRADED:
	case v.Unfit == "":
		v.Unfit = "its status is not up but " + strings.ToLower(strings.TrimPrefix(clean(s.String()), "VOLUME_STATUS_"))
	}
	if v.Size == 0 && v.Unfit == "" {
		v.Unfit = "it has no size: it is no block device"
	}
	// Stork takes this one for an error that passes.
	if text := clean(w.GetError()); text != "" && !strings.Contains(strings.ToLower(text), "resource temporarily unavailable") {
		v.fault = text
		v.Unfit = "its error is: " + text
	}
	if w.GetInTrashcan() {
		v.gone, v.Unfit = true, "it is in the trash can"
	}
}

// has reports whether the volume has all of the labels.
func (v *Volume) has(labels map[string]string) bool {
	for k, want := range labels {
		if got, ok := v.Labels[k]; !ok || got != want {
			return false
		}
	}
	return true
}

// oldest sorts by Created, then by id.
func oldest(list []Volume) {
	slices.SortFunc(list, func(a, b Volume) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
}
