package record

import "time"

// Schema is the version of the format that this package writes.
const Schema = 1

// Record is all of a file, in the order of its fields. Fields may be added,
// after those that there are and left out when empty; a change of what one means
// is another Schema.
type Record struct {
	Schema     int               `json:"schema"`
	Version    int               `json:"version"`            // 1, 2, ... of the record of one failback
	Previous   string            `json:"previous,omitempty"` // SHA-256 of the file that this one replaces
	Audit      *Head             `json:"audit,omitempty"`
	Written    time.Time         `json:"written"`
	Controller string            `json:"controller"`
	Program    map[string]string `json:"program"` // version, revision, go, platform of who wrote it
	KeyID      string            `json:"key_id"`  // the site's ID, of the key
	Failback   Failback          `json:"failback"`
	Key        string            `json:"key"`
	Signature  string            `json:"signature"`
}

// Head is a point of the audit log.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// Failback is what was done, and what came of it.
type Failback struct {
	ID             string      `json:"id"`
	Run            string      `json:"run"`
	Revision       uint64      `json:"revision"`
	Owner          string      `json:"owner"` // who started it
	Created        *time.Time  `json:"created,omitempty"`
	Ended          *time.Time  `json:"ended,omitempty"`
	State          string      `json:"state"`    // of the VM
	Activity       string      `json:"activity"` // "deciding", "committed", "undone", "canceled"
	Asked          Asked       `json:"asked"`
	Original       VM          `json:"original"`
	Replica        VM          `json:"replica"`
	Target         VM          `json:"target"`
	Decisions      []Decision  `json:"decisions,omitempty"`
	Overrides      []Override  `json:"overrides,omitempty"`
	Steps          []Step      `json:"steps,omitempty"`
	Hooks          []Hook      `json:"hooks,omitempty"`
	Disks          []Disk      `json:"disks,omitempty"`
	Overwritten    []Overwrite `json:"overwritten,omitempty"`
	PredictedMS    int64       `json:"predicted_downtime_ms,omitempty"` // the last forecast before the switch
	DowntimeMS     int64       `json:"downtime_ms,omitempty"`           // from the replica's power-off to the end of step 9
	Reckoned       string      `json:"reckoned,omitempty"`              // how it was predicted
	WithinBudget   bool        `json:"within_budget,omitempty"`         // as predicted
	DirtyRateBytes int64       `json:"dirty_rate_bytes,omitempty"`      // bytes a second that the replica changed
	RepeatedPasses int         `json:"repeated_passes,omitempty"`       // done when it was predicted
	Halted         *Halt       `json:"halted,omitempty"`
	Warnings       []string    `json:"warnings,omitempty"`
}

// VM names one VM of one host.
type VM struct {
	Host string `json:"host"`
	ID   string `json:"id,omitempty"`
	UUID string `json:"uuid,omitempty"`
	Name string `json:"name,omitempty"`
}

// Asked is the spec that the failback was started with, as it is now.
type Asked struct {
	VM              string            `json:"vm"`
	Destination     string            `json:"destination"`
	Target          *Query            `json:"target,omitempty"`
	TargetHost      string            `json:"target_host,omitempty"`
	NewName         string            `json:"new_name,omitempty"`
	NewPlace        *Place            `json:"new_place,omitempty"`
	Disks           []Rule            `json:"disks,omitempty"`
	Networks        map[string]string `json:"networks,omitempty"`
	When            string            `json:"when"`
	At              *time.Time        `json:"at,omitempty"`
	BudgetMS        int64             `json:"budget_ms,omitempty"`
	Passes          int               `json:"passes,omitempty"`
	PowerOn         bool              `json:"power_on,omitempty"`
	Isolated        bool              `json:"isolated,omitempty"`
	GraceMS         int64             `json:"grace_ms,omitempty"`
	NoRollback      bool              `json:"no_rollback,omitempty"`
	Tracking        string            `json:"tracking,omitempty"` // of pass 1
	Full            bool              `json:"full,omitempty"`
	Limits          *Limits           `json:"limits,omitempty"`
	Priority        int               `json:"priority,omitempty"`
	Group           string            `json:"group,omitempty"`
	Order           int               `json:"order,omitempty"`
	PolicyAfterMS   int64             `json:"policy_after_ms,omitempty"`
	PolicyUndo      bool              `json:"policy_undo,omitempty"`
	PowerOnUnproved bool              `json:"power_on_unproved,omitempty"`
}

// Query names the VM that was asked for.
type Query struct {
	UUID string `json:"uuid,omitempty"`
	ID   string `json:"id,omitempty"`
	Path string `json:"path,omitempty"`
	Name string `json:"name,omitempty"`
}

// Place is where a new VM was asked for.
type Place struct {
	Datacenter string `json:"datacenter,omitempty"`
	Folder     string `json:"folder,omitempty"`
	Pool       string `json:"pool,omitempty"`
	Server     string `json:"server,omitempty"`
	Datastore  string `json:"datastore,omitempty"`
}

// Rule is an exception for one disk.
type Rule struct {
	Disk      string `json:"disk"`
	Exclude   bool   `json:"exclude,omitempty"`
	Target    string `json:"target,omitempty"`
	GrowBytes int64  `json:"grow_bytes,omitempty"`
	Thin      *bool  `json:"thin,omitempty"`
	Datastore string `json:"datastore,omitempty"`
}

// Limits are those in force at the end.
type Limits struct {
	WireBytes int64    `json:"wire_bytes,omitempty"`
	ReadBytes int64    `json:"read_bytes,omitempty"`
	LatencyMS float64  `json:"latency_ms,omitempty"`
	Windows   []Window `json:"windows,omitempty"`
}

// Window is a time of the week with limits of its own.
type Window struct {
	Days       []string `json:"days,omitempty"` // none: every day
	FromMinute int      `json:"from_minute"`
	ToMinute   int      `json:"to_minute"`
	WireBytes  int64    `json:"wire_bytes,omitempty"`
	ReadBytes  int64    `json:"read_bytes,omitempty"`
}

// Decision is what somebody decided.
type Decision struct {
	What string     `json:"what"`
	By   string     `json:"by"`
	At   *time.Time `json:"at,omitempty"`
	Text string     `json:"text,omitempty"`
}

// Override is a safety that was asked to be left out.
type Override struct {
	What string `json:"what"` // "power_on_unproved", "no_rollback", "tracking_cbt", "exclude"
	By   string `json:"by"`
	Text string `json:"text"`
}

// Step is one row of the journal: an action on a host, or a pass.
type Step struct {
	Name    string     `json:"name"`
	Number  int        `json:"number"` // of the failback page; 10: commit, 11: undo, 12: cancel
	State   string     `json:"state"`
	Attempt int        `json:"attempt"`
	Host    string     `json:"host,omitempty"`
	VM      string     `json:"vm,omitempty"`
	Before  string     `json:"before,omitempty"` // what was observed
	Task    string     `json:"task,omitempty"`   // the host's reference
	Epoch   uint64     `json:"epoch"`            // of the controller
	Began   *time.Time `json:"began,omitempty"`
	Ended   *time.Time `json:"ended,omitempty"`
	Text    string     `json:"text,omitempty"`
}

// Hook is what a site has had run around a step that was begun.
type Hook struct {
	Step string `json:"step"`
	Name string `json:"name"`
}

// Disk is one disk of the failback. Its outcome is its own.
type Disk struct {
	Label      string      `json:"label"`
	Replica    VirtualDisk `json:"replica"`
	Target     VirtualDisk `json:"target"`
	Matched    string      `json:"matched,omitempty"` // how the two were paired
	Excluded   bool        `json:"excluded,omitempty"`
	Verified   bool        `json:"is_verified"`
	Sampled    string      `json:"sampled,omitempty"`
	Root       string      `json:"root,omitempty"`        // of the contents
	BeforeRoot string      `json:"before_root,omitempty"` // of the target before its first overwrite
	Passes     []Pass      `json:"passes,omitempty"`
	Failure    *Failure    `json:"failure,omitempty"`
}

// VirtualDisk is a disk as its host has it.
type VirtualDisk struct {
	Key       int32  `json:"key"`
	Label     string `json:"label,omitempty"`
	UUID      string `json:"uuid,omitempty"`
	File      string `json:"file,omitempty"`
	SizeBytes int64  `json:"size_bytes"`
	Datastore string `json:"datastore,omitempty"`
	Thin      bool   `json:"thin,omitempty"`
	ChangeID  string `json:"change_id,omitempty"`
	Unfit     string `json:"unfit,omitempty"`
	Adapter   string `json:"adapter,omitempty"` // model of its controller
}

// Pass is one pass of one disk.
type Pass struct {
	Number   uint32     `json:"number"`
	Final    bool       `json:"final,omitempty"`
	Asked    string     `json:"asked"`
	Used     string     `json:"used"`
	Reason   string     `json:"reason,omitempty"` // why
	Began    *time.Time `json:"began,omitempty"`
	Ended    *time.Time `json:"ended,omitempty"`
	Counters Counters   `json:"counters"`
	Verified bool       `json:"is_verified"`
	Root     string     `json:"root,omitempty"`
	Epoch    uint64     `json:"epoch"`
	Event    string     `json:"event,omitempty"`
}

// Counters are the numbers of a pass; bytes unless the name says otherwise.
type Counters struct {
	Total        int64 `json:"total_bytes"`
	Scanned      int64 `json:"scanned_bytes"`
	Holes        int64 `json:"hole_bytes"`
	Same         int64 `json:"same_bytes"`
	Zero         int64 `json:"zero_bytes"`
	Differing    int64 `json:"differing_bytes"`
	Sent         int64 `json:"sent_bytes"`
	Wire         int64 `json:"wire_bytes"`
	Durable      int64 `json:"durable_bytes"`
	Verified     int64 `json:"verified_bytes"`
	ReadBack     int64 `json:"read_back_bytes"`
	Had          int64 `json:"had_bytes"`
	BadGrains    int64 `json:"bad_grains"`
	RedoneGrains int64 `json:"redone_grains"`
	LostGrains   int64 `json:"lost_grains"`
	Reconnects   int64 `json:"reconnects"`
	Skipped      int64 `json:"skipped_bytes"`
	Sampled      int64 `json:"sampled_bytes"`
}

// Failure is why a disk did not end well.
type Failure struct {
	Reason string `json:"reason"`
	Text   string `json:"text"`
	Retry  int    `json:"retry"`
	Exit   int    `json:"exit"`
}

// Overwrite is what was overwritten of one disk: its identity before, and how
// much.
type Overwrite struct {
	VM     VM          `json:"vm"`
	Disk   VirtualDisk `json:"disk"`
	Bytes  int64       `json:"bytes"` // written and durable, all passes together
	Before string      `json:"before_root,omitempty"`
}

// Halt is why the failback stood still when the record was written.
type Halt struct {
	Step   string     `json:"step"`
	Number int        `json:"number"`
	Reason string     `json:"reason"`
	Text   string     `json:"text"`
	Remedy string     `json:"remedy,omitempty"`
	At     *time.Time `json:"at,omitempty"`
}
