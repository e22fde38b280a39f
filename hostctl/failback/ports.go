package failback

import (
	"context"
	"log/slog"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
)

// Config is what an Engine works with.
type Config struct {
	Store       store.Store
	Lease       store.Lease
	Controller  string // names this controller in marks and messages
	Hosts       map[string]*hostctl.Host
	Mover       Mover
	Replication Replication // nil: nobody replicates; holding is the internal flag alone
	Hooks       Hooks       // nil: none
	Record      Recorder    // nil: none is kept
	MaxVMs      int         // failbacks in passes at once; 0: 4
	MaxDisks    int         // disks in passes at once; 0: 8
	// Parallel is how many failbacks of a group may be in passes at once; nil, or
	// 0: no bound but MaxVMs. It may answer another number later.
	Parallel func(group string) int
	Log      *slog.Logger
	Clock    func() time.Time // nil: time.Now
}

// Mover moves and compares disks. It is handed in: hostctl knows no mover. Safe
// for concurrent use.
type Mover interface {
	// Move makes one pass of one disk, see job.Transfer for what it promises. A
	// nil error means that the target is Verified.
	Move(ctx context.Context, m *Move) (job.Outcome, error)
	// Compare reads a sample of both disks (all of them, with Sample 1) and
	// changes nothing.
	Compare(ctx context.Context, m *Move) (Likeness, error)
	// Check says what would keep it from reaching the disks of a host, before
	// anything is done: a proxy that is not paired or does not answer, or that has
	// not the datastores of these disks. It changes nothing.
	Check(ctx context.Context, host string, disks ...Place) []hostctl.Problem
	// Registered reports whether it reaches disks of the host only while their
	// VM is in the inventory.
	Registered(host string) bool
}

// Place is a disk where a mover finds it.
type Place struct {
	VM       hostctl.Ref
	Snapshot string // ID; empty: the disk itself, its leaf
	Disk     hostctl.Disk
}

// Move is one pass of one disk.
type Move struct {
	Run      string // UUID of the disk's run; all its passes have it
	Pass     uint32
	Fence    uint64 // grows with each controller; a lower one is refused by the target for ever
	VM       string // for messages
	Source   Place
	Target   Place
	Hint     *cbt.Hint // where the source may have changed since the last pass; nil: compare all
	Sample   int64     // Compare: one grain in so many; Move with a hint: 0 is the default
	Full     bool
	Unproved bool // the source may be what a run has half written: for undo
	Limits   func() (job.Limits, <-chan struct{})
	Priority job.Priority

	Progress func(job.Counters)
	Event    func(text string)
}

// Likeness is what Compare found.
type Likeness struct {
	Compared  int64 // bytes
	Different int64 // bytes, of these
	Total     int64
	Expected  int64      // bytes of the disk that differ, extrapolated
	Error     int64      // 95 % interval, either way
	Equal     bool       // all was compared and nothing differs
	Root      cbt.Digest // when Equal
}

// Replication is who replicates VMs. Each is idempotent.
type Replication interface {
	Hold(ctx context.Context, p *Pair, failback string) error
	Release(ctx context.Context, p *Pair, failback string) error
}

// Hooks runs what a site wants run around steps. An error halts the failback.
type Hooks interface {
	Run(ctx context.Context, h Hook) error
	// Named lists those that a step has, for plans: "before: /usr/local/bin/dns".
	Named(step string) []string
}

// Hook is a moment.
type Hook struct {
	Failback, Run, VM         string
	Step                      string
	Number                    int
	After                     bool
	State                     State
	Original, Replica, Target hostctl.Ref
}

// Recorder keeps the records of runs.
type Recorder interface {
	// Write makes the record of a failback durable, signed, at each end and at
	// state Failback; a later one replaces it.
	Write(ctx context.Context, s *Status) error
}
