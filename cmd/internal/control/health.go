package control

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/haulback/haulback/hostctl/job"
)

// Plain HTTP paths.
const (
	pathHealth = "/healthz"
	pathReady  = "/readyz"
	// pathMetrics is for everybody who may look.
	pathMetrics = "/metrics"
	pathSSE     = "/v1/events"
	pathNDJSON  = "/v1/events.ndjson"

	pathFailbackSSE    = "/v1/failbacks/events"
	pathFailbackNDJSON = "/v1/failbacks/events.ndjson"
)

// healthTime is how long the job store may take to answer.
const healthTime = 2 * time.Second

// serveHealth says whether this process does its work: the job store answers.
// Whoever reaches the socket, or has a certificate of the CA, may ask; the
// answer says nothing else.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTime)
	defer cancel()
	if _, _, err := s.cfg.Jobs.List(ctx, job.Filter{}, job.Page{Size: 1}); err != nil {
		s.log.Warn("health check: the job store does not answer", "err", err)
		short(w, http.StatusServiceUnavailable, "the job store does not answer")
		return
	}
	short(w, http.StatusOK, "ok")
}

// serveReady says whether this daemon takes jobs, and a controller whether its
// failback store answers.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTime)
	defer cancel()
	info, err := s.cfg.Daemon.Info(ctx)
	switch {
	case err != nil:
		short(w, http.StatusServiceUnavailable, "not ready")
	case info.GetDraining():
		short(w, http.StatusServiceUnavailable, "draining")
	case s.failbacksLost(ctx):
		short(w, http.StatusServiceUnavailable, "the failback store does not answer")
	default:
		short(w, http.StatusOK, "ready")
	}
}

// failbacksLost reports whether there is a failback engine, and it does not
// answer.
func (s *Server) failbacksLost(ctx context.Context) bool {
	if s.cfg.Failbacks == nil {
		return false
	}
	_, _, err := s.cfg.Failbacks.Pairs(ctx)
	if err != nil {
		s.log.Warn("health check: the failback store does not answer", "err", err)
	}
	return err != nil
}

func short(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}
