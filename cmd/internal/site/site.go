package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/strict"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

const (
	keyFile    = "identity.key"
	peersFile  = "peers.toml"
	journalDir = "journal"
	lockFile   = "lock"
	systemDir  = "/var/lib/haulback"
	services   = "/var/lib" // state directories of services are below it
)

// Site is one state directory. The zero value is not usable: see Open.
type Site struct {
	dir string
	key string // the key file
}

// DefaultDir is the state directory when none is named: the one that a service
// manager has made for this process, the system's for root, else the user's own.
func DefaultDir() (string, error) {
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return systemDir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no state directory: %w; name one with --state-dir", err)
	}
	return ownDir(home), nil
}

// ownDir is the state directory of a user. The home of the user of a service is
// that of the service (sysusers.d): whoever acts as that user, outside the service
// and without its environment, means the daemon's own keys and peers.
func ownDir(home string) string {
	home = filepath.Clean(home)
	if Service(home) {
		return home
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "haulback")
	}
	return filepath.Join(home, ".local", "state", "haulback")
}

// Service reports whether dir is where services of haulback keep their state.
func Service(dir string) bool {
	return filepath.Dir(dir) == services && strings.HasPrefix(filepath.Base(dir), "haulback")
}

// At is the site with the state directory dir and the key file key; empty
// means the default of each. A key without a directory is a credential. Nothing is made or opened yet.
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

// Make makes the state directory when there is none. One of another user is
// refused, also to root, who may do anything: what root makes there the daemon
// whose it is could not read.
func (s *Site) Make() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w; make it writable for this user or name another with --state-dir", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); err != nil {
		return fmt.Errorf("state directory %s: %w", s.dir, err)
	}
	if err := s.CheckDir(); err != nil {
		return err
	}
	return owned(s.dir, st.Uid, os.Geteuid())
}

// CheckDir says what is wrong with the mode of the state directory, if it is there.
func (s *Site) CheckDir() error {
	var st unix.Stat_t
	if unix.Stat(s.dir, &st) == nil && st.Mode&unix.S_IWOTH != 0 {
		return openDir(s.dir)
	}
	return nil
}

// openDir is a state directory that everybody may write.
type openDir string

// Error says what mends it.
func (d openDir) Error() string {
	return fmt.Sprintf("state directory %s: everybody may write it, and put another key or another peer there; run: chmod 700 %[1]s", string(d))
}

// Usage makes it a mistake of the operator.
func (openDir) Usage() bool { return true }

// UserName is the name of a user, or the number where there is none.
func UserName(uid int) string {
	name := strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return name
}

// nobody is who owns what no user of a container does.
const nobody = 65534

// contained reports whether this process sees only a part of the users there are.
var contained = sync.OnceValue(func() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(text)), []string{"0", "0", "4294967295"})
})

func owned(dir string, uid uint32, euid int) error {
	if int(uid) == euid || uid == nobody && contained() {
		return nil
	}
	name := UserName(int(uid))
	return fmt.Errorf("state directory %s: it belongs to user %s, who could not read what this user makes there; run: runuser -u %s -- haulback ..., or name another directory with --state-dir", dir, name, name)
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

// CredentialsEnv names the directory of the credentials that systemd has loaded
// for this process.
const CredentialsEnv = "CREDENTIALS_DIRECTORY"

// IsCredential reports whether path is one of them. Its mode says nothing: systemd
// lets the user of the service in by a list, which shows as a group that may read.
func IsCredential(path string) bool {
	dir := os.Getenv(CredentialsEnv)
	return filepath.IsAbs(dir) && filepath.Dir(path) == filepath.Clean(dir)
}

// loadKey is wire.LoadKey that takes a credential as well.
func loadKey(path string) (*wire.Key, error) {
	if filepath.IsAbs(path) && !IsCredential(path) {
		return wire.LoadKey(path)
	}
	var text []byte
	err := fs.ErrNotExist // of a name, where there are no credentials
	if filepath.IsAbs(path) {
		text, err = readList(path)
	}
	if errors.Is(err, fs.ErrNotExist) { // and nobody may make one there
		return nil, fmt.Errorf("key_file: systemd has loaded no credential %q; put the key into /etc/credstore/%[1]s, or add LoadCredential=%[1]s:/PATH to the unit", filepath.Base(path))
	}
	if err != nil {
		return nil, err
	}
	key, err := wire.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("key_file, the credential %q: %w", filepath.Base(path), err)
	}
	return key, nil
}

// Key loads the private key and makes one at the first use.
func (s *Site) Key() (*wire.Key, error) {
	key, err := loadKey(s.key)
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
	if !filepath.IsAbs(s.key) {
		return nil // a credential, and this is no service: a warning of the configuration
	}
	_, err := loadKey(s.key)
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

// readList is strict.Read of one of them.
func readList(path string) ([]byte, error) {
	b, err := strict.Read(path, maxList, 0)
	switch {
	case errors.Is(err, strict.ErrNotFile):
		err = fmt.Errorf("%s is not a file", path)
	case errors.Is(err, strict.ErrTooLong):
		err = fmt.Errorf("%s has more than %d bytes", path, maxList)
	}
	return b, err
}
