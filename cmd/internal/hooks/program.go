package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/config"
)

const (
	// grace is what a program has to end after SIGTERM.
	grace = 5 * time.Second
	// pipes is how long output is waited for that a child of an ended program,
	// in a session of its own, may still write.
	pipes = time.Second
	// maxTail is what is kept of output, maxText what of it an error says.
	maxTail = 4096
	maxText = 400
)

var errTimeout = errors.New("it did not end in time")

// Program is one run of a program of the site's.
type Program struct {
	Command []string // by its absolute path, and its arguments
	Timeout time.Duration
	Env     []string // more than Environ
	Input   []byte   // at its standard input
}

// Environ is what every program has. There is no variable of the daemon's own.
func Environ() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LANG=C.UTF-8"}
}

// Run runs the program to its end, as package hooks does with all programs, and
// gives the beginning of what it has said at its standard output. What it says
// besides is in the error.
func (p *Program) Run(ctx context.Context) (said string, err error) {
	out := new(head)
	err = run(ctx, &config.Call{Command: p.Command, Timeout: p.Timeout}, append(Environ(), p.Env...), p.Input, out)
	return out.String(), err
}

// run runs a program to its end; what it says goes to what as well, unless that is
// nil. The kernel ends the program when the thread that started it ends, so one
// thread stays with it.
func run(ctx context.Context, c *config.Call, env []string, input []byte, what *head) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errTimeout)
	defer cancel()
	done := make(chan error, 1) // 1: one value, always read
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- process(ctx, c, env, input, what)
	}()
	return <-done
}

func process(ctx context.Context, c *config.Call, env []string, input []byte, what *head) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	out := new(tail)
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = env, "/", bytes.NewReader(input), out, out, pipes
	if what != nil {
		cmd.Stdout = io.MultiWriter(out, what)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("it cannot be started: %w; is it there, with chmod +x, for the daemon's user?", errors.Unwrap(err))
	}
	g := &group{id: cmd.Process.Pid}
	stop := context.AfterFunc(ctx, g.end)
	exited(g.id)
	stop()
	g.finish()
	err := cmd.Wait()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case context.Cause(ctx) == errTimeout:
		return fmt.Errorf("it did not end within %v and was killed%s", c.Timeout, out)
	case ctx.Err() != nil:
		return fmt.Errorf("%w, so it was killed%s", context.Cause(ctx), out)
	}
	return fmt.Errorf("%w%s", err, out)
}

// exited waits until the process has ended and leaves it to be reaped: until then
// nobody else can have its number, or that of its group.
func exited(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// group is the process group of a program that has not been reaped.
type group struct {
	mu   sync.Mutex
	id   int
	over bool
	kill *time.Timer
}

// end asks all of the group to end, and makes them after the grace.
func (g *group) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signalLocked(unix.SIGTERM)
	g.kill = time.AfterFunc(grace, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.signalLocked(unix.SIGKILL)
	})
}

// finish ends what the program has left running.
func (g *group) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signalLocked(unix.SIGKILL)
	g.over = true
	if g.kill != nil {
		g.kill.Stop()
	}
}

func (g *group) signalLocked(s unix.Signal) {
	if !g.over {
		_ = unix.Kill(-g.id, s) // none is left, or they are
	}
}

// head keeps the beginning of what is written to it.
type head struct {
	mu   sync.Mutex
	text []byte
}

// Write never fails.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = append(h.text, p[:min(len(p), maxTail-len(h.text))]...)
	return len(p), nil
}

// String is what was kept.
func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.text)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
	cut  bool
}

// Write never fails: a program is not to die of what it says.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p[max(0, len(p)-maxTail):]...)
	if over := len(t.text) - maxTail; over > 0 {
		t.text, t.cut = append(t.text[:0], t.text[over:]...), true
	}
	return len(p), nil
}

// String is what an error says of it: nothing, or ": " and the end.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return said(string(t.text), t.cut)
}

// said is the end of what somebody said, in one clean line.
func said(text string, cut bool) string {
	text = strings.Join(strings.Fields(clean(strings.ReplaceAll(strings.TrimSpace(text), "\n", "; "))), " ")
	if runes := []rune(text); len(runes) > maxText {
		text, cut = string(runes[len(runes)-maxText:]), true
	}
	switch {
	case text == "":
		return ""
	case cut:
		return ": ..." + text
	}
	return ": " + text
}
