package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

// Help says how a disk is named.
const Help = `A disk is named by one of
  PATH                          a raw image file or a block device of this machine
  file:///PATH, block:///PATH   the same, and it has to be that kind
  vmdk:///PATH                  a VMDK with flat extents, by its descriptor
  nbd://HOST[:PORT]/EXPORT      an export of an NBD server; nbds:// with TLS
  nbd+unix:///EXPORT?socket=PATH
                                the same by a unix socket; nbds+unix:// with TLS
  vddk://HOST/MOREF?disk=...    a disk of a vSphere VM, by VMware's library
  osd://PROFILE/VOLUME[?snapshot=ID]
                                a volume of OpenStorage, or a snapshot of it
  haulback://HOST:PORT/EXPORT   an export of a paired daemon; add ?peer=NAME (or
                                ?peer=ID) when no peer, or more than one, has
                                that address`

// Endpoint is a disk as a caller names it.
type Endpoint struct {
	Text string
	Disk vddk.URI // of a disk that this process opens

	Address, Export, Peer string // of an export; Peer is a name, an ID or empty

	open mover.OpenDisk // of a Place of this process
	unit string
}

// Remote says that another daemon opens the disk.
func (e *Endpoint) Remote() bool { return e.Export != "" }

func usage(format string, args ...any) error {
	return &exitcode.UsageError{Err: fmt.Errorf(format, args...)}
}

// ParseEndpoint opens nothing. Its error is a usage error.
func ParseEndpoint(text string) (*Endpoint, error) {
	if !strings.HasPrefix(strings.ToLower(text), "haulback:") {
		u, err := vddk.ParseURI(text)
		if err != nil {
			return nil, &exitcode.UsageError{Err: err}
		}
		return &Endpoint{Text: text, Disk: u}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, usage("%q: %w", text, err)
	}
	e := &Endpoint{Text: text, Export: strings.TrimPrefix(u.Path, "/")}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, usage("%q: %w", text, err)
	}
	for key, values := range query {
		if key != "peer" || len(values) != 1 || values[0] == "" {
			return nil, usage("%q: unknown parameter %q; only one peer=NAME or peer=ID is known", text, key)
		}
		e.Peer = values[0]
	}
	switch {
	case u.Opaque != "" || u.Host == "" || u.User != nil || u.Fragment != "":
		return nil, usage("%q: write haulback://HOST:PORT/EXPORT", text)
	case site.CheckName("export", e.Export) != nil:
		return nil, usage("%q: %w", text, site.CheckName("export", e.Export))
	}
	if e.Address, err = site.Address(u.Host); err != nil {
		return nil, usage("%q: %w", text, err)
	}
	return e, nil
}

// Pin is the peer that has to be at e; a disk of this machine has none.
func (e *Endpoint) Pin(reach Reach) (id wire.ID, err error) {
	if !e.Remote() {
		return id, nil
	}
	self, err := reach.Self()
	if err != nil {
		return id, err
	}
	peers, err := reach.Peers()
	switch {
	case err != nil:
		return id, err
	case e.Peer == "":
		id, err = e.paired(peers)
	default:
		id, err = e.named(peers)
	}
	if err == nil && id == self {
		err = usage("%s: that is this site itself; name the disk by its path, or use another --state-dir", e.Text)
	}
	return id, err
}

// paired is the one peer with e's address.
func (e *Endpoint) paired(peers site.Peers) (wire.ID, error) {
	at := peers.At(e.Address)
	switch len(at) {
	case 1:
		return at[0].ID, nil
	case 0:
		return wire.ID{}, usage("%s: no paired peer has the address %s; run: haulback peer add ID --name NAME --address %s", e.Text, e.Address, e.Address)
	}
	return wire.ID{}, usage("%s: %d peers have the address %s; say which one with ?peer=NAME", e.Text, len(at), e.Address)
}

// named is the peer that the operator named, paired or by its ID.
func (e *Endpoint) named(peers site.Peers) (wire.ID, error) {
	if p, ok := peers.Named(e.Peer); ok {
		return p.ID, nil
	}
	id, err := wire.ParseID(e.Peer)
	if err != nil {
		return id, usage("%s: no peer is called %q, and it is no ID; see: haulback peer list", e.Text, e.Peer)
	}
	return id, nil
}

// At is e as an engine dials it; id has to be there.
func (e *Endpoint) At(reach Reach, transport string, id wire.ID) *mover.Remote {
	return &mover.Remote{Name: e.Text, Export: e.Export, Dial: func(ctx context.Context) (wire.Link, error) {
		return reach.Dial(ctx, transport, e.Address, id)
	}}
}

// Describe opens the disk of this machine for a moment, to read it.
func (e *Endpoint) Describe(ctx context.Context) (vddk.Description, error) {
	if e.open != nil {
		return e.describe(ctx)
	}
	disk, err := vddk.Open(ctx, e.Text, vddk.Options{})
	if err != nil {
		return vddk.Description{}, fmt.Errorf("open %w", err)
	}
	defer disk.Close() // only read
	return disk.Describe(), nil
}

// Missing reports whether nothing is at the path. Whether a disk without one
// is there is known when it is opened.
func (e *Endpoint) Missing() bool {
	if e.Remote() || !e.Disk.Local() {
		return false
	}
	_, err := os.Stat(e.Disk.Path)
	return errors.Is(err, fs.ErrNotExist)
}

// rawWarning says that a new file will not be what its name promises.
func (e *Endpoint) rawWarning() string {
	instead := "for another format serve an image of it by qemu-nbd and name that"
	switch strings.ToLower(filepath.Ext(e.Disk.Path)) {
	case ".vmdk":
		instead = "for a VMDK name it vmdk:///ABSOLUTE/PATH"
		if filepath.IsAbs(e.Disk.Path) {
			instead = "for a VMDK name it vmdk://" + e.Disk.Path
		}
	case ".qcow2", ".qcow", ".vhd", ".vhdx", ".vdi":
	default:
		return ""
	}
	if e.Disk.Scheme == "vmdk" {
		return ""
	}
	return e.Text + ": a raw file is made, whatever its name ends in; " + instead
}
