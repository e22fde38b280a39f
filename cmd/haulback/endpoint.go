package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

const endpointHelp = `A disk is named by one of
  PATH                          a raw image file or a block device of this machine
  file:///PATH, block:///PATH   the same, and it has to be that kind
  vmdk:///PATH                  a VMDK with flat extents, by its descriptor
  nbd://HOST[:PORT]/EXPORT      an export of an NBD server; nbds:// with TLS
  nbd+unix:///EXPORT?socket=PATH
                                the same by a unix socket; nbds+unix:// with TLS
  vddk://HOST/MOREF?disk=...    a disk of a vSphere VM, by VMware's library
  haulback://HOST:PORT/EXPORT   an export of a paired daemon; add ?peer=NAME (or
                                ?peer=ID) when no peer, or more than one, has
                                that address`

// endpoint is a disk as named on the command line.
type endpoint struct {
	text string
	disk vddk.URI // of a disk that this process opens

	address, export, peer string // of an export; peer is a name, an ID or empty
}

// remote says that another daemon opens the disk.
func (e *endpoint) remote() bool { return e.export != "" }

func usage(format string, args ...any) error {
	return &exitcode.UsageError{Err: fmt.Errorf(format, args...)}
}

// parseEndpoint opens nothing.
func parseEndpoint(text string) (*endpoint, error) {
	if !strings.HasPrefix(strings.ToLower(text), "haulback:") {
		u, err := vddk.ParseURI(text)
		if err != nil {
			return nil, &exitcode.UsageError{Err: err}
		}
		return &endpoint{text: text, disk: u}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, usage("%q: %w", text, err)
	}
	e := &endpoint{text: text, export: strings.TrimPrefix(u.Path, "/")}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, usage("%q: %w", text, err)
	}
	for key, values := range query {
		if key != "peer" || len(values) != 1 || values[0] == "" {
			return nil, usage("%q: unknown parameter %q; only one peer=NAME or peer=ID is known", text, key)
		}
		e.peer = values[0]
	}
	switch {
	case u.Opaque != "" || u.Host == "" || u.User != nil || u.Fragment != "":
		return nil, usage("%q: write haulback://HOST:PORT/EXPORT", text)
	case site.CheckName("export", e.export) != nil:
		return nil, usage("%q: %w", text, site.CheckName("export", e.export))
	}
	if e.address, err = site.Address(u.Host); err != nil {
		return nil, usage("%q: %w", text, err)
	}
	return e, nil
}

// pinned is the peer that has to be at e; a disk of this machine has none.
func (e *endpoint) pinned(peers site.Peers, self wire.ID) (id wire.ID, err error) {
	switch {
	case !e.remote():
		return id, nil
	case e.peer == "":
		id, err = e.paired(peers)
	default:
		id, err = e.named(peers)
	}
	if err == nil && id == self {
		err = usage("%s: that is this site itself; name the disk by its path, or use another --state-dir", e.text)
	}
	return id, err
}

// paired is the one peer with e's address.
func (e *endpoint) paired(peers site.Peers) (wire.ID, error) {
	at := peers.At(e.address)
	switch len(at) {
	case 1:
		return at[0].ID, nil
	case 0:
		return wire.ID{}, usage("%s: no paired peer has the address %s; run: haulback peer add ID --name NAME --address %s", e.text, e.address, e.address)
	}
	return wire.ID{}, usage("%s: %d peers have the address %s; say which one with ?peer=NAME", e.text, len(at), e.address)
}

// named is the peer that the operator named, paired or by its ID.
func (e *endpoint) named(peers site.Peers) (wire.ID, error) {
	if p, ok := peers.Named(e.peer); ok {
		return p.ID, nil
	}
	id, err := wire.ParseID(e.peer)
	if err != nil {
		return id, usage("%s: no peer is called %q, and it is no ID; see: haulback peer list", e.text, e.peer)
	}
	return id, nil
}

// access dials e as the operator wants it.
func (e *endpoint) access(key *wire.Key, id wire.ID, transport string) *mover.Remote {
	return &mover.Remote{Name: e.text, Export: e.export, Dial: func(ctx context.Context) (wire.Link, error) {
		return site.Dial(ctx, transport, e.address, key, id)
	}}
}

// describe opens the disk of this machine for a moment, to read it.
func (e *endpoint) describe(ctx context.Context) (vddk.Description, error) {
	disk, err := vddk.Open(ctx, e.text, vddk.Options{})
	if err != nil {
		return vddk.Description{}, fmt.Errorf("open %w", err)
	}
	defer disk.Close() // only read
	return disk.Describe(), nil
}

// missing reports whether nothing is at the path. Whether a disk without one
// is there is known when it is opened.
func (e *endpoint) missing() bool {
	if e.remote() || !e.disk.Local() {
		return false
	}
	_, err := os.Stat(e.disk.Path)
	return errors.Is(err, fs.ErrNotExist)
}

// rawWarning says that a new file will not be what its name promises.
func (e *endpoint) rawWarning() string {
	instead := "for another format serve an image of it by qemu-nbd and name that"
	switch strings.ToLower(filepath.Ext(e.disk.Path)) {
	case ".vmdk":
		instead = "for a VMDK name it vmdk:///ABSOLUTE/PATH"
		if filepath.IsAbs(e.disk.Path) {
			instead = "for a VMDK name it vmdk://" + e.disk.Path
		}
	case ".qcow2", ".qcow", ".vhd", ".vhdx", ".vdi":
	default:
		return ""
	}
	if e.disk.Scheme == "vmdk" {
		return ""
	}
	return e.text + ": a raw file is made, whatever its name ends in; " + instead
}

// sameDisk looks through links, device nodes and loop devices. A VMDK and its
// extents, and two ways to one server are told apart when the target is opened.
func sameDisk(a, b *endpoint) bool {
	switch {
	case a.remote() || b.remote():
		return a.remote() && b.remote() && a.address == b.address && a.export == b.export
	case a.disk == b.disk:
		return true
	case !a.disk.Local() || !b.disk.Local():
		return false
	}
	return sameInode(a.disk.Path, b.disk.Path) || backs(a.disk.Path, b.disk.Path) || backs(b.disk.Path, a.disk.Path)
}

// backs reports whether disk is the file behind the loop device, or behind the
// one that loop is a partition of. Whoever copies between the two reads what it
// writes, and calls it equal.
func backs(disk, loop string) bool {
	st, err := os.Stat(loop)
	if err != nil || st.Mode()&fs.ModeType != fs.ModeDevice {
		return false
	}
	rdev := st.Sys().(*syscall.Stat_t).Rdev
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(rdev), unix.Minor(rdev))
	for _, of := range []string{"/loop", "/../loop"} {
		file, err := os.ReadFile(dir + of + "/backing_file")
		if path := strings.TrimSuffix(string(file), "\n"); err == nil && (sameInode(disk, path) || backs(disk, path)) {
			return true
		}
	}
	return false
}

func sameInode(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	if err1 != nil || err2 != nil {
		return false
	}
	if os.SameFile(x, y) {
		return true
	}
	const device = fs.ModeDevice
	xs, ok1 := x.Sys().(*syscall.Stat_t)
	ys, ok2 := y.Sys().(*syscall.Stat_t)
	return ok1 && ok2 && x.Mode()&device != 0 && x.Mode()&device == y.Mode()&device && xs.Rdev == ys.Rdev
}
