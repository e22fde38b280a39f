package vsphere

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
)

// Changed implements hostctl.Tracker. What makes an answer worth nothing is no
// error: the hint is Distrusted, and its Remark says why, for the operator. An
// error means that the host was not reached or refused to answer at all.
func (c *Client) Changed(ctx context.Context, ref hostctl.Ref, snapshot string, disk hostctl.Disk, since string) (cbt.Hint, error) {
	hint := cbt.Hint{Provider: "vsphere", Size: disk.Size}
	vm, _, err := c.resolve(ctx, ref)
	if err != nil {
		return hint, err
	}
	s, ok := shot(vm, snapshot)
	if !ok {
		return hint, c.notFound("snapshot " + clean(snapshot) + " of " + vm.Name)
	}
	q := question{vm: &vm, shot: &s, key: disk.Key, size: disk.Size}
	q.base, err = parseChangeID(since)
	if hint.Since = q.base.text(); err != nil {
		err = distrust("%v", err)
	} else if err = q.check(); err == nil {
		err = c.history(ctx, &q)
	}
	if err == nil {
		hint.Areas, q.remark, err = collect(disk.Size, func(start int64) (page, error) { return c.ask(ctx, &q, start) })
	}
	return judge(hint, &q, err)
}

// judge makes the hint of what came of a question.
func judge(hint cbt.Hint, q *question, err error) (cbt.Hint, error) {
	if e, ok := errors.AsType[*callError](err); ok && !e.retry && isFault(err) {
		// "Error caused by file": the host has no count since then.
		err = distrust("the host says: %s", e.text)
	}
	why, ok := errors.AsType[*untrue](err)
	switch {
	case ok:
		hint.Areas, hint.Trust, hint.Remark = nil, cbt.Distrusted, why.why
	case err != nil:
		return hint, err
	default:
		// Whole blocks of the host's, of a size that it does not tell.
		hint.Trust = cbt.OverReports
		hint.Remark = strings.Join(slices.DeleteFunc([]string{q.remark, q.doubt}, func(s string) bool { return s == "" }), "; ")
	}
	return hint, nil
}

// question is one question about changes.
type question struct {
	vm     *hostctl.VM
	shot   *hostctl.Snapshot
	key    int32
	size   int64
	base   changeID
	remark string // of the areas
	doubt  string // of what could not be looked at
}

// ask is one call. Only the endpoint that made a snapshot knows its reference.
func (c *Client) ask(ctx context.Context, q *question, start int64) (p page, err error) {
	self, at := vmRef(q.vm.ID), shotRef(q.shot.ID)
	err = c.observe(ctx, "ask for the changes of "+q.vm.Name, func(l *link) error {
		r, err := methods.QueryChangedDiskAreas(ctx, l, &types.QueryChangedDiskAreas{
			This: self, Snapshot: &at, DeviceKey: q.key, StartOffset: start, ChangeId: q.base.host,
		})
		if err != nil {
			return err
		}
		p = page{start: r.Returnval.StartOffset, length: r.Returnval.Length}
		for _, a := range r.Returnval.ChangedArea {
			p.areas = append(p.areas, cbt.Extent{Off: a.Start, Len: a.Length})
		}
		return nil
	})
	if f, ok := has[*types.InvalidArgument](err); ok && strings.HasSuffix(f.InvalidProperty, "startOffset") {
		if start == 0 {
			// So says a host about a disk on which nothing has changed; the size is
			// known here, so that is what it means (facts/reliability.md, B5).
			return page{length: q.size}, nil
		}
		return p, distrust("the host knows no byte %d of the disk, which has %d: it has another size there", start, q.size)
	}
	c.log.Debug("changed areas", "vm", q.vm.Name, "disk", q.key, "start", start, "length", p.length, "areas", len(p.areas), "err", err)
	return p, err
}
