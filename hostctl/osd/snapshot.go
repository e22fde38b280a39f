package osd

import (
	"context"
	"errors"
	"time"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc"

	"github.com/haulback/haulback/hostctl"
)

// Snapshots are the volume's snapshots with these labels, oldest first. Clones of
// the volume are listed by the servers as well; they have no label of ours.
func (c *Client) Snapshots(ctx context.Context, volume string, labels map[string]string) ([]Volume, error) {
	const method = "SnapshotEnumerateWithFilters"
	if len(labels) == 0 {
		return nil, c.refuse(method, volume, "there are no labels to look for")
	}
	var r *api.SdkVolumeSnapshotEnumerateWithFiltersResponse
	err := c.observe(ctx, op{method: method, thing: volume}, func(ctx context.Context, o ...grpc.CallOption) (err error) {
		r, err = c.volumes.SnapshotEnumerateWithFilters(ctx, &api.SdkVolumeSnapshotEnumerateWithFiltersRequest{VolumeId: volume, Labels: labels}, o...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.inspectAll(ctx, r.GetVolumeSnapshotIds(), func(v *Volume) bool {
		return v.Parent == volume && v.has(labels) && !v.gone
	})
}

// Snapshot makes a snapshot of what has been flushed to the volume, or answers the
// one that is there with these labels. A server makes as many as it is asked for,
// also when it answers too late: so there is a look before and after each call, the
// oldest counts, and later ones with the same labels are deleted.
func (c *Client) Snapshot(ctx context.Context, volume, name string, labels map[string]string) (Volume, error) {
	const method = "SnapshotCreate"
	if !plain(name, maxName) {
		return Volume{}, c.refuse(method, volume, "%q is no name: 1 to %d of %s", cut(name), maxName, nameRule)
	}
	found, err := c.Snapshots(ctx, volume, labels)
	if err != nil {
		return Volume{}, err
	}
	made := ""
	if len(found) == 0 {
		if made, err = c.snapshot(ctx, volume, name, labels); err != nil {
			return Volume{}, err
		}
		if found, err = c.Snapshots(ctx, volume, labels); err != nil {
			return Volume{}, err
		}
	}
	if len(found) == 0 {
		return Volume{}, c.unlabelled(ctx, volume, name, made)
	}
	for _, v := range found[1:] {
		c.log.Warn("second snapshot is deleted", "volume", volume, "snapshot", v.ID, "kept", found[0].ID)
		if err := c.Delete(ctx, v.ID); err != nil {
			return Volume{}, err
		}
	}
	return c.ready(ctx, method, found[0].ID)
}

// snapshot makes the call; the id is empty when only a look has found the snapshot.
func (c *Client) snapshot(ctx context.Context, volume, name string, labels map[string]string) (id string, err error) {
	const method = "SnapshotCreate"
	err = c.change(ctx, op{method: method, thing: volume, long: true}, func(ctx context.Context, o ...grpc.CallOption) error {
		r, err := c.volumes.SnapshotCreate(ctx, &api.SdkVolumeSnapshotCreateRequest{VolumeId: volume, Name: name, Labels: labels}, o...)
		if id = r.GetSnapshotId(); err == nil && id == "" {
			return c.refuse(method, volume, "it says that it is done, and names no snapshot")
		}
		return err
	}, func(ctx context.Context) (bool, error) {
		found, err := c.Snapshots(ctx, volume, labels)
		return len(found) > 0, err
	})
	return id, err
}

// unlabelled takes away a snapshot that has not got its labels: nobody would find
// it again.
func (c *Client) unlabelled(ctx context.Context, volume, name, id string) error {
	const method = "SnapshotCreate"
	if id == "" {
		return c.later(method, volume, "the snapshot was there, and is not any more")
	}
	v, err := c.Inspect(ctx, id)
	if err != nil {
		return err
	}
	if v.Parent != volume || v.Name != name {
		return c.refuse(method, volume, "it names snapshot %s, which is called %q and is made of %q", id, v.Name, v.Parent)
	}
	if err := c.Delete(ctx, id); err != nil {
		return err
	}
	return c.refuse(method, volume, "the server does not keep the labels of a snapshot, by which it is found again; it was deleted")
}

// Restore asks the server to make a volume what it was at the snapshot, and waits
// until it says that it has. That is no proof: servers answer early, and some do
// nothing. Errors: of class Unsupported when it has no such thing, Retryable as long
// as it may still be at it, and then nobody else may write to the volume; every
// other means that it has failed and has ended.
func (c *Client) Restore(ctx context.Context, volume, snapshot string) error {
	const method = "SnapshotRestore"
	v, err := c.Inspect(ctx, volume)
	if err != nil {
		return err
	}
	if v.Restoring { // an earlier call
		return c.restored(ctx, volume)
	}
	s, err := c.Inspect(ctx, snapshot)
	switch {
	case err != nil:
		return err
	case s.Parent != volume:
		return c.refuse(method, volume, "%s is no snapshot of it: its parent is %q", snapshot, s.Parent)
	case s.Size != v.Size:
		return c.refuse(method, volume, "it has %d bytes, and snapshot %s has %d", v.Size, snapshot, s.Size)
	case v.Attached:
		return c.refuse(method, volume, "it is attached; power off what uses it")
	}
	err = c.change(ctx, op{method: method, thing: volume, long: true}, func(ctx context.Context, o ...grpc.CallOption) error {
		_, err := c.volumes.SnapshotRestore(ctx, &api.SdkVolumeSnapshotRestoreRequest{VolumeId: volume, SnapshotId: snapshot}, o...)
		return err
	}, func(ctx context.Context) (bool, error) {
		v, err := c.Inspect(ctx, volume)
		return v.Restoring, err
	})
	if e, ok := errors.AsType[*Error](err); ok && (e.Class == Transient || e.Class == Unknown) {
		// What has been asked for may begin late: nothing tells that it did not.
		e.Class = Unknown
		e.Text += "; the server may still be restoring"
		return e
	}
	if err != nil {
		return err
	}
	return c.restored(ctx, volume)
}

// restored waits until the volume is not being restored, twice: the state follows
// the answer.
func (c *Client) restored(ctx context.Context, volume string) error {
	const method = "SnapshotRestore"
	for calm, end := 0, time.Now().Add(c.cfg.Long); ; {
		v, err := c.Inspect(ctx, volume)
		switch {
		case errors.Is(err, hostctl.ErrNotFound):
			return err
		case err != nil:
			return c.maybe(volume, err)
		case v.Restoring:
			calm = 0
		case v.fault != "":
			return c.refuse(method, volume, "it has failed: %s", v.fault)
		default:
			calm++
		}
		if calm == 2 {
			return nil
		}
		if time.Now().After(end) {
			return c.later(method, volume, "the server is still restoring after %v", c.cfg.Long)
		}
		if err := sleep(ctx, c.wait.poll); err != nil {
			return c.maybe(volume, err)
		}
	}
}

// maybe is the error of one who does not wait for a restore any more.
func (c *Client) maybe(volume string, err error) error {
	e := c.later("SnapshotRestore", volume, "the server may still be restoring: %s", clean(err.Error()))
	if of, ok := errors.AsType[*Error](err); ok {
		e.err = of.err
	} else {
		e.err = err
	}
	return e
}
