package osd

import (
	"context"
	"errors"
	"fmt"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc"

	"github.com/haulback/haulback/hostctl"
)

// Inspect is the volume of that id as it is now. An answer about another one is
// refused.
func (c *Client) Inspect(ctx context.Context, id string) (Volume, error) {
	v, err := c.inspect(ctx, id)
	if err == nil && v.ID != id {
		return Volume{}, c.refuse("Inspect", id, "it answers volume %s", v.ID)
	}
	return v, err
}

// inspect is Inspect with whatever is answered: some servers take a name as well.
func (c *Client) inspect(ctx context.Context, id string) (Volume, error) {
	if !plain(id, maxName) {
		return Volume{}, c.refuse("Inspect", cut(id), "%q is no id: 1 to %d of %s", cut(id), maxName, nameRule)
	}
	var r *api.SdkVolumeInspectResponse
	err := c.observe(ctx, op{method: "Inspect", thing: id}, func(ctx context.Context, o ...grpc.CallOption) (err error) {
		r, err = c.volumes.Inspect(ctx, &api.SdkVolumeInspectRequest{VolumeId: id}, o...)
		return err
	})
	if err != nil {
		return Volume{}, err
	}
	return c.volume(ctx, "Inspect", r)
}

// Resolve is the one volume that has nameOrID for its id or its name. Errors:
// hostctl.ErrNotFound, *hostctl.AmbiguousError.
func (c *Client) Resolve(ctx context.Context, nameOrID string) (Volume, error) {
	byID, err := c.inspect(ctx, nameOrID)
	if err != nil && !errors.Is(err, hostctl.ErrNotFound) {
		return Volume{}, err
	}
	none := err
	found, err := c.named(ctx, nameOrID)
	if err != nil {
		return Volume{}, err
	}
	if none == nil {
		if byID.ID != nameOrID && byID.Name != nameOrID {
			return Volume{}, c.refuse("Inspect", nameOrID, "it answers volume %s", byID.ID)
		}
		for _, v := range found {
			if v.ID == byID.ID {
				return c.only(nameOrID, found)
			}
		}
		found = append(found, byID)
	}
	if len(found) == 0 {
		return Volume{}, none
	}
	return c.only(nameOrID, found)
}

// only is the one of found that is no waste, or the one that there is.
func (c *Client) only(name string, found []Volume) (Volume, error) {
	var live []Volume
	for _, v := range found {
		if !v.gone {
			live = append(live, v)
		}
	}
	if len(live) == 0 {
		live = found
	}
	if len(live) == 1 {
		return live[0], nil
	}
	e := &hostctl.AmbiguousError{What: fmt.Sprintf("volume %q of openstorage %s", name, c.cfg.Name)}
	for _, v := range live {
		e.Found = append(e.Found, v.ID)
	}
	return Volume{}, e
}

// Look is what Keeper.Open would open: the volume, or its snapshot after it was seen
// to be made of that volume. What cannot be used is an error.
func (c *Client) Look(ctx context.Context, volume, snapshot string) (Volume, error) {
	v, err := c.Resolve(ctx, volume)
	if err != nil {
		return Volume{}, err
	}
	if snapshot != "" {
		s, err := c.Resolve(ctx, snapshot)
		if err != nil {
			return Volume{}, err
		}
		if s.Parent != v.ID || s.ID == v.ID {
			return Volume{}, c.refuse("Inspect", s.ID, "it is no snapshot of volume %s: its parent is %q", v.ID, s.Parent)
		}
		v = s
	}
	switch {
	case v.Unfit != "":
		return Volume{}, c.refuse("Inspect", v.ID, "%s", v.Unfit)
	case v.Restoring:
		return Volume{}, c.later("Inspect", v.ID, "it is being restored; try again when that has ended")
	}
	return v, nil
}

// Labelled are the volumes, snapshots and clones with these labels, oldest first.
func (c *Client) Labelled(ctx context.Context, labels map[string]string) ([]Volume, error) {
	if len(labels) == 0 {
		return nil, c.refuse("InspectWithFilters", "", "there are no labels to look for")
	}
	return c.list(ctx, "", labels)
}

// named are the volumes of that name.
func (c *Client) named(ctx context.Context, name string) ([]Volume, error) {
	return c.list(ctx, name, nil)
}

// list asks for volumes by name or labels, and looks at each answer itself: a
// filter that a server does not know is no filter.
func (c *Client) list(ctx context.Context, name string, labels map[string]string) ([]Volume, error) {
	var r *api.SdkVolumeInspectWithFiltersResponse
	err := c.observe(ctx, op{method: "InspectWithFilters", thing: name}, func(ctx context.Context, o ...grpc.CallOption) (err error) {
		r, err = c.volumes.InspectWithFilters(ctx, &api.SdkVolumeInspectWithFiltersRequest{Name: name, Labels: labels}, o...)
		return err
	})
	if isClass(err, Unsupported) {
		return c.listEach(ctx, name, labels)
	}
	if err != nil {
		return nil, err
	}
	var found []Volume
	for _, w := range r.GetVolumes() {
		v, err := c.volume(ctx, "InspectWithFilters", w)
		if err != nil {
			return nil, err
		}
		if (name == "" || v.Name == name) && v.has(labels) {
			found = append(found, v)
		}
	}
	oldest(found)
	return found, nil
}

// listEach is list for a server that answers ids only.
func (c *Client) listEach(ctx context.Context, name string, labels map[string]string) ([]Volume, error) {
	var r *api.SdkVolumeEnumerateWithFiltersResponse
	err := c.observe(ctx, op{method: "EnumerateWithFilters", thing: name}, func(ctx context.Context, o ...grpc.CallOption) (err error) {
		r, err = c.volumes.EnumerateWithFilters(ctx, &api.SdkVolumeEnumerateWithFiltersRequest{Name: name, Labels: labels}, o...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.inspectAll(ctx, r.GetVolumeIds(), func(v *Volume) bool {
		return (name == "" || v.Name == name) && v.has(labels)
	})
}

// inspectAll are the volumes of these ids that keep takes, oldest first. One that
// has gone since is none.
func (c *Client) inspectAll(ctx context.Context, ids []string, keep func(v *Volume) bool) ([]Volume, error) {
	var found []Volume
	for _, id := range ids {
		v, err := c.Inspect(ctx, id)
		if errors.Is(err, hostctl.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if keep(&v) {
			found = append(found, v)
		}
	}
	oldest(found)
	return found, nil
}
