package osd

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The ledger is a directory with one file, a row, for each thing that a process is
// about to hold or holds. What is true of it at any moment, also of a kill:
//
//   - a row is durable before what it tells of is asked for, and goes after that is
//     undone
//   - a row is locked (flock) by its living owner, from before it can be seen until
//     it goes; the kernel frees the lock of a dead one
//   - rows come, are locked by somebody else and go only under the lock of the
//     directory, which is held for no call to a server. So nobody sees one between
//     its creation and its lock, or locks one that is gone
//
// A row is lines of JSON, each of which overrides the ones before; the last may be
// torn, as its writer died before it did what the line tells.
type ledger struct{ dir string }

// The phases of a live volume.
const (
	phaseHeld      = "held"      // used, and not attached by us
	phaseAttaching = "attaching" // was not attached; we have asked or will
	phaseAttached  = "attached"  // by us, at Path
)

// entry is what a row says.
type entry struct {
	Version  int       `json:"version"`
	Profile  string    `json:"profile"`
	Endpoint string    `json:"endpoint"` // of the profile, then
	Identity string    `json:"identity"` // of the volume, or of the snapshot of a clone
	Volume   string    `json:"volume"`   // id of the volume, or of the snapshot of a clone
	Clone    string    `json:"clone,omitempty"`
	CloneID  string    `json:"clone_id,omitempty"`
	Phase    string    `json:"phase,omitempty"`
	Path     string    `json:"path,omitempty"` // as the server says it
	PID      int       `json:"pid"`
	At       time.Time `json:"at"` // of the last line
}

// entryVersion is that of what this code writes and reads.
const entryVersion = 1

// row is a row that this process has locked.
type row struct {
	entry
	l    ledger
	file string
	f    *os.File
	size int64 // of the lines that are whole
	sure bool  // nothing comes any more of what this process has asked for
}

// heldError means that another owner of a row lives.
type heldError struct{ entry entry }

// Error implements error.
func (e *heldError) Error() string {
	by := fmt.Sprintf("process %d", e.entry.PID)
	if e.entry.PID == os.Getpid() {
		by = "this process"
	}
	return fmt.Sprintf("%s holds it since %s", by, e.entry.At.Format(time.RFC3339))
}

// volumeFile is the row of a live volume: one at a time, whatever profile leads to it.
func volumeFile(identity string) string {
	sum := sha256.Sum256([]byte(identity))
	return "volume-" + hex.EncodeToString(sum[:16]) + ".json"
}

// random is 16 hex digits.
func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// locked runs f with the directory locked against every other process.
func (l ledger) locked(f func(dir *os.File) error) error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	dir, err := os.Open(l.dir)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("%s: others may write to it; give it mode 0700", l.dir)
	}
	if err == nil {
		err = flock(dir, unix.LOCK_EX)
	}
	if err == nil {
		err = f(dir)
	}
	if _, ok := errors.AsType[*heldError](err); err == nil || ok || strings.HasPrefix(err.Error(), "ledger: ") {
		return err
	}
	return fmt.Errorf("ledger: %w", err)
}

// flock insists: the runtime's signals interrupt it.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// claim locks the row of that file, or makes it with e. Of a dead owner's the row
// says what that one said; adopted tells. A living one's is a *heldError.
func (l ledger) claim(file string, e entry) (r *row, adopted bool, err error) {
	err = l.locked(func(dir *os.File) error {
		r, err = l.lock(file)
		if err == nil {
			adopted = true
			return nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			r, err = l.create(dir, file, e)
		}
		return err
	})
	return r, adopted, err
}

// lock opens a row that is there and locks it.
func (l ledger) lock(file string) (*row, error) {
	f, err := os.OpenFile(filepath.Join(l.dir, file), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	r := &row{l: l, file: file, f: f}
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	// Read after that: of a dead owner this is all that it has written.
	read := r.read()
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		_ = f.Close()
		return nil, &heldError{r.entry}
	case err == nil:
		err = read
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// read reads the lines of a row.
func (r *row) read() error {
	r.entry, r.size = entry{}, 0
	b, err := io.ReadAll(io.NewSectionReader(r.f, 0, 1<<20))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		e := r.entry
		if !strings.HasSuffix(line, "\n") || json.Unmarshal([]byte(line), &e) != nil {
			break
		}
		r.entry = e
		r.size += int64(len(line))
	}
	if r.Version != entryVersion || r.Volume == "" {
		return fmt.Errorf("it is no row of version %d; look at it and delete it by hand", entryVersion)
	}
	return nil
}

// create makes a row: locked and durable under another name, then visible, then
// durable where it is.
func (l ledger) create(dir *os.File, file string, e entry) (*row, error) {
	name := filepath.Join(l.dir, file)
	f, err := os.OpenFile(name+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	e.Version, e.PID = entryVersion, os.Getpid()
	r := &row{entry: e, l: l, file: file, f: f}
	if err = flock(f, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		err = r.note()
	}
	if err == nil {
		err = os.Rename(name+".tmp", name)
	}
	if err == nil {
		err = dir.Sync()
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return r, nil
}

// note writes what the row's fields say now, durably.
func (r *row) note() error {
	r.At = time.Now()
	b, err := json.Marshal(r.entry)
	if err != nil {
		return err
	}
	b = append(b, '\n') // over a torn line: what is left of one is no line
	if _, err := r.f.WriteAt(b, r.size); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := r.f.Sync(); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	r.size += int64(len(b))
	return nil
}

// drop takes the row away: what it tells of is undone.
func (r *row) drop() error {
	defer r.leave()
	return r.l.locked(func(dir *os.File) error {
		if err := os.Remove(filepath.Join(r.l.dir, r.file)); err != nil {
			return err
		}
		return dir.Sync()
	})
}

// leave lets go of the row: it is like a dead owner's, for Sweep.
func (r *row) leave() { _ = r.f.Close() }

// files are the names of all rows. What was never finished is deleted.
func (l ledger) files() (files []string, err error) {
	if _, err := os.Stat(l.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	err = l.locked(func(dir *os.File) error {
		names, err := dir.Readdirnames(-1)
		for _, name := range names {
			switch filepath.Ext(name) {
			case ".tmp":
				_ = os.Remove(filepath.Join(l.dir, name)) // or the next time
			case ".json":
				files = append(files, name)
			}
		}
		return err
	})
	return files, err
}

// orphan locks a row that no living owner has; one that is owned, or gone, is nil.
func (l ledger) orphan(file string) (r *row, err error) {
	err = l.locked(func(*os.File) error {
		r, err = l.lock(file)
		return err
	})
	if _, held := errors.AsType[*heldError](err); held || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}
