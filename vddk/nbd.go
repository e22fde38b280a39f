package vddk

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk/nbd"
)

const (
	schemeNBD = "nbd" // Kind of the description, whatever the URI's scheme is

	// trackBitmap starts an Options.Track that means a dirty bitmap of QEMU.
	trackBitmap  = "bitmap:"
	dirtyBitmaps = "qemu:dirty-bitmap:"
	allocation   = "base:allocation"

	// coldServer: the cache of a server cannot be passed.
	coldServer = "server"
)

// NBD is a disk that an NBD server exports.
//
// The protocol has no lock. An NBD opened for writing is held against others of
// this process and no further: keep other writers away by other means.
type NBD struct {
	*nbd.Client
	path     string // the URI as given
	uri      nbd.URI
	identity string
	bitmap   string // without prefix; empty: no tracking
	readOnly bool
	release  func()
}

// openNBD opens the export that text names.
func openNBD(ctx context.Context, text string, opts Options) (Disk, error) {
	u, err := nbd.ParseURI(text)
	if err != nil {
		return nil, err
	}
	if opts.Create {
		return nil, fmt.Errorf("%s: create: an export is made by its server", text)
	}
	d := &NBD{path: text, uri: u, identity: nbdIdentity(u), readOnly: opts.Mode == ReadOnly}
	if opts.Track != "" {
		name, ok := strings.CutPrefix(opts.Track, trackBitmap)
		if !ok || name == "" {
			return nil, fmt.Errorf("%s: %q: %w: NBD has %sNAME", text, opts.Track, ErrTrack, trackBitmap)
		}
		d.bitmap = name
	}
	if d.release, err = nbdHolds.take(d.identity, opts.Mode); err != nil {
		return nil, err
	}
	config := nbd.Config{URI: u, Writable: opts.Mode == ReadWrite}
	if d.bitmap != "" {
		config.Contexts = []string{dirtyBitmaps + d.bitmap}
	}
	if d.Client, err = nbd.Open(ctx, config); err != nil {
		d.release()
		return nil, nbdRemedy(u, err)
	}
	return d, nil
}

// nbdRemedy adds what helps to an error of an open that the operator can mend.
func nbdRemedy(u nbd.URI, err error) error {
	if remedy := tlsRemedy(err); remedy != "" {
		return fmt.Errorf("%w; %s", err, remedy)
	}
	refusal, refused := errors.AsType[*nbd.OptionError](err)
	_, lost := errors.AsType[*nbd.LostError](err)
	switch {
	case refused && refusal.Option == "STARTTLS":
		return fmt.Errorf("%w; give the server certificates, or name it by nbd:// without TLS", err)
	case refused && refusal.Option == "GO" && !refusal.Retryable() && !strings.Contains(refusal.Text, "nbdinfo"): // ours says so itself
		return fmt.Errorf("%w; `nbdinfo --list` shows the exports that there are", err)
	case lost && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)):
		return fmt.Errorf("%w; no server listens there: start it, or name its socket or port", err)
	case lost && u.TLS && errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%w; a server that verifies its clients may do so: put client-cert.pem and client-key.pem into tls-certificates", err)
	case errors.Is(err, nbd.ErrReadOnly):
		return fmt.Errorf("%w; start the server without its read-only option (qemu-nbd, nbdkit: -r), or do not write to it", err)
	case errors.Is(err, nbd.ErrNoFlush):
		return fmt.Errorf("%w; name another target", err)
	}
	return err
}

// tlsRemedy is what helps when two sides do not trust each other.
func tlsRemedy(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "name the directory with its authority (ca-cert.pem): tls-certificates=DIR"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "name one of these with tls-hostname=NAME, if that is the server you mean"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" { // crypto/tls names an alert so
		return "the server takes no other certificate than one of its authority: put client-cert.pem and client-key.pem into tls-certificates"
	}
	return ""
}

// nbdIdentity names the export and nothing of how it is reached: the address
// (of a unix socket the path without links) and the export name. A server that
// later exports another image under the same name cannot be told from the first,
// and a server with two addresses is two disks; the journal checks the size.
func nbdIdentity(u nbd.URI) string {
	if u.Network == "tcp" {
		address := u.Address
		if host, port, err := net.SplitHostPort(address); err == nil {
			address = net.JoinHostPort(strings.ToLower(host), port)
		}
		return "nbd:" + url.PathEscape(address) + "/" + url.PathEscape(u.Export)
	}
	socket := u.Address
	if real, err := filepath.EvalSymlinks(socket); err == nil {
		socket = real
	}
	return "nbd:unix:" + strings.ReplaceAll(url.PathEscape(filepath.Clean(socket)), "%2F", "/") + ":" + url.PathEscape(u.Export)
}

// Identity is address and export name: see nbdIdentity for its limits.
func (d *NBD) Identity() string { return d.identity }

// ReadCold is ReadAt: what the server remembers cannot be passed.
func (d *NBD) ReadCold(p []byte, off int64) (int, error) { return d.ReadAt(p, off) }

// Coldness is "server".
func (d *NBD) Coldness() string { return coldServer }

// Close frees the hold when the connections are gone.
func (d *NBD) Close() error {
	err := d.Client.Close()
	d.release()
	return err
}

// Check asks the server for the last byte. The size itself was fixed when the
// connection was made: a disk that grew is not noticed, one that shrank is.
func (d *NBD) Check() error {
	if err := d.Alive(); err != nil {
		return err
	}
	if d.Size() == 0 {
		return nil
	}
	var last [1]byte
	if _, err := d.ReadAt(last[:], d.Size()-1); err != nil {
		return fmt.Errorf("the last byte: %w", err)
	}
	return nil
}

// Sector is the least that the server lets one write, in bytes.
func (d *NBD) Sector() int64 { return int64(d.Offer().MinBlock) }

// Describe says what was negotiated.
func (d *NBD) Describe() Description {
	x := d.Offer()
	out := Description{
		Kind: schemeNBD, Path: d.path, Size: x.Size, SectorSize: x.MinBlock, Identity: d.identity,
		CanPunch: !d.readOnly && x.CanZero(), CanMap: d.Context(allocation) == nil, Coldness: coldServer,
		ReadOnly: d.readOnly, Transport: d.transport(), Warning: d.warning(),
	}
	for _, name := range x.Contexts {
		if bitmap, ok := strings.CutPrefix(name, dirtyBitmaps); ok {
			out.Bitmaps = append(out.Bitmaps, trackBitmap+bitmap)
		}
	}
	return out
}

// transport is one line: unix socket, TLS, 4 connections, blocks of 1 to
// 33554432 bytes (preferred 4096): "the server's words".
func (d *NBD) transport() string {
	x := d.Offer()
	how := map[string]string{"tcp": "TCP", "unix": "unix socket"}[d.uri.Network]
	if d.uri.TLS {
		how += ", TLS"
	}
	how += fmt.Sprintf(", %d connection", d.Connections())
	if d.Connections() != 1 {
		how += "s"
	}
	how += fmt.Sprintf(", blocks of %d to %d bytes (preferred %d)", x.MinBlock, x.MaxBlock, x.PrefBlock)
	if x.Description != "" {
		how += fmt.Sprintf(": %q", x.Description)
	}
	return how
}

func (d *NBD) warning() string {
	x := d.Offer()
	var all []string
	if !d.uri.TLS && d.uri.Network == "tcp" {
		all = append(all, "not encrypted: anyone on the way may read and change it")
	}
	if d.uri.SkipVerify {
		all = append(all, "the server's certificate is not verified")
	}
	if !d.readOnly {
		all = append(all, "NBD has no lock: keep other writers away")
		if !x.CanFlush() {
			all = append(all, "no FLUSH: every write is made durable by itself, which is slow")
		}
	}
	if tail := x.Size % x.MinBlock; tail != 0 {
		all = append(all, fmt.Sprintf("the last %d bytes are less than a block of %d: the server may refuse them", tail, x.MinBlock))
	}
	return strings.Join(all, "; ")
}

// Changed reads the dirty bitmap that Options.Track names.
func (d *NBD) Changed(ctx context.Context) (cbt.Hint, error) {
	if d.bitmap == "" {
		return cbt.Hint{}, fmt.Errorf("%s: change tracking: opened without (Track is %sNAME)", d.path, trackBitmap)
	}
	areas, err := d.DirtyBitmap(ctx, d.bitmap)
	if _, missing := errors.AsType[*nbd.ContextError](err); missing {
		return cbt.Hint{}, fmt.Errorf("%s: change tracking: %w: %s", d.path, err, lostEpoch)
	}
	if err != nil {
		return cbt.Hint{}, fmt.Errorf("%s: change tracking: %w", d.path, err)
	}
	return cbt.Hint{
		Provider: "nbd-bitmap", Since: d.bitmap, Size: d.Size(), Areas: areas, Trust: cbt.OverReports,
	}, nil
}

// lostEpoch is what a bitmap that is not offered most likely means.
const lostEpoch = "start the server with it (qemu-nbd -B NAME); if that says \"inconsistent\", a writer was killed and the bitmap has lost " +
	"count: compare the whole disk, and `qemu-img bitmap --remove` and `--add` it for the next time"

var (
	_ Disk    = (*NBD)(nil)
	_ Tracker = (*NBD)(nil)
)
