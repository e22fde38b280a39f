package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/haulback/haulback/vddk/worker/control"
)

// Program is the worker's file name.
const Program = "haulback-vddk"

// Config says which VM is reached, and as whom.
type Config struct {
	// Program is the path of the worker. Empty: beside the running program, then
	// in PATH.
	Program string
	LibDir  string // of the VDDK
	Server  string
	Port    uint16 // 0: the library's default
	VM      string // managed object reference: "vm-42" of a vCenter, "2" of an ESXi

	Thumbprint string
	User       string
	Password   control.Secret // or
	Cookie     control.Secret

	// Guard keeps the VM from being moved; StateDir has the records of that.
	Guard    bool
	StateDir string

	Limits Limits
	Log    *slog.Logger // default: nothing is logged
}

// Limits are the times after which something counts as hung. 0 is the default.
type Limits struct {
	Start time.Duration // of the worker, with InitEx: 60 s
	Call  time.Duration // one call of the library: connect, open, close, a map: 2 min
	IO    time.Duration // one read, write or flush: 60 s
	Ping  time.Duration // the worker's answer: 15 s; asked three times as often
	End   time.Duration // the orderly end: 2 min 10 s, more than the worker gives itself
}

// Target is a disk of the VM.
type Target struct {
	Path       string // "[ds] vm/vm.vmdk", as the snapshot names it
	Snapshot   string // managed object reference, or empty
	Transports string // "nbdssl:nbd"
	ReadOnly   bool
	MaxRequest int // bytes
}

func (l *Limits) defaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.Start, time.Minute},
		{&l.Call, 2 * time.Minute},
		{&l.IO, time.Minute},
		{&l.Ping, 15 * time.Second},
		{&l.End, 130 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
}

func (c *Config) defaults() {
	c.Limits.defaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (c *Config) validate() error {
	switch {
	case c.Server == "" || c.VM == "" || c.LibDir == "":
		return errors.New("VDDK worker: server, VM and library folder are needed")
	case (c.Password == "") == (c.Cookie == ""):
		return errors.New("VDDK worker: either a password or a cookie is needed")
	}
	return nil
}

// name is how the worker is called in logs and errors.
func (c *Config) name() string { return fmt.Sprintf("VM %s of %s", c.VM, c.Server) }

// of says which VM an error is about, if it does not say so itself: what comes
// last is cut off first.
func (c *Config) of(err error) error {
	if _, died := errors.AsType[*DiedError](err); died || strings.Contains(err.Error(), c.VM+" of "+c.Server) {
		return err
	}
	return fmt.Errorf("%s: %w", c.name(), err)
}

// key tells workers apart. It has the credentials in it, hashed: two jobs with
// different rights share no worker.
func (c *Config) key() [sha256.Size]byte {
	b, _ := json.Marshal([]any{ // strings and numbers only: it cannot fail
		c.Program, c.LibDir, c.Server, c.Port, c.VM, c.Thumbprint, c.User, c.Password, c.Cookie, c.Guard, c.StateDir,
	})
	return sha256.Sum256(b)
}

func (c *Config) start(dir string) *control.Start {
	return &control.Start{
		Version: control.Version, Server: c.Server, Port: c.Port, VM: c.VM, Thumbprint: c.Thumbprint,
		User: c.User, Password: c.Password, Cookie: c.Cookie, Dir: dir, Guard: c.Guard, StateDir: c.StateDir,
		CallLimit: c.Limits.Call, IOLimit: c.Limits.IO,
	}
}

// program finds the worker's file.
func (c *Config) program() (string, error) {
	if c.Program != "" {
		return c.Program, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(self), Program)
	if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() {
		return beside, nil
	}
	path, err := exec.LookPath(Program)
	if err != nil {
		return "", &missingError{beside, err}
	}
	return path, nil
}

// Find is the path of the worker's program, beside this one or in PATH.
func Find() (string, error) { return new(Config).program() }

// Library loads the library in libDir into a worker, which ends at once, and
// returns what the worker says of both: "haulback-vddk v1.2.0, VDDK 8, transports
// file:nbdssl:nbd". The worker is found beside this program or in PATH; no host is
// talked to.
func Library(ctx context.Context, libDir string) (string, error) {
	program, err := Find()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, "--version", "--libdir", libDir)
	cmd.Env = environment()
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s: VMware's library in %s does not answer: %w", program, libDir, context.Cause(ctx))
	case err != nil && said.Len() > 0:
		lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(said.String(), "?")), "\n")
		return "", errors.New(lines[len(lines)-1]) // above it the library may have spoken
	case err != nil:
		return "", fmt.Errorf("%s: %w", program, err)
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(out)), "\n"), ", "), nil
}
