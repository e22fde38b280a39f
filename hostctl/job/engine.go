package job

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

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

// Bounds are those in force of Config: jobs that have not ended, jobs that have,
// disks that run at once, in all and of one host.
func (e *Engine) Bounds() (active, ended, disks, perHost int) {
	return e.c.MaxActive, e.c.MaxEnded, e.c.MaxDisks, e.c.MaxPerHost
}

func (c Config) filled() Config {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Hosts == nil {
		c.Hosts = func(Disk) []string { return nil }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.MaxDisks = cmp.Or(max(c.MaxDisks, 0), 4)
	c.MaxPerHost = cmp.Or(max(c.MaxPerHost, 0), 2)
	c.MaxActive = cmp.Or(max(c.MaxActive, 0), 1000)
	c.MaxEnded = cmp.Or(max(c.MaxEnded, 0), 10000)
	c.KeepEnded = cmp.Or(max(c.KeepEnded, 0), 30*24*time.Hour)
	c.AgeStep = cmp.Or(max(c.AgeStep, 0), 10*time.Minute)
	c.Persist = cmp.Or(max(c.Persist, 0), 5*time.Second)
	c.Telemetry = cmp.Or(max(c.Telemetry, 0), time.Second)
	c.Heartbeat = cmp.Or(max(c.Heartbeat, 0), 5*time.Second)
	c.LeaseTTL = cmp.Or(max(c.LeaseTTL, 0), 30*time.Second)
	return c
}

// Engine runs jobs. All methods are safe for concurrent use. Every refusal is
// a *Failure (errors.AsType).
type Engine struct {
	c     Config
	kick  chan struct{} // look for disks to start; capacity 1: one look sees all
	notes notes

	// mu is held over writes of the store, which wait for a disk. Who only looks
	// takes view: it guards jobs, entries, running, and what of an active snapshot
	// and news read. It is taken after mu, and never held over a call of the store;
	// who holds mu may look without it.
	mu   sync.Mutex
	view sync.RWMutex

	epoch    uint64
	jobs     map[string]*entry
	nactive  int
	running  map[*start]struct{}
	hosts    map[string]int // disks that run, by host
	stopping error          // errDrain, or why the engine may not go on; nothing starts any more
	stop     context.CancelCauseFunc
	done     chan struct{} // closed when Run has returned
	stored   counterRecord
	wg       sync.WaitGroup // starts
}

// entry is one job of the index. Of an ended one only this is in memory.
type entry struct {
	id      string
	owner   string
	phase   Phase
	created time.Time
	ended   time.Time
	act     *active // nil: ended
}

// active is a job that has not ended, under the engine's mu.
type active struct {
	*header
	state    state
	revision uint64
	hosts    [][]string // by disk
	run      []*start   // by disk; nil: does not run
	delivery store.Delivery
	since    time.Time // it waits for its turn; for ageing
	limits   *limits
	tickets  *tickets
}

// runs tells settle which disks have a transfer.
func (a *active) runs(i int) bool { return a.run[i] != nil }

// change makes a new state durable, and only then the state. Called with mu
// held. An error of compare-and-swap means that another engine works on this
// store: this one may not go on.
func (e *Engine) change(a *active, f func(*state)) error {
	return e.changeOf(a, a.runs, f)
}

// changeOf is change where other disks run than those of a.
func (e *Engine) changeOf(a *active, runs func(int) bool, f func(*state)) error {
	next := a.state.clone()
	f(&next)
	next.settle(runs, e.now())
	next.Epoch = e.epoch
	value, err := encode(next)
	if err != nil {
		return internal(err)
	}
	revision, err := e.c.Store.Update(context.Background(), jobKey+a.ID, value, a.revision)
	if err != nil {
		return e.refused(err)
	}
	before := a.state.Phase
	e.show(func() {
		a.state, a.revision = next, revision
		x := e.jobs[a.ID]
		x.phase, x.ended = next.Phase, next.Ended
		if next.Phase.Ended() {
			x.act = nil
		}
	})
	if before != next.Phase {
		e.c.Log.Info("job phase", "job", a.ID, "phase", next.Phase.String())
	}
	e.reindex(a)
	return nil
}

// show changes what readers see; with mu held.
func (e *Engine) show(f func()) {
	e.view.Lock()
	defer e.view.Unlock()
	f()
}

// reindex follows a new state with mu held: what has ended leaves the memory.
// All that is done here to the store is done again by Open if it fails.
func (e *Engine) reindex(a *active) {
	if a.state.Phase == Paused || a.state.Phase.Ended() {
		e.ack(a)
	}
	if !a.state.Phase.Ended() {
		return
	}
	e.nactive--
	if err := e.drop(ticketKey + a.ID); err != nil {
		e.c.Log.Warn("tickets of an ended job stay until the next start", "job", a.ID, "err", err)
	}
	e.prune()
}

// ack takes a job out of the queue; the queue delivers again if that is lost,
// and take acks it then.
func (e *Engine) ack(a *active) {
	if a.delivery == nil {
		return
	}
	if err := a.delivery.Ack(context.Background()); err != nil && !errors.Is(err, store.ErrLost) {
		e.c.Log.Warn("job stays in the queue for now", "job", a.ID, "err", err)
	}
	a.delivery = nil
}

// drop deletes a key, if it is there.
func (e *Engine) drop(key string) error {
	old, err := e.c.Store.Get(context.Background(), key)
	if err == nil {
		err = e.c.Store.Delete(context.Background(), key, old.Revision)
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// refused turns an error of the store into a *Failure, with mu held.
func (e *Engine) refused(err error) error {
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrHeld) {
		f := &Failure{Reason: ReasonFenced, Text: "another engine works on this store: " + err.Error(), Retry: RetryAfterReconcile, Exit: 11}
		e.halt(f)
		return f
	}
	f := unavailable(err)
	if errors.Is(err, store.ErrBroken) { // only a new start opens it again
		e.halt(f)
	}
	return f
}

// halt stops everything that runs, for the next start to go on; with mu held.
func (e *Engine) halt(why error) {
	if e.stopping == nil || errors.Is(e.stopping, errDrain) {
		e.stopping = why
	}
	if e.stop != nil {
		e.stop(errDrain)
	}
}

func (e *Engine) now() time.Time { return e.c.Now().UTC().Round(0) }

// look asks for a look for disks to start.
func (e *Engine) look() {
	select {
	case e.kick <- struct{}{}:
	default: // one is due already
	}
}

func unavailable(err error) *Failure {
	return &Failure{Reason: ReasonEngine, Text: err.Error(), Retry: RetryBackoff, Exit: 13}
}

func internal(err error) *Failure {
	return &Failure{Reason: ReasonInternal, Text: err.Error(), Retry: RetryAfterReconcile, Exit: 1}
}

func notFound(id string) *Failure {
	return &Failure{Reason: ReasonNotFound, Text: "no job " + id, Retry: RetryNever, Exit: 10}
}
