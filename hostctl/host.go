package hostctl

import (
	"context"
	"iter"
	"time"

	"github.com/haulback/haulback/cbt"
)

// Host is one host with its abilities. Compute and Storage are always there, the
// rest is nil where a host has no such thing. All methods of all parts are safe
// for concurrent use and end when their context does.
//
// Errors of all of them: ErrNotFound, *AmbiguousError, *PrivilegeError, or one
// with Retryable() bool (a lost session or server; what was asked may or may not
// have happened, observe before asking again). Everything else is final and says
// what to do.
//
// What changes something takes an Op and is idempotent: it looks first whether
// the end state is there, then whether the Op's earlier task still runs or has
// ended, and only then asks the host; it returns when the end state was observed.
type Host struct {
	Name     string
	Kind     string // "vsphere", "openstorage", ...
	Compute  Compute
	Storage  Storage
	Registry Registry
	Tracker  Tracker
	Guard    Guard
	Checker  Checker
}

// Op is one host action of one step of one run.
type Op struct {
	Run  string // UUID of the run
	Step string // "protect-replica"; with Run it names what is made
	Task string // the host's reference to it that an earlier try has stored, or empty
	// Started makes a reference durable. It is called after the host has taken
	// the action and before the end is waited for. Its error ends the action.
	Started func(task string) error
}

// Compute looks after VMs.
type Compute interface {
	// Find answers the VM as it is now.
	Find(ctx context.Context, q Query) (VM, error)
	// SetPower makes want (On or Off) true. Off asks the guest first and
	// powers off when grace has passed, at once when grace is 0 or nobody in the
	// guest listens.
	SetPower(ctx context.Context, op *Op, vm Ref, want Power, grace time.Duration) error
	// Mark sets a mark on the VM that everybody sees who looks at it; an empty
	// value takes it away.
	Mark(ctx context.Context, op *Op, vm Ref, key, value string) error
	// Watch yields what happens to the VMs from the moment it returns its first
	// value: one Event for each VM with the state then. It reconnects by itself
	// and yields an error only for what is final, as its last value.
	Watch(ctx context.Context, vms []Ref) iter.Seq2[Event, error]
}

// Storage keeps points in time of all disks of a VM together.
type Storage interface {
	// Protect makes a snapshot called SnapshotName(op), without memory. One of
	// that name that is there is the answer.
	Protect(ctx context.Context, op *Op, vm Ref, text string) (Snapshot, error)
	// Restore makes the disks (and the configuration, where the host does that)
	// what they were at the snapshot, which stays. The VM is off.
	Restore(ctx context.Context, op *Op, vm Ref, snapshot string) error
	// Release removes a snapshot and keeps what its VM has on its disks now; it
	// returns when the disks are consolidated. None is no error.
	Release(ctx context.Context, op *Op, vm Ref, snapshot string) error
	// Space is the free space where the disks of the VM are.
	Space(ctx context.Context, vm Ref) ([]Space, error)
}

// Registry makes VMs and takes them away.
type Registry interface {
	// Create makes a VM with empty disks, marked with op's run. One that is
	// there with that mark is the answer.
	Create(ctx context.Context, op *Op, vm NewVM) (VM, error)
	// Register puts a VM into the inventory by its path; one that is there is
	// the answer.
	Register(ctx context.Context, op *Op, path string, place Placement) (Ref, error)
	// Unregister takes it out of the inventory and leaves its files.
	Unregister(ctx context.Context, op *Op, vm Ref) error
	// Destroy deletes a VM that Create has made under op's run, registered or
	// not, with its disks; anybody else's is refused.
	Destroy(ctx context.Context, op *Op, path string) error
	// Rebind connects NICs to networks by the map from old to new, and grows
	// nothing else.
	Rebind(ctx context.Context, op *Op, vm Ref, networks map[string]string) error
}

// Tracker knows a host's change tracking. Its answers are hints.
type Tracker interface {
	// EnableTracking turns it on where it is off; it counts from the next
	// snapshot. With snapshots there already it is an error: the host would
	// answer too little without saying so.
	EnableTracking(ctx context.Context, op *Op, vm Ref) error
	// ResetTracking drops what it knows and leaves it as it was, on or off.
	ResetTracking(ctx context.Context, op *Op, vm Ref) error
	// Changed asks what changed on disk between since, a ChangeID, and the
	// snapshot; disk is that of the snapshot. The hint's Trust and Remark say
	// how far it can be believed and why. An error means that there is none.
	Changed(ctx context.Context, vm Ref, snapshot string, disk Disk, since string) (cbt.Hint, error)
}

// Guard keeps a host from moving a VM while its disks are used from outside.
type Guard interface {
	Hold(ctx context.Context, op *Op, vm Ref) error
	// Free ends a Hold, also one of a process that died.
	Free(ctx context.Context, op *Op, vm Ref) error
}

// Need is one right that a run will use.
type Need string

// Checker tells before anything is done what would fail later.
type Checker interface {
	// Check answers what is missing: one Problem for each privilege that the
	// login does not have on the VM (or, for an empty Ref, on the placement's
	// objects), for a host that is in maintenance, and so on.
	Check(ctx context.Context, vm Ref, needs []Need) ([]Problem, error)
}

// What a run does with a VM.
const (
	NeedPower    Need = "power"    // on and off
	NeedSnapshot Need = "snapshot" // make, revert, remove
	NeedTrack    Need = "track"    // change tracking
	NeedMark     Need = "mark"     // its extra configuration
	NeedRead     Need = "read"     // its disks
	NeedWrite    Need = "write"    // its disks
	NeedCreate   Need = "create"   // VMs and disks, registering and removing them
	NeedGuard    Need = "guard"    // disable and enable its methods
)

// Problem keeps a run from starting.
type Problem struct {
	Reason string // stable: see the Reason constants of package failback
	Text   string // what is wrong, and with which thing
	Remedy string // what helps
}
