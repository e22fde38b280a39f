package job

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/store"
)

// Config is what an Engine needs. Zero bounds and times mean their defaults.
type Config struct {
	Store    store.Store
	Queue    store.Queue
	Lease    store.Lease
	Transfer Transfer
	Log      *slog.Logger // nil: slog.Default

	// Hosts tells which hosts a disk loads, for MaxPerHost: all of them must have
	// room. Nil: none.
	Hosts func(Disk) []string
	// Now is the clock of records and of waiting; nil: time.Now.
	Now func() time.Time

	MaxDisks   int // that run at once; 4
	MaxPerHost int // of one host that run at once; 2
	MaxActive  int // jobs that have not ended; 1000
	MaxEnded   int // jobs that have ended and are kept; 10 000

	KeepEnded time.Duration // how long ended jobs are kept; 30 days
	AgeStep   time.Duration // waiting this long counts as one priority; 10 min
	Persist   time.Duration // counters of what runs are stored this often; 5 s
	Telemetry time.Duration // a watch tells counters this often at most; 1 s
	Heartbeat time.Duration // deliveries and the lease are renewed this often; 5 s
	LeaseTTL  time.Duration // 30 s
}

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

var errStub = errors.New("job: not built yet")

// Engine runs jobs. All methods are safe for concurrent use. Every refusal is
// a *Failure (errors.AsType).
type Engine struct{}

// Open reads the jobs of the store and takes the engine's lease. Jobs that have
// not ended go on when Run is called.
func Open(ctx context.Context, c Config) (*Engine, error) { return nil, errStub }

// Run works until ctx is done, Drain is called, or the engine may not go on
// (fenced, store gone); then it stops what runs, so that the next start goes
// on with it, and waits for it. It may be called once. It returns nil after ctx
// or Drain.
func (e *Engine) Run(ctx context.Context) error { return errStub }

// Submit stores a job. The same ID and an equal spec of the same owner give
// the job that is there, whatever its phase, and existed; the tickets are taken
// if it has not ended. Another spec is an *ExistsError. An ID of another owner
// is refused without a word about that job.
func (e *Engine) Submit(ctx context.Context, id, owner string, s Spec, tickets map[string][]byte) (j Job, existed bool, err error) {
	return Job{}, false, errStub
}

// Get answers one job, with the newest counters.
func (e *Engine) Get(ctx context.Context, id string) (Job, error) { return Job{}, errStub }

// List answers jobs, the newest first, and the token of the next page, empty
// after the last.
func (e *Engine) List(ctx context.Context, f Filter, p Page) (jobs []Job, next string, err error) {
	return nil, "", errStub
}

// Watch tells what happens. With after 0: all jobs of the filter, Synced, then
// changes. Otherwise the changes later than after; an error that is
// store.ErrCompacted means that they are not known any more: watch from 0. No
// change is lost, however slow the reader is, unless it is told so by that
// error. The sequence ends with an error, ctx's at last.
func (e *Engine) Watch(ctx context.Context, after uint64, f Filter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) { yield(Event{}, errStub) }
}

// Cancel asks a job to stop for good; the job may be Canceling until calls to
// its disks have returned. Of a Canceled or Canceling job: no change.
func (e *Engine) Cancel(ctx context.Context, id string) (Job, error) { return Job{}, errStub }

// Pause asks a job to stop and release its disks until Resume.
func (e *Engine) Pause(ctx context.Context, id string) (Job, error) { return Job{}, errStub }

// Resume lets a Paused job go on, and runs the disks of a Failed one again
// whose failure allows it, each with its old run.
func (e *Engine) Resume(ctx context.Context, id string) (Job, error) { return Job{}, errStub }

// SetLimits changes the limits of a job that has not ended.
func (e *Engine) SetLimits(ctx context.Context, id string, l Limits) (Job, error) {
	return Job{}, errStub
}

// SetTickets hands in newer tickets by the names of disks. A Failed job takes
// them too, before Resume.
func (e *Engine) SetTickets(ctx context.Context, id string, tickets map[string][]byte) error {
	return errStub
}

// Remove forgets a job that has ended.
func (e *Engine) Remove(ctx context.Context, id string) error { return errStub }

// Drain takes no more jobs and stops what runs, so that it goes on at the next
// start; the phases stay. It returns when nothing runs, or with ctx.
func (e *Engine) Drain(ctx context.Context) error { return errStub }

// Close gives the lease back. Run must have returned.
func (e *Engine) Close() error { return nil }

// Validate checks a spec as Submit does. The error is a *Failure that names the
// field.
func Validate(s Spec) error { return errStub }

// Digest is the identity of a spec with its defaults filled in: equal for equal
// work, whatever text it came as.
func Digest(s Spec) cbt.Digest { return cbt.Digest{} }
