package vddk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/vddk/worker"
)

// vddkWorkers has the running workers, so that the disks of one VM share one:
// the library allows one process only a single InitEx, and the host a bounded
// number of connections. Like nbdHolds it is state of the process by nature.
var vddkWorkers worker.Pool

// answerMargin is what an answer may take beyond the limits of the worker.
const answerMargin = 30 * time.Second

// VDDK is a disk of a VM on vSphere, reached through VMware's library in a
// worker process.
//
// An error that the worker or the library caused says so. When it is retryable
// and comes again, closing the disk and opening it anew starts another worker.
//
// Opened for writing it is held alone within this process. Across processes and
// machines the host's own lock on the disk holds.
type VDDK struct {
	client   *nbd.Client
	disk     *worker.Disk
	uri      vddkURI
	text     string
	identity string
	readOnly bool
	release  func()

	closing sync.Once
	err     error
}

// openVDDK opens the disk that text names.
func openVDDK(ctx context.Context, text string, opts Options) (Disk, error) {
	u, err := parseVDDKURI(text)
	if err != nil {
		return nil, fmt.Errorf("disk %q: %w", text, err)
	}
	switch {
	case opts.Create:
		return nil, fmt.Errorf("%s: create: %w: disks of a VM are made with the VM", u.name(), ErrKind)
	case opts.Track != "":
		return nil, fmt.Errorf("%s: %q: %w: vddk:// has none; the failback of a VM asks its host for changed blocks", u.name(), opts.Track, ErrTrack)
	case opts.Mode == ReadWrite && u.usesSAN():
		return nil, fmt.Errorf("%s: transport san must not write under a snapshot, and would damage the VM; use nbdssl or hotadd for a target", u.name())
	}
	config, err := u.config()
	if err != nil {
		return nil, &setupError{fmt.Errorf("%s: %w", u.name(), err)}
	}
	config.Log = opts.Log
	d := &VDDK{uri: u, text: text, identity: u.identity(), readOnly: opts.Mode == ReadOnly}
	if d.release, err = nbdHolds.take(d.identity, opts.Mode); err != nil {
		return nil, err
	}
	if err := d.open(ctx, config); err != nil {
		d.release()
		return nil, err
	}
	return d, nil
}

func (d *VDDK) open(ctx context.Context, config worker.Config) error {
	var err error
	d.disk, err = vddkWorkers.Open(ctx, config, d.uri.target(d.readOnly))
	if err != nil {
		return err
	}
	d.client, err = nbd.Open(ctx, nbd.Config{
		URI:      nbd.URI{Network: "unix", Address: d.disk.Socket, Export: d.disk.Export},
		Writable: !d.readOnly,
		// One carries more than the library gives, and the worker's memory is
		// counted by requests, not by connections.
		Connections: 1,
		Timeout:     d.disk.Limit + answerMargin, // the worker's own watchdog comes first, and says why
	})
	if err != nil {
		return errors.Join(d.because(err), d.disk.Close())
	}
	return nil
}

// Size is the capacity in bytes.
func (d *VDDK) Size() int64 { return d.client.Size() }

// Identity names host, VM and disk file: not the snapshot, nor the user.
func (d *VDDK) Identity() string { return d.identity }

// ReadAt reads through the library. See mover.Disk.
func (d *VDDK) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.client.ReadAt(p, off)
	return n, d.because(err)
}

// WriteAt writes through the library. See mover.WritableDisk.
func (d *VDDK) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.client.WriteAt(p, off)
	return n, d.because(err)
}

// Flush makes durable what was written. After an error the disk has to be opened
// anew.
func (d *VDDK) Flush() error { return d.because(d.client.Flush()) }

// Zero makes e read as zeros. With cbt.Deallocate what is a hole, and reads as
// zeros, stays one, but nothing becomes one: the library cannot give space back.
func (d *VDDK) Zero(e cbt.Extent, how cbt.Allocation) error {
	return d.because(d.client.Zero(e, how))
}

// NextData asks the library for allocated blocks, once for each 32 GiB. Where it
// cannot tell, as on NFS, all is data.
func (d *VDDK) NextData(off int64) (cbt.Extent, error) {
	e, err := d.client.NextData(off)
	return e, d.because(err)
}

// ReadCold is ReadAt: what the host remembers cannot be passed.
func (d *VDDK) ReadCold(p []byte, off int64) (int, error) { return d.ReadAt(p, off) }

// Coldness is "server".
func (d *VDDK) Coldness() string { return coldServer }

// Check asks whether the worker lives and answers for the last sector. The size
// of an open disk does not change.
func (d *VDDK) Check() error {
	err := d.client.Alive()
	if err == nil && d.Size() > 0 {
		var last [1]byte
		_, err = d.client.ReadAt(last[:], d.Size()-1)
	}
	if err != nil {
		return d.because(err)
	}
	return nil
}

// Close closes the disk in the worker, and ends the worker when it was the last
// one. It is idempotent.
func (d *VDDK) Close() error {
	d.closing.Do(func() {
		d.err = errors.Join(d.client.Close(), d.disk.Close())
		d.release()
	})
	return d.err
}

// Describe says what was found.
func (d *VDDK) Describe() Description {
	mode := d.disk.Mode
	if mode == "" {
		mode = "unknown"
	}
	return Description{
		Kind: schemeVDDK, Path: d.text, Size: d.Size(), SectorSize: d.client.Offer().MinBlock, Identity: d.identity,
		CanMap: true, Coldness: coldServer, ReadOnly: d.readOnly, Warning: d.warning(), SourceWarning: d.sourceWarning(),
		Transport: fmt.Sprintf("%s, by libvixDiskLib %s", mode, d.disk.Library),
	}
}

func (d *VDDK) warning() string {
	var all []string
	if d.disk.Mode == "nbd" {
		all = append(all, "nbd is not encrypted: anyone on the way may read and change it; use nbdssl")
	}
	return strings.Join(all, "; ")
}

func (d *VDDK) sourceWarning() string {
	if d.uri.snapshot == "" && d.readOnly {
		return "no snapshot: the disk can be read while its VM is off only"
	}
	return ""
}

// vddkError is an error of the connection to the worker, with what is known
// about it: an errno alone says little.
type vddkError struct {
	err   error // what the NBD client says
	cause error // what the worker says
}

// Error begins with the cause: a text that crosses the wire is cut at its end.
// What was asked, and the socket of the worker, mean little to people; the errno
// is there because the cause may be another request's.
func (e *vddkError) Error() string {
	s := e.cause.Error()
	if _, lost := errors.AsType[*nbd.LostError](e.err); lost {
		return s // of the connection to the worker, which is ours
	}
	if errno, ok := errors.AsType[syscall.Errno](e.err); ok && !errors.Is(e.cause, errno) {
		s += fmt.Sprintf(" (%v)", errno)
	}
	return s
}

func (e *vddkError) Unwrap() []error { return []error{e.err, e.cause} }

// Retryable is the class of the connection's error.
func (e *vddkError) Retryable() bool {
	r, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](e.err)
	return ok && r.Retryable()
}

// because adds what the worker knows about this request. Errors of the caller's
// own (bounds, a closed disk, one opened for reading) and io.EOF pass as they
// are: no answer of the worker is behind them.
func (d *VDDK) because(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var cause error
	failed, isFailure := errors.AsType[*nbd.Error](err)
	if _, lost := errors.AsType[*nbd.LostError](err); lost {
		cause = d.disk.Cause()
	} else if isFailure {
		cause = d.failed(failed)
	}
	if cause == nil {
		return err
	}
	return &vddkError{err: err, cause: cause}
}

// failed asks for the cause of the worker's answers, which are errnos.
func (d *VDDK) failed(e *nbd.Error) error {
	switch _, answered := e.Err.(syscall.Errno); {
	case !answered:
		return nil
	case e.Op == "flush":
		return d.disk.FlushFailed()
	}
	return d.disk.Failed(e.Extent)
}

// name is VM and disk, for errors: the whole URI would push the reason out.
func (u *vddkURI) name() string { return u.vm + "/" + u.disk }

// identity has no characters but printable ones, for the file names and lines
// that it is put into.
func (u *vddkURI) identity() string {
	return "vddk:" + url.PathEscape(strings.ToLower(u.host)) + "/" + url.PathEscape(u.vm) + "/" + url.PathEscape(u.disk)
}

var _ Disk = (*VDDK)(nil)
