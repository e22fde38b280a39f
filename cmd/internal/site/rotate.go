package site

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/wire"
)

// A key is changed in steps, each of them one rename or link, so that a crash
// between two leaves a site with a whole key that its peers let in:
//
//	prepare   identity.key.next is made; peers add its ID beside the old one
//	switch    identity.key.old becomes a second name of identity.key, then
//	          identity.key.next takes the name identity.key
//	promote   at each peer: the old ID is let in no more
const (
	nextSuffix = ".next"
	oldSuffix  = ".old"
	// pastSuffix is of the list of all keys that the site has had, one public key
	// a line: what they have signed in its record stays signed.
	pastSuffix = ".past"
)

// PrepareKey is the key that this site is about to change to, made when there
// is none.
func (s *Site) PrepareKey() (*wire.Key, error) {
	if _, err := s.Key(); err != nil {
		return nil, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err := wire.LoadKey(s.key + nextSuffix)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	made := s.key + nextSuffix + ".new" // one that a crash has left half written is nobody's yet
	if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if key, err = wire.CreateKey(made); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, s.rename(made, s.key+nextSuffix)
}

// SwitchKey makes the prepared key the site's.
func (s *Site) SwitchKey() (*wire.Key, error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err := wire.LoadKey(s.key + nextSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("no key was prepared; run: haulback peer rotate prepare")
	}
	if err != nil {
		return nil, err
	}
	if err := s.rememberKey(); err != nil {
		return nil, err
	}
	kept := s.key + oldSuffix + ".new"
	if err := os.Remove(kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.Link(s.key, kept); err != nil {
		return nil, fmt.Errorf("keep the old key: %w", err)
	}
	// If a crash came here before, old is this very file, and rename of two names
	// of one file does nothing.
	if err := os.Remove(s.key + oldSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := s.rename(kept, s.key+oldSuffix); err != nil {
		return nil, err
	}
	return key, s.rename(s.key+nextSuffix, s.key)
}

// rememberKey adds the key that the site has to those that it has had.
func (s *Site) rememberKey() error {
	key, err := wire.LoadKey(s.key)
	if err != nil {
		return err
	}
	past, err := os.ReadFile(s.key + pastSuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keys of before: %w", err)
	}
	line := hex.EncodeToString(key.Public())
	if slices.Contains(strings.Fields(string(past)), line) {
		return nil // a crash came after this
	}
	if err := renameio.WriteFile(s.key+pastSuffix, append(past, line+"\n"...), 0o600); err != nil {
		return fmt.Errorf("keys of before: %w", err)
	}
	return nil
}

// rename is durable when it returns.
func (s *Site) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// AuditDir is where the record of who was let in is.
func (s *Site) AuditDir() string { return filepath.Join(s.dir, "audit") }

// Audit opens the record of who was let in. Processes take turns in it.
func (s *Site) Audit() (*audit.Log, error) {
	if err := s.Make(); err != nil {
		return nil, err
	}
	key, err := s.Key()
	if err != nil {
		return nil, err
	}
	return audit.Open(s.AuditDir(), key)
}

// Signs reports whether public is a key of this site: the one that it has, the
// next, or one that it has had.
func (s *Site) Signs(public ed25519.PublicKey) bool {
	for _, path := range []string{s.key, s.key + nextSuffix, s.key + oldSuffix} {
		if key, err := loadKey(path); err == nil && key.Public().Equal(public) {
			return true
		}
	}
	past, err := os.ReadFile(s.key + pastSuffix)
	return err == nil && slices.Contains(strings.Fields(string(past)), hex.EncodeToString(public))
}
