package vsphere

import (
	"context"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// updates calls f with the objects of the filter as they are, and then with each
// change of them, until f answers true. It has a collector of its own, which
// ends with it. govmomi's own function ends with nil when the host has nothing
// to say for a while, and asks without a deadline when its context is done.
func updates(ctx context.Context, l *link, filter types.CreateFilter, f func([]types.ObjectUpdate) bool) error {
	pc, err := property.DefaultCollector(l.Client).Create(ctx)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
		defer cancel()
		_ = pc.Destroy(end) // the session's end takes it too
	}()
	if _, err := pc.CreateFilter(ctx, filter); err != nil {
		return err
	}
	seconds := int32(maxWait / time.Second)
	req := types.WaitForUpdatesEx{This: pc.Reference(), Options: &types.WaitOptions{MaxWaitSeconds: &seconds}}
	for {
		res, err := methods.WaitForUpdatesEx(ctx, l, &req)
		if err != nil {
			return err
		}
		set := res.Returnval
		if set == nil {
			continue // nothing in maxWait
		}
		req.Version = set.Version
		for i := range set.FilterSet {
			fs := &set.FilterSet[i]
			for _, m := range fs.MissingSet {
				return soap.WrapVimFault(m.Fault.Fault)
			}
			if f(fs.ObjectSet) {
				return nil
			}
		}
	}
}
