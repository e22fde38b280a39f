package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/haulback/haulback/vddk/worker/control"
)

// maxFailures bounds what is kept of failed requests: each is asked for at once,
// unless it was another client's.
const maxFailures = 64

// maxSocketPath is the room for a path in a unix address.
const maxSocketPath = 107

// process is one running worker.
type process struct {
	name    string
	limits  Limits
	log     *slog.Logger
	cmd     *exec.Cmd
	dir     string // of the socket
	in      *os.File
	out     *control.Writer
	started *control.Started

	stop   chan struct{} // closed when the child is told to end
	gone   chan struct{} // closed when the child is dead and its output read
	reason *DiedError    // set before gone is closed
	tasks  sync.WaitGroup
	tail   tail
	said   *said

	mu       sync.Mutex // guards what follows
	last     uint64
	waiting  map[uint64]chan *control.Message
	failures []*control.Failed // the last ones that nobody asked for, the oldest first
	why      string            // known before the death: last words, our own kill
	stopping bool
	dead     bool // nothing is answered any more
}

// start starts a worker and waits until its library is loaded.
func start(ctx context.Context, c *Config, said *said) (*process, error) {
	program, err := c.program()
	if err != nil {
		return nil, err
	}
	dir, err := socketDir()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Program, err)
	}
	p := &process{
		name: c.name(), limits: c.Limits, log: c.Log.With("vm", c.VM), dir: dir,
		tail: newTail(c), said: said, stop: make(chan struct{}), gone: make(chan struct{}), waiting: map[uint64]chan *control.Message{},
	}
	if err := p.launch(program, c); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Limits.Start, fmt.Errorf("the VDDK worker of %s did not start within %v", p.name, c.Limits.Start))
	defer cancel()
	m, err := p.call(ctx, control.Request{Start: c.start(dir)})
	if err == nil && m.Started == nil {
		err = errors.New("it did not answer what was asked")
	}
	if err != nil {
		if ctx.Err() != nil {
			p.kill("did not start in time and was killed")
		}
		p.end()
		return nil, c.of(err)
	}
	p.started = m.Started
	p.log.Info("VDDK worker started", "pid", p.cmd.Process.Pid, "library", m.Started.Library, "modes", m.Started.Modes)
	return p, nil
}

// socketDir is private, and short enough for a unix address.
func socketDir() (string, error) {
	dir, err := os.MkdirTemp("", "haulback-vddk-") // mode 0700
	if err == nil && len(dir)+len("/nbd.sock") > maxSocketPath {
		os.RemoveAll(dir)
		dir, err = os.MkdirTemp("/tmp", "haulback-vddk-")
	}
	return dir, err
}

// launch starts the child. Its output is read from pipes of our own, so that a
// grandchild which keeps them open cannot hold up the end.
func (p *process) launch(program string, c *Config) error {
	var files []*os.File // read and write end of each
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(files)
			return err
		}
		files = append(files, r, w)
	}
	p.cmd = exec.Command(program, "--libdir", c.LibDir)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = files[0], files[3], files[5]
	p.cmd.Env = environment()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt of the terminal is for us to handle
	err := p.cmd.Start()
	closeAll([]*os.File{files[0], files[3], files[5]})
	if err != nil {
		closeAll([]*os.File{files[1], files[2], files[4]})
		return err
	}
	p.in = files[1]
	p.out = control.NewWriter(p.in)
	var readers sync.WaitGroup
	readers.Go(func() { p.read(files[2]) })
	readers.Go(func() { p.tail.read(files[4], p.log) })
	p.tasks.Go(func() { p.wait(&readers, files[2], files[4]) })
	p.tasks.Go(p.ping)
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// environment is little: what a daemon's environment holds is no business of a
// foreign library.
func environment() (env []string) {
	for _, name := range []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// call sends a request and waits for its answer.
func (p *process) call(ctx context.Context, r control.Request) (*control.Message, error) {
	m, err := p.ask(r, ctx.Done(), nil)
	if errors.Is(err, errGivenUp) {
		err = context.Cause(ctx)
	}
	return m, err
}

// errGivenUp means that the caller of ask waits no longer.
var errGivenUp = errors.New("the VDDK worker does not answer")

// ask is call with channels to give up by; nil ones wait for ever, or for the
// death of the worker.
func (p *process) ask(r control.Request, cancel <-chan struct{}, late <-chan time.Time) (*control.Message, error) {
	answer := make(chan *control.Message, 1) // 1: the reader never waits
	id, ok := p.send(r, answer)
	if !ok {
		<-p.gone
		return nil, p.reason
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return nil, m.Error
		}
		return m, nil
	case <-p.gone:
		return nil, p.reason
	case <-cancel:
	case <-late:
	}
	p.abandon(id)
	return nil, errGivenUp
}

// send writes beside the caller: a worker that is stopped reads nothing.
func (p *process) send(r control.Request, answer chan *control.Message) (id uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return 0, false
	}
	p.last++
	r.ID = p.last
	p.waiting[r.ID] = answer
	p.tasks.Go(func() {
		if err := p.out.Write(r); err != nil {
			p.killUnlessEnding("") // mostly it is dead, and its state says how
		}
	})
	return r.ID, true
}

// abandon leaves the answer to nobody; a disk that is still opened is closed.
func (p *process) abandon(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer, waiting := p.waiting[id]
	if waiting {
		p.waiting[id] = nil
		return
	}
	p.drop(<-answer)
}

// drop closes what nobody waits for any more.
func (p *process) drop(m *control.Message) {
	if m == nil || m.Opened == nil || p.dead {
		return
	}
	p.tasks.Go(func() {
		_, _ = p.ask(control.Request{Close: &control.Close{Export: m.Opened.Export}}, nil, nil) // nobody is there to hear it
	})
}

// read takes the worker's messages until its output ends.
func (p *process) read(out *os.File) {
	defer out.Close()
	lines := control.Lines(out)
	for lines.Scan() {
		m, err := control.ParseMessage(lines.Bytes())
		if err != nil {
			p.kill("did not keep to the protocol and was killed")
			break
		}
		p.handle(m)
	}
	_, _ = io.Copy(io.Discard, out) // what comes after the kill
}

func (p *process) handle(m *control.Message) {
	if m.Log != nil {
		p.line(m.Log)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case m.Fatal != "":
		p.why = "killed itself: " + m.Fatal
	case m.Failed != nil:
		if len(p.failures) == maxFailures {
			p.failures = slices.Delete(p.failures, 0, 1)
		}
		p.failures = append(p.failures, m.Failed)
	case m.ID != 0:
		answer, known := p.waiting[m.ID]
		delete(p.waiting, m.ID)
		if answer != nil {
			answer <- m
		} else if known {
			p.drop(m)
		}
	}
}

// line passes on what the library logs. Information is for the one who looks
// for a fault: the library says a lot. So is a warning that came before.
func (p *process) line(l *control.Log) {
	level := slog.LevelDebug
	if l.Level > 0 && p.said.first(l.Text) {
		level = slog.LevelWarn
	}
	p.log.Log(context.Background(), level, "VDDK library", "line", l.Text) // no trace is carried
}

// failure takes out what was said about requests that of tells, and returns the
// newest of it, or nil.
func (p *process) failure(of func(*control.Failed) bool) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures = slices.DeleteFunc(p.failures, func(f *control.Failed) bool {
		if !of(f) {
			return false
		}
		err = f.Error
		return true
	})
	return err
}

// forget drops what was said about an export that is closed.
func (p *process) forget(export string) {
	_ = p.failure(func(f *control.Failed) bool { return f.Export == export }) // nobody asks any more
}

// ping kills a worker that is alive and does not answer. One that was told to end
// reads no more: it has Limits.End.
func (p *process) ping() {
	tick := time.NewTicker(p.limits.Ping / 3)
	defer tick.Stop()
	for {
		select {
		case <-p.gone:
			return
		case <-p.stop:
			return
		case <-tick.C:
		}
		late := time.NewTimer(p.limits.Ping)
		_, err := p.ask(control.Request{Ping: &struct{}{}}, p.stop, late.C)
		late.Stop()
		if errors.Is(err, errGivenUp) {
			p.killUnlessEnding(fmt.Sprintf("did not answer for %v and was killed", p.limits.Ping))
		}
	}
}

// kill ends the child, which is ours. why is its epitaph, if it has none yet.
func (p *process) kill(why string) {
	p.mu.Lock()
	if p.why == "" {
		p.why = why
	}
	p.mu.Unlock()
	_ = p.cmd.Process.Kill() // it may be dead already
}

// killUnlessEnding leaves a worker that was told to end to its own ways.
func (p *process) killUnlessEnding(why string) {
	if !p.ending() {
		p.kill(why)
	}
}

// wait reaps the child, gives its last output a moment, and tells everybody.
func (p *process) wait(readers *sync.WaitGroup, out, stderr *os.File) {
	_ = p.cmd.Wait() // the state has it all
	for _, f := range []*os.File{out, stderr} {
		_ = f.SetReadDeadline(time.Now().Add(time.Second)) // closed already, or a pipe that can
	}
	readers.Wait()
	p.in.Close()
	os.RemoveAll(p.dir)
	p.mu.Lock()
	p.dead = true
	p.reason = &DiedError{VM: p.name, Reason: p.epitaph()}
	orderly := p.stopping && p.cmd.ProcessState.Success()
	p.mu.Unlock()
	if orderly {
		p.log.Info("VDDK worker ended")
	} else {
		p.log.Warn("VDDK worker died", "reason", p.reason.Reason)
	}
	close(p.gone)
}

// epitaph says how the child ended and, as far as known, why.
func (p *process) epitaph() string {
	text := fmt.Sprintf("ended with status %d", p.cmd.ProcessState.ExitCode())
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		text = fmt.Sprintf("was killed (signal %d, %v)", int(ws.Signal()), ws.Signal())
	}
	if p.why != "" {
		return p.why
	}
	if last := p.tail.words(); last != "" {
		text += ": " + last
	}
	return text
}

func (p *process) alive() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

func (p *process) ending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopping
}

// end tells the worker to end, and waits for it and for all that watched it.
func (p *process) end() {
	p.mu.Lock()
	if !p.dead && !p.stopping {
		p.stopping = true
		close(p.stop)
	}
	p.mu.Unlock()
	p.in.Close()
	overdue := time.AfterFunc(p.limits.End, func() { p.kill("did not end in time and was killed") })
	<-p.gone
	overdue.Stop()
	p.tasks.Wait()
}
