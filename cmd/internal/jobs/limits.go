package jobs

import (
	"context"

	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover/throttle"
)

// throttled is the limits of a task, in force as long as ctx is not done: what
// a caller changes reaches the run at once.
func throttled(ctx context.Context, t *job.Task) (*throttle.Throttle, error) {
	now, changed := t.Limits()
	th, err := throttle.New(limits(t.Spec.Priority, &now))
	if err != nil {
		return nil, invalid("limits: %v", err)
	}
	go func() { // ends with ctx, which ends with the run
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			now, changed = t.Limits()
			if err := th.Set(limits(t.Spec.Priority, &now)); err != nil {
				t.Warning("limits: " + err.Error() + "; the old ones stay in force")
			}
		}
	}()
	return th, nil
}

// limits are l in the words of the engine.
func limits(p job.Priority, l *job.Limits) throttle.Limits {
	out := throttle.Limits{Wire: l.Wire, Read: l.Read, Latency: l.Latency, Priority: throttle.Priority(p)}
	for _, w := range l.Windows {
		out.Windows = append(out.Windows, throttle.Window(w))
	}
	return out
}
