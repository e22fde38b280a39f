package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/vddk/vix"
)

// guard keeps the VM from being moved while its disks are open. A worker that
// dies cannot take that back, and the VM would not move for days: so it is
// written down first, in a file that is locked as long as the worker lives, and
// the next worker for this VM ends what it finds unlocked.
type guard struct {
	lib    *vix.Library
	params vix.Params
	dir    string // of the records; empty: none are kept
	log    func(vix.Level, string)

	identity string
	file     *os.File
	held     bool
}

// record is the content of the file.
type record struct {
	Server   string    `json:"server"`
	VM       string    `json:"vm"`
	Identity string    `json:"identity"`
	Since    time.Time `json:"since"`
}

// begin ends what dead workers left, and guards the VM.
func (g *guard) begin(ctx context.Context) error {
	g.identity = "haulback-" + rand.Text()[:16]
	if err := g.keep(ctx); err != nil {
		g.log(vix.Warning, fmt.Sprintf("the VM is guarded without a record, a crash would leave it so: %v", err))
	}
	err := g.lib.Prepare(ctx, g.params, g.identity)
	if e, ok := errors.AsType[*vix.Error](err); ok && e.Code() == codeOperationDisabled {
		// Guarded already, by a worker of another machine or without a record:
		// velero too ends the access and tries once more.
		_ = g.lib.EndAccess(ctx, g.params, g.identity) // the next call tells
		err = g.lib.Prepare(ctx, g.params, g.identity)
	}
	switch {
	case err == nil:
		g.held = true
		return nil
	case errors.Is(err, syscall.ENOTSUP) || g.lib != nil && bareESXi(g.params.VM):
		g.log(vix.Info, fmt.Sprintf("not guarded, as on every bare ESXi: %v", err))
		g.forget()
		return nil
	}
	g.forget()
	return err
}

const codeOperationDisabled = 20005

// bareESXi: a vCenter names VMs "vm-42", an ESXi "42".
func bareESXi(vm string) bool { return len(vm) > 0 && vm[0] >= '0' && vm[0] <= '9' }

// end takes back what begin did.
func (g *guard) end(ctx context.Context) error {
	if !g.held {
		return nil
	}
	g.held = false
	if err := g.lib.EndAccess(ctx, g.params, g.identity); err != nil {
		return err // the record stays
	}
	g.forget()
	return nil
}

// keep writes the record, durably.
func (g *guard) keep(ctx context.Context) error {
	if g.dir == "" {
		return errors.New("no state directory")
	}
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(g.params.Server + "\x00" + g.params.VM))
	prefix := fmt.Sprintf("guard-%x-", sum[:8])
	g.endOthers(ctx, prefix)
	text, err := json.Marshal(record{g.params.Server, g.params.VM, g.identity, time.Now().UTC()})
	if err != nil {
		return err
	}
	// Written and locked under another name: an unlocked record is a dead one's.
	name := filepath.Join(g.dir, prefix+g.identity+".json")
	f, err := os.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	g.file = f
	_, err = f.Write(text)
	if err := errors.Join(err, lock(f), f.Sync(), os.Rename(f.Name(), name), syncDir(g.dir)); err != nil {
		return err
	}
	return nil
}

// endOthers ends the access of workers that died.
func (g *guard) endOthers(ctx context.Context, prefix string) {
	names, err := filepath.Glob(filepath.Join(g.dir, prefix+"*.json"))
	if err != nil {
		return // the pattern is ours
	}
	for _, name := range names {
		if err := g.endOther(ctx, name); err != nil {
			g.log(vix.Warning, fmt.Sprintf("%s of a worker that died: %v", name, err))
		}
	}
}

func (g *guard) endOther(ctx context.Context, name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if lock(f) != nil {
		return nil // it lives
	}
	var r record
	if err := json.NewDecoder(f).Decode(&r); err != nil || r.Server != g.params.Server || r.VM != g.params.VM {
		return fmt.Errorf("it is damaged (%w); check in vCenter that the VM can be moved, and remove the file", err)
	}
	err = g.lib.EndAccess(ctx, g.params, r.Identity)
	if e, ok := errors.AsType[*vix.Error](err); err != nil && (!ok || e.Retryable()) {
		return err // the next one tries again
	}
	if err != nil {
		g.log(vix.Info, fmt.Sprintf("%s: nothing to end: %v", name, err))
	}
	return os.Remove(name)
}

// forget removes the record.
func (g *guard) forget() {
	if g.file == nil {
		return
	}
	name := filepath.Join(g.dir, filepath.Base(g.file.Name()))
	_ = os.Remove(name) // ".new", if it got no further
	if err := os.Remove(name[:len(name)-len(".new")]); err != nil {
		g.log(vix.Warning, fmt.Sprintf("record of the guard: %v", err))
	}
	g.file.Close()
	g.file = nil
}

func lock(f *os.File) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
