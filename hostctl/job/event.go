package job

import (
	"fmt"
	"time"

	"github.com/haulback/haulback/cbt"
)

// Filter chooses jobs. The zero Filter means all.
type Filter struct {
	ID     string
	Owner  string
	Phases []Phase
	Labels map[string]string // all of them equal
}

// Page is a part of a list.
type Page struct {
	Size  int    // 1 to 1000; 0: 100
	Token string // from the page before; empty: the first
}

// EventKind says what an Event is.
type EventKind uint8

// The kinds.
const (
	Changed   EventKind = 1 // Job is its new state; in a snapshot, its state
	Removed   EventKind = 2 // the job of Job.ID has gone: removed or pruned
	Synced    EventKind = 3 // the snapshot is complete; what follows are changes
	Telemetry EventKind = 4 // Counters are newer; lossy
	Note      EventKind = 5 // Text of Disk, for an operator; lossy
)

// Event is one thing that a watch tells.
type Event struct {
	Kind EventKind
	// Revision is where to go on after a break: of the change, or of the last
	// one before a Synced, Telemetry or Note. Inside a snapshot it is 0, because
	// a watch cannot go on in the middle of one.
	Revision uint64
	Time     time.Time
	Job      Job // Changed: all of it; otherwise ID and Owner only
	Counters []DiskCounters
	Disk     string // Note
	Text     string // Note
	Warning  bool   // Note: somebody should look
}

// DiskCounters are the newest counters of one disk that runs.
type DiskCounters struct {
	Disk string
	Counters
}

// ExistsError refuses another spec under an ID of the same owner. It unwraps to
// its *Failure.
type ExistsError struct {
	ID          string
	Have, Asked cbt.Digest
}

// Error implements error.
func (e *ExistsError) Error() string {
	return fmt.Sprintf("job %s exists with another spec: digest %v, this one is %v", e.ID, e.Have, e.Asked)
}

// Unwrap is the failure that the error is.
func (e *ExistsError) Unwrap() error {
	return &Failure{Reason: ReasonExists, Text: e.Error(), Retry: RetryNever, Exit: 10}
}
