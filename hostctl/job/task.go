package job

import "context"

// Task is one start of one disk, as a Transfer gets it.
type Task struct {
	Job  string
	Spec *Spec // of the job; read only
	Disk Disk
	Run  string // UUID: a transfer of the same run goes on where the last one ended

	// Limits are those in force, and a channel that is closed when they change.
	// Safe for concurrent use.
	Limits func() (Limits, <-chan struct{})
	// Ticket is the newest ticket that the caller has handed in for this disk,
	// or nil. Safe for concurrent use.
	Ticket func() []byte

	// Moving says that the disks are open and bytes are being compared: the
	// disk's phase becomes InProgress. Later calls do nothing.
	Moving func()
	// Progress takes a snapshot of the counters, as often as the transfer likes;
	// it neither blocks nor writes to the store.
	Progress func(Counters)
	// Event takes what an operator should read: a lost link, a resume. Warning
	// is for what he should look at. Neither blocks.
	Event, Warning func(text string)
}

// Transfer moves or compares one disk until it is done, cannot go on, or ctx is
// done; then it returns once no write to a target can follow. It never retries
// for longer than Spec.Retry without progress. The Outcome says how far it came
// in either case. An error is a *Failure where it can be classed.
// A nil error with Outcome.Verified false is treated as a failure.
type Transfer func(ctx context.Context, t *Task) (Outcome, error)
