package daemon

import (
	"context"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/control"
	"github.com/haulback/haulback/cmd/internal/hooks"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/osd"
)

// drainable refuses to start failbacks while the daemon drains. Those that are
// open go on: a VM between two sites is left there by nobody but the end of the
// process, after which they go on again.
type drainable struct {
	*failback.Engine
	drained *atomic.Bool
}

// Start implements control.Failbacks.
func (e drainable) Start(ctx context.Context, id, owner string, s failback.Spec, confirmed cbt.Digest) (failback.Status, bool, error) {
	if e.drained.Load() {
		if _, err := e.Get(ctx, id); err != nil { // one that is there is answered as ever
			return failback.Status{}, false, &job.Failure{
				Reason: job.ReasonDraining, Retry: job.RetryBackoff, Exit: int(exitcode.Unavailable),
				Text: "this daemon is drained and begins no failbacks; restart it, or ask later",
			}
		}
	}
	return e.Engine.Start(ctx, id, owner, s, confirmed)
}

// serve adds to the control API what a controller has.
func (c *controller) serve(cfg *control.Config, drained *atomic.Bool) {
	if c.engine == nil {
		return
	}
	cfg.Failbacks, cfg.FailbackRecord, cfg.FailbackGroups = drainable{c.engine, drained}, c.records.Read, c.groups
}

// unchanged reports whether of what a controller is started with nothing is
// different.
func unchanged(a, b *config.Config) bool {
	if a.Controller == nil || b.Controller == nil {
		return a.Controller == b.Controller
	}
	return *a.Controller == *b.Controller && reflect.DeepEqual(a.Hosts, b.Hosts) && reflect.DeepEqual(profiles(a), profiles(b))
}

// profiles are those that hosts were opened with: disks take a new one over, hosts
// do not.
func profiles(c *config.Config) map[string]osd.Config {
	used := map[string]osd.Config{}
	for _, h := range c.Hosts {
		for _, p := range c.OpenStorage {
			if p.Name == h.OpenStorage {
				used[p.Name] = p
			}
		}
	}
	return used
}

// hookCalled records that a program or an address of the site was called.
func (d *Daemon) hookCalled(ctx context.Context, h hooks.Called) {
	e := audit.Entry{Actor: "daemon", Action: "hook.call", Object: h.VM, Outcome: "ok", Details: map[string]string{
		"hook": h.Hook, "failback": h.Failback, "step": h.Step, "what": h.What, "dur": h.Took.Round(time.Millisecond).String(),
	}}
	if h.Err != nil {
		e.Outcome, e.Details["err"] = "failed", h.Err.Error()
	}
	d.record.note(ctx, e)
}
