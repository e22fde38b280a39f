package mover

import (
	"context"
	"slices"
	"strings"

	"github.com/haulback/haulback/wire"
)

// Leaf is a disk that is found beneath an export of RoleHost.
type Leaf struct {
	Unit   string // the disk's one name: sessions with equal ones exclude each other
	Kind   string // for probes
	Frozen bool   // it is of a snapshot: it is never written
	Open   OpenDisk
}

// Beneath finds the disk that rest, what follows the export's name and a slash,
// means. It opens nothing, and it takes rest for what it is: a stranger's text.
// Its error is told to a peer that the export lists.
type Beneath func(rest string) (Leaf, error)

// key is what sessions of the export's disk hold.
func (exp *Export) key() string {
	if exp.unit != "" {
		return exp.unit
	}
	return exp.Name
}

// find is the export that h names, if peer may know of it. Whether a host has a
// disk is for who shows a ticket for it.
func (s *Server) find(peer, shower wire.ID, h *wire.Hello) (*Export, error) {
	none := wire.Errorf(wire.CodeExport, "no export %q for this peer: name it in the daemon's configuration and list the peer there", h.Export)
	all := *s.exports.Load()
	exp := all[h.Export]
	name, rest, beneath := strings.Cut(h.Export, "/")
	if exp == nil && beneath {
		exp = all[name]
	}
	switch {
	case exp != nil && !beneath && exp.Role == RoleHost && h.Op == wire.OpProbe && exp.controls(peer):
		return exp, nil
	case exp == nil, beneath != (exp.Role == RoleHost), !exp.lets(peer):
		return nil, none
	case !beneath:
		return exp, nil
	case h.Op == wire.OpProbe && !exp.controls(peer):
		return nil, none
	case exp.Beneath == nil || exp.Tickets == nil:
		return nil, wire.Errorf(wire.CodeInternal, "export %q has no disks or no controllers", exp.Name)
	case h.Op == wire.OpProbe:
		return exp.leaf(h, rest)
	}
	if _, err := exp.Tickets.open(shower, h); err != nil {
		return nil, err
	}
	return exp.leaf(h, rest)
}

// lets reports whether peer is listed.
func (exp *Export) lets(peer wire.ID) bool {
	return slices.Contains(exp.Peers, peer) || slices.Contains(exp.Operators, peer) || exp.controls(peer)
}

// controls reports whether peer signs the tickets of an export of RoleHost: only
// then it may look at any of its disks.
func (exp *Export) controls(peer wire.ID) bool {
	return exp.Role == RoleHost && exp.Tickets != nil && slices.Contains(exp.Tickets.Controllers, peer)
}

// leaf is the export of one disk of a host, for what h wants with it.
func (exp *Export) leaf(h *wire.Hello, rest string) (*Export, error) {
	disk, err := exp.Beneath(rest)
	if err != nil {
		return nil, wire.Errorf(wire.CodeExport, "export %q: %w", exp.Name, err)
	}
	one := *exp
	one.Name, one.unit, one.Kind, one.Open, one.whole = h.Export, exp.Name+"/"+disk.Unit, disk.Kind, disk.Open, disk.Frozen
	one.Role, one.Beneath = RoleSource, nil
	switch {
	case h.Op == wire.OpPush && h.Mode == wire.ModeCopy && disk.Frozen:
		return nil, wire.Errorf(wire.CodeRole, "%q is a snapshot's disk and will not be overwritten", h.Export)
	case h.Op == wire.OpPush, h.Op == wire.OpProbe && !disk.Frozen:
		one.Role = RoleTarget
	}
	if disk.Frozen {
		one.Open = ReadOnlyDisk(disk.Open, h.Export)
	}
	return &one, nil
}

// ReadOnlyDisk opens a frozen disk for reading, whatever is asked for.
func ReadOnlyDisk(open OpenDisk, name string) OpenDisk {
	return func(ctx context.Context, access Access) (Disk, error) {
		if access != ReadOnly {
			return nil, wire.Errorf(wire.CodeRole, "%q is a snapshot's disk and is not opened for writing", name)
		}
		return open(ctx, access)
	}
}

// ownLink is the end of a link within this daemon, of an order whose target is an
// export of its own. Its peer is who gave the order, and has the rights.
type ownLink struct{ wire.Link }

// within makes links to this very server in the name of peer.
func (s *Server) within(peer wire.ID) func(context.Context) (wire.Link, error) {
	return func(ctx context.Context) (wire.Link, error) {
		a, b := wire.Pipe(peer, s.Self)
		s.start(context.WithoutCancel(ctx), &ownLink{b})
		return a, nil
	}
}
