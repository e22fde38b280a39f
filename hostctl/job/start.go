package job

import (
	"context"
	"sync"
)

// start is one start of one disk, from Prepared to the record of its end.
type start struct {
	e      *Engine
	a      *active
	disk   int
	cancel context.CancelCauseFunc
	ctx    context.Context // its cause is read at the end

	// Under the engine's mu.
	moved    bool // the transfer has called Moving
	finished bool // it has returned; the rest is to be recorded
	outcome  Outcome
	err      error

	mu    sync.Mutex // before nothing: a transfer never waits for the store here
	count Counters
	dirty bool // newer than what is stored
}

func (r *start) counters() Counters {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

func (r *start) progress(c Counters) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count, r.dirty = c, true
}

// start makes the start of a disk durable and runs its transfer; with mu held.
func (e *Engine) start(ctx context.Context, a *active, disk int) error {
	if err := e.change(a, func(s *state) { s.begin(disk, e.now()) }); err != nil {
		return err
	}
	r := &start{e: e, a: a, disk: disk, count: a.state.Disks[disk].Outcome.Counters}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	e.show(func() {
		a.run[disk] = r
		e.running[r] = struct{}{}
	})
	for _, h := range a.hosts[disk] {
		e.hosts[h]++
	}
	task := r.task()
	e.wg.Go(func() {
		o, err := r.call(task)
		e.mu.Lock()
		defer e.mu.Unlock()
		r.finished, r.outcome, r.err = true, o, err
		e.record(r)
	})
	return nil
}

// task is what the transfer gets; with mu held.
func (r *start) task() *Task {
	a, d := r.a, r.a.Spec.Disks[r.disk]
	spec := a.Spec.filled() // its own copy: a transfer that writes into it harms nobody
	var once sync.Once
	return &Task{
		Job: a.ID, Spec: &spec, Disk: d, Run: a.state.Disks[r.disk].Run,
		Limits:   a.limits.get,
		Ticket:   func() []byte { return a.tickets.get(d.Name) },
		Moving:   func() { once.Do(r.moving) },
		Progress: r.progress,
		Event:    func(text string) { r.e.note(a.header, d.Name, text, false) },
		Warning:  func(text string) { r.e.note(a.header, d.Name, text, true) },
	}
}

// call runs the transfer; its panic is the failure of this disk.
func (r *start) call(t *Task) (o Outcome, err error) {
	defer r.cancel(nil)
	defer func() {
		if p := recover(); p != nil {
			o, err = Outcome{Counters: r.counters()}, &panicError{p}
		}
	}()
	return r.e.c.Transfer(r.ctx, t)
}

func (r *start) moving() {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	r.moved = true
	r.e.move(r)
}

// move records that a disk is InProgress; tick tries again what the store did
// not take.
func (e *Engine) move(r *start) {
	if !r.moved || r.finished || r.a.state.Disks[r.disk].Phase != Prepared {
		return
	}
	if err := e.change(r.a, func(s *state) { s.moving(r.disk) }); err != nil {
		e.c.Log.Warn("phase of a disk is not stored yet", "job", r.a.ID, "disk", r.a.state.Disks[r.disk].Name, "err", err)
	}
}

// record makes the end of a start durable, and only then frees its place. Until
// the store takes it, tick tries again; when the engine stops before that, the
// next one starts the disk again, whose journal knows what is done.
func (e *Engine) record(r *start) {
	if _, ours := e.running[r]; !ours || !r.finished {
		return
	}
	a, i := r.a, r.disk
	o := r.outcome
	if o.Counters == (Counters{}) {
		o.Counters = r.counters()
	}
	stop := r.why()
	others := func(k int) bool { return k != i && a.runs(k) }
	err := e.changeOf(a, others, func(s *state) {
		s.finish(i, o, r.err, stop, e.now())
		s.overwritten(i, &a.Spec, e.now())
	})
	if err != nil {
		e.c.Log.Warn("end of a disk is not stored yet", "job", a.ID, "disk", a.state.Disks[i].Name, "err", err)
		return
	}
	d := a.state.Disks[i]
	attrs := []any{"job", a.ID, "disk", d.Name, "phase", d.Phase.String()}
	if d.Failure != nil && d.Phase == Failed {
		attrs = append(attrs, "err", d.Failure.Text)
	}
	e.c.Log.Info("disk stopped", attrs...)
	e.show(func() {
		a.run[i] = nil
		delete(e.running, r)
	})
	for _, h := range a.hosts[i] {
		if e.hosts[h]--; e.hosts[h] == 0 {
			delete(e.hosts, h)
		}
	}
	e.look()
}

// why is the reason for which the transfer was told to stop, or nil. Its own
// end cancels the context too, with no reason.
func (r *start) why() error {
	switch cause := context.Cause(r.ctx); cause {
	case errPause, errCancel, errDrain:
		return cause
	}
	if r.a.state.Wanted != 0 {
		return errPause // any: what is wanted decides
	}
	return nil
}
