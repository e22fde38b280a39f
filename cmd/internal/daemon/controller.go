package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/control"
	"github.com/haulback/haulback/cmd/internal/failbacks"
	"github.com/haulback/haulback/cmd/internal/hooks"
	"github.com/haulback/haulback/cmd/internal/hosts"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/record"
	"github.com/haulback/haulback/hostctl/store/bolt"
)

const (
	// failbackFile is the store of VMs and failbacks in the state directory,
	// recordDir has the records of those that were run.
	failbackFile = "failback.db"
	recordDir    = "records"
	// logoutTime bounds the end of the sessions with hosts.
	logoutTime = 3 * time.Second
)

// controller is what brings VMs home.
type controller struct {
	store   *bolt.DB
	engine  *failback.Engine // nil: this daemon is no controller
	records *record.Keeper
	hosts   []hosts.Opened
	calls   hostctl.Calls // of vSphere hosts
	hooks   hooks.Caller
	config  atomic.Pointer[config.Config] // the last good one
	ended   chan struct{}                 // closed when the engine's Run has returned
	log     *slog.Logger
}

// openController opens the failback store and what the engine works with. A
// store that cannot be used keeps the daemon from starting: nobody could say
// which VM may be written to, or started. A host that does not answer does not.
func (d *Daemon) openController(ctx context.Context) (err error) {
	c, cfg := &d.home, d.cfg.Controller
	c.log, c.ended = d.log, make(chan struct{})
	if cfg == nil {
		return nil
	}
	if c.store, err = bolt.Open(bolt.Config{
		Path: filepath.Join(d.cfg.Site.Dir(), failbackFile), What: "failback store",
		Without: "move it away to begin without VMs and failbacks: then look at each VM that has a mark or a snapshot of haulback before anybody starts it, " +
			"nobody knows any more what was overwritten",
	}); err != nil {
		return err
	}
	c.hooks.Log, c.hooks.Note = d.log, d.hookCalled
	if c.records, err = record.Open(record.Config{
		Dir: filepath.Join(d.cfg.Site.Dir(), recordDir), Controller: cfg.Name, Program: program(), Head: d.record.head, Hooks: &c.hooks,
		Key: func() (record.Signer, string, error) { return d.key, d.key.ID().String(), nil },
	}); err != nil {
		return err
	}
	abilities, mover := map[string]*hostctl.Host{}, d.failbackMover()
	c.hosts = hosts.Open(ctx, d.cfg.Hosts, hosts.Options{Client: d.volumes.Client, Mine: mover.Mine, Calls: &c.calls, Log: d.log})
	for _, h := range c.hosts {
		if h.Err != nil {
			return &exitcode.UsageError{Err: fmt.Errorf("host %q: %w", h.Name, h.Err)}
		}
		abilities[h.Name] = h.Open.Host()
	}
	if c.engine, err = failback.Open(ctx, failback.Config{
		Store: c.store, Lease: c.store, Controller: cfg.Name, Hosts: abilities, Mover: mover,
		Replication: &c.hooks, Hooks: &c.hooks, Record: c.records, MaxVMs: cfg.VMs, MaxDisks: cfg.Disks, Log: d.log, Parallel: c.parallel,
	}); err != nil {
		return fmt.Errorf("failbacks: %w", err)
	}
	return nil
}

// program is which haulback writes a record.
func program() map[string]string {
	b := build.Current()
	return map[string]string{"version": b.Version, "revision": b.Revision, "go": b.Go, "platform": runtime.GOOS + "/" + runtime.GOARCH}
}

// failbackMover moves disks with the engine of this daemon. Hosts are those that
// the daemon was started with, their exports and peers those of now.
func (d *Daemon) failbackMover() *failbacks.Mover {
	reached := hosts.Reached(d.cfg.Hosts)
	return &failbacks.Mover{
		Engine: d.engine, Reach: reach{d}, Key: d.key, Log: d.log, Here: d.volumes.Here,
		Hosts:   func() map[string]failbacks.Host { return reached },
		Exports: func() []config.Export { return d.work.disks.Load().Exports },
	}
}

// use takes over what of a controller changes while it runs.
func (c *controller) use(cfg *config.Config) {
	c.hooks.Use(cfg)
	c.config.Store(cfg)
}

// groups are the VMs that come home together.
func (c *controller) groups() (list []control.FailbackGroup) {
	for _, g := range c.config.Load().Groups {
		out := control.FailbackGroup{Name: g.Name, Parallel: g.Parallel}
		for _, m := range g.Members {
			out.Members = append(out.Members, failback.Spec{VM: m.VM, Group: g.Name, Order: m.Order, Priority: m.Priority})
		}
		list = append(list, out)
	}
	return list
}

// parallel is how many of a group may be in passes at once; 0: no bound.
func (c *controller) parallel(group string) int {
	for _, g := range c.config.Load().Groups {
		if g.Name == group {
			return g.Parallel
		}
	}
	return 0
}

// run drives failbacks until ctx is done. An engine that may not go on ends the
// daemon: somebody else has its store, or it is gone.
func (c *controller) run(ctx context.Context) error {
	if c.engine == nil {
		close(c.ended)
		return nil
	}
	failed := make(chan error, 1) // 1: nobody may be there to hear it
	go func() {
		defer close(c.ended)
		var wg sync.WaitGroup
		defer wg.Wait()
		for i := range c.hosts {
			wg.Go(func() { c.greet(ctx, &c.hosts[i]) })
		}
		failed <- c.engine.Run(ctx)
	}()
	select {
	case err := <-failed:
		if err != nil {
			return fmt.Errorf("failbacks: %w", err)
		}
	case <-ctx.Done(): // stop waits for it
	}
	return nil
}

// greet tells at the start whether a host answers; nobody waits for it.
func (c *controller) greet(ctx context.Context, h *hosts.Opened) {
	about, err := h.Open.About(ctx)
	switch {
	case err == nil:
		c.log.Info("host answers", "host", h.Name, "product", about.Product)
	case ctx.Err() == nil:
		c.log.Warn("host does not answer, what needs it waits", "host", h.Name, "err", hosts.Explain(ctx, h.Host, err))
	}
}

// close releases what was opened; Run has returned, or never began.
func (c *controller) close() (err error) {
	if c.engine != nil {
		err = c.engine.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), logoutTime) // the end of a daemon is no caller's
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range c.hosts {
		if h.Open == nil {
			continue
		}
		wg.Go(func() {
			if err := h.Open.Close(ctx); err != nil {
				c.log.Debug("not logged out", "host", h.Name, "err", err)
			}
		})
	}
	wg.Wait()
	if c.store != nil {
		err = errors.Join(err, c.store.Close())
	}
	return err
}

// open counts the failbacks that have not ended, and of them those that wait for
// an operator.
func (c *controller) open(ctx context.Context) (open, halted int) {
	if c.engine == nil {
		return 0, 0
	}
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	list, _, err := c.engine.List(ctx, failback.Filter{Open: true})
	if err != nil {
		return 0, 0
	}
	for i := range list {
		if list[i].Halted != nil {
			halted++
		}
	}
	return len(list), halted
}
