package failback

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
)

// The keys of a store.
const (
	pairKey    = "vm."       // Pair, by name
	runKey     = "failback." // record, by ID
	claimKey   = "claim."    // claim, by what is claimed
	measureKey = "measure."  // measured, by run: a plan's snapshot that may be there
	fenceKey   = "controller"
	leaseName  = "controller"
)

const recordFormat = 1

// record is what is stored of one failback: its status, and what the steps have
// to know. It is replaced, never written into: who has one may keep it.
type record struct {
	Format int
	Epoch  uint64 // fence of the controller that wrote it
	Draft  bool   // Start has not answered; nothing was done
	Status Status
	Digest cbt.Digest // of the spec as asked for
	Facts  facts
}

// facts is what steps leave for later ones.
type facts struct {
	ReplicaVM  hostctl.VM // as it was when the failback began
	TargetVM   hostctl.VM // the same; of New: as it was made
	OriginalVM *hostctl.VM
	ReplicaOn  bool
	Unlisted   bool // the target is not in its host's inventory yet

	Syncs    int    // passes before the switch that were decided on
	Finals   int    // tries of the switch
	Pass     uint32 // number of the last pass
	PassStep string // the step it belongs to
	Alarms   int    // VMs that were powered on from outside
	// What sentries saw that no pass has taken into account yet.
	TargetRan  bool
	WatchedBy  uint64 // fence of the controller that watches the VMs that have to be off
	Stale      bool   // nobody watched them for a while: one more pass, then the switch
	ReplicaRan int    // in which try of the switch
	Leave      bool   // ReadyToSwitch is over: one more pass, then the switch
	Resync     bool   // one more pass, then ReadyToSwitch again
	Stood      time.Time

	Tracking   string    // the tracking snapshot of the replica
	Protective string    // the replica's protective snapshot
	Rollback   string    // the target's rollback snapshot
	Points     []string  // by disk: change ID that the current pass reads
	Bases      []string  // by disk: change ID that the target is proved to have
	PointAt    time.Time // of Points
	BaseAt     time.Time // of Bases
	BaseBefore time.Time // of those before

	FormerDisks []DiskPair
	Home        time.Time // state Failback began
	Said        bool      // the record of state Failback was written
	Recorded    bool      // that of the end
	Commit      CommitOptions
	Undo        UndoOptions
	TargetGone  bool              // an operator says so: the way back goes on without it
	Proof       map[string]string // of disks that were reverted: how it was proved
}

// CommitOptions are those of a commit.
type CommitOptions struct {
	DeleteProtective bool   // do not keep the replica's protective snapshot as a restore point
	By               string // who asks
}

// UndoOptions are those of an undo.
type UndoOptions struct {
	KeepOff bool   // leave the replica off
	By      string // who asks
}

// clone shares only what is never written into.
func (c *record) clone() *record {
	n := *c
	n.Status.Steps = slices.Clone(c.Status.Steps)
	n.Status.Warnings = slices.Clone(c.Status.Warnings)
	n.Status.Disks = slices.Clone(c.Status.Disks)
	for i := range n.Status.Disks {
		n.Status.Disks[i].Passes = slices.Clone(c.Status.Disks[i].Passes)
	}
	n.Facts.Points, n.Facts.Bases = slices.Clone(c.Facts.Points), slices.Clone(c.Facts.Bases)
	n.Facts.Proof = map[string]string{}
	for k, v := range c.Facts.Proof {
		n.Facts.Proof[k] = v
	}
	return &n
}

// row is the journal's row of a step, or nil. It points into c.
func (c *record) row(name string) *Step {
	for i := range c.Status.Steps {
		if c.Status.Steps[i].Name == name {
			return &c.Status.Steps[i]
		}
	}
	return nil
}

// began reports whether a step may have done something.
func (c *record) began(name string) bool {
	s := c.row(name)
	return s != nil && s.State != Skipped
}

// ended reports whether a step needs no more.
func (c *record) ended(name string) bool {
	s := c.row(name)
	return s != nil && (s.State == Done || s.State == Skipped)
}

// warn adds a warning once.
func (c *record) warn(format string, args ...any) {
	const most = 64
	text := plain(fmt.Sprintf(format, args...))
	if !slices.Contains(c.Status.Warnings, text) && len(c.Status.Warnings) < most {
		c.Status.Warnings = append(c.Status.Warnings, text)
	}
}

// moved are the indexes of the disks that are brought home.
func (c *record) moved() (list []int) {
	for i, d := range c.Status.Disks {
		if !d.Excluded {
			list = append(list, i)
		}
	}
	return list
}

func (c *record) place() place {
	p := place{State: c.Status.State, Activity: c.Status.Activity, Halted: c.Status.Halted != nil}
	p.Powering = p.Halted && c.ended("unmark-target")
	return p
}

func encode(v any) ([]byte, error) { return json.Marshal(v) }

func decodeRecord(key string, value []byte) (*record, error) {
	c := new(record)
	if err := json.Unmarshal(value, c); err != nil {
		return nil, fmt.Errorf("record %s: %w", key, err)
	}
	if c.Format != recordFormat {
		return nil, fmt.Errorf("record %s: format %d, this program knows %d: use the program that wrote it", key, c.Format, recordFormat)
	}
	return c, nil
}

// stored is the value of a pair's key.
type stored struct {
	Format int
	Epoch  uint64
	Pair   Pair
}

func decodePair(key string, value []byte, revision uint64) (Pair, error) {
	var s stored
	if err := json.Unmarshal(value, &s); err != nil {
		return Pair{}, fmt.Errorf("record %s: %w", key, err)
	}
	if s.Format != recordFormat {
		return Pair{}, fmt.Errorf("record %s: format %d, this program knows %d: use the program that wrote it", key, s.Format, recordFormat)
	}
	s.Pair.Revision = revision
	return s.Pair, nil
}

// digestOf is a digest of anything that has one JSON form.
func digestOf(context string, v any) cbt.Digest {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte(err.Error()) // a type that cannot be stored: a bug that Start meets again
	}
	h := blake3.NewDeriveKey("haulback 2026-11-23 " + context)
	_, _ = h.Write(b) // never fails
	var d cbt.Digest
	copy(d[:], h.Sum(nil))
	return d
}

// claimOf is the key of what one failback has to itself.
func claimOf(parts ...string) string {
	d := digestOf("claim v1", strings.Join(parts, "\x00"))
	return claimKey + hex.EncodeToString(d[:16])
}

func claimsOfVM(vm *hostctl.VM) map[string]string {
	keys := map[string]string{claimOf("vm", vm.Host, name(vm.UUID, vm.ID)): "VM " + vm.Name}
	for _, d := range vm.Disks {
		if d.UUID != "" {
			keys[claimOf("disk", vm.Host, d.UUID)] = "disk " + d.Label + " of " + vm.Name
		}
	}
	return keys
}

func name(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
