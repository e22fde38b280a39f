package simvs

import (
	"maps"
	"time"
)

// Switches make a server misbehave, in ways that true ones were seen to. All are
// off in a new server.
type Switches struct {
	// AreaCap is the most areas per answer of QueryChangedDiskAreas; 0 means 2000.
	AreaCap int `json:"area_cap,omitempty"`
	// CapSilently lets Length cover the rest of the disk although areas were cut.
	CapSilently bool `json:"cap_silently,omitempty"`
	// ZeroPages is how many answers from now on are empty and of length 0.
	ZeroPages int `json:"zero_pages,omitempty"`
	// Unsorted reverses the areas of an answer.
	Unsorted bool `json:"unsorted,omitempty"`
	// Overlap reports the second half of each area, and more, twice.
	Overlap bool `json:"overlap,omitempty"`
	// BeyondEnd adds an area that ends behind the disk.
	BeyondEnd bool `json:"beyond_end,omitempty"`
	// OverReport widens areas to 1 MiB and adds 1 MiB that did not change.
	OverReport bool `json:"over_report,omitempty"`
	// UnderReport leaves out every nth area; 1 leaves out all.
	UnderReport int `json:"under_report,omitempty"`
	// FaultAtPage makes the nth answer of a query a FileFault.
	FaultAtPage int `json:"fault_at_page,omitempty"`
	// FaultAfterExtend answers FileFault when the disk grew since the change ID.
	FaultAfterExtend bool `json:"fault_after_extend,omitempty"`
	// StaleWithSnapshot answers that nothing changed on disks whose tracking was
	// enabled while the VM had snapshots.
	StaleWithSnapshot bool `json:"stale_with_snapshot,omitempty"`
	// StaleAfterRevert leaves out what a revert changed (those made while it is
	// on).
	StaleAfterRevert bool `json:"stale_after_revert,omitempty"`
	// EpochResetOnPowerOn begins a new epoch of change tracking at each power-on.
	EpochResetOnPowerOn bool `json:"epoch_reset_on_power_on,omitempty"`

	// DuplicateUUID lets two VMs have one instanceUuid; a vCenter gives the second
	// one another.
	DuplicateUUID bool `json:"duplicate_uuid,omitempty"`
	// SlowTasks delays the start of tasks by their method ("RevertToSnapshot_Task",
	// or "*").
	SlowTasks map[string]time.Duration `json:"slow_tasks,omitempty"`
	// FailAfter is how many tasks of a method act and then end with a fault.
	FailAfter map[string]int `json:"fail_after,omitempty"`
	// IgnoreShutdown lets guests take a shutdown request and do nothing.
	IgnoreShutdown bool `json:"ignore_shutdown,omitempty"`
	// NoTools lets no guest tools run.
	NoTools bool `json:"no_tools,omitempty"`
	// SnapshotNoSpace refuses snapshots for want of space.
	SnapshotNoSpace bool `json:"snapshot_no_space,omitempty"`
	// RevertDoesNothing ends reverts with success and changes nothing.
	RevertDoesNothing bool `json:"revert_does_nothing,omitempty"`
	// RevertWrongBytes spoils 4 KiB of each disk in a revert.
	RevertWrongBytes bool `json:"revert_wrong_bytes,omitempty"`
	// PowerOnQuestion makes each power-on wait for the answer to a question.
	PowerOnQuestion bool `json:"power_on_question,omitempty"`
}

// Switch changes the switches.
func (s *Server) Switch(change func(*Switches)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sw.SlowTasks, s.sw.FailAfter = maps.Clone(s.sw.SlowTasks), maps.Clone(s.sw.FailAfter)
	if s.sw.SlowTasks == nil {
		s.sw.SlowTasks = map[string]time.Duration{}
	}
	if s.sw.FailAfter == nil {
		s.sw.FailAfter = map[string]int{}
	}
	change(&s.sw)
}

// switches is a copy; its maps are not changed by anybody.
func (s *Server) switches() Switches {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sw
}

func (s *Server) slow(method string) time.Duration {
	sw := s.switches()
	return max(sw.SlowTasks[method], sw.SlowTasks["*"])
}

func (s *Server) failsAfter(method string) (fails bool) {
	s.Switch(func(sw *Switches) {
		for _, key := range []string{method, "*"} {
			if sw.FailAfter[key] > 0 && !fails {
				sw.FailAfter[key]--
				fails = true
			}
		}
	})
	return fails
}

func (s *Server) takeZeroPage() (zero bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sw.ZeroPages > 0 {
		s.sw.ZeroPages--
		return true
	}
	return false
}
