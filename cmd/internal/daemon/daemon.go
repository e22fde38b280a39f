package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/osdisk"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

// drainTime is how long a stop waits for last checkpoints. A flush of a slow
// disk takes seconds; systemd waits longer than this before it kills.
const drainTime = 10 * time.Second

// Daemon is a running haulbackd. Make it with Start.
type Daemon struct {
	cfg     *config.Config // as started
	log     *slog.Logger
	key     *wire.Key
	journal *mover.StateRoot
	engine  *mover.Engine
	server  *mover.Server
	ports   *ports
	passed  *passed // sockets of the service manager
	peers   atomic.Pointer[site.Peers]
	own     atomic.Pointer[site.Peers] // of the last good configuration file
	work    work
	home    controller
	meters  meters
	volumes *osdisk.Disks // registered as the driver of osd://
	started time.Time

	using   sync.Mutex     // held while peers and exports change
	good    *config.Config // the last good configuration
	dialled dialled
	dialer  site.Dialer
	inviter inviter
	watcher watcher
	record  recorder
	recheck atomic.Bool            // peers may have changed while they were read
	unread  atomic.Pointer[string] // why the paired peers cannot be read; empty: they can
}

// Start opens what cfg names; when it returns, peers can connect. volumes is the
// driver of osd:// that this process has registered; the daemon closes it.
func Start(ctx context.Context, cfg *config.Config, volumes *osdisk.Disks, log *slog.Logger) (*Daemon, error) {
	d := &Daemon{cfg: cfg, volumes: volumes, log: log, started: time.Now()}
	d.dialer.Admit = d.mayLink
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *Daemon) open(ctx context.Context) (err error) {
	if d.passed, err = takeSockets(d.cfg); err != nil {
		return err
	}
	if d.journal, err = d.cfg.Site.Journals(); err != nil {
		return err
	}
	if d.key, err = d.cfg.Site.Key(); err != nil {
		return err
	}
	d.record.open(d.cfg.Site, d.log)
	d.watcher.peers.path, d.watcher.invitations.path, d.watcher.asked = d.cfg.Site.PeersFile(), d.cfg.Site.InvitationsFile(), make(chan chan struct{})
	d.inviter = inviter{site: d.cfg.Site, record: &d.record, log: d.log, fresh: func() { d.watcher.fresh(&d.watcher.invitations) }}
	if n := d.cfg.Limits.CPUs; n > 0 {
		runtime.GOMAXPROCS(n) // of the process, which is this daemon; the engine counts its workers by it
	}
	engine := d.cfg.Limits.Engine()
	engine.Agent, engine.Log = build.Agent("haulbackd"), d.log
	if d.engine, err = mover.NewEngine(engine, d.journal); err != nil {
		return err
	}
	d.server = mover.NewServer(d.engine, d.dial)
	d.server.Observe, d.server.Self = d.observe, d.key.ID()
	d.use(d.cfg)
	site.Offload(d.cfg.GRO, d.cfg.GSO)
	if d.ports, err = listen(ctx, d.cfg, d.key, d, d.log); err != nil {
		return err
	}
	if err := d.openController(ctx); err != nil {
		return err
	}
	if err := d.meters.open(ctx, d); err != nil {
		return err
	}
	return d.openWork(ctx)
}

// Run serves until ctx is done, then drains. Every value on reload makes it
// read its configuration again.
func (d *Daemon) Run(ctx context.Context, reload <-chan struct{}) error {
	d.log.Info("haulbackd ready", "id", d.key.ID().String(), "listen", d.ports.addr, "exports", len(d.cfg.Exports), "control", d.controlAddrs(), "passed", d.passed.names())
	d.record.note(ctx, audit.Entry{Actor: "daemon", Action: "daemon.start", Object: d.ports.addr, Outcome: "ok", Details: map[string]string{"id": d.key.ID().String(), "version": build.Agent("haulbackd")}})
	n := notifier{log: d.log}
	n.ready()
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range d.ports.listeners {
		g.Go(func() error { return d.server.Serve(ctx, l) })
	}
	g.Go(func() error { return d.work.run(ctx) })
	g.Go(func() error { return d.home.run(ctx) })
	g.Go(func() error { return d.meters.run(ctx) })
	g.Go(func() error {
		d.meters.look(ctx, d.journal, d.log)
		return nil
	})
	g.Go(func() error {
		d.watch(ctx)
		return nil
	})
	g.Go(func() error {
		d.record.flushes(ctx)
		return nil
	})
	g.Go(func() error {
		d.volumes.Run(ctx)
		return nil
	})
	var drain chan struct{}
	var until time.Time
	g.Go(func() error {
		d.supervise(ctx, reload, &n)
		until = time.Now().Add(drainTime) // the drain begins here, whatever still answers callers
		drain = d.drain()
		return nil
	})
	over := n.stopping(ctx)
	defer over()
	err := g.Wait()
	return errors.Join(err, d.stop(drain, time.Until(until)))
}

// drain lets all that works come to its end; the channel is closed then.
func (d *Daemon) drain() chan struct{} {
	done := make(chan struct{})
	d.log.Info("haulbackd stops", "sessions", d.server.Sessions())
	go func() { // ends with the process when a disk hangs
		d.record.drain(context.Background(), d.server.Sessions()) // what ends a daemon is no caller's
		<-d.work.ended
		<-d.home.ended
		d.server.Drain()
		close(done)
	}()
	return done
}

// supervise answers reloads and tells the service manager that this process is
// alive and what it does. A disk that is slow does not hold it up.
func (d *Daemon) supervise(ctx context.Context, reload <-chan struct{}, n *notifier) {
	loop(ctx, n, reload, d.look, func() { _, _ = d.reload(ctx) }) // it has logged what is wrong
}

func loop(ctx context.Context, n *notifier, asked <-chan struct{}, look func(context.Context) activity, reload func()) {
	tick := time.NewTicker(n.every())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.alive(look(ctx))
		case <-asked:
			n.reloading()
			reload()
			n.ready()
		case <-ctx.Done():
			return
		}
	}
}

// look sees what this daemon does. It takes the locks that all work needs and waits
// for no disk: where it does not come back, the daemon has locked itself up.
func (d *Daemon) look(ctx context.Context) (a activity) {
	_ = d.engine.Held() // whether it comes back is what counts
	d.meters.loop()
	moved := d.server.Progress()
	a.sessions = d.server.Sessions()
	var jobs job.Counters
	a.jobs, _, a.disks, jobs = d.work.progress(ctx)
	a.done, a.left = moved.Scanned+jobs.Scanned, moved.Total-moved.Scanned+jobs.Total-jobs.Scanned
	a.failbacks, a.halted = d.home.open(ctx)
	return a
}

// reload takes over the peers and exports of the configuration. With a mistake
// in it the exports stay as they are, but who was removed loses his access.
func (d *Daemon) reload(ctx context.Context) (warnings []string, err error) {
	defer d.recheck.Store(true) // what was read here may be older than what watch has read
	cfg, err := config.Load(d.cfg.File)
	if err == nil && d.work.control != nil && cfg.Control.Socket == d.cfg.Control.Socket && cfg.Control.Listen == d.cfg.Control.Listen {
		err = d.work.control.Reload(access(&cfg.Control))
	}
	d.record.note(ctx, reloaded(err))
	d.meters.reloaded(err)
	d.using.Lock()
	defer d.using.Unlock()
	if err != nil {
		d.log.Error("configuration has a mistake, the old one stays in use", "err", err)
		d.repair()
		return nil, err
	}
	if cfg.Listen != d.cfg.Listen || cfg.QUIC != d.cfg.QUIC || cfg.TLS != d.cfg.TLS || *cfg.Site != *d.cfg.Site ||
		cfg.Limits != d.cfg.Limits || cfg.Log != d.cfg.Log || cfg.Control.Socket != d.cfg.Control.Socket || cfg.Control.Listen != d.cfg.Control.Listen ||
		cfg.Jobs.Disks != d.cfg.Jobs.Disks || cfg.Jobs.PerHost != d.cfg.Jobs.PerHost || cfg.Jobs.Keep != d.cfg.Jobs.Keep || cfg.Metrics != d.cfg.Metrics || !unchanged(cfg, d.cfg) {
		warnings = append(warnings, "only peers, exports, OpenStorage profiles of disks, who may call, what jobs may open, hooks, replication and groups are reloaded, the rest of the configuration needs a restart")
		d.log.Warn(warnings[0])
	}
	d.use(cfg)
	d.revoke()
	d.log.Info("configuration reloaded", "peers", len(cfg.Peers), "exports", len(cfg.Exports))
	return append(warnings, cfg.Warnings...), nil
}

// repair takes over who was removed although the configuration has a mistake; it lets
// nobody in. Files that cannot be read at all say nothing of it: they change nothing.
// It is called with using held.
func (d *Daemon) repair() {
	stays, err := config.StillPeers(d.cfg.File)
	if err != nil {
		d.log.Warn("neither peers nor exports reloaded", "err", err)
		return
	}
	own := slices.DeleteFunc(slices.Clone(*d.own.Load()), func(p site.Peer) bool { return !stays(p) })
	good := *d.good // watch starts from it: what is taken here stays taken
	good.Own = own
	d.good = &good
	d.own.Store(&own)
	d.admit(own)
	d.revoke()
	if _, err := d.takePeers(); err == nil {
		d.log.Warn("who was removed is out, the rest is as it was", "peers", len(d.good.Peers))
	}
}

// use puts the peers and exports of cfg to work.
func (d *Daemon) use(cfg *config.Config) {
	for _, w := range cfg.Warnings {
		d.log.Warn("configuration is unusual", "reason", w)
	}
	peers := cfg.Peers
	d.peers.Store(&peers)
	own := cfg.Own
	d.own.Store(&own)
	d.good = cfg
	d.volumes.Use(cfg.OpenStorage)
	d.work.use(cfg)
	d.home.use(cfg)
	var exports []mover.Export
	for _, e := range cfg.Exports {
		if e.Host != nil {
			exports = append(exports, d.hostExport(&e))
			continue
		}
		exports = append(exports, mover.Export{
			Name: e.Name, Role: e.Role, Kind: kind(e.URI), Tickets: d.tickets(&e), Peers: e.Peers, Operators: e.Operators, Open: site.Disk{URI: e.URI, Track: e.Track, Log: d.log}.Opener(),
		})
	}
	d.server.SetExports(exports)
	if err := d.engine.SetLimits(cfg.Throttle); err != nil {
		d.log.Error("limits stay as they are", "err", err) // they were checked
	}
}

// hostExport is the export of a host's disks.
func (d *Daemon) hostExport(e *config.Export) mover.Export {
	table := *e.Host
	table.Log = d.log
	return mover.Export{Name: e.Name, Role: e.Role, Peers: e.Peers, Operators: e.Operators, Tickets: d.tickets(e), Beneath: table.Find}
}

// kind is the driver's word for a disk in probes.
func kind(uri string) string {
	if u, err := vddk.ParseURI(uri); err == nil && u.Scheme != "" {
		return u.Scheme
	}
	return "disk"
}

// Allowed implements wire.Peers with the peers of the last good configuration.
func (d *Daemon) Allowed(id wire.ID) bool { return d.peers.Load().Allowed(id) }

// lives reports whether a paired peer is known to live at ip.
func (d *Daemon) lives(ip netip.Addr) bool { return d.peers.Load().Lives(ip) }

// dial makes the link that an order asks for.
func (d *Daemon) dial(ctx context.Context, o *wire.Order) (wire.Link, error) {
	if !d.Allowed(o.Peer) {
		return nil, wire.Errorf(wire.CodeUnauthorized, "the daemon that was told to push is not paired with %v; on it run: haulback peer add %v --name NAME --address %s",
			o.Peer, o.Peer, o.Address)
	}
	if err := site.CheckTransport(o.Transport); err != nil {
		return nil, wire.Errorf(wire.CodeFrame, "order: %w", err)
	}
	return reach{d}.Dial(ctx, o.Transport, o.Address, o.Peer)
}

// stop waits for the drain, until drainTime is over.
func (d *Daemon) stop(done <-chan struct{}, rest time.Duration) error {
	err := d.ports.closeListeners()
	select {
	case <-done:
	case <-time.After(rest):
		return fmt.Errorf("sessions did not end within %v: a disk does not answer; their targets are marked and resume", drainTime)
	}
	err = errors.Join(err, d.close())
	d.log.Info("haulbackd stopped")
	return err
}

// close releases what Start opened.
func (d *Daemon) close() error {
	err := errors.Join(d.work.close(), d.home.close(), d.meters.close())
	if d.engine != nil {
		err = errors.Join(err, d.engine.Close())
	}
	if d.ports != nil {
		d.ports.tell(d.log)
		err = errors.Join(err, d.ports.close())
	}
	err = errors.Join(err, d.volumes.Close()) // after the engine: its disks are let go by now
	if d.journal != nil {
		err = errors.Join(err, d.journal.Close())
	}
	err = errors.Join(err, d.record.close())
	return err
}
