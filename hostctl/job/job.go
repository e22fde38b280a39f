package job

import (
	"time"

	"github.com/haulback/haulback/cbt"
)

// Phase is where a job, or one disk of it, stands. The names are those of
// Velero's data movers, which backup servers know.
type Phase uint8

// The phases; append only, they are stored.
const (
	New        Phase = 1 // stored, nothing was checked yet
	Accepted   Phase = 2 // checked, waits for its turn
	Prepared   Phase = 3 // has its turn, its disks are being opened
	InProgress Phase = 4 // bytes are compared and moved
	Canceling  Phase = 5 // is told to stop; a call to a disk may have to return first
	Canceled   Phase = 6 // stopped by the caller; a target that was begun is Inconsistent
	Completed  Phase = 7 // every disk is Verified (of a verify: equal)
	Failed     Phase = 8 // at least one disk is not, see its Failure
	Paused     Phase = 9 // stopped by the caller, its disks are released; Resume goes on
)

// Ended reports whether a job in p never moves by itself or by Resume again.
// A Failed job may be resumed when its failure says so.
func (p Phase) Ended() bool { return p == Canceled || p == Completed || p == Failed }

// Mode is what a job does with its disks.
type Mode string

// The modes.
const (
	Copy   Mode = "copy"   // make each target equal to its source, and prove it
	Verify Mode = "verify" // only read both and say where they differ
)

// Priority orders jobs that wait, and weighs those that share a limit.
type Priority int8

// The priorities. In a shared limit a job gets 1, 4 or 16 parts.
const (
	Low    Priority = -1
	Normal Priority = 0
	High   Priority = 1
)

// Spec is what a caller asks for. Its digest, with the caller's ID, makes
// submitting idempotent; nothing in it changes later.
type Spec struct {
	Mode      Mode
	Disks     []Disk            // 1 to MaxDisks
	Full      bool              // read everything again at the end (verify full)
	Transport string            // "auto", "quic", "tls"; empty: auto
	Retry     time.Duration     // how long a disk goes on without progress; 0: the default of 5 min; negative: not at all
	Limits    Limits            // at the start; SetLimits changes them
	Priority  Priority          //
	Labels    map[string]string // the caller's own, not looked into
}

// Disk is one pair of disks of a job.
type Disk struct {
	Name     string // unique in the job; empty: "disk0", "disk1", ...
	Source   string // as on the command line: PATH, file:, nbd:, vddk:, haulback://HOST:PORT/EXPORT, ...
	Target   string
	Tracking string // change tracking asked for: "full" or empty, "bitmap:NAME", "fiemap:PATH", "export"
	Strict   bool   // fail where tracking cannot be used
	Sample   int64  // compare one grain in Sample of what tracking calls unchanged; 0: 256
	Create   bool   // make the target file when there is none
}

// Limits bound how much a job takes. Zero means no limit.
type Limits struct {
	Wire    int64         // bytes per second on the network
	Read    int64         // bytes per second read and hashed, at each end
	Latency time.Duration // reading backs off when the storage answers slower than this
	Windows []Window      // the first that holds now replaces Wire and Read
}

// Window is a time of the week with limits of its own, by the daemon's clock
// and time zone.
type Window struct {
	Days       [7]bool // by time.Weekday; none set means every day
	From, To   int     // minutes since midnight, 0 to 1440; To <= From crosses midnight
	Wire, Read int64   // bytes per second; 0: no limit in this window
}

// RetryClass tells a caller what to do about a failure.
type RetryClass uint8

// The classes; append only.
const (
	RetryNever          RetryClass = 1 // the same request fails again
	RetryBackoff        RetryClass = 2 // the same request, later
	RetryAfterReconcile RetryClass = 3 // somebody has to look first
)

// Failure is why a disk or a job did not end well.
type Failure struct {
	Reason string // stable, see the Reason constants
	Text   string // for people, one line
	Retry  RetryClass
	Exit   int // the exit code that the command line has for it
}

// Error implements error.
func (f *Failure) Error() string { return f.Text }

// Counters are the numbers of one disk; bytes unless the name says grains. They
// are those of wire.Counters, whose comments hold.
type Counters struct {
	Total, Scanned, Holes, Same, Zero, Differing, Sent, Wire, Durable, Verified, ReadBack, Had int64
	BadGrains, RedoneGrains, LostGrains, Reconnects, Skipped, Sampled                          int64
}

// Extent is a range of bytes that stays different, or could not be read.
type Extent struct {
	Off, Len   int64
	Unreadable bool
}

// Outcome is what a transfer of one disk came to, success or not.
type Outcome struct {
	State           string // of the target: "Verified", "Inconsistent", ...; empty: nobody has said
	Verified        bool   // Verified, or of a verify: equal; the only success
	Equal           bool   // every grain of both disks was compared and none differs
	Epoch           uint64
	Root            cbt.Digest // manifest root, when Equal
	Counters        Counters
	ActualTracking  string // "hint" or "full"
	TrackingReason  string // why
	ActualTransport string
	TransportReason string // why it is that one
	Connections     int    // of the last link
	Congestion      string // congestion control of the end that sent
	Cold            string // how the target was read past its cache
	SourceIdentity  string
	TargetIdentity  string
	Larger          int64 // bytes by which the target is longer
	Bad             []Extent
}

// DiskStatus is where one disk stands.
type DiskStatus struct {
	Name    string
	Run     string // UUID of the run; the same over pauses and restarts
	Phase   Phase
	Starts  int // times it was begun, restarts and resumes included
	Started time.Time
	Ended   time.Time
	Outcome Outcome // while it runs: what is known so far
	Failure *Failure
}

// Job is a snapshot of one job. Callers may keep it; nothing in it changes.
type Job struct {
	ID       string
	Spec     Spec
	Digest   cbt.Digest // of Spec
	Owner    string     // who submitted it: "uid 0", a certificate's name
	Revision uint64     // of the store when it last changed; telemetry does not count
	Phase    Phase
	Wanted   Phase  // Paused or Canceled while the job is on its way there, else 0
	Limits   Limits // in force
	Created  time.Time
	Started  time.Time
	Ended    time.Time
	Disks    []DiskStatus
	Failure  *Failure // of the first disk that failed, or of the job itself
}

// Bounds of a Spec.
const (
	MaxDisks  = 256
	MaxID     = 128
	MaxLabels = 64
)
