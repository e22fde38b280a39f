package job

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// schedule starts what may start, with mu held. The order is that of jobs by
// priority, and each AgeStep of waiting counts as one more, without end, so
// that a stream of high jobs does not hold a low one for ever; of equal ones the
// older job, then the disks as in the spec. What finds no room at its hosts is
// passed over, so that one busy host does not hold the others. A disk that needs
// room at several hosts and has waited for an AgeStep keeps the places that it
// will take: else others would take each of them in turn.
func (e *Engine) schedule(ctx context.Context) {
	if e.stopping != nil {
		return
	}
	kept, keeps := map[string]int{}, false
	for _, a := range e.waiting() {
		for i := range a.state.Disks {
			if e.stopping != nil || len(e.running) >= e.c.MaxDisks {
				return
			}
			if !a.waits(i) {
				continue
			}
			if e.room(a.hosts[i], kept) {
				if err := e.start(ctx, a, i); err != nil {
					e.c.Log.Warn("disk waits for the job store", "job", a.ID, "disk", a.state.Disks[i].Name, "err", err)
					return // tick looks again
				}
			} else if !keeps && len(a.hosts[i]) > 1 && e.now().Sub(a.since) > e.c.AgeStep {
				keeps = true
				for _, h := range a.hosts[i] {
					kept[h]++
				}
			}
		}
	}
}

// waiting are the jobs with disks to start, the first one first.
func (e *Engine) waiting() (list []*active) {
	for _, x := range e.jobs {
		a := x.act
		if a == nil || a.delivery == nil || a.state.Wanted != 0 || a.state.Phase == New {
			continue
		}
		for i := range a.state.Disks {
			if a.waits(i) {
				list = append(list, a)
				break
			}
		}
	}
	now := e.now()
	slices.SortFunc(list, func(a, b *active) int {
		return cmp.Or(
			cmp.Compare(b.weight(now, e.c.AgeStep), a.weight(now, e.c.AgeStep)),
			a.since.Compare(b.since), cmp.Compare(a.ID, b.ID),
		)
	})
	return list
}

func (a *active) weight(now time.Time, step time.Duration) int64 {
	return int64(a.Spec.Priority) + int64(max(0, now.Sub(a.since))/step)
}

func (a *active) waits(i int) bool {
	p := a.state.Disks[i].Phase
	return a.run[i] == nil && !p.Ended() && p != Paused
}

func (e *Engine) room(hosts []string, kept map[string]int) bool {
	return !slices.ContainsFunc(hosts, func(h string) bool { return e.hosts[h]+kept[h] >= e.c.MaxPerHost })
}
