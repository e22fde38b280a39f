package cmdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Deadline ends a command that hangs. On an idle machine nothing here takes a
// tenth of it.
const Deadline = 120 * time.Second

// daemonDeadline ends a daemon that outlives its test: that may take as many
// commands as it likes.
const daemonDeadline = 10 * time.Minute

// Programs are the built binaries.
type Programs struct {
	dir  string
	once sync.Once
	err  error
}

// Main builds the programs when the first test asks for them and removes them
// when all are done; it is what a TestMain calls.
func Main(m *testing.M, p *Programs) int {
	dir, err := os.MkdirTemp("", "haulback")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	p.dir = dir
	return m.Run()
}

// Installed are programs that are in dir already: of a package, not of this tree.
func Installed(dir string) *Programs {
	p := &Programs{dir: dir}
	p.once.Do(func() {})
	return p
}

// path is the binary called name.
func (p *Programs) path(t *testing.T, name string) string {
	t.Helper()
	p.once.Do(func() {
		args := append([]string{"build", "-o", p.dir}, buildFlags...)
		out, err := exec.Command("go", append(args, "github.com/haulback/haulback/cmd/haulback", "github.com/haulback/haulback/cmd/haulbackd")...).CombinedOutput()
		if err != nil {
			p.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if p.err != nil {
		t.Fatal(p.err)
	}
	return filepath.Join(p.dir, name)
}

// Dir has the programs, for a PATH.
func (p *Programs) Dir(t *testing.T) string {
	t.Helper()
	return filepath.Dir(p.path(t, "haulback"))
}

// Result is how a command ended.
type Result struct {
	Code        int
	Out, Stderr string
}

// Run runs a program to its end.
func (p *Programs) Run(t *testing.T, name string, args ...string) Result {
	t.Helper()
	return p.Start(t, name, args...).Wait()
}

// Process is a command that runs.
type Process struct {
	t           *testing.T
	Cmd         *exec.Cmd
	out, stderr output
	cancel      context.CancelFunc
}

// output collects what a process writes, readable while it does.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Start starts a program. HAULBACK_* and systemd's variables of the test's own
// environment do not reach it.
func (p *Programs) Start(t *testing.T, name string, args ...string) *Process {
	t.Helper()
	return p.StartEnv(t, nil, name, args...)
}

// StartEnv is Start with more environment.
func (p *Programs) StartEnv(t *testing.T, env []string, name string, args ...string) *Process {
	t.Helper()
	return p.start(t, env, nil, nil, name, args)
}

// start is StartEnv with files as standard input and output, where they are
// not nil.
func (p *Programs) start(t *testing.T, env []string, in, out *os.File, name string, args []string) *Process {
	t.Helper()
	x := p.prepare(t, env, name, args)
	if in != nil {
		x.Cmd.Stdin = in
	}
	if out != nil {
		x.Cmd.Stdout = out
	}
	return x.begin()
}

// StartPassed is StartEnv as a service manager does it: with files that are open
// already, from 3 on, called by names with colons between them.
func (p *Programs) StartPassed(t *testing.T, env []string, files []*os.File, names, name string, args ...string) *Process {
	t.Helper()
	env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+names)
	x := p.prepare(t, env, name, args)
	// Nobody but the process itself knows its number before it runs.
	x.Cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, x.Cmd.Path}, args...)
	x.Cmd.Path, x.Cmd.ExtraFiles = "/bin/sh", files
	return x.begin()
}

// prepare makes a process that has not begun.
func (p *Programs) prepare(t *testing.T, env []string, name string, args []string) *Process {
	t.Helper()
	limit := Deadline
	if name == "haulbackd" { // its test stops it
		limit = daemonDeadline
	}
	path := p.path(t, name) // the first one builds it: that is no time of the command's
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	x := &Process{t: t, Cmd: exec.CommandContext(ctx, path, args...), cancel: cancel}
	x.Cmd.Stdout, x.Cmd.Stderr = &x.out, &x.stderr
	// The race detector lets every process live for a second more than it
	// needs: a minute, over all tests.
	x.Cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "GORACE=atexit_sleep_ms=10"}, env...)
	return x
}

func (x *Process) begin() *Process {
	x.t.Helper()
	if err := x.Cmd.Start(); err != nil {
		x.t.Fatal(err)
	}
	return x
}

// Wait is how the process ended.
func (x *Process) Wait() Result {
	x.t.Helper()
	defer x.cancel()
	err := x.Cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		x.t.Fatal(err)
	}
	return Result{Code: x.Cmd.ProcessState.ExitCode(), Out: x.out.String(), Stderr: x.stderr.String()}
}

// Signal sends s to the process.
func (x *Process) Signal(s os.Signal) {
	x.t.Helper()
	if err := x.Cmd.Process.Signal(s); err != nil {
		x.t.Fatal(err)
	}
}

// Stdout and Stderr are what was written so far.
func (x *Process) Stdout() string { return x.out.String() }

// Stderr is what was written there so far.
func (x *Process) Stderr() string { return x.stderr.String() }

// Refused reports whether a daemon has said why it does not go on: it has ended, or is
// about to.
func (x *Process) Refused() bool {
	return strings.Contains("\n"+x.Stderr(), "\nhaulbackd: ")
}

// Ended reports whether a haulback with --json has come to its end.
func (x *Process) Ended() bool {
	return strings.Contains(x.Stdout(), `"message_type":"summary"`) || strings.Contains(x.Stderr(), `"message_type":"exit_error"`)
}

// Await polls until ok, and fails the test at the deadline.
func Await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Deadline / 2); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Path is the file of the binary called name, for who starts it in a way of its
// own: with more file descriptors, from a shell.
func (p *Programs) Path(t *testing.T, name string) string {
	t.Helper()
	return p.path(t, name)
}
