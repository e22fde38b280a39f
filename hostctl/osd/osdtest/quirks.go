package osdtest

import "time"

// Quirks are misbehaviours. The zero value behaves as well as the API can: restore
// works at once, snapshots are read-only. Methods are named as in the SDK, "Attach";
// those of Node that Volume has too are "Node.Inspect", "Node.Enumerate" and
// "Node.EnumerateWithFilters".
type Quirks struct {
	NoRestore    bool   // SnapshotRestore: Internal, as the reference server's block volumes
	RestoreText  string // Volume.error while it restores: "resource temporarily unavailable" is no fault
	RestoreFault string // a restore fails with this in Volume.error, after its answer
	AsyncRestore int    // SnapshotRestore answers at once; so many Inspects say RESTORE, then it is done
	WrongRestore bool   // SnapshotRestore says OK and changes nothing
	HalfRestore  bool   // or restores the first half of the bytes, also before RestoreFault
	AnyRestore   bool   // from any volume, also one that is no snapshot of it: the reference server never looks

	// Unimplemented: SnapshotRestore is. For others see Fail.
	Unimplemented bool

	WritableSnapshots bool              // readonly is false, and writes to an attached snapshot succeed
	AttachedSnapshots bool              // SnapshotCreate wants its volume attached, as old Portworx
	EmptyIDs          bool              // SnapshotCreate, Create and Clone answer OK with an empty id and make nothing
	CopyLabels        bool              // snapshots and clones take over the labels of their parent
	MoreLabels        map[string]string // on everything that is made; the nfs driver puts "server" there
	CoarseTime        bool              // creation times are in full seconds
	HangCreate        bool              // Create of a name whose volume is attached hangs until the deadline, as on the reference server

	EmptyPath       bool   // Attach answers OK with an empty path, and Inspect says attached
	Path            string // Attach answers this path, and Inspect too; nothing is attached there
	WrongSize       int64  // what is attached is a copy that has so many bytes more (less)
	ReusePaths      bool   // after a Detach the next Attach, of whatever, gets the same path
	Elsewhere       string // Attach: AlreadyExists, just attached on this node
	Secure          bool   // secure_device_path has the path, and device_path one that is not there
	NoAttachedOn    bool   // attached_on stays empty, as with the nfs driver
	DeleteAttached  bool   // Delete of an attached volume succeeds, as with the fake driver
	DetachUnknownOK bool   // Detach of an unknown id is OK, not Internal

	NoUpdate    bool              // Update: Internal, as with the nfs driver
	Capacity    bool              // Stats and CapacityUsage work; the nfs driver has none
	Unfit       map[string]string // by id: "down", "degraded", "error", "trashcan", "pending", "deleted", "detaching" or "internal"
	ForeignNode bool              // InspectCurrent names another node each second time: a load balancer
	NoGuest     bool              // with Auth: a caller without a token is refused
	PoolSize    int64             // of the node's pool; 0: that of Dir's file system, below: no pool
	PoolUsed    int64             // with PoolSize

	Internal    map[string]string        // by method: Internal with that text, always
	Fail        map[string]Failure       // by method
	LoseReplies map[string]int           // by method: so many of these are done, and the connection breaks
	Slow        map[string]time.Duration // by method: done after this time, also for a caller who is gone
}

// Failure is what a method answers.
type Failure struct {
	Code  uint32 // a gRPC code
	Text  string
	After int  // so many go well first
	Times int  // 0: always
	Done  bool // the effect is there all the same
}
