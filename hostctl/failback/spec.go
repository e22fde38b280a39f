package failback

import (
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
)

// Destination is where a VM is brought home to.
type Destination string

// The destinations of the failback page.
const (
	Original Destination = "original" // the production VM in its place (FB-01)
	Existing Destination = "existing" // a VM that was restored beforehand (FB-02)
	New      Destination = "new"      // a VM that is made from the replica (FB-03)
)

// Spec is what an operator asks for. With the ID of the failback its digest
// makes starting idempotent; Switch and Limits may be changed later.
type Spec struct {
	VM          string // the name of its Pair
	Destination Destination
	Target      hostctl.Query // Existing: which VM of TargetHost
	TargetHost  string        // Existing, New; empty: the host of the original
	New         *NewTarget    // New: name and place; nil: the replica's name, the only place there is
	Disks       []DiskRule    // exceptions; a disk without one is brought home as it is
	Networks    map[string]string
	Switch      Switch
	PowerOn     bool          // step 9
	Isolated    bool          // power on with every NIC disconnected, to look at it before commit
	Grace       time.Duration // for the guest to shut down; 0: 5 min; negative: power off at once
	NoRollback  bool          // make no rollback point on the target: a failed failback leaves no usable original
	Tracking    FirstPass     // of pass 1; empty: FirstHash
	Full        bool          // read everything again at the end
	Limits      job.Limits
	Priority    job.Priority
	Group       string // failbacks of one group switch in order
	Order       int    // in the group: a VM switches when all with a lower order have
	Policy      Policy
	// PowerOnUnproved is the operator's override: power on although a disk is
	// not Verified. It is recorded with his name.
	PowerOnUnproved bool
}

// FirstPass says how pass 1 finds what differs.
type FirstPass string

// The ways. FirstCBT is refused where the host's tracking cannot know what
// happened to the original (vSphere 7.0 and later, an unclean stop, a revert).
const (
	FirstHash FirstPass = "hash" // both sides read and hash everything
	FirstCBT  FirstPass = "cbt"  // both hosts' change tracking narrows it
)

// NewTarget says what the VM of destination New becomes.
type NewTarget struct {
	Name  string
	Place hostctl.Placement
}

// DiskRule is an exception for one disk of the replica.
type DiskRule struct {
	Disk      string // label ("scsi0:1") or UUID of the replica's disk
	Exclude   bool   // not brought home; the target keeps its own
	Target    string // label or UUID of the target's disk, where the pairing is not plain
	Grow      int64  // New: bytes, at least the replica's
	Thin      *bool  // New: nil: as the replica's
	Datastore string // New
}

// Switch says when the replica is powered off and the last pass begins.
type Switch struct {
	When   When
	At     time.Time     // WhenAt
	Budget time.Duration // passes are repeated until the downtime is expected to be below; 0: one pass is enough
	Passes int           // bound of repeated passes; 0: 8
}

// When is the moment of the switch.
type When string

// The moments.
const (
	WhenNow    When = "now"    // as soon as the passes allow
	WhenAt     When = "at"     // not before a time
	WhenManual When = "manual" // when the operator says so; until then ReadyToSwitch
)

// Policy acts by itself on a VM that nobody commits. The zero value never does
// (FB-30).
type Policy struct {
	After time.Duration // in state Failback
	Undo  bool          // undo; else commit
}

// Pair is a VM that haulback knows: the entry of the VM id map. Whoever
// replicates it declares it.
type Pair struct {
	Name     string // in haulback: 1 to 64 of A-Z a-z 0-9 _ -
	Original hostctl.Ref
	Replica  hostctl.Ref
	Disks    []DiskPair // known pairs; empty: found by label and size
	State    State
	Since    time.Time     // of State
	Held     string        // the failback that holds replication, or empty; see Engine.CheckReplication
	Failback string        // ID of the failback that has not ended, or of the last one
	Former   *hostctl.Ref  // the original before step 8, for undo; and for exclusion after commit
	Excluded []hostctl.Ref // former VMs that must not be replicated any more (VB-05)
	Revision uint64
}

// DiskPair is a disk of the replica and its counterpart at home, by UUIDs.
type DiskPair struct{ Replica, Original string }

// State is that of a VM, in the words of the failback page.
type State string

// The states.
const (
	Ready         State = "Ready"
	Failover      State = "Failover"
	ReadyToSwitch State = "ReadyToSwitch"
	Failback      State = "Failback"
)
