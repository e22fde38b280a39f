package jobs

import (
	"context"
	"sync"

	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover/throttle"
)

// Shares are the throttles of the jobs that have disks running: the disks of a
// job share its limits. Safe for concurrent use.
type Shares struct {
	mu   sync.Mutex
	live map[string]*share // by job
}

type share struct {
	throttle *throttle.Throttle
	disks    int
}

// take gives the throttle of a job to one more disk, until drop.
func (s *Shares) take(job string, l throttle.Limits) (*throttle.Throttle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.live[job]; have != nil {
		if err := have.throttle.Set(l); err != nil {
			return nil, err
		}
		have.disks++
		return have.throttle, nil
	}
	th, err := throttle.New(l)
	if err != nil {
		return nil, err
	}
	if s.live == nil {
		s.live = make(map[string]*share)
	}
	s.live[job] = &share{throttle: th, disks: 1}
	return th, nil
}

func (s *Shares) drop(job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.live[job]; have != nil {
		if have.disks--; have.disks == 0 {
			delete(s.live, job)
		}
	}
}

// Throttled is the limits of one disk of a job, shared with the others and in force
// as long as ctx is not done, which has to come before drop: what a caller changes
// reaches the run at once. What he changes them to in vain is told to warn.
func (s *Shares) Throttled(ctx context.Context, job string, p job.Priority, get func() (job.Limits, <-chan struct{}), warn func(string)) (th *throttle.Throttle, drop func(), err error) {
	now, changed := get()
	if th, err = s.take(job, limits(p, &now)); err != nil {
		return nil, nil, invalid("limits: %v", err)
	}
	go func() { // ends with ctx, which ends with the run
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			now, changed = get()
			if err := th.Set(limits(p, &now)); err != nil {
				warn("limits: " + err.Error() + "; the old ones stay in force")
			}
		}
	}()
	return th, func() { s.drop(job) }, nil
}

// limits are l in the words of the engine.
func limits(p job.Priority, l *job.Limits) throttle.Limits {
	out := throttle.Limits{Wire: l.Wire, Read: l.Read, Latency: l.Latency, Priority: throttle.Priority(p)}
	for _, w := range l.Windows {
		out.Windows = append(out.Windows, throttle.Window(w))
	}
	return out
}
