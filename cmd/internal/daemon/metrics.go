package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/metrics"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// meters are what metrics are made of besides what the engines count.
type meters struct {
	handler    http.Handler
	port       *metrics.Port // nil: none is configured
	looped     atomic.Int64  // ns since the epoch: supervise goes round
	configured atomic.Int64  // the configuration in use was read
	mistaken   atomic.Bool   // the file had a mistake at the last reload
	targets    atomic.Pointer[map[wire.State]int]
}

// targetsEvery is how often journals are looked at: those that have changed are
// read, 4 MiB and more each.
const targetsEvery = time.Minute

// open makes the handler, and opens the port.
func (m *meters) open(ctx context.Context, d *Daemon) (err error) {
	m.configured.Store(time.Now().UnixNano())
	m.looped.Store(time.Now().UnixNano())
	s := metrics.Sources{Engine: d.engine.Stats, Daemon: d.metrics, Jobs: d.work.metrics, OpenStorage: d.volumeMetrics}
	if d.home.engine != nil {
		s.Failbacks, s.VSphere = d.home.metrics, d.home.calls.All
	}
	m.handler = metrics.Handler(metrics.Registry(s), d.log)
	if addr := d.cfg.Metrics.Listen; addr != "" {
		if m.port, err = metrics.Listen(ctx, addr, m.handler, d.log); err != nil {
			return exitcode.Port(err)
		}
		d.log.Info("metrics", "listen", m.port.Addr().String())
	}
	return nil
}

// run answers at the port until ctx is done.
func (m *meters) run(ctx context.Context) error {
	if m.port == nil {
		return nil
	}
	return m.port.Serve(ctx)
}

// look looks at the journals until ctx is done. A scrape does not: the state
// directory may hang.
func (m *meters) look(ctx context.Context, dir mover.StateDir, log *slog.Logger) {
	journals := mover.Journals{Dir: dir}
	tick := time.NewTicker(targetsEvery)
	defer tick.Stop()
	for {
		n, err := journals.States()
		if err != nil {
			log.Warn("states of targets are not known", "err", err)
			m.targets.Store(nil)
		} else {
			m.targets.Store(&n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *meters) close() error {
	if m.port == nil {
		return nil
	}
	return m.port.Close()
}

// loop notes that supervise goes round.
func (m *meters) loop() { m.looped.Store(time.Now().UnixNano()) }

// reloaded notes how a reload went.
func (m *meters) reloaded(err error) {
	m.mistaken.Store(err != nil)
	if err == nil {
		m.configured.Store(time.Now().UnixNano())
	}
}

// metrics is what the daemon knows of itself.
func (d *Daemon) metrics() metrics.Daemon {
	b := build.Current()
	m := metrics.Daemon{
		Version: b.Version, Revision: b.Revision, Go: b.Go, Draining: d.work.drained.Load(),
		Looped: time.Unix(0, d.meters.looped.Load()), Configured: time.Unix(0, d.meters.configured.Load()), ConfigGood: !d.meters.mistaken.Load(),
		Peers: len(*d.peers.Load()), PeersGood: true, Sessions: d.server.Sessions(),
	}
	if n := d.meters.targets.Load(); n != nil {
		m.Targets = *n
	}
	if why := d.unread.Load(); why != nil {
		m.PeersGood = *why == ""
	}
	if c := d.work.control; c != nil {
		m.CertificateEnds = c.CertificateEnds()
	}
	if r := d.ports.refusals; r != nil {
		m.Busy, m.Unknown, m.Failed = r.Busy.Load(), r.Unknown.Load(), r.Failed.Load()
	}
	if p := d.ports.packets; p != nil {
		stats := p.Stats()
		m.Packets = &stats
	}
	return m
}

func (d *Daemon) volumeMetrics() metrics.OpenStorage {
	s := d.volumes.Stats()
	return metrics.OpenStorage{Rows: s.Rows, Left: s.Left, Calls: s.Calls}
}

// metrics asks the job engine. Jobs that have ended are counted in memory.
func (w *work) metrics(ctx context.Context) (m metrics.Jobs, err error) {
	m.Phases = w.engine.Counts()
	_, _, m.Slots, _ = w.engine.Bounds()
	err = w.open(ctx, func(j *job.Job) {
		if j.Phase == job.InProgress {
			m.Active = append(m.Active, *j)
		}
		for _, d := range j.Disks {
			switch {
			case d.Phase == job.New || d.Phase == job.Accepted:
				m.Waiting++
			case moves(d.Phase):
				m.Running++
			}
		}
	})
	return m, err
}

// metrics asks the failback engine.
func (c *controller) metrics(ctx context.Context) (m metrics.Failbacks, err error) {
	pairs, _, err := c.engine.Pairs(ctx)
	if err != nil {
		return m, err
	}
	m.VMs = make(map[failback.State]int)
	for i := range pairs {
		m.VMs[pairs[i].State]++
	}
	m.Open, _, err = c.engine.List(ctx, failback.Filter{Open: true})
	return m, err
}
