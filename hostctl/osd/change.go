package osd

import (
	"context"
	"errors"
	"time"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc"

	"github.com/haulback/haulback/hostctl"
)

// Create makes an empty volume of size bytes without a file system. One of that
// name, size and labels is the answer; another one of that name is a conflict. The
// name has to be nobody else's: a server hands out a volume that is there.
func (c *Client) Create(ctx context.Context, name string, size int64, labels map[string]string) (Volume, error) {
	const method = "Create"
	if !plain(name, maxName) || size <= 0 {
		return Volume{}, c.refuse(method, cut(name), "a volume has a name of 1 to %d of %s, and a size", maxName, nameRule)
	}
	fits := func(v *Volume) bool { return v.Size == size && v.Parent == "" && v.has(labels) }
	id, err := c.make(ctx, op{method: method, thing: name}, fits, func(ctx context.Context, o ...grpc.CallOption) (string, error) {
		r, err := c.volumes.Create(ctx, &api.SdkVolumeCreateRequest{
			Name: name, Labels: labels,
			Spec: &api.VolumeSpec{Size: uint64(size), Format: api.FSType_FS_TYPE_NONE, HaLevel: 1},
		}, o...)
		return r.GetVolumeId(), err
	})
	if err != nil {
		return Volume{}, err
	}
	v, err := c.ready(ctx, method, id)
	switch {
	case err != nil:
		return Volume{}, err
	case v.Name != name || !fits(&v):
		return Volume{}, c.refuse(method, id, "it is called %q, has %d bytes, parent %q and not the name, the %d bytes or the labels that were asked for", v.Name, v.Size, v.Parent, size)
	}
	return v, nil
}

// Clone makes a volume of what a snapshot, or a volume at this moment, has. One of
// that name and parent is the answer.
func (c *Client) Clone(ctx context.Context, name, parent string) (Volume, error) {
	const method = "Clone"
	if !plain(name, maxName) {
		return Volume{}, c.refuse(method, cut(name), "a volume has a name of 1 to %d of %s", maxName, nameRule)
	}
	from, err := c.Inspect(ctx, parent)
	if err != nil {
		return Volume{}, err
	}
	fits := func(v *Volume) bool { return v.Parent == parent && v.Size == from.Size }
	id, err := c.make(ctx, op{method: method, thing: name, long: true}, fits, func(ctx context.Context, o ...grpc.CallOption) (string, error) {
		r, err := c.volumes.Clone(ctx, &api.SdkVolumeCloneRequest{Name: name, ParentId: parent}, o...)
		return r.GetVolumeId(), err
	})
	if err != nil {
		return Volume{}, err
	}
	v, err := c.ready(ctx, method, id)
	switch {
	case err != nil:
		return Volume{}, err
	case v.Name != name || !fits(&v) || v.ID == parent:
		return Volume{}, c.refuse(method, id, "it is called %q, has parent %q and %d bytes, and is no clone of %s with %d bytes", v.Name, v.Parent, v.Size, parent, from.Size)
	}
	return v, nil
}

// make runs a Create or a Clone, which a server takes for done when there is a
// volume of that name: one that is there is looked at before, and not asked for. An
// attached one would hold the call for minutes.
func (c *Client) make(ctx context.Context, o op, fits func(v *Volume) bool, f func(ctx context.Context, o ...grpc.CallOption) (string, error)) (string, error) {
	id := ""
	look := func(ctx context.Context) (bool, error) {
		found, err := c.named(ctx, o.thing)
		if err != nil {
			return false, err
		}
		for _, v := range found {
			switch {
			case v.gone:
			case id != "" && id != v.ID || !fits(&v):
				e := c.refuse(o.method, o.thing, "volume %s has that name, and another size, parent or labels", v.ID)
				e.Class = NameConflict
				return false, e
			default:
				id = v.ID
			}
		}
		return id != "", nil
	}
	if is, err := look(ctx); err != nil || is {
		return id, err
	}
	err := c.change(ctx, o, func(ctx context.Context, g ...grpc.CallOption) error {
		var err error
		if id, err = f(ctx, g...); err == nil && id == "" {
			return c.refuse(o.method, o.thing, "it says that it is done, and names no volume")
		}
		return err
	}, func(ctx context.Context) (bool, error) {
		id = ""
		return look(ctx)
	})
	return id, err
}

// ready is the volume when it is made. Drivers show one before it has its bytes.
func (c *Client) ready(ctx context.Context, method, id string) (Volume, error) {
	for end := time.Now().Add(c.cfg.Long); ; {
		v, err := c.Inspect(ctx, id)
		switch {
		case err != nil:
			return Volume{}, err
		case v.Unfit == "":
			return v, nil
		case !v.pending:
			return Volume{}, c.refuse(method, id, "%s", v.Unfit)
		}
		if time.Now().After(end) {
			return Volume{}, c.later(method, id, "it is still being made")
		}
		if err := sleep(ctx, c.wait.poll); err != nil {
			return Volume{}, err
		}
	}
}

// Delete deletes a volume, snapshot or clone. None is no error; one that is attached
// is refused, which not every server does.
func (c *Client) Delete(ctx context.Context, id string) error {
	const method = "Delete"
	look := func(ctx context.Context) (bool, error) {
		v, err := c.Inspect(ctx, id)
		switch {
		case errors.Is(err, hostctl.ErrNotFound):
			return true, nil
		case err != nil:
			return false, err
		case v.gone:
			return true, nil
		case v.Attached:
			return false, c.refuse(method, id, "it is attached")
		}
		return false, nil
	}
	if is, err := look(ctx); err != nil || is {
		return err
	}
	return c.change(ctx, op{method: method, thing: id, long: true}, func(ctx context.Context, o ...grpc.CallOption) error {
		_, err := c.volumes.Delete(ctx, &api.SdkVolumeDeleteRequest{VolumeId: id}, o...)
		return err
	}, look)
}

// Attach attaches a volume to the endpoint's node and answers it with its Path. One
// that is attached there is the answer. Never by force.
func (c *Client) Attach(ctx context.Context, id string) (Volume, error) {
	const method = "Attach"
	said, answered := "", false
	err := c.change(ctx, op{method: method, thing: id}, func(ctx context.Context, o ...grpc.CallOption) error {
		r, err := c.mounts.Attach(ctx, &api.SdkVolumeAttachRequest{VolumeId: id}, o...)
		said, answered = r.GetDevicePath(), err == nil
		return err
	}, func(ctx context.Context) (bool, error) {
		v, err := c.Inspect(ctx, id)
		if err == nil && v.Attached && !v.here {
			return false, c.elsewhere(id, v.AttachedOn)
		}
		return v.Attached && v.Path != "", err
	})
	if e, ok := errors.AsType[*Error](err); ok && e.Class == Elsewhere && e.Node == "" {
		if v, look := c.Inspect(ctx, id); look == nil {
			e.Node = v.AttachedOn
		}
	}
	if err != nil {
		return Volume{}, err
	}
	v, err := c.Inspect(ctx, id)
	switch {
	case err != nil:
		return Volume{}, err
	case answered && said == "", v.Path == "" && v.Attached:
		return Volume{}, c.refuse(method, id, "it says that it is done, and names no device")
	case !v.Attached:
		return Volume{}, c.refuse(method, id, "it says that it is done, and that the volume is not attached; device %q", clean(said))
	case !v.here:
		return Volume{}, c.elsewhere(id, v.AttachedOn)
	case answered && said != v.Path && said != v.device:
		return Volume{}, c.refuse(method, id, "its device is %q, and right after that %q", clean(said), clean(v.Path))
	}
	return v, nil
}

func (c *Client) elsewhere(id, node string) *Error {
	e := c.refuse("Attach", id, "it is attached")
	e.Class, e.Node = Elsewhere, node
	return e
}

// Detach takes a volume off its node, and returns when it is off. One that is not
// attached, or is not there, is no error. Whoever has its device open closes first.
func (c *Client) Detach(ctx context.Context, id string) error {
	const method = "Detach"
	look := func(ctx context.Context) (bool, error) {
		v, err := c.Inspect(ctx, id)
		if errors.Is(err, hostctl.ErrNotFound) {
			return true, nil
		}
		return err == nil && (!v.Attached || !v.here), err
	}
	err := c.change(ctx, op{method: method, thing: id}, func(ctx context.Context, o ...grpc.CallOption) error {
		_, err := c.mounts.Detach(ctx, &api.SdkVolumeDetachRequest{VolumeId: id}, o...)
		return err
	}, look)
	for try := 0; err == nil; try++ {
		var is bool
		if is, err = look(ctx); err != nil || is {
			return err
		}
		if try >= c.wait.tries {
			return c.later(method, id, "it says that it is done, and that the volume is still attached")
		}
		err = sleep(ctx, c.wait.poll)
	}
	return err
}
