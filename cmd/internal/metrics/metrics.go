package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// Sources is where a scrape asks. Each is called from many goroutines.
type Sources struct {
	Engine      func() mover.Stats
	Daemon      func() Daemon
	Jobs        func(ctx context.Context) (Jobs, error)
	Failbacks   func(ctx context.Context) (Failbacks, error) // nil: no controller
	VSphere     func() map[hostctl.Call]uint64               // nil: no controller
	OpenStorage func() OpenStorage
}

// Daemon is what the daemon knows of itself. A zero time: there is none.
type Daemon struct {
	Version, Revision, Go string
	Draining              bool
	Looped, Configured    time.Time
	ConfigGood            bool
	Peers                 int
	PeersGood             bool
	CertificateEnds       time.Time
	Sessions              int
	Targets               map[wire.State]int // nil: not known
	Busy, Unknown, Failed uint64             // connections that were refused
	Packets               *wire.PacketStats  // nil: no UDP
}

// Jobs are those of the job engine.
type Jobs struct {
	Phases                  map[job.Phase]int
	Waiting, Running, Slots int       // disks
	Active                  []job.Job // in progress
}

// Failbacks are those of the failback engine.
type Failbacks struct {
	VMs  map[failback.State]int
	Open []failback.Status
}

// OpenStorage is what is known of volumes.
type OpenStorage struct {
	Calls      map[hostctl.Call]uint64
	Rows, Left int
}

// Bounds of a scrape: Prometheus gives up after 10 s, and who scrapes more than
// twice at once waits for nothing good.
const (
	scrapeTime = 5 * time.Second
	maxScrapes = 2
)

// Registry has the metrics of s, of the Go runtime and of the process.
func Registry(s Sources) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(&collector{Sources: s, descs: descs()}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler answers scrapes of r. What cannot be collected is logged, and the rest
// told all the same.
func Handler(r *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
	})
}
