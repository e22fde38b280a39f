package result

import "time"

// Case names a piece of work that every peer is given.
type Case string

// The cases. The image of all but the last group is the workload's.
const (
	Same       Case = "same"  // both sides are equal
	OnePercent Case = "1pct"  // 1 % of the source was overwritten since they were equal
	TenPercent Case = "10pct" // 10 %
	Empty      Case = "empty" // full copy to a new sparse target

	Hint       Case = "hint"         // as OnePercent, and change tracking names the places
	HintSmall  Case = "hint-sparse"  // a sparse disk, the same number of changes as HintLarge
	HintLarge  Case = "hint-sparse4" // a sparse disk of four times the size
	Huge       Case = "huge"         // a sparse disk of 1 TiB
	ManyDisks  Case = "disks64"      // 64 disks at once
	OneDisk    Case = "disks1"       // the bytes of ManyDisks as one disk
	Payload    Case = "payload"      // bytes through an encrypted link; no disk
	WAN        Case = "wan"          // emulated: 1 Gbit/s, 50 ms, no loss
	WANLoss    Case = "wan-loss"     // the same with 0.1 % loss
	WANLowLoss Case = "wan-lowloss"  // the same with 0.01 % loss
)

// Place is where the disks of a run are.
type Place string

// The places.
const (
	OnDisk   Place = ""       // in a file system on a device; what is read is in the page cache before
	InMemory Place = "memory" // on a tmpfs: nobody waits for a device
	Cold     Place = "cold"   // as OnDisk, and both disks are taken out of the page cache before each run
)

// Places are all places, in the order in which they are told.
var Places = []Place{OnDisk, InMemory, Cold}

// String is a place as people call it.
func (p Place) String() string {
	switch p {
	case OnDisk:
		return "on disk"
	case InMemory:
		return "in memory"
	}
	return string(p)
}

// End is one side of a transfer.
type End string

// The two ends. Programs that have one process only are all Source.
const (
	Source End = "source"
	Target End = "target"
)

// Comparison says what cmp found after a run.
type Comparison string

// What cmp can find. A run that ends otherwise than with Equal (or NotCompared
// where nothing was written) makes the whole benchmark fail.
const (
	NotCompared Comparison = ""
	Equal       Comparison = "equal"
	Differ      Comparison = "differ"
)

// Run is one measured run of one peer. The value zero means not measured for
// Wire, CPU and RSS.
type Run struct {
	Case    Case    `json:"case"`
	Place   Place   `json:"place,omitempty"`
	Peer    string  `json:"peer"`    // program: haulback, rsync, nbdcopy, ...
	Variant string  `json:"variant"` // how it was run: quic, delta, tls, ...
	N       int     `json:"n"`       // the how manieth round, from 1; the peers of a case alternate
	Image   int64   `json:"image"`   // bytes of the disk
	Wall    float64 `json:"wall"`    // seconds from the start of the client to the last end of one

	// CPU is user and system time of all processes of an end, in seconds, from
	// before the client's start until after its end: a daemon's start is not in it.
	CPU map[End]float64 `json:"cpu,omitempty"`
	// Wire is what crossed the link between both ends, with all headers, both ways.
	Wire int64 `json:"wire,omitempty"`
	// RSS is the sum over an end's processes of the highest resident memory, in bytes.
	RSS map[End]int64 `json:"rss,omitempty"`

	Exit  int        `json:"exit"`            // of the client; -1: it was ended by us
	Cmp   Comparison `json:"cmp,omitempty"`   // what cmp(1) said afterwards
	Error string     `json:"error,omitempty"` // why the run counts for nothing

	// Extra are numbers that the peer itself reports: see the Extra constants.
	Extra map[string]float64 `json:"extra,omitempty"`
	// Note is what the peer itself says of how it ran, as the transport chosen.
	Note string `json:"note,omitempty"`
}

// Keys of Run.Extra.
const (
	ExtraSent      = "sent"       // payload bytes before compression
	ExtraSentWire  = "sent_wire"  // payload bytes after compression
	ExtraCompared  = "compared"   // bytes of disk compared
	ExtraReadBack  = "read_back"  // bytes read back for verification
	ExtraTail      = "tail"       // seconds from the last byte sent to Verified: flush, read-back, journal
	ExtraCopy      = "copy"       // seconds of the pass itself, by the peer's own report
	ExtraVerify    = "verify"     // seconds of verification apart from the pass
	ExtraLost      = "lost"       // packets that the transport called lost
	ExtraRate      = "rate"       // payload bytes a second
	ExtraLinkShare = "link_share" // payload rate by the rate of the emulated link, 0 to 1
)

// TotalCPU is the CPU time of both ends in seconds.
func (r *Run) TotalCPU() (s float64) {
	for _, c := range r.CPU {
		s += c
	}
	return s
}

// OK tells whether the run counts: it ended well and nothing differed.
func (r *Run) OK() bool { return r.Exit == 0 && r.Error == "" && r.Cmp != Differ }

// Peer is a program and how it is run.
type Peer struct {
	Name      string   `json:"name"`
	Variant   string   `json:"variant"`
	Encrypted bool     `json:"encrypted"`
	Title     string   `json:"title"`             // one line for people
	Commands  []string `json:"commands"`          // as started, the servers first
	Remarks   []string `json:"remarks,omitempty"` // the cipher negotiated, ...
}

// LeftOut is a peer, or a variant of one, that was asked for and could not run;
// or, without a name, all cases at a place.
type LeftOut struct {
	Name    string `json:"name,omitempty"`
	Variant string `json:"variant,omitempty"`
	Case    Case   `json:"case,omitempty"` // in that case only; empty: in all
	Place   Place  `json:"place,omitempty"`
	Why     string `json:"why"`
}

// Image describes the disks of a case.
type Image struct {
	Case    Case    `json:"case"`
	Place   Place   `json:"place,omitempty"`
	Bytes   int64   `json:"bytes"`
	Zero    float64 `json:"zero"`    // share of the 64 KiB extents that are zeros
	Writes  int     `json:"writes"`  // of the change generator
	Changed int64   `json:"changed"` // bytes in 4 KiB blocks that differ
	Extents int64   `json:"extents"` // bytes in 64 KiB extents that differ
	Digest  string  `json:"digest"`  // BLAKE3 of the source, in hexadecimal
	Text    string  `json:"text"`    // what it is, one line for people
}

// Machine is what the runs were made on.
type Machine struct {
	CPU     string `json:"cpu"`   // model name
	Cores   int    `json:"cores"` // logical
	Memory  int64  `json:"memory"`
	Kernel  string `json:"kernel"`
	OS      string `json:"os"`
	Disk    string `json:"disk"`           // file system and device of the images
	Virtual string `json:"virt,omitempty"` // hypervisor, when there is one
	Hash    string `json:"hash,omitempty"` // what hashes grains: wide.Name
	Load    string `json:"load"`           // of the first minute before the first run
}

// Setup is what all runs of a file have in common.
type Setup struct {
	Began    time.Time         `json:"began"`
	Commit   string            `json:"commit"` // of haulback; "-dirty" when the tree had changes
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"` // by program
	Cores    map[End]string    `json:"cores"`    // the CPUs that an end may use: "0", "1"
	Runs     int               `json:"runs"`     // on disk
	Seed     uint64            `json:"seed"`
	Size     int64             `json:"size"` // bytes of the workload's image
	Quick    bool              `json:"quick,omitempty"`
	CPUBy    string            `json:"cpu_by"` // how CPU time was taken: "cgroup v2", "cgroup v1", "/proc"
	Args     []string          `json:"args"`   // of haulbench
}

// Line is one line of a file of results: exactly one field is set.
type Line struct {
	Setup   *Setup   `json:"setup,omitempty"`
	Peer    *Peer    `json:"peer,omitempty"`
	LeftOut *LeftOut `json:"left_out,omitempty"`
	Image   *Image   `json:"image,omitempty"`
	Run     *Run     `json:"run,omitempty"`
}
