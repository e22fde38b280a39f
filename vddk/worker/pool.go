package worker

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk/worker/control"
)

// The pause before a worker is started again: none after the first death, then
// doubled from firstPause to lastPause.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 30 * time.Second
)

// Pool has the workers of a process. Its zero value is ready for use, and all
// methods may be called concurrently.
type Pool struct {
	mu      sync.Mutex
	entries map[[sha256.Size]byte]*entry
	said    map[[sha256.Size]byte]*said // stays: a disk is opened anew after a loss
}

// entry is the worker of one VM and identity, across its deaths.
type entry struct {
	turn chan struct{} // holds one token: who has it starts or ends the worker
	said *said

	// Guarded by the pool's mu.
	users int

	// Guarded by turn.
	process *process
	deaths  int // since a disk was last opened
	until   time.Time
}

// Disk is an open disk, served as NBD export Export on the unix socket Socket.
type Disk struct {
	Socket, Export string
	Size           int64  // bytes
	Mode           string // "nbdssl", or empty when the library does not say
	Library        string // release of the library: "8"
	// Limit is how long a request may take before the worker kills itself: one
	// waits for a map of its disk first.
	Limit time.Duration

	pool    *Pool
	key     [sha256.Size]byte
	entry   *entry
	process *process
	once    sync.Once
	err     error
}

// Open opens a disk, in the VM's worker if there is one. An error that says so
// (Retryable) may not come again.
func (p *Pool) Open(ctx context.Context, c Config, t Target) (*Disk, error) {
	c.defaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	key := c.key()
	e := p.enter(key)
	proc, opened, err := e.open(ctx, &c, t)
	if err != nil {
		p.leave(key, e)
		return nil, err
	}
	return &Disk{
		Socket: proc.started.Socket, Export: opened.Export, Size: opened.Size, Mode: opened.Mode, Library: proc.started.Library,
		Limit: c.Limits.Call + c.Limits.IO,
		pool:  p, key: key, entry: e, process: proc,
	}, nil
}

func (p *Pool) enter(key [sha256.Size]byte) *entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entries[key]
	if e == nil {
		if p.entries == nil {
			p.entries, p.said = map[[sha256.Size]byte]*entry{}, map[[sha256.Size]byte]*said{}
		}
		if p.said[key] == nil {
			p.said[key] = &said{}
		}
		e = &entry{turn: make(chan struct{}, 1), said: p.said[key]}
		e.turn <- struct{}{}
		p.entries[key] = e
	}
	e.users++
	return e
}

// leave ends the worker when nobody uses it any more, and forgets an entry that
// has nothing to remember.
func (p *Pool) leave(key [sha256.Size]byte, e *entry) {
	<-e.turn
	defer func() { e.turn <- struct{}{} }()
	p.mu.Lock()
	e.users--
	unused := e.users == 0
	p.mu.Unlock()
	if !unused {
		return
	}
	if e.process != nil {
		e.process.end()
		e.bury()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.users == 0 && e.deaths == 0 {
		delete(p.entries, key)
	}
}

func (e *entry) open(ctx context.Context, c *Config, t Target) (*process, *control.Opened, error) {
	proc, err := e.running(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	m, err := proc.call(ctx, control.Request{Open: &control.Open{
		Path: t.Path, Snapshot: t.Snapshot, Transports: t.Transports, ReadOnly: t.ReadOnly, MaxRequest: t.MaxRequest,
	}})
	if err == nil && m.Opened == nil {
		err = errors.New("the VDDK worker did not answer what was asked")
	}
	if err != nil {
		return nil, nil, c.of(err)
	}
	e.opened()
	return proc, m.Opened, nil
}

// opened forgets the deaths.
func (e *entry) opened() {
	<-e.turn
	e.deaths = 0
	e.turn <- struct{}{}
}

// running returns the worker, started if need be.
func (e *entry) running(ctx context.Context, c *Config) (*process, error) {
	select {
	case <-e.turn:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { e.turn <- struct{}{} }()
	if e.process != nil && e.process.alive() {
		return e.process, nil
	}
	e.bury()
	if err := wait(ctx, time.Until(e.until)); err != nil {
		return nil, err
	}
	proc, err := start(ctx, c, e.said)
	if err != nil {
		if _, died := errors.AsType[*DiedError](err); died {
			e.died()
		}
		return nil, err
	}
	e.process = proc
	return proc, nil
}

// bury forgets a worker that is gone, and remembers when it died by itself.
func (e *entry) bury() {
	if e.process == nil {
		return
	}
	if !e.process.ending() {
		e.died()
	}
	e.process = nil
}

func (e *entry) died() {
	if e.deaths > 0 {
		e.until = time.Now().Add(min(firstPause<<min(e.deaths-1, 10), lastPause))
	}
	e.deaths++
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Lost is nil while the worker lives, then a [*DiedError].
func (d *Disk) Lost() error {
	select {
	case <-d.process.gone:
		return d.process.reason
	default:
		return nil
	}
}

// Cause is why the worker is gone, or nil. It asks the worker, for at most the
// ping limit.
func (d *Disk) Cause() error {
	late := time.NewTimer(d.process.limits.Ping)
	defer late.Stop()
	_, err := d.process.ask(control.Request{Ping: &struct{}{}}, nil, late.C)
	return err
}

// Failed is what the library said about a request for bytes of e that failed just
// now, or Cause. It is said once: a later failure has a cause of its own.
func (d *Disk) Failed(e cbt.Extent) error {
	return d.failed(func(f *control.Failed) bool { return !f.Flush && f.Off < e.End() && e.Off < f.Off+f.Len })
}

// FlushFailed is Failed of a flush.
func (d *Disk) FlushFailed() error {
	return d.failed(func(f *control.Failed) bool { return f.Flush })
}

func (d *Disk) failed(of func(*control.Failed) bool) error {
	if err := d.Cause(); err != nil { // its answer comes after what was said before
		return err
	}
	return d.process.failure(func(f *control.Failed) bool { return f.Export == d.Export && of(f) })
}

// Close flushes and closes the disk. The clients of its export are sent away. It
// is idempotent; a worker that is gone is no error: what was lost with it was
// told to the clients. It ends, because a call of the library that hangs ends the
// worker.
func (d *Disk) Close() error {
	d.once.Do(func() {
		_, err := d.process.ask(control.Request{Close: &control.Close{Export: d.Export}}, nil, nil)
		if _, died := errors.AsType[*DiedError](err); !died {
			d.err = err
		}
		d.process.forget(d.Export)
		d.pool.leave(d.key, d.entry)
	})
	return d.err
}
