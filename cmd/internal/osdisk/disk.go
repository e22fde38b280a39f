package osdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/vddk"
)

// disk is a volume, or a snapshot of one. It implements vddk.Disk.
type disk struct {
	disks    *Disks
	client   *client
	uri      osd.URI
	text     string
	opts     vddk.Options
	volume   osd.Volume // as it was looked at
	identity string
	end      context.CancelFunc                           // of a first read under way
	reading  func() (context.Context, context.CancelFunc) // for a first read
	closing  func() (context.Context, context.CancelFunc) // for what has to be done, whoever has gone
	free     func()                                       // ends the hold, and the use of the client

	mu     sync.Mutex // guards what follows; held while a volume is attached
	at     *osd.Attachment
	disk   vddk.Disk // nil: not attached
	err    error     // why it cannot be
	said   string    // what Coldness has answered before it was attached
	ended  bool      // the server was asked after the last write
	closed bool
}

// beneath is the device, attached at the first use.
func (v *disk) beneath() (vddk.Disk, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		return nil, fs.ErrClosed
	case v.disk != nil || v.err != nil:
		return v.disk, v.err
	}
	ctx, cancel := v.reading()
	defer cancel()
	at, inner, err := v.attach(ctx)
	if err == nil && v.said != "" {
		if is := inner.Coldness(); is != v.said {
			v.disks.warm.Store(true)
			err = fmt.Errorf("its device %s is read %s and not %s, as was taken for granted; from now on it is asked before: try again", at.Path(), is, v.said)
			err = errors.Join(err, inner.Close())
			v.release(at)
		}
	}
	if err != nil {
		if ctx.Err() == nil { // else the next one may have more time
			v.err = err
		}
		return nil, err
	}
	v.at, v.disk = at, inner
	return inner, nil
}

// named puts the URI in front of an error. io.EOF is none.
func (v *disk) named(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &Error{v.text, err}
}

// Size is that of the volume's specification; its device has the same.
func (v *disk) Size() int64 { return v.volume.Size }

// Identity names driver and volume, and the snapshot: not the device.
func (v *disk) Identity() string { return v.identity }

// ReadAt implements mover.Disk.
func (v *disk) ReadAt(p []byte, off int64) (int, error) {
	d, err := v.beneath()
	if err != nil {
		return 0, v.named(err)
	}
	n, err := d.ReadAt(p, off)
	return n, v.named(err)
}

// ReadCold implements mover.ColdReader.
func (v *disk) ReadCold(p []byte, off int64) (int, error) {
	d, err := v.beneath()
	if err != nil {
		return 0, v.named(err)
	}
	n, err := d.ReadCold(p, off)
	return n, v.named(err)
}

// Coldness is that of the device. Block devices are read past the page cache, so
// who only asks, as a probe does, has nothing attached; the first read looks
// whether it is so.
func (v *disk) Coldness() string {
	const direct = "direct"
	v.mu.Lock()
	if v.disk == nil && !v.client.config.Files && !v.disks.warm.Load() {
		v.said = direct
		v.mu.Unlock()
		return direct
	}
	v.mu.Unlock()
	d, err := v.beneath()
	if err != nil {
		return "cached" // the next read says why
	}
	return d.Coldness()
}

// NextData implements mover.Mapper.
func (v *disk) NextData(off int64) (cbt.Extent, error) {
	d, err := v.beneath()
	if err != nil {
		return cbt.Extent{}, v.named(err)
	}
	e, err := d.NextData(off)
	return e, v.named(err)
}

// writable is the device of a disk that may be written.
func (v *disk) writable() (vddk.Disk, error) {
	if v.opts.Mode != vddk.ReadWrite {
		return nil, vddk.ErrReadOnly
	}
	v.mu.Lock()
	v.ended = false
	v.mu.Unlock()
	return v.beneath()
}

// WriteAt implements mover.WritableDisk.
func (v *disk) WriteAt(p []byte, off int64) (int, error) {
	d, err := v.writable()
	if err != nil {
		return 0, v.named(err)
	}
	n, err := d.WriteAt(p, off)
	return n, v.named(err)
}

// Zero implements mover.Zeroer.
func (v *disk) Zero(e cbt.Extent, how cbt.Allocation) error {
	d, err := v.writable()
	if err != nil {
		return v.named(err)
	}
	return v.named(d.Zero(e, how))
}

// Flush implements mover.WritableDisk.
func (v *disk) Flush() error {
	d, err := v.writable()
	if err != nil {
		return v.named(err)
	}
	return v.named(d.Flush())
}

// Check looks at the device. The server is not asked: it may be away while the
// device works, and End asks it about what was written.
func (v *disk) Check() error {
	v.mu.Lock()
	d, closed := v.disk, v.closed
	v.mu.Unlock()
	switch {
	case closed:
		return v.named(fs.ErrClosed)
	case d == nil:
		return nil
	}
	return v.named(d.Check())
}

// End implements mover.Ender: the server has to say that it was the volume all the
// time.
func (v *disk) End() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		return v.named(fs.ErrClosed)
	case v.disk == nil || v.opts.Mode != vddk.ReadWrite:
		return nil
	}
	ctx, cancel := v.closing()
	defer cancel()
	err := v.still(ctx)
	v.ended = err == nil
	return v.named(err)
}

// Describe says what is known without attaching the volume, and what its device
// adds where it is attached by this disk.
func (v *disk) Describe() vddk.Description {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := vddk.Description{
		Kind: osd.Scheme, Path: v.text, Size: v.volume.Size, Identity: v.identity, ReadOnly: v.opts.Mode == vddk.ReadOnly, Detail: v.detail(),
	}
	if v.volume.Attached && v.uri.Snapshot == "" {
		d.SourceWarning = "the volume is attached: what is written to it meanwhile makes a copy of no single point in time; name a snapshot of it with ?snapshot=ID"
	}
	if v.disk != nil {
		is := v.disk.Describe()
		d.SectorSize, d.CanPunch, d.CanMap, d.Coldness, d.Warning, d.Transport = is.SectorSize, is.CanPunch, is.CanMap, is.Coldness, is.Warning, is.Path
	}
	return d
}

func (v *disk) detail() string {
	what := "volume"
	if v.volume.Parent != "" {
		what = "snapshot or clone of " + v.volume.Parent + ":"
	}
	where := "not attached"
	switch {
	case v.volume.Attached && v.volume.AttachedOn != "":
		where = "attached to node " + v.volume.AttachedOn
	case v.volume.Attached:
		where = "attached"
	}
	return fmt.Sprintf("%s %s, id %s, %s", what, v.volume.Name, v.volume.ID, where)
}

// Close lets go of the volume. Of a disk that was written all is flushed, and the
// server has to say that it was the volume all the time, if it has not.
func (v *disk) Close() error {
	v.end()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	defer v.free()
	if v.disk == nil {
		return nil
	}
	ctx, cancel := v.closing()
	defer cancel()
	var errs []error
	if v.opts.Mode == vddk.ReadWrite {
		errs = append(errs, v.disk.Flush())
		if !v.ended {
			errs = append(errs, v.still(ctx))
		}
	}
	errs = append(errs, v.disk.Close())
	v.release(v.at)
	return v.named(errors.Join(errs...))
}

// still asks the server whether the volume is where it was written. One that is
// away for a moment costs no pass.
func (v *disk) still(ctx context.Context) error {
	for end := time.Now().Add(patience(v.client.config)); ; {
		err := v.at.Check(ctx)
		e, ok := errors.AsType[*osd.Error](err)
		if !ok || !e.Retryable() || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(time.Second): // a moment for a server that starts
		case <-ctx.Done():
			return err
		}
	}
}

// release gives the volume back. What is on it is safe by then: that the server
// does not let go of it now is for the next sweep, and fails nobody's pass.
func (v *disk) release(at *osd.Attachment) {
	ctx, cancel := v.closing()
	defer cancel()
	if err := at.Release(ctx); err != nil {
		v.disks.log.Warn("openstorage: left for the sweeper", "disk", v.text, "err", err)
	}
}
