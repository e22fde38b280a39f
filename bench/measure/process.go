package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/bench/result"
)

// Command is a program to start.
type Command struct {
	End    result.End
	Args   []string // the program first
	Env    []string // NAME=VALUE, beside this process's own
	Stdin  string   // a file; empty: nothing
	Stdout string   // a file that is made new; empty: thrown away
	Stderr string   // likewise
}

// Line is the command as a shell would take it, with the CPU that it may use;
// core < 0: any.
func (c *Command) Line(core int) string {
	var b strings.Builder
	for _, e := range c.Env {
		b.WriteString(quote(e) + " ")
	}
	if core >= 0 {
		fmt.Fprintf(&b, "taskset -c %d ", core)
	}
	for i, a := range c.Args {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(quote(a))
	}
	for _, f := range []struct{ sign, file string }{{" <", c.Stdin}, {" >", c.Stdout}} {
		if f.file != "" {
			b.WriteString(f.sign + quote(f.file))
		}
	}
	return b.String()
}

func quote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n'\"\\$&|;<>()*?[]{}#~`!") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Process is a program that was started in a room.
type Process struct {
	Command Command
	cmd     *exec.Cmd
	ended   chan struct{} // closed when it was waited for
	err     error         // of the wait
	at      time.Time     // when it ended
}

// Core is the CPU of an end; -1 when it has none of its own.
func (r *Room) Core(e result.End) int {
	if c, ok := r.cores[e]; ok {
		return c
	}
	return -1
}

// Start starts a program on its end's CPU, in its end's cgroup and in the
// room's network. It is killed when this process dies.
func (r *Room) Start(c Command) (*Process, error) {
	p := &Process{Command: c, ended: make(chan struct{})}
	p.cmd = exec.Command(c.Args[0], c.Args[1:]...)
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, f := range []struct {
		path string
		mode int
		set  func(*os.File)
	}{
		{c.Stdin, os.O_RDONLY, func(f *os.File) { p.cmd.Stdin = f }},
		{c.Stdout, os.O_WRONLY | os.O_CREATE | os.O_TRUNC, func(f *os.File) { p.cmd.Stdout = f }},
		{c.Stderr, os.O_WRONLY | os.O_CREATE | os.O_TRUNC, func(f *os.File) { p.cmd.Stderr = f }},
	} {
		if f.path == "" {
			continue
		}
		file, err := os.OpenFile(f.path, f.mode, 0o600)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
		f.set(file)
	}
	var err error
	r.Do(func() { err = r.start(p) })
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Args[0], err)
	}
	r.groups[c.End].add(p.cmd.Process.Pid)
	r.mu.Lock()
	r.procs = append(r.procs, p)
	r.mu.Unlock()
	go func() {
		p.err = p.cmd.Wait()
		p.at = time.Now()
		close(p.ended)
	}()
	return p, nil
}

// start runs on the room's thread, whose CPUs a child inherits.
func (r *Room) start(p *Process) error {
	if core, ok := r.cores[p.Command.End]; ok {
		var all, one unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			return err
		}
		one.Set(core)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return fmt.Errorf("CPU %d: %w", core, err)
		}
		defer func() { _ = unix.SchedSetaffinity(0, &all) }()
	}
	leave, err := r.groups[p.Command.End].enter(p.cmd.SysProcAttr)
	if err != nil {
		return err
	}
	defer leave()
	return p.cmd.Start()
}

// Pid is its process ID.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Wait waits for its end, and says when that was and how: exit is -1 for one
// that a signal ended. When the context ends first, it is ended and Wait
// returns the context's cause.
func (p *Process) Wait(ctx context.Context) (at time.Time, exit int, err error) {
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.End()
		return p.at, -1, context.Cause(ctx)
	}
	if _, failed := errors.AsType[*exec.ExitError](p.err); p.err != nil && !failed {
		return p.at, -1, p.err
	}
	return p.at, p.cmd.ProcessState.ExitCode(), nil
}

// Running tells whether it has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// patience is how long a process may take to end in order.
const patience = 5 * time.Second

// End asks it to end, then makes it, and waits.
func (p *Process) End() {
	if !p.Running() {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}
