package osd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/hostctl"
)

// Kind is the Kind of a Host.
const Kind = "openstorage"

// Workload is what a Host calls a VM: volumes that belong together, in order, and
// what powers them. The configuration says so; the server knows nothing of it.
type Workload struct {
	Name    string
	Volumes []WorkloadVolume
	Power   Power // nil: nobody here can. What has a volume attached is in use, see HostConfig.Mine
}

// WorkloadVolume is one disk of a workload.
type WorkloadVolume struct {
	Volume string // name or id
	Label  string // where it is attached, "scsi0:0"; empty: its name
}

// HostConfig is what a Host works with.
type HostConfig struct {
	Name      string // as the controller's configuration calls it
	Client    *Client
	Workloads []Workload
	// Mine reports whether the controller's own mover has the volume attached, or
	// had it a moment ago: then nobody else uses it. nil: never.
	Mine func(volume string) bool
	Log  *slog.Logger // nil drops it
}

// Host is workloads on OpenStorage volumes. Safe for concurrent use.
//
// It is Compute and Storage, and nothing else: the API has neither an inventory
// nor change tracking, so every pass compares everything.
type Host struct {
	cfg    HostConfig
	server *Client
	times  hostTimes
	began  time.Time

	mu  sync.Mutex
	ids map[string]string // of volumes, by what the configuration calls them
}

// hostTimes is what tests make shorter.
type hostTimes struct {
	poll   time.Duration // between two looks
	detach time.Duration // how long a workload that is off may keep its volumes attached
	power  time.Duration // how long it may take to be on
	// restart is how long a mover may hold a target whose controller was killed: it
	// notices (a minute), and lingers (two) for one who goes on.
	restart time.Duration
}

// NewHost makes no call.
func NewHost(cfg HostConfig) *Host {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Mine == nil {
		cfg.Mine = func(string) bool { return false }
	}
	return &Host{
		cfg: cfg, server: cfg.Client, ids: map[string]string{}, began: time.Now(),
		times: hostTimes{poll: 2 * time.Second, detach: 2 * time.Minute, power: 5 * time.Minute, restart: 4 * time.Minute},
	}
}

// Host is it for the control plane.
func (h *Host) Host() *hostctl.Host {
	return &hostctl.Host{Name: h.cfg.Name, Kind: Kind, Compute: h, Storage: h}
}

// refuse is a final error.
func (h *Host) refuse(format string, args ...any) error {
	return fmt.Errorf("host %s: %w", h.cfg.Name, fmt.Errorf(format, args...))
}

// later is an error that the next try may not have.
type later struct{ err error }

func (l *later) Error() string   { return l.err.Error() }
func (l *later) Unwrap() error   { return l.err }
func (l *later) Retryable() bool { return true }

// volume is one of a workload as it is now. What has its name may be another since
// the last look, which the id tells.
func (h *Host) volume(ctx context.Context, called string) (Volume, error) {
	h.mu.Lock()
	id := h.ids[called]
	h.mu.Unlock()
	if id != "" {
		v, err := h.server.Inspect(ctx, id)
		if err == nil && (v.Name == called || v.ID == called) || err != nil && !errors.Is(err, hostctl.ErrNotFound) {
			return v, err
		}
	}
	v, err := h.server.Resolve(ctx, called)
	if err != nil {
		return v, err
	}
	h.mu.Lock()
	h.ids[called] = v.ID
	h.mu.Unlock()
	return v, nil
}

// idSpace makes UUIDs of volume ids.
var idSpace = uuid.MustParse("5a1f3c52-8d0f-4b52-9a55-0d6f1f1a7d10")

// identity is the UUID of the workload whose first volume that is: it stays when
// the workload is renamed, and changes when the volume is another.
func identity(first *Volume) string { return uuid.NewSHA1(idSpace, []byte(first.ID)).String() }

// found is a workload as it is now.
type found struct {
	*Workload
	hostctl.Ref
	live []Volume // in order
}

// look finds the volumes of a workload.
func (h *Host) look(ctx context.Context, w *Workload) (*found, error) {
	f := &found{Workload: w}
	for _, of := range w.Volumes {
		v, err := h.volume(ctx, of.Volume)
		if err != nil {
			return nil, fmt.Errorf("host %s: workload %s: %w", h.cfg.Name, w.Name, err)
		}
		f.live = append(f.live, v)
	}
	if len(f.live) == 0 {
		return nil, h.refuse("workload %s has no volumes", w.Name)
	}
	f.Ref = hostctl.Ref{Host: h.cfg.Name, ID: w.Name, UUID: identity(&f.live[0]), Name: w.Name}
	return f, nil
}

const pathPrefix = "openstorage:"

// pick finds the workload that q names.
func (h *Host) pick(ctx context.Context, q hostctl.Query) (*found, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if q == (hostctl.Query{}) {
		return nil, h.refuse("a workload without a name was asked for")
	}
	var unseen error
	for _, w := range h.likeliest(q) {
		if q.UUID == "" {
			switch {
			case q.ID != "" && q.ID != w.Name, q.ID == "" && q.Path != "" && q.Path != pathPrefix+w.Name, q.ID == "" && q.Path == "" && q.Name != w.Name:
				continue
			}
			return h.look(ctx, w)
		}
		f, err := h.look(ctx, w)
		switch {
		case err == nil && f.UUID == q.UUID:
			return f, nil
		case err != nil && !errors.Is(err, hostctl.ErrNotFound):
			unseen = errors.Join(unseen, err) // it may be this one
		}
	}
	if unseen != nil {
		return nil, unseen
	}
	return nil, fmt.Errorf("host %s: workload %s: %w; the configuration of the controller lists workloads under [[host.workload]]", h.cfg.Name, name(q), hostctl.ErrNotFound)
}

// likeliest are the workloads, first the one that is called as q says: whoever has
// a Ref has its name too, and the volumes of the others need not be looked at.
func (h *Host) likeliest(q hostctl.Query) []*Workload {
	list := make([]*Workload, 0, len(h.cfg.Workloads))
	for i := range h.cfg.Workloads {
		list = append(list, &h.cfg.Workloads[i])
	}
	slices.SortStableFunc(list, func(a, b *Workload) int {
		called := func(w *Workload) int {
			if w.Name == q.ID || w.Name == q.Name {
				return 0
			}
			return 1
		}
		return called(a) - called(b)
	})
	return list
}

// name is the first that q has.
func name(q hostctl.Query) string {
	for _, s := range []string{q.Name, q.ID, q.Path} {
		if s != "" {
			return s
		}
	}
	return q.UUID
}

// of finds what ref names: by its UUID where it has one.
func (h *Host) of(ctx context.Context, ref hostctl.Ref) (*found, error) {
	return h.pick(ctx, hostctl.Query{UUID: ref.UUID, ID: ref.ID, Name: ref.Name})
}

// seen is of, and whether it runs.
func (h *Host) seen(ctx context.Context, ref hostctl.Ref) (f *found, is hostctl.Power, err error) {
	if f, err = h.of(ctx, ref); err == nil {
		is, err = h.power(ctx, f)
	}
	return f, is, err
}

// Find implements hostctl.Compute.
func (h *Host) Find(ctx context.Context, q hostctl.Query) (hostctl.VM, error) {
	f, err := h.pick(ctx, q)
	if err != nil {
		return hostctl.VM{}, err
	}
	return h.show(ctx, f)
}

// show is a workload as a VM, with its marks and snapshots.
func (h *Host) show(ctx context.Context, f *found) (vm hostctl.VM, err error) {
	vm = hostctl.VM{Ref: f.Ref, Path: pathPrefix + f.Name(), Version: "OpenStorage", Disks: h.disks(f), Marks: map[string]string{}}
	if vm.Power, err = h.power(ctx, f); err != nil {
		return vm, err
	}
	for _, v := range f.live {
		if v.Restoring {
			vm.Busy = "restore of volume " + v.Name
		}
	}
	marks, err := h.markers(ctx, f.UUID, "")
	if err != nil {
		return vm, err
	}
	for _, m := range marks {
		vm.Marks[m.Labels[labelMark]] = m.Labels[labelValue]
	}
	vm.Snapshots, err = h.snapshots(ctx, f)
	return vm, err
}

// Name is the workload's; the Ref has the same.
func (f *found) Name() string { return f.Workload.Name }

// disks are the live volumes.
func (h *Host) disks(f *found) (list []hostctl.Disk) {
	for i, v := range f.live {
		label := f.Volumes[i].Label
		if label == "" {
			label = v.Name
		}
		list = append(list, hostctl.Disk{
			Key: int32(2000 + i), Label: label, UUID: v.ID, File: File(v.ID, ""), Size: v.Size, Datastore: h.cfg.Name, Thin: true, Unfit: v.Unfit,
		})
	}
	return list
}

// File is the disk of a volume, or of a snapshot of it, as hostctl.Disk has it:
// "osd:VOLUME" and "osd:VOLUME@SNAPSHOT", both by their ids.
func File(volume, snapshot string) string {
	if snapshot != "" {
		return Scheme + ":" + volume + "@" + snapshot
	}
	return Scheme + ":" + volume
}

// Space implements hostctl.Storage: that of the node's pools, or nothing where it
// does not tell.
func (h *Host) Space(ctx context.Context, ref hostctl.Ref) ([]hostctl.Space, error) {
	if _, err := h.of(ctx, ref); err != nil {
		return nil, err
	}
	free, size, err := h.server.Space(ctx)
	if err != nil || size == 0 {
		return nil, err
	}
	return []hostctl.Space{{Datastore: h.cfg.Name, Free: free, Size: size}}, nil
}
