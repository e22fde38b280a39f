package failback

import (
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
)

// Activity is what the controller does with a failback.
type Activity string

// The activities. The last four are ends.
const (
	Waiting    Activity = "waiting"   // for its turn
	Preparing  Activity = "preparing" // steps before pass 1
	Syncing    Activity = "syncing"   // passes while the replica serves
	Standing   Activity = "standing"  // ReadyToSwitch: waits for the time or the word
	Switching  Activity = "switching" // replica off up to step 9
	Deciding   Activity = "deciding"  // state Failback: waits for commit or undo
	Committing Activity = "committing"
	Undoing    Activity = "undoing"
	Canceling  Activity = "canceling"
	Committed  Activity = "committed"
	Undone     Activity = "undone"
	Canceled   Activity = "canceled"
)

// Status is where a failback stands. It is a snapshot: nothing in it changes.
type Status struct {
	ID       string
	Run      string // UUID
	Spec     Spec
	Owner    string // who started it
	Revision uint64 // of the store; telemetry does not count
	Created  time.Time
	Ended    time.Time

	State     State // of the VM
	Activity  Activity
	Halted    *Halt  // it waits for an operator; Continue, Undo or Cancel
	Next      string // what happens next, for people
	Wait      string // what it waits for, or empty
	Steps     []Step
	Disks     []Disk
	Forecast  Forecast
	Downtime  time.Duration // from the replica's power-off to the end of step 9; 0: not known yet
	Decisions []Decision    // who started, confirmed, switched, committed, in order

	Original hostctl.Ref // before the failback
	Replica  hostctl.Ref
	Target   hostctl.Ref
	Warnings []string
}

// Halt is why a failback stands still.
type Halt struct {
	Step   string
	Number int // of the failback page
	Reason string
	Text   string
	Remedy string
	At     time.Time
}

// StepState is where a step stands, as journalled.
type StepState string

// The states of a step.
const (
	Intent       StepState = "intent" // written before anything is done
	Done         StepState = "done"   // its end state was observed
	Skipped      StepState = "skipped"
	Compensating StepState = "compensating"
	Compensated  StepState = "compensated"
)

// Step is one row of the journal.
type Step struct {
	Name    string // "power-off-target"
	Number  int    // of the failback page, 1 to 9; 10: commit, 11: undo, 12: cancel
	State   StepState
	Attempt int
	Host    string
	VM      string
	Before  string // what was observed before it was done
	Task    string // the host's reference
	Epoch   uint64 // of the controller that wrote the row
	Began   time.Time
	Ended   time.Time
	Text    string // what was done, for people
}

// Disk is one disk of a failback. Its outcome is its own.
type Disk struct {
	Label    string // of the replica's disk
	Replica  hostctl.Disk
	Target   hostctl.Disk
	Matched  string // how the two were paired: "label and size, 63 of 64 sampled grains alike"
	Excluded bool
	Passes   []Pass
	Verified bool   // by the last pass
	Sampled  string // "sampled n of m" where a hint left grains out, or empty
	Root     cbt.Digest
	Before   cbt.Digest // of the target before its first overwrite; zero: not known
	Failure  *job.Failure
}

// Pass is one pass of one disk.
type Pass struct {
	Number   uint32
	Final    bool
	Asked    string // tracking: "hash", "cbt"
	Used     string // "full" or "hint"
	Reason   string
	Began    time.Time
	Ended    time.Time
	Counters job.Counters
	Rate     float64       // compared bytes per second, over the last seconds
	Left     time.Duration // expected; 0: not known
	Verified bool
	Root     cbt.Digest
	Epoch    uint64
	Event    string // the last thing to read: a lost link, a resume
}

// Forecast says how long the switch would take.
type Forecast struct {
	Downtime time.Duration // expected from power-off to power-on; 0: not known yet
	Dirty    float64       // bytes per second that the replica changes
	Passes   int           // done
	Within   bool          // the budget
	Text     string        // how it was reckoned
}

// Plan is what Start would do. Nothing was done to find it out, unless it was
// measured.
type Plan struct {
	VM          string
	Destination Destination
	Replica     hostctl.VM
	Target      *hostctl.VM // nil: is made
	Disks       []PlanDisk
	Actions     []Action
	Problems    []hostctl.Problem // Start is refused while there are any
	Warnings    []string
	Why         string // why this destination moves what it moves (FB-04)
	Bytes       int64  // expected to cross the wire, before compression
	AtMost      int64
	Time        time.Duration // of pass 1; 0: not known
	Downtime    time.Duration
	Reckoned    string     // from what
	Digest      cbt.Digest // of what an operator confirms: VM, destination, pairs, actions
}

// PlanDisk is one disk of a plan.
type PlanDisk struct {
	Label     string
	Replica   hostctl.Disk
	Target    *hostctl.Disk // nil: is made
	Matched   string
	Excluded  bool
	Mode      string // "hash", "cbt", "full"
	Reason    string
	Differing int64 // bytes expected to differ; -1: not measured
	Error     int64 // of Differing, either way
	AtMost    int64
}

// Action is one host action or pass of a plan, in order.
type Action struct {
	Step       string
	Number     int
	Host       string
	VM         string
	Text       string // "power off web-prod (guest shutdown, at most 5m0s)"
	Overwrites string // what is lost to it, or empty
	Undo       string // how it is taken back
}

// Leftover is something of haulback on a host that no live run needs.
type Leftover struct {
	Host  string
	VM    hostctl.Ref
	Kind  string // "snapshot", "mark", "guard", "vm"
	Name  string
	Run   string
	Why   string
	Op    *hostctl.Op
	Error string // why it could not be removed
}
