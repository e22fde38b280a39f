package record

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
)

// Config is what a Keeper needs.
type Config struct {
	Dir        string                                    // is made
	Key        func() (key Signer, id string, err error) // the daemon's key of now, and the site's ID of it
	Controller string
	Program    map[string]string                        // version, revision, go, platform
	Head       func() (seq uint64, hash [32]byte)       // of the audit log; nil: there is none
	Hooks      interface{ Named(step string) []string } // nil: none
	Clock      func() time.Time                         // nil: time.Now
}

// Keeper keeps the records of one daemon. Safe for concurrent use.
type Keeper struct {
	c  Config
	mu sync.Mutex
}

var _ failback.Recorder = (*Keeper)(nil)

// Open makes the directory where there is none.
func Open(c Config) (*Keeper, error) {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return &Keeper{c: c}, nil
}

// path refuses an ID that is no name of a file.
func (k *Keeper) path(id string) (string, error) {
	if len(id) > job.MaxID || store.CheckKey(id) != nil { // a key has neither slashes nor two dots
		return "", fmt.Errorf("record: %q is no ID of a failback", id)
	}
	return filepath.Join(k.c.Dir, id+".json"), nil
}

// Read is the file of a failback; fs.ErrNotExist where there is none.
func (k *Keeper) Read(_ context.Context, id string) ([]byte, error) {
	path, err := k.path(id)
	if err != nil {
		return nil, errors.Join(err, fs.ErrNotExist)
	}
	return os.ReadFile(path)
}

// Write implements failback.Recorder. The same status again changes nothing.
func (k *Keeper) Write(ctx context.Context, s *failback.Status) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	path, err := k.path(s.ID)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r := &Record{Schema: Schema, Version: 1, Written: k.c.Clock().UTC(), Controller: k.c.Controller, Program: k.c.Program, Failback: of(s, k.hooks())}
	same, err := k.after(path, r)
	if err != nil || same {
		return err
	}
	if k.c.Head != nil {
		seq, hash := k.c.Head()
		r.Audit = &Head{Seq: seq, Hash: hex.EncodeToString(hash[:])}
	}
	key, id, err := k.c.Key()
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	r.KeyID = id
	text, err := encode(r, key)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return syncDir(k.c.Dir)
}

func (k *Keeper) hooks() func(step string) []string {
	if k.c.Hooks == nil {
		return nil
	}
	return k.c.Hooks.Named
}

// after makes r the version after the one in path, and reports whether that
// says the same already. A damaged one is put aside: it must not keep a failback
// from its end, and nobody takes it for whole.
func (k *Keeper) after(path string, r *Record) (same bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("record: %w", err)
	}
	sum := sha256.Sum256(text)
	r.Previous = hex.EncodeToString(sum[:])
	former, err := Parse(text)
	if err != nil {
		return false, os.Rename(path, path+".damaged")
	}
	r.Version = former.Version + 1
	return equal(&former.Failback, &r.Failback)
}

// equal compares as they are written.
func equal(a, b *Failback) (bool, error) {
	was, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	is, err := json.Marshal(b)
	return bytes.Equal(was, is), err
}

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
