package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// Jobs is the job engine, *job.Engine, whose comments are the contract. It has
// more methods than an interface should: it is one service of the API.
type Jobs interface {
	Submit(ctx context.Context, id, owner string, s job.Spec, tickets map[string][]byte) (j job.Job, existed bool, err error)
	Get(ctx context.Context, id string) (job.Job, error)
	List(ctx context.Context, f job.Filter, p job.Page) (jobs []job.Job, next string, err error)
	Watch(ctx context.Context, after uint64, f job.Filter) iter.Seq2[job.Event, error]
	Cancel(ctx context.Context, id string) (job.Job, error)
	Pause(ctx context.Context, id string) (job.Job, error)
	Resume(ctx context.Context, id string) (job.Job, error)
	SetLimits(ctx context.Context, id string, l job.Limits) (job.Job, error)
	SetTickets(ctx context.Context, id string, tickets map[string][]byte) error
	Remove(ctx context.Context, id string) error
}

// Failbacks is the failback engine, *failback.Engine, whose comments are the
// contract; one service of the API, as Jobs. The name of who asks is in the
// context as well (failback.Caller).
type Failbacks interface {
	PutPair(ctx context.Context, p failback.Pair, expected uint64) (failback.Pair, error)
	Pair(ctx context.Context, name string) (failback.Pair, error)
	Pairs(ctx context.Context) (pairs []failback.Pair, revision uint64, err error)
	RemovePair(ctx context.Context, name string, expected uint64) error
	Failover(ctx context.Context, name string, expected uint64) (failback.Pair, error)
	UndoFailover(ctx context.Context, name string, expected uint64) (failback.Pair, error)
	CheckReplication(ctx context.Context, name string) error
	Plan(ctx context.Context, s failback.Spec, measure bool) (failback.Plan, error)
	Start(ctx context.Context, id, owner string, s failback.Spec, confirmed cbt.Digest) (status failback.Status, created bool, err error)
	Get(ctx context.Context, id string) (failback.Status, error)
	List(ctx context.Context, f failback.Filter) (list []failback.Status, revision uint64, err error)
	Watch(ctx context.Context, id string, after uint64) iter.Seq2[failback.Status, error]
	Switch(ctx context.Context, id string, s failback.Switch, expected uint64) (failback.Status, error)
	Commit(ctx context.Context, id string, o failback.CommitOptions, expected uint64) (failback.Status, error)
	Undo(ctx context.Context, id string, o failback.UndoOptions, expected uint64) (failback.Status, error)
	Cancel(ctx context.Context, id string, expected uint64) (failback.Status, error)
	Continue(ctx context.Context, id string, expected uint64) (failback.Status, error)
	SetLimits(ctx context.Context, id string, l job.Limits, p job.Priority) (failback.Status, error)
	Garbage(ctx context.Context, remove bool) ([]failback.Leftover, error)
}

var _ Failbacks = (*failback.Engine)(nil)

// Daemon is the daemon itself.
type Daemon interface {
	// Info tells everything but the bounds of the API, which this package adds.
	Info(ctx context.Context) (*controlv1.GetInfoResponse, error)
	// Drain begins to drain and returns at once; twice is once.
	Drain(ctx context.Context) (*controlv1.DrainResponse, error)
	// Reload reads the configuration again; the warnings are for people. A
	// mistake in it is a *job.Failure with ReasonInvalid.
	Reload(ctx context.Context) (warnings []string, err error)
}

// Endpoint looks at one disk. Errors are *job.Failure where they can be classed.
type Endpoint interface {
	Probe(ctx context.Context, req *controlv1.ProbeRequest) (*controlv1.ProbeResponse, error)
	// Checksum reads until it is done or ctx is; progress may be called as often
	// as it likes, and from any goroutine, until Checksum returns.
	Checksum(ctx context.Context, req *controlv1.ChecksumRequest, progress func(read, total int64)) (*controlv1.ChecksumResult, error)
}

// Extents lists parts of one disk. A method calls head once, then each for every
// extent in ascending order; extents before the starting offset may come, they
// are left out. An error of head or each ends the call and is returned as it is.
type Extents interface {
	Allocated(ctx context.Context, req *controlv1.AllocatedRequest, head func(ExtentHead) error, each func(cbt.Extent) error) error
	Changed(ctx context.Context, req *controlv1.ChangedRequest, head func(ExtentHead) error, each func(cbt.Extent) error) error
}

// ExtentHead is what is known before the first extent.
type ExtentHead struct {
	Size            int64 // bytes of the disk
	Fixed           bool  // every extent has the same size
	Tracking, Trust string
}

// Config is what a Server needs.
type Config struct {
	Access                        // Reload replaces it
	Socket      string            // path of the unix socket; empty: none
	Passed      *net.UnixListener // at Socket, of a service manager, whose are its file, group and mode; nil: it is made
	Listen      string            // host:port of the TCP port; empty: none
	Jobs        Jobs
	Daemon      Daemon
	Endpoint    Endpoint
	Extents     Extents
	Failbacks   Failbacks // nil: this daemon is no controller
	Bounds      Bounds
	Log         *slog.Logger                       // nil: slog.Default
	Audit       func(ctx context.Context, e Entry) // nil: nobody listens; it is called one at a time
	GracePeriod time.Duration                      // to end requests at the end; 0: 5 s

	Metrics        http.Handler                                         // of GET /metrics; nil: there is none
	FailbackRecord func(ctx context.Context, id string) ([]byte, error) // its text; fs.ErrNotExist: there is none; nil: none are kept
	FailbackGroups func() []FailbackGroup                               // nil: there are none
}

// FailbackGroup is VMs that the configuration brings home together.
type FailbackGroup struct {
	Name     string
	Parallel int             // at once; 0: no bound of its own
	Members  []failback.Spec // with what the configuration says
}

// Access says who may call. The zero Access: root and the daemon's own user, on
// the socket alone.
type Access struct {
	Group string // name or number of the group whose members may use the socket; empty: none
	TLS   TLS    // of the TCP port
}

// TLS is the certificate of the daemon, and whose certificates are let in.
type TLS struct {
	Cert, Key string   // files, PEM
	CA        string   // file, PEM: who signs the callers' certificates
	Allow     []Caller // who may call, by the names in the certificate; the first that fits counts
}

// Role is what a caller may do.
type Role string

// The roles.
const (
	Admin  Role = "admin"  // everything
	Viewer Role = "viewer" // what has no side effects
)

// Caller is who may call, or who calls.
type Caller struct {
	Name string // of the certificate: common name, DNS name, e-mail address or URI; of the socket: "uid 0"
	Role Role
}

// Bounds are the bounds of the API. Zero means the default; every one has a
// reason to be small, because callers are few.
type Bounds struct {
	RequestBytes      int           // of one request, after decompression; 1 MiB: a spec of 256 disks is 100 KiB
	Connections       int           // open at once, of each listener; 1024
	CallerConnections int           // of them, of one user of the socket; half of Connections
	Requests          int           // at once, in all; 256
	CallerRequests    int           // at once, of one caller; 64
	Streams           int           // at once, in all; 512
	CallerStreams     int           // at once, of one caller; 128
	HeaderTime        time.Duration // to send the head of a request, and for a TLS handshake; 10 s
	RequestTime       time.Duration // to send a request; 30 s
	UnaryTime         time.Duration // to answer a request; 60 s: a probe may have to wake a disk
	HostTime          time.Duration // to answer one that asks hosts and samples disks (Plan, Start, Garbage); 15 min
	WriteTime         time.Duration // for a caller to take one event; 30 s
	KeepAlive         time.Duration // between two signs of life of an event stream; 15 s
	IdleTime          time.Duration // of a connection without a request; 2 min
	ListBytes         int           // of a page of jobs, about; 1 MiB: clients of gRPC take 4 MiB, and the last batch comes on top
	RefusalsAudited   int           // refusals a second that are audited; 10: a flood of them is counted, not written
}

func def[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (b Bounds) withDefaults() Bounds {
	def(&b.RequestBytes, 1<<20)
	def(&b.Connections, 1024)
	def(&b.CallerConnections, (b.Connections+1)/2)
	def(&b.Requests, 256)
	def(&b.CallerRequests, 64)
	def(&b.Streams, 512)
	def(&b.CallerStreams, 128)
	def(&b.HeaderTime, 10*time.Second)
	def(&b.RequestTime, 30*time.Second)
	def(&b.UnaryTime, time.Minute)
	def(&b.HostTime, 15*time.Minute)
	def(&b.WriteTime, 30*time.Second)
	def(&b.KeepAlive, 15*time.Second)
	def(&b.IdleTime, 2*time.Minute)
	def(&b.ListBytes, 1<<20)
	def(&b.RefusalsAudited, 10)
	return b
}

func (c *Config) check() error {
	switch {
	case c.Socket == "" && c.Listen == "":
		return errors.New("control: neither a socket nor a TCP address is configured")
	case c.Jobs == nil || c.Daemon == nil || c.Endpoint == nil || c.Extents == nil:
		return errors.New("control: Jobs, Daemon, Endpoint and Extents are needed")
	}
	return c.Access.check(c.Listen != "")
}

func (a *Access) check(tcp bool) error {
	if !tcp {
		return nil
	}
	if a.TLS.Cert == "" || a.TLS.Key == "" || a.TLS.CA == "" {
		return errors.New("control: a TCP port needs a certificate, its key and the CA of the callers; there is no plaintext TCP")
	}
	for _, c := range a.TLS.Allow {
		if c.Name == "" || c.Role != Admin && c.Role != Viewer {
			return fmt.Errorf("control: allowed caller %q has role %q; it needs a name, and role %q or %q", c.Name, c.Role, Admin, Viewer)
		}
	}
	return nil
}
