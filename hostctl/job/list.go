package job

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"time"
)

// Get answers one job, with the newest counters.
func (e *Engine) Get(ctx context.Context, id string) (Job, error) {
	e.view.RLock()
	x, err := e.find(ctx, id)
	if err == nil && x.act != nil {
		defer e.view.RUnlock()
		return e.snapshot(x.act), nil
	}
	e.view.RUnlock()
	if err != nil {
		return Job{}, err
	}
	return e.read(ctx, id)
}

// place is where a job stands in a list.
type listPlace struct {
	created time.Time
	id      string
}

func (a listPlace) compare(b listPlace) int { // the newest first
	return cmp.Or(b.created.Compare(a.created), cmp.Compare(a.id, b.id))
}

func (a listPlace) token() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s", a.created.UnixNano(), a.id))
}

func parsePlace(token string) (p listPlace, f *Failure) {
	var nanos int64
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		_, err = fmt.Sscanf(string(raw), "%d %s", &nanos, &p.id)
	}
	if err != nil {
		return p, invalid("page token: %q is not one of ours", token)
	}
	p.created = time.Unix(0, nanos).UTC()
	return p, nil
}

// List answers jobs, the newest first, and the token of the next page, empty
// after the last. A job that is submitted meanwhile is on no later page.
func (e *Engine) List(ctx context.Context, f Filter, p Page) (jobs []Job, next string, err error) {
	size := cmp.Or(p.Size, 100)
	if size < 1 || size > 1000 {
		return nil, "", invalid("page size: %d is not between 1 and 1000", p.Size)
	}
	var after listPlace
	if p.Token != "" {
		var bad *Failure
		if after, bad = parsePlace(p.Token); bad != nil {
			return nil, "", bad
		}
	}
	for _, at := range e.places(f) {
		if p.Token != "" && at.compare(after) <= 0 {
			continue
		}
		j, err := e.Get(ctx, at.id)
		switch failure, _ := err.(*Failure); {
		case failure != nil && failure.Reason == ReasonNotFound:
			continue // removed meanwhile
		case err != nil:
			return nil, "", err
		case !f.match(&j):
			continue
		case len(jobs) == size:
			last := jobs[size-1]
			return jobs, listPlace{last.Created, last.ID}.token(), nil
		}
		jobs = append(jobs, j)
	}
	return jobs, "", nil
}

// places are the jobs that may match, in order, by what is in memory.
func (e *Engine) places(f Filter) (all []listPlace) {
	e.view.RLock()
	defer e.view.RUnlock()
	for _, x := range e.jobs {
		if (f.ID == "" || f.ID == x.id) && (f.Owner == "" || f.Owner == x.owner) && (len(f.Phases) == 0 || slices.Contains(f.Phases, x.phase)) {
			all = append(all, listPlace{x.created, x.id})
		}
	}
	slices.SortFunc(all, listPlace.compare)
	return all
}

// Counts is how many jobs are kept, by phase, by what is in memory.
func (e *Engine) Counts() map[Phase]int {
	e.view.RLock()
	defer e.view.RUnlock()
	n := make(map[Phase]int)
	for _, x := range e.jobs {
		n[x.phase]++
	}
	return n
}

func (f Filter) match(j *Job) bool {
	if !f.owned(j.ID, j.Owner) || len(f.Phases) > 0 && !slices.Contains(f.Phases, j.Phase) {
		return false
	}
	for k, v := range f.Labels {
		if have, ok := j.Spec.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func (f Filter) owned(id, owner string) bool {
	return (f.ID == "" || f.ID == id) && (f.Owner == "" || f.Owner == owner)
}
