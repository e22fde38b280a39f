package site

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/pelletier/go-toml/v2"

	"github.com/haulback/haulback/cmd/internal/strict"
	"github.com/haulback/haulback/wire"
)

// DefaultPort is where a daemon listens when nothing else is said.
const DefaultPort = "7420"

// Peer is a daemon or command line that is paired with this site.
type Peer struct {
	Name    string
	ID      wire.ID
	Next    wire.ID // the identity that it is about to change to; zero: none
	Address string  // HOST:PORT, or empty for one that only dials us
	Where   string  // the file and line that says so, for messages
}

// Peers is who is paired.
type Peers []Peer

// Named is the peer with that name.
func (p Peers) Named(name string) (Peer, bool) {
	return p.find(func(e Peer) bool { return e.Name == name })
}

// IDs are the identities that e is let in with: two while it changes its key.
func (e Peer) IDs() []wire.ID {
	if e.Next.IsZero() {
		return []wire.ID{e.ID}
	}
	return []wire.ID{e.ID, e.Next}
}

// WithID is the peer with that identity, or about to have it.
func (p Peers) WithID(id wire.ID) (Peer, bool) {
	return p.find(func(e Peer) bool { return slices.Contains(e.IDs(), id) })
}

// Pins are the identities of the peer that has id; id alone when none has.
func (p Peers) Pins(id wire.ID) []wire.ID {
	if e, ok := p.WithID(id); ok {
		return e.IDs()
	}
	return []wire.ID{id}
}

// Allowed implements wire.Peers.
func (p Peers) Allowed(id wire.ID) bool {
	_, ok := p.WithID(id)
	return ok
}

// At are the peers with that address.
func (p Peers) At(address string) Peers {
	var at Peers
	for _, e := range p {
		if e.Address == address {
			at = append(at, e)
		}
	}
	return at
}

// Lives reports whether a peer is known to live at ip. Names are not looked
// up: it is asked for every handshake.
func (p Peers) Lives(ip netip.Addr) bool {
	_, ok := p.find(func(e Peer) bool {
		at, err := netip.ParseAddrPort(e.Address)
		return err == nil && at.Addr().Unmap() == ip
	})
	return ok
}

func (p Peers) find(is func(Peer) bool) (Peer, bool) {
	for _, e := range p {
		if is(e) {
			return e, true
		}
	}
	return Peer{}, false
}

// Add is p with e, or why the two do not go together. The same pairing twice
// is one, with the later address.
func (p Peers) Add(e Peer) (Peers, error) {
	if old, ok := p.Named(e.Name); ok && old.ID == e.ID {
		if e.Address == "" {
			return p, nil
		}
		p = slices.Clone(p)
		p[slices.Index(p, old)].Address = e.Address
		return p, nil
	}
	if old, ok := p.Named(e.Name); ok {
		return p, fmt.Errorf("peer %q: the name is taken%s; choose another or run: haulback peer remove %s", e.Name, old.from(), e.Name)
	}
	for _, id := range e.IDs() {
		old, ok := p.WithID(id)
		if !ok {
			continue
		}
		return p, fmt.Errorf("peer %q: the same ID is paired under the name %q%s; one of the two has to go", e.Name, old.Name, old.from())
	}
	return append(p, e), nil
}

func (e Peer) from() string {
	if e.Where == "" {
		return ""
	}
	return " (" + e.Where + ")"
}

// PeerEntry is a [[peer]] of a configuration or of peers.toml.
type PeerEntry struct {
	Name    string `toml:"name"`
	ID      string `toml:"id"`
	NextID  string `toml:"next_id,omitempty"`
	Address string `toml:"address,omitempty"`
}

// Peer checks the entry, which says what key is wrong with it.
func (e PeerEntry) Peer() (p Peer, key string, err error) {
	if err := CheckName("peer", e.Name); err != nil {
		return p, "name", err
	}
	id, err := wire.ParseID(e.ID)
	if err != nil {
		return p, "id", fmt.Errorf("peer %q: %q is not a peer ID: %s; copy what \"haulback peer id\" prints there", e.Name, e.ID, reason(err))
	}
	p = Peer{Name: e.Name, ID: id}
	if e.NextID != "" {
		if p.Next, err = wire.ParseID(e.NextID); err != nil {
			return p, "next_id", fmt.Errorf("peer %q: %q is not a peer ID: %s; copy what \"haulback peer rotate prepare\" prints there", e.Name, e.NextID, reason(err))
		}
		if p.Next == p.ID {
			return p, "next_id", fmt.Errorf("peer %q: next_id is the ID that it has", e.Name)
		}
	}
	if e.Address != "" {
		if p.Address, err = Address(e.Address); err != nil {
			return p, "address", fmt.Errorf("peer %q: %w", e.Name, err)
		}
	}
	return p, "", nil
}

// reason is what wire.ErrBadID says beyond its own words.
func reason(err error) string {
	return strings.TrimPrefix(err.Error(), wire.ErrBadID.Error()+": ")
}

var goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckName says what is wrong with the name of a peer or an export.
func CheckName(what, name string) error {
	if goodName.MatchString(name) {
		return nil
	}
	return fmt.Errorf("%s name %q: 1 to 63 letters, digits, dots, dashes and underscores, the first one no sign", what, name)
}

// Address is the canonical form of a peer's HOST or HOST:PORT.
func Address(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if ae, ok := errors.AsType[*net.AddrError](err); ok && ae.Err == "missing port in address" {
		host, port, err = strings.Trim(s, "[]"), DefaultPort, nil
	}
	if err != nil {
		return "", fmt.Errorf("address %q: write HOST:PORT, or [IPV6]:PORT", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case host == "" || strings.ContainsAny(host, "/ @"):
		return "", fmt.Errorf("address %q: no host in it; write HOST:PORT", s)
	case err != nil || n == 0:
		return "", fmt.Errorf("address %q: the port is a number from 1 to 65535", s)
	}
	return net.JoinHostPort(strings.ToLower(host), port), nil
}

type peersTOML struct {
	Peer []PeerEntry `toml:"peer"`
}

// Peers reads peers.toml. A site without one has no peers.
func (s *Site) Peers() (Peers, error) {
	text, err := readList(s.PeersFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	var file peersTOML
	places, err := strict.Decode(s.PeersFile(), text, &file)
	if err != nil {
		return nil, err
	}
	return CheckPeers(nil, s.PeersFile(), places, file.Peer)
}

// CheckPeers adds the entries of list to peers and returns every mistake. The same
// entry twice in list is one; list and peers may agree.
func CheckPeers(peers Peers, file string, places strict.Places, list []PeerEntry) (Peers, error) {
	var errs []error
	first := map[string]string{} // where list has the name
	for i, e := range list {
		p, key, err := e.Peer()
		p.Where = places.At(file, fmt.Sprintf("peer[%d].%s", i, "name"))
		switch {
		case err != nil:
		case first[p.Name] != "":
			key, err = "name", fmt.Errorf("peer %q: the name is used twice, first in %s; take one out", p.Name, first[p.Name])
		default:
			key, first[p.Name] = "name", p.Where
			peers, err = peers.Add(p)
		}
		if err != nil {
			errs = append(errs, places.Wrong(file, fmt.Sprintf("peer[%d].%s", i, key), err))
		}
	}
	return peers, errors.Join(errs...)
}

// AddPeer pairs p with this site, durably.
func (s *Site) AddPeer(p Peer) error {
	return s.change(func(peers Peers) (Peers, error) { return peers.Add(p) })
}

// AddNext lets the peer called name in with the identity next as well: it is
// about to change its key.
func (s *Site) AddNext(name string, next wire.ID) error {
	return s.edit(name, func(peers Peers, p *Peer) error {
		if old, ok := peers.WithID(next); ok && old.Name != name {
			return fmt.Errorf("peer %q: the same ID is paired under the name %q%s", name, old.Name, old.from())
		}
		if next == p.ID {
			return fmt.Errorf("peer %q: that is the ID that it has; add the one that \"haulback peer rotate prepare\" prints there", name)
		}
		p.Next = next
		return nil
	})
}

// Promote ends the change of a key: the peer called name is let in with its
// next identity only.
func (s *Site) Promote(name string) error {
	return s.edit(name, func(_ Peers, p *Peer) error {
		if p.Next.IsZero() {
			return fmt.Errorf("peer %q: it has no next ID; run: haulback peer add NEXTID --name %s --next", name, name)
		}
		p.ID, p.Next = p.Next, wire.ID{}
		return nil
	})
}

// edit changes the entry of one peer.
func (s *Site) edit(name string, change func(Peers, *Peer) error) error {
	return s.change(func(peers Peers) (Peers, error) {
		for i := range peers {
			if peers[i].Name == name {
				return peers, change(peers, &peers[i])
			}
		}
		return nil, fmt.Errorf("peer %q: not in %s; see: haulback peer list", name, s.PeersFile())
	})
}

// RemovePeer ends the pairing with the peer called name, and what invites it: who
// was removed cannot join again with a code that he has.
func (s *Site) RemovePeer(name string) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.uninviteLocked(name, time.Now()); err != nil {
		return err
	}
	return s.changeLocked(func(peers Peers) (Peers, error) {
		var kept Peers
		for _, e := range peers {
			if e.Name != name {
				kept = append(kept, e)
			}
		}
		if len(kept) == len(peers) {
			return nil, fmt.Errorf("peer %q: not in %s; see: haulback peer list", name, s.PeersFile())
		}
		return kept, nil
	})
}

// change replaces peers.toml whole: a reader sees the old or the new one.
func (s *Site) change(edit func(Peers) (Peers, error)) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return s.changeLocked(edit)
}

// changeLocked is change for who holds the lock.
func (s *Site) changeLocked(edit func(Peers) (Peers, error)) error {
	peers, err := s.Peers()
	if err != nil {
		return err
	}
	if peers, err = edit(peers); err != nil {
		return err
	}
	var file peersTOML
	for _, p := range peers {
		e := PeerEntry{Name: p.Name, ID: p.ID.String(), Address: p.Address}
		if !p.Next.IsZero() {
			e.NextID = p.Next.String()
		}
		file.Peer = append(file.Peer, e)
	}
	text, err := toml.Marshal(file)
	if err != nil {
		return err
	}
	text = append([]byte("# Written by \"haulback peer\". A running daemon notices when it changes.\n"), text...)
	if err := renameio.WriteFile(s.PeersFile(), text, 0o600); err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	return nil
}
