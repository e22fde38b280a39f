package site

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

const (
	keyFile    = "identity.key"
	peersFile  = "peers.toml"
	journalDir = "journal"
	lockFile   = "lock"
	systemDir  = "/var/lib/haulback"
)

// Site is one state directory. The zero value is not usable: see Open.
type Site struct {
	dir string
	key string // the key file
}

// DefaultDir is the state directory when none is named: the system's for root,
// else the user's own.
func DefaultDir() (string, error) {
	if os.Geteuid() == 0 {
		return systemDir, nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "haulback"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no state directory: %w; name one with --state-dir", err)
	}
	return filepath.Join(home, ".local", "state", "haulback"), nil
}

// At is the site with the state directory dir and the key file key; empty
// means the default of each. Nothing is made or opened yet.
func At(dir, key string) (*Site, error) {
	if dir == "" {
		var err error
		if dir, err = DefaultDir(); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if key == "" {
		key = filepath.Join(dir, keyFile)
	}
	return &Site{dir: dir, key: key}, nil
}

// Dir is the state directory.
func (s *Site) Dir() string { return s.dir }

// KeyFile is the file of the private key.
func (s *Site) KeyFile() string { return s.key }

// PeersFile is where "haulback peer add" keeps who is paired.
func (s *Site) PeersFile() string { return filepath.Join(s.dir, peersFile) }

// Make makes the state directory when there is none.
func (s *Site) Make() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w; make it writable for this user or name another with --state-dir", err)
	}
	return nil
}

// Journals opens the directory of the journals.
func (s *Site) Journals() (*mover.StateRoot, error) {
	if err := s.Make(); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, journalDir)
	root, err := mover.DirState(path)
	if err == nil {
		if err = unix.Access(path, unix.W_OK); err == nil {
			return root, nil
		}
		root.Close()
		err = fmt.Errorf("state directory %s: %w", path, err)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		err = fmt.Errorf("%w; make it writable for this user, or name another state directory", err)
	}
	return nil, err
}

// Key loads the private key and makes one at the first use.
func (s *Site) Key() (*wire.Key, error) {
	key, err := wire.LoadKey(s.key)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err = wire.CreateKey(s.key)
	if errors.Is(err, fs.ErrExist) { // another process was faster
		return wire.LoadKey(s.key)
	}
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// CheckKey says what is wrong with the private key. It makes none.
func (s *Site) CheckKey() error {
	_, err := wire.LoadKey(s.key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// lock keeps other processes from changing the site's files until unlock.
func (s *Site) lock() (unlock func(), err error) { return s.lockHow(unix.LOCK_EX) }

// lockHow is lock with another way to take it: LOCK_NB does not wait, the error is
// EWOULDBLOCK then.
func (s *Site) lockHow(how int) (unlock func(), err error) {
	if err := s.Make(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("state directory: lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// maxList bounds peers.toml and the like in bytes: thousands of peers.
const maxList = 1 << 20

// readList reads a file that a running daemon depends on. What stands there in
// its place must not hold it up, as a pipe does, nor fill its memory.
func readList(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err == nil && len(b) > maxList {
		err = fmt.Errorf("%s has more than %d bytes", path, maxList)
	}
	return b, err
}
