package control

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"golang.org/x/sync/errgroup"

	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// headBytes bounds the head of a request; a GET carries its message there.
const headBytes = 64 << 10

// grace is how long requests may take to end when the server does.
const grace = 5 * time.Second

// Server serves the control API. Make it with Listen.
type Server struct {
	cfg   Config
	log   *slog.Logger
	rules atomic.Pointer[rules]

	ports   []port
	errs    *connecthttp.ErrorWriter
	specs   map[string]connect.Spec // by path
	mux     *http.ServeMux
	site    *http.CrossOriginProtection
	calls   *slots
	streams *slots
	audit   auditor

	mu      sync.Mutex
	live    map[*call]struct{} // streams that are open
	closing bool
}

// port is a listener and what serves it.
type port struct {
	listener net.Listener
	server   *http.Server
	tls      bool
}

// draining is what calls are told when the daemon stops.
func draining() error {
	return &job.Failure{Reason: job.ReasonDraining, Text: "this daemon is about to stop; call again when it is back", Retry: job.RetryBackoff, Exit: 13}
}

// Listen opens the socket and the port; calls are answered when Serve runs.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Bounds = cfg.Bounds.withDefaults()
	cfg.GracePeriod = cmp.Or(cfg.GracePeriod, grace)
	r, err := cfg.Access.read(cfg.Listen != "")
	if err != nil {
		return nil, err
	}
	b := &cfg.Bounds
	s := &Server{
		cfg: cfg, log: cmp.Or(cfg.Log, slog.Default()), errs: connecthttp.NewErrorWriter(), live: make(map[*call]struct{}), site: http.NewCrossOriginProtection(),
		calls: newSlots("requests", b.Requests, b.CallerRequests), streams: newSlots("streams", b.Streams, b.CallerStreams),
		audit: auditor{to: cfg.Audit, rate: b.RefusalsAudited},
	}
	s.rules.Store(r)
	s.routes()
	if err := s.open(ctx, r); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context, r *rules) error {
	switch {
	case s.cfg.Passed != nil:
		if err := s.passedGroup(r); err != nil {
			return errors.Join(err, s.cfg.Passed.Close())
		}
		s.add(s.cfg.Passed, false)
	case s.cfg.Socket != "":
		l, err := listenSocket(ctx, s.cfg.Socket, r.group)
		if err != nil {
			return err
		}
		s.add(l, false)
	}
	if s.cfg.Listen == "" {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("control: port: %w; free the address, or configure another", err)
	}
	s.add(l, true)
	return nil
}

func (s *Server) add(l net.Listener, secure bool) {
	b := &s.cfg.Bounds
	p := port{listener: bound(l, b.Connections, b.CallerConnections), tls: secure}
	p.server = &http.Server{
		Handler: http.HandlerFunc(s.gate), ReadHeaderTimeout: b.HeaderTime, IdleTimeout: b.IdleTime, MaxHeaderBytes: headBytes,
		ErrorLog:  slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		Protocols: new(http.Protocols), ConnContext: withConn,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: b.CallerStreams + b.CallerRequests, SendPingTimeout: b.KeepAlive, PingTimeout: b.KeepAlive,
			WriteByteTimeout: b.WriteTime, MaxReadFrameSize: 1 << 16,
			MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 1 << 18,
		},
	}
	p.server.Protocols.SetHTTP1(true)
	if secure {
		p.server.Protocols.SetHTTP2(true)
		p.server.TLSConfig = &tls.Config{
			MinVersion:         tls.VersionTLS13,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.rules.Load().tls, nil },
			// Never used, but http.Server wants to see one.
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("no certificate") },
		}
	} else {
		p.server.Protocols.SetUnencryptedHTTP2(true)
	}
	s.ports = append(s.ports, p)
}

// routes makes the table of paths.
func (s *Server) routes() {
	rpc := connect.NewServer(s.intercept)
	controlv1.RegisterDaemonHandler(rpc, daemonHandler{s})
	controlv1.RegisterEndpointHandler(rpc, endpointHandler{s})
	controlv1.RegisterExtentsHandler(rpc, extentsHandler{s})
	controlv1.RegisterJobsHandler(rpc, jobsHandler{s})
	controlv1.RegisterFailbacksHandler(rpc, failbacksHandler{s})
	s.specs = make(map[string]connect.Spec)
	for spec := range rpc.Specs() {
		s.specs[spec.Procedure] = spec
	}
	// A field that JSON misspells must not be left out in silence: "strict" and
	// "full" change what a job proves.
	strict := connectproto.NewJSONCodec()
	strict.UnmarshalOptions.DiscardUnknown = false
	rpc.SetUnknownHandler(func(_ context.Context, spec connect.Spec, _ connect.ServerStream) error {
		return connect.Errorf(connect.CodeUnimplemented, "no method %s here; docs/api.md lists what there is", clip(spec.Procedure))
	})
	s.mux = http.NewServeMux()
	connecthttp.Mount(s.mux, rpc, connecthttp.WithReadMaxBytes(s.cfg.Bounds.RequestBytes),
		connecthttp.WithCodecs(connectproto.NewBinaryCodec(), strict))
	for path, serve := range s.eventPaths() {
		s.mux.HandleFunc("GET "+path, serve)
	}
	s.mux.HandleFunc("GET "+pathHealth, s.serveHealth)
	s.mux.HandleFunc("GET "+pathReady, s.serveReady)
	if s.cfg.Metrics != nil {
		s.mux.Handle("GET "+pathMetrics, s.cfg.Metrics)
	}
}

// Addrs are where it listens: the path of the socket, host:port of the port.
func (s *Server) Addrs() (all []net.Addr) {
	for _, p := range s.ports {
		all = append(all, p.listener.Addr())
	}
	return all
}

// CertificateEnds is when the certificate of the port ends; zero without one.
func (s *Server) CertificateEnds() (t time.Time) {
	if r := s.rules.Load(); r.leaf != nil {
		t = r.leaf.NotAfter
	}
	return t
}

// Reload puts new access rules in force and reads their files again; streams of
// those who may no longer call end. After an error the old rules stay in force.
// The group of the socket's file is set anew as well.
func (s *Server) Reload(a Access) error {
	r, err := a.read(s.cfg.Listen != "")
	if err != nil {
		return err
	}
	switch {
	case s.cfg.Passed != nil:
		if err := s.passedGroup(r); err != nil {
			return err
		}
	case s.cfg.Socket != "" && r.group != s.rules.Load().group:
		gid := r.group
		if gid < 0 {
			gid = os.Getgid()
		}
		if err := os.Chown(s.cfg.Socket, -1, gid); err != nil {
			return fmt.Errorf("control: group of the socket: %w; run the daemon as root or as a member of the group", err)
		}
	}
	s.rules.Store(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.live {
		if who, err := s.whose(c.conn, c.state); err != nil {
			c.end(err)
		} else if who != c.who {
			c.end(refusal("what %s may do has changed; call again", c.who.Name))
		}
	}
	return nil
}

// Serve answers until ctx is done or a listener fails; then streams end with
// DRAINING, requests may end within the grace period, and the socket is removed.
func (s *Server) Serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range s.ports {
		g.Go(func() error {
			var err error
			if p.tls {
				err = p.server.ServeTLS(p.listener, "", "")
			} else {
				err = p.server.Serve(p.listener)
			}
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("control: %v: %w", p.listener.Addr(), err)
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		s.shutdown(context.WithoutCancel(ctx))
		return nil
	})
	return g.Wait()
}

// shutdown ends everything within the grace period.
func (s *Server) shutdown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.GracePeriod)
	defer cancel()
	s.mu.Lock()
	s.closing = true
	for c := range s.live {
		c.end(draining())
	}
	s.mu.Unlock()
	var g errgroup.Group
	for _, p := range s.ports {
		g.Go(func() error {
			if err := p.server.Shutdown(ctx); err != nil {
				s.log.Warn("a call of the control API did not end in time", "dur", s.cfg.GracePeriod)
				return p.server.Close()
			}
			return nil
		})
	}
	_ = g.Wait()
}

// Close gives up the listeners, of a server that never served as well. It is
// idempotent.
func (s *Server) Close() (err error) {
	for _, p := range s.ports {
		err = errors.Join(err, p.server.Close())
		if e := p.listener.Close(); !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}
