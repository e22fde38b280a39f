package failback

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
)

// Of measuring a plan.
const (
	measureSample = 256
	measureEnd    = 10 * time.Minute // to remove the snapshot in, whoever has hung up
)

// measured is a snapshot that a plan makes. It is in the store before it is on
// the host, so that it is removed whatever happens.
type measured struct {
	Format  int
	Run     string
	Replica hostctl.Ref
}

// measure compares a sample of the disks. What goes wrong is a warning: a plan
// without numbers is still a plan.
func (e *Engine) measure(ctx context.Context, p *Plan) {
	if p.Target == nil {
		p.Warnings = append(p.Warnings, "not measured: the target is made, everything crosses the wire")
		return
	}
	if p.Target.Power != hostctl.Off {
		p.Warnings = append(p.Warnings, "not measured: "+p.Target.Name+" runs, its disks cannot be read")
		return
	}
	if err := e.sample(ctx, p); err != nil {
		p.Warnings = append(p.Warnings, "not measured: "+plain(err.Error()))
		return
	}
	p.Bytes = 0
	for _, d := range p.Disks {
		p.Bytes += max(d.Differing, 0)
	}
	p.Reckoned = fmt.Sprintf("one grain in %d was compared; a snapshot was made for it on %s, and removed; pass 1 is reckoned from its speed and the limits", measureSample, p.Replica.Name)
}

func (e *Engine) sample(ctx context.Context, p *Plan) (err error) {
	h, err := e.host(p.Replica.Host)
	if err != nil {
		return err
	}
	m := measured{recordFormat, uuid.NewString(), p.Replica.Ref}
	value, err := encode(m)
	if err != nil {
		return err
	}
	if _, err := e.c.Store.Create(ctx, measureKey+m.Run, value); err != nil {
		return fromStore(err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), measureEnd)
		defer cancel()
		err = errors.Join(err, e.unmeasure(end, &m))
	}()
	op := &hostctl.Op{Run: m.Run, Step: "measure", Started: func(string) error { return nil }}
	s, err := h.Storage.Protect(ctx, op, p.Replica.Ref, "haulback: for the time of a plan")
	if err != nil {
		return err
	}
	var compared, total int64
	began := e.now()
	for i := range p.Disks {
		d := &p.Disks[i]
		if d.Excluded || d.Target == nil {
			continue
		}
		from, ok := diskOf(s.Disks, &d.Replica)
		if !ok {
			return fmt.Errorf("snapshot %s has no disk %s", s.ID, d.Label)
		}
		l, err := e.c.Mover.Compare(ctx, &Move{
			Run: m.Run, Fence: e.fence, VM: p.VM, Sample: measureSample,
			Source: Place{VM: p.Replica.Ref, Snapshot: s.ID, Disk: from}, Target: Place{VM: p.Target.Ref, Disk: *d.Target},
		})
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Label, err)
		}
		d.Differing, d.Error = l.Expected, l.Error
		compared, total = compared+l.Compared, total+l.Total
	}
	if compared > 0 {
		p.Time = time.Duration(float64(e.now().Sub(began)) * float64(total) / float64(compared))
	}
	return nil
}

// withLimits is how long pass 1 takes at most with the limits that were asked
// for: what is read at their rate, and what may differ at that of the wire. With
// windows of the week nobody can say.
func withLimits(p *Plan, l *job.Limits) time.Duration {
	if p.Time == 0 || len(l.Windows) > 0 {
		return 0
	}
	var read, moved int64
	for i := range p.Disks {
		if d := &p.Disks[i]; !d.Excluded {
			read += d.AtMost
			moved += min(d.Differing+d.Error, d.AtMost)
		}
	}
	at := func(n, rate int64) time.Duration {
		if rate <= 0 {
			return 0
		}
		return time.Duration(float64(n) / float64(rate) * float64(time.Second))
	}
	return max(p.Time, at(read, l.Read)) + at(moved, l.Wire)
}

// unmeasure removes the snapshot of a plan, and then what is stored of it.
func (e *Engine) unmeasure(ctx context.Context, m *measured) error {
	vm, err := e.find(ctx, m.Replica)
	if err != nil && !errors.Is(err, hostctl.ErrNotFound) {
		return err
	}
	if s := snapshotBy(&vm, hostctl.SnapshotName(&hostctl.Op{Run: m.Run, Step: "measure"})); s != nil {
		h, err := e.host(m.Replica.Host)
		if err != nil {
			return err
		}
		op := &hostctl.Op{Run: m.Run, Step: "unmeasure", Started: func(string) error { return nil }}
		if err := h.Storage.Release(ctx, op, vm.Ref, s.ID); err != nil {
			return err
		}
	}
	x, err := e.c.Store.Get(ctx, measureKey+m.Run)
	if err != nil {
		return nil // it has gone
	}
	return e.c.Store.Delete(ctx, x.Key, x.Revision)
}

// loadMeasured finds the plans that were cut off; with mu held.
func (e *Engine) loadMeasured(ctx context.Context) error {
	entries, _, err := e.c.Store.List(ctx, measureKey)
	if err != nil {
		return err
	}
	for _, x := range entries {
		var m measured
		if err := json.Unmarshal(x.Value, &m); err != nil {
			return fmt.Errorf("record %s: %w", x.Key, err)
		}
		e.cut = append(e.cut, m)
	}
	return nil
}

// dropMeasured removes the snapshots of plans that were cut off.
func (e *Engine) dropMeasured(ctx context.Context) {
	for _, m := range e.cut {
		if err := e.unmeasure(ctx, &m); err != nil && ctx.Err() == nil {
			e.c.Log.Warn("the snapshot of a plan stays: \"haulback failback gc\" removes it", "run", m.Run, "err", plain(err.Error()))
		}
	}
}
