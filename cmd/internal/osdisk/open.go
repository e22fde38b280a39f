package osdisk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/vddk"
)

// Open opens the volume that text names. See vddk.Open.
func (d *Disks) Open(ctx context.Context, text string, opts vddk.Options) (vddk.Disk, error) {
	v, err := d.open(ctx, text, opts)
	if err != nil {
		if _, ok := errors.AsType[*vddk.LockedError](err); ok {
			return nil, err // it names the disk
		}
		return nil, &Error{text, err}
	}
	return v, nil
}

func (d *Disks) open(ctx context.Context, text string, opts vddk.Options) (*disk, error) {
	u, err := osd.ParseURI(text)
	if err != nil {
		return nil, err
	}
	switch {
	case opts.Track != "":
		return nil, fmt.Errorf("%q: %w: OpenStorage tells no changed blocks", opts.Track, vddk.ErrTrack)
	case opts.Create:
		return nil, fmt.Errorf("create: %w: make the volume where it lives", vddk.ErrKind)
	case opts.Mode == vddk.ReadWrite && u.Snapshot != "":
		return nil, fmt.Errorf("%w: a snapshot is never written; name the volume alone", vddk.ErrReadOnly)
	}
	c, err := d.take(u.Profile)
	if err != nil {
		return nil, err
	}
	found, err := c.Look(ctx, u.Volume, u.Snapshot)
	if err != nil {
		d.give(c)
		return nil, err
	}
	v := &disk{disks: d, client: c, uri: u, text: text, opts: opts, volume: found, identity: identity(c.Client, found, u)}
	drop, err := d.holds.take(text, v.identity, opts.Mode)
	if err != nil {
		d.give(c)
		return nil, err
	}
	v.free = func() { drop(); d.give(c) }
	v.live(ctx)
	if opts.Mode == vddk.ReadWrite {
		if v.at, v.disk, err = v.attach(ctx); err != nil {
			v.end()
			v.free()
			return nil, err
		}
	}
	return v, nil
}

// identity is the volume's, with the snapshot where there is one.
func identity(c *osd.Client, v osd.Volume, u osd.URI) string {
	if u.Snapshot == "" {
		return c.Identity(v)
	}
	parent := v
	parent.ID = v.Parent
	return c.Identity(parent) + "@" + v.ID
}

// live makes the contexts of calls that no caller's is there for. A disk outlives
// the context that it was opened with: a link ends, and the disk goes on with the
// next. So that one stops the first read only as long as it is not done itself.
func (v *disk) live(opened context.Context) {
	life, end := context.WithCancel(context.WithoutCancel(opened))
	v.end = end
	v.reading = func() (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(life)
		if opened.Err() != nil {
			return ctx, cancel
		}
		stop := context.AfterFunc(opened, cancel)
		return ctx, func() { stop(); cancel() }
	}
	v.closing = func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.WithoutCancel(opened), letGo(v.client.config))
	}
}

// patience is how long a server may be away when a volume is let go.
func patience(c osd.Config) time.Duration {
	if c.Timeout == 0 {
		return 2 * osd.DefaultTimeout
	}
	return 2 * c.Timeout
}

// letGo is what letting go of a volume may take: a look, a detach, and the deletion
// of a clone.
func letGo(c osd.Config) time.Duration {
	if c.Long == 0 {
		return patience(c) + osd.DefaultLong
	}
	return patience(c) + c.Long
}

// attach makes the device and opens it. What was found by its name is named by its
// id from here on.
func (v *disk) attach(ctx context.Context) (*osd.Attachment, vddk.Disk, error) {
	volume, snapshot := v.volume.ID, ""
	if v.uri.Snapshot != "" {
		volume, snapshot = v.volume.Parent, v.volume.ID
	}
	at, err := v.disks.keeper.Open(ctx, v.client.Client, volume, snapshot, v.opts.Mode == vddk.ReadWrite)
	if err != nil {
		return nil, nil, err
	}
	inner, err := v.device(ctx, at)
	if err != nil {
		v.release(at)
		return nil, nil, err
	}
	return at, inner, nil
}

// device opens what was attached. A target is looked at once more when it is held:
// a path may have been given to another volume in between.
func (v *disk) device(ctx context.Context, at *osd.Attachment) (vddk.Disk, error) {
	if at.Size() != v.volume.Size {
		return nil, fmt.Errorf("%w: the volume has %d bytes, its device %s %d", vddk.ErrChanged, v.volume.Size, at.Path(), at.Size())
	}
	inner, err := vddk.OpenAt(ctx, at.Path(), at.FD(), vddk.Options{Mode: v.opts.Mode, Log: v.opts.Log})
	if err != nil {
		return nil, err
	}
	if v.opts.Mode == vddk.ReadWrite {
		err = at.Check(ctx)
	}
	if err == nil && inner.Size() != v.volume.Size {
		err = fmt.Errorf("%w: the volume has %d bytes, its device %s %d", vddk.ErrChanged, v.volume.Size, at.Path(), inner.Size())
	}
	if err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	return inner, nil
}
