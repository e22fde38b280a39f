package site

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/wire"
)

// Limits of invitations.
const (
	DefaultInviteLife = 15 * time.Minute
	MaxInviteLife     = time.Hour
	// maxInvitations bounds what a joiner's proof is compared with.
	maxInvitations = 16
	// answerAgain is how long the one who has joined may ask again: the answer
	// may have been lost, and then only this end knows of the pairing.
	answerAgain = time.Minute
)

// invitation is what is kept of a pairing code.
type invitation struct {
	Name    string    `json:"name"` // the peer that joins will be called that
	Key     string    `json:"key"`  // of the code, hexadecimal; a hash
	Expires time.Time `json:"expires"`
	Joined  *wire.ID  `json:"joined,omitempty"` // who has used it
}

// InvitationsFile is where open invitations are kept.
func (s *Site) InvitationsFile() string { return filepath.Join(s.dir, "invitations.json") }

// Invite makes a code that the peer called name may join with, once, for life.
// Address is where this site's daemon is, or empty.
func (s *Site) Invite(name, address string, life time.Duration, now time.Time) (wire.PairCode, error) {
	var code wire.PairCode
	if err := CheckName("peer", name); err != nil {
		return code, err
	}
	if life <= 0 || life > MaxInviteLife {
		return code, fmt.Errorf("an invitation for %v: up to %v may be", life, MaxInviteLife)
	}
	key, err := s.Key()
	if err != nil {
		return code, err
	}
	if code, err = wire.NewPairCode(key.ID(), address); err != nil {
		return code, err
	}
	return code, s.invitations(now, func(list []invitation) ([]invitation, error) {
		if peers, err := s.Peers(); err != nil {
			return nil, err
		} else if p, ok := peers.Named(name); ok {
			return nil, fmt.Errorf("peer %q: the name is taken%s; choose another or run: haulback peer remove %s", name, p.from(), name)
		}
		if len(list) >= maxInvitations {
			return nil, fmt.Errorf("%d invitations are open; wait until they are over, or remove %s", len(list), s.InvitationsFile())
		}
		k := code.Key()
		return append(list, invitation{Name: name, Key: hex.EncodeToString(k[:]), Expires: now.Add(life).UTC()}), nil
	})
}

// errNotInvited is the answer to every proof that opens nothing.
var errNotInvited = wire.Errorf(wire.CodeUnauthorized, "no open invitation has this code: it was used, its time is over, or it has a typing error; run haulback peer invite there again")

// Join pairs a, if it knows the code of an open invitation: durably when it
// returns. Of several who know it the first has it. Record is called with the
// peer before anything changes, and may refuse.
func (s *Site) Join(a *wire.Applicant, now time.Time, record func(Peer) error) (key [sha256.Size]byte, err error) {
	err = s.invitations(now, func(list []invitation) ([]invitation, error) {
		i := slices.IndexFunc(list, func(v invitation) bool {
			k, ok := v.key()
			return ok && a.Knows(k)
		})
		if i < 0 || list[i].Joined != nil && *list[i].Joined != a.ID {
			return nil, errNotInvited
		}
		key, _ = list[i].key()
		p := Peer{Name: list[i].Name, ID: a.ID}
		if a.Address != "" {
			if p.Address, err = Address(a.Address); err != nil {
				return nil, wire.Errorf(wire.CodeFrame, "%w", err)
			}
		}
		peers, err := s.Peers()
		if err == nil {
			_, err = peers.Add(p)
		}
		if err != nil {
			return nil, wire.Errorf(wire.CodeUnauthorized, "the inviter cannot add the peer: %w", err)
		}
		if list[i].Joined == nil {
			if err := record(p); err != nil {
				return nil, wire.Errorf(wire.CodeNoSpace, "the inviter cannot record the pairing, so it does not pair; look at its log: %w", err)
			}
			list[i].Joined, list[i].Expires = &a.ID, earlier(list[i].Expires, now.Add(answerAgain).UTC())
			if err := s.storeInvitations(list); err != nil { // before the pairing: a code opens once
				return nil, wire.Errorf(wire.CodeNoSpace, "the inviter cannot store the pairing: %w", err)
			}
		}
		if err := s.changeLocked(func(peers Peers) (Peers, error) { return peers.Add(p) }); err != nil {
			return nil, wire.Errorf(wire.CodeNoSpace, "the inviter cannot store the pairing: %w", err)
		}
		return list, nil
	})
	return key, err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (v *invitation) key() (key [sha256.Size]byte, ok bool) {
	b, err := hex.DecodeString(v.Key)
	return key, err == nil && copy(key[:], b) == len(key)
}

// InvitedUntil is when the last open invitation is over; zero: none is open. A
// file that cannot be read invites nobody.
func (s *Site) InvitedUntil(now time.Time) (until time.Time, err error) {
	list, err := s.readInvitations(now)
	for _, v := range list {
		if v.Expires.After(until) {
			until = v.Expires
		}
	}
	return until, err
}

// SweepInvitations deletes those that are over. It waits for nobody who changes the
// site: busy then says that it has done nothing.
func (s *Site) SweepInvitations(now time.Time) (busy bool, err error) {
	if _, err := os.Stat(s.InvitationsFile()); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	unlock, err := s.lockHow(unix.LOCK_EX | unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	list, err := s.readInvitations(now)
	if err != nil {
		return false, err
	}
	return false, s.storeInvitations(list)
}

// invitations edits the list under the lock of the site; those that are over
// are gone.
func (s *Site) invitations(now time.Time, edit func([]invitation) ([]invitation, error)) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	list, err := s.readInvitations(now)
	if err != nil {
		return err
	}
	if list, err = edit(list); err != nil {
		return err
	}
	return s.storeInvitations(list)
}

// uninviteLocked deletes the invitations of name, for who holds the lock. A list
// that cannot be read invites nobody.
func (s *Site) uninviteLocked(name string, now time.Time) error {
	list, err := s.readInvitations(now)
	if err != nil || len(list) == 0 {
		return nil
	}
	return s.storeInvitations(slices.DeleteFunc(list, func(v invitation) bool { return v.Name == name }))
}

// readInvitations gives those that are open at now.
func (s *Site) readInvitations(now time.Time) (list []invitation, err error) {
	b, err := readList(s.InvitationsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("invitations: %w; remove %s, and invite again", err, s.InvitationsFile())
	}
	return slices.DeleteFunc(list, func(v invitation) bool {
		return !now.Before(v.Expires) || v.Expires.Sub(now) > MaxInviteLife // a clock that was set back
	}), nil
}

func (s *Site) storeInvitations(list []invitation) error {
	if len(list) == 0 {
		if err := os.Remove(s.InvitationsFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("invitations: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.InvitationsFile(), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("invitations: %w", err)
	}
	return nil
}
