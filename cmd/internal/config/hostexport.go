package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/haulback/haulback/cmd/internal/hostdisk"
	"github.com/haulback/haulback/wire"
)

// hostRole is the word of mover.RoleHost.
const hostRole = "host"

// host reads what an export of role "host" has in the place of a disk.
func (c *checker) host(at string, t exportTOML) *hostdisk.Table {
	table := &hostdisk.Table{Datastores: t.Datastores, VDDK: t.VDDK, OpenStorage: t.OpenStorage}
	if t.URI != "" {
		c.wrong(at+"uri", fmt.Errorf("export %q: uri names one disk, and a host has many; name its datastores, vddk, or openstorage", t.Name))
		return table
	}
	if err := table.Check(); err != nil {
		key := "datastores"
		switch {
		case t.VDDK != "":
			key = "vddk"
		case t.OpenStorage != "":
			key = "openstorage"
		case t.Datastores == nil:
			key = "role"
		}
		c.wrong(at+key, fmt.Errorf("export %q: %w", t.Name, err))
		return table
	}
	if t.OpenStorage != "" {
		c.profile(at+"openstorage", fmt.Sprintf("export %q", t.Name), t.OpenStorage)
	}
	for name, dir := range t.Datastores {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			c.warn(at+"datastores", "export %q: datastore %s: %s is not there yet; its disks are refused until it is", t.Name, name, dir)
		}
	}
	return table
}

// noHost refuses what only a host has.
func (c *checker) noHost(at string, t exportTOML) {
	if t.Datastores != nil {
		c.wrong(at+"datastores", fmt.Errorf("export %q: datastores are those of role \"host\", and this is %q", t.Name, t.Role))
	}
	if t.VDDK != "" {
		c.wrong(at+"vddk", fmt.Errorf("export %q: vddk goes with role \"host\", and this is %q; name one disk with uri = \"vddk://...\"", t.Name, t.Role))
	}
	if t.OpenStorage != "" {
		c.wrong(at+"openstorage", fmt.Errorf("export %q: openstorage goes with role \"host\", and this is %q; name one volume with uri = \"osd://%s/VOLUME\"", t.Name, t.Role, t.OpenStorage))
	}
}

// whoOfHost: the disks of a host always want a ticket. Who signs them may also
// look and give orders; nobody else may.
func (c *checker) whoOfHost(at string, e *Export) {
	t := e.names
	e.Tickets = true
	if len(t.Operators) > 0 {
		c.wrong(at+"operators", fmt.Errorf("export %q: a host's disks are pushed by order of its controllers; leave operators out", t.Name))
	}
	if len(t.Peers) > 0 && len(t.Controllers) == 0 {
		c.wrong(at+"peers", fmt.Errorf("export %q: peers need a controller's ticket for a host's disks; name the peers whose tickets count under controllers", t.Name))
	}
	e.Operators = slices.Clone(e.Controllers)
	e.Peers = union(e.Peers, e.Controllers)
}

func union(a, b []wire.ID) []wire.ID {
	out := slices.Clone(a)
	for _, id := range b {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}
