package job

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/haulback/haulback/hostctl/store"
)

// Watch tells what happens. With after 0: all jobs of the filter, Synced, then
// changes. Otherwise the changes later than after; an error that is
// store.ErrCompacted means that they are not known any more: watch from 0. No
// change is lost, however slow the reader is, unless it is told so by that
// error: changes are read from the store when the reader is ready for them. The
// sequence ends with an error, ctx's at last.
//
// Telemetry and notes are told once per Config.Telemetry at most, what has
// changed since, and are lost for a reader that is slower. A filter of phases
// tells changes into these phases, not out of them. Removed is told without
// regard to phases and labels.
func (e *Engine) Watch(ctx context.Context, after uint64, f Filter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		w := &watch{e: e, f: f, after: after, from: after, yield: yield, newest: map[string]uint64{}, told: map[*start]Counters{}}
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		_, w.note = e.notes.since(0)
		if after == 0 && !w.snapshot(ctx) {
			return
		}
		changes, failed := make(chan store.Change), make(chan error, 1)
		wg.Go(func() {
			for c, err := range e.c.Store.Watch(ctx, jobKey, w.from) {
				if err != nil {
					failed <- err
					return
				}
				select {
				case changes <- c:
				case <-ctx.Done():
					failed <- ctx.Err()
					return
				}
			}
		})
		ticker := time.NewTicker(e.c.Telemetry)
		defer ticker.Stop()
		for more := true; more; {
			select {
			case c := <-changes:
				more = w.change(ctx, c)
			case err := <-failed:
				yield(Event{}, err)
				return
			case <-ticker.C:
				more = w.telemetry()
			}
		}
	}
}

// watch is one reader's place.
type watch struct {
	e      *Engine
	f      Filter
	yield  func(Event, error) bool
	after  uint64            // told up to here
	from   uint64            // of the store's watch
	newest map[string]uint64 // jobs that the snapshot has told later than from
	told   map[*start]Counters
	note   uint64
}

// snapshot tells all jobs, one at a time. A job that changes meanwhile is told
// as it is then, and its changes up to there are not told again.
func (w *watch) snapshot(ctx context.Context) bool {
	_, at, err := w.e.c.Store.List(ctx, "none.") // the revision, before the first look
	if err != nil {
		w.yield(Event{}, unavailable(err))
		return false
	}
	w.after, w.from = at, at
	for _, p := range w.e.places(Filter{ID: w.f.ID, Owner: w.f.Owner}) {
		j, err := w.e.read(ctx, p.id)
		if f, ok := errors.AsType[*Failure](err); ok && f.Reason == ReasonNotFound {
			continue
		} else if err != nil {
			w.yield(Event{}, err)
			return false
		}
		if j.Revision > at {
			w.newest[j.ID] = j.Revision
		}
		if w.f.match(&j) && !w.yield(Event{Kind: Changed, Time: w.e.now(), Job: j}, nil) {
			return false
		}
	}
	return w.yield(Event{Kind: Synced, Revision: at, Time: w.e.now()}, nil)
}

// change tells one change of a job's state.
func (w *watch) change(ctx context.Context, c store.Change) bool {
	w.after = c.Revision
	id := strings.TrimPrefix(c.Key, jobKey)
	if c.Deleted || c.Revision <= w.newest[id] {
		return true // of a deletion, the change before it has told
	}
	s, err := decodeState(c.Key, c.Value)
	if err != nil {
		w.yield(Event{}, unavailable(err))
		return false
	}
	ev := Event{Kind: Changed, Revision: c.Revision, Time: w.e.now()}
	if s.Removed {
		ev.Kind, ev.Job = Removed, Job{ID: id, Owner: s.Owner, Phase: s.Phase}
		return !w.f.owned(id, s.Owner) || w.yield(ev, nil)
	}
	h, err := w.e.head(ctx, id)
	if err != nil {
		w.yield(Event{}, err)
		return false
	} else if h == nil || !h.Created.Equal(s.Created) {
		return true // it has gone, or came again: told later
	}
	ev.Job = join(h, &s, c.Revision)
	return !w.f.match(&ev.Job) || w.yield(ev, nil)
}

// head is the part of a job that does not change; nil when the job has gone.
func (e *Engine) head(ctx context.Context, id string) (*header, error) {
	e.view.RLock()
	if x := e.jobs[id]; x != nil && x.act != nil {
		defer e.view.RUnlock()
		return x.act.header, nil
	}
	e.view.RUnlock()
	x, err := e.c.Store.Get(ctx, specKey+id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("spec of job %s: %w", id, err)
	}
	h, err := decodeHeader(x.Key, x.Value)
	return &h, err
}

// telemetry tells counters that have changed, and what was noted.
func (w *watch) telemetry() bool {
	for _, ev := range w.news() {
		if !w.yield(ev, nil) {
			return false
		}
	}
	list, last := w.e.notes.since(w.note)
	w.note = last
	anyPhase := w.f
	anyPhase.Phases = nil
	for _, n := range list {
		if !anyPhase.match(&n.Job) {
			continue
		}
		n.Job.Spec, n.Revision = Spec{}, w.after
		if !w.yield(n.Event, nil) {
			return false
		}
	}
	return true
}

// news are the counters that this reader does not know, by job.
func (w *watch) news() (events []Event) {
	w.e.view.RLock()
	defer w.e.view.RUnlock()
	at := map[string]int{}
	for r := range w.told {
		if _, runs := w.e.running[r]; !runs {
			delete(w.told, r)
		}
	}
	for r := range w.e.running {
		j := Job{ID: r.a.ID, Owner: r.a.Owner, Phase: r.a.state.Phase, Spec: Spec{Labels: r.a.Spec.Labels}}
		now := r.counters()
		if old, known := w.told[r]; r.a.state.Disks[r.disk].Phase.Ended() || !w.f.match(&j) || known && old == now {
			continue
		}
		w.told[r] = now
		i, ok := at[j.ID]
		if !ok {
			i = len(events)
			at[j.ID] = i
			j.Spec = Spec{}
			events = append(events, Event{Kind: Telemetry, Revision: w.after, Time: w.e.now(), Job: j})
		}
		events[i].Counters = append(events[i].Counters, DiskCounters{Disk: r.a.Spec.Disks[r.disk].Name, Counters: now})
	}
	return events
}

// keptNotes is how many notes a reader may be behind.
const keptNotes = 256

// notes are the newest texts of all transfers, in a ring.
type notes struct {
	mu   sync.Mutex
	ring [keptNotes]numbered
	last uint64
}

type numbered struct {
	Event
	number uint64
}

// note keeps a text for who watches, and logs it.
func (e *Engine) note(h *header, disk, text string, warning bool) {
	text = cut(text, maxText)
	if warning {
		e.c.Log.Warn("transfer", "job", h.ID, "disk", disk, "note", text)
	} else {
		e.c.Log.Info("transfer", "job", h.ID, "disk", disk, "note", text)
	}
	e.notes.mu.Lock()
	defer e.notes.mu.Unlock()
	e.notes.last++
	j := Job{ID: h.ID, Owner: h.Owner, Spec: Spec{Labels: h.Spec.Labels}}
	e.notes.ring[e.notes.last%keptNotes] = numbered{Event{Kind: Note, Time: e.now(), Job: j, Disk: disk, Text: text, Warning: warning}, e.notes.last}
}

// since answers the notes after a number that are still kept, and the newest
// number.
func (n *notes) since(number uint64) (list []numbered, last uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	first := number + 1
	if n.last >= keptNotes {
		first = max(first, n.last-keptNotes+1)
	}
	for i := first; i <= n.last; i++ {
		list = append(list, n.ring[i%keptNotes])
	}
	return list, n.last
}
