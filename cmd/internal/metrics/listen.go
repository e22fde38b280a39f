package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// Path is where metrics are.
const Path = "/metrics"

// Bounds of the port: it is for a scraper or two.
const (
	maxConnections = 16
	headTime       = 5 * time.Second
	idleTime       = 2 * time.Minute
	headBytes      = 16 << 10
)

// Port is plain HTTP with GET /metrics and nothing else.
type Port struct {
	listener net.Listener
	server   *http.Server
}

// Listen opens addr; scrapes are answered when Serve runs.
func Listen(ctx context.Context, addr string, metrics http.Handler, log *slog.Logger) (*Port, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: port: %w; free the address, or configure another", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, metrics)
	p := &Port{listener: netutil.LimitListener(l, maxConnections)}
	p.server = &http.Server{
		Handler: own(l.Addr(), mux), ReadHeaderTimeout: headTime, ReadTimeout: headTime, WriteTimeout: 2 * scrapeTime, IdleTimeout: idleTime, MaxHeaderBytes: headBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return p, nil
}

// own keeps pages of others out: a browser on this machine would ask for them,
// by a name that resolves to this address as well.
func own(at net.Addr, next http.Handler) http.Handler {
	a, _ := at.(*net.TCPAddr)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case site != "" && site != "same-origin" && site != "none":
			http.Error(w, "a request of a page of another site", http.StatusForbidden)
		case a != nil && a.IP.IsLoopback() && !local(r.Host):
			http.Error(w, "this host is no name of the loopback", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// local reports whether a Host header can only mean this machine.
func local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// Addr is where it listens.
func (p *Port) Addr() net.Addr { return p.listener.Addr() }

// Serve answers until ctx is done.
func (p *Port) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.server.Close() }) // a scrape is not worth waiting for
	defer stop()
	if err := p.server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %v: %w", p.listener.Addr(), err)
	}
	return nil
}

// Close gives the port up; twice is once.
func (p *Port) Close() error {
	_ = p.server.Close()
	if err := p.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
