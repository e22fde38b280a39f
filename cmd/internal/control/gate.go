package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// call is one request on its way.
type call struct {
	who    Caller
	conn   *conn
	state  *tls.ConnectionState // nil on the socket
	path   string
	cancel context.CancelCauseFunc
	pace   paced
}

// end ends a stream and says why.
func (c *call) end(why error) { c.cancel(why) }

type (
	connKey struct{}
	callKey struct{}
)

// withConn keeps the connection for its requests.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// callOf is the call that ctx belongs to; the gate has made it.
func callOf(ctx context.Context) *call {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		panic("control: a handler runs without the gate")
	}
	return c
}

// whose tells whose request it is, by the rules of now.
func (s *Server) whose(c *conn, state *tls.ConnectionState) (Caller, error) {
	r := s.rules.Load()
	if c.peer != nil || c.strange != nil {
		return r.local(c)
	}
	return r.remote(state)
}

// gate is what every request has to pass:
//
//  1. it does not come from a page of somebody else
//  2. the caller may call, and may call this
//  3. he has not too much open
//  4. then it gets its deadlines and is handled
func (s *Server) gate(w http.ResponseWriter, r *http.Request) {
	c := &call{path: r.URL.Path, state: r.TLS}
	c.conn, _ = r.Context().Value(connKey{}).(*conn)
	if c.conn == nil {
		panic("control: a connection that nobody accepted")
	}
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			s.log.Error("a call of the control API has a bug", "call", clip(c.path), "reason", p, "stack", string(debug.Stack()))
			panic(http.ErrAbortHandler) // this connection ends, nothing else
		}
	}()
	rc := http.NewResponseController(w)
	c.pace = paced{rc: rc, d: s.cfg.Bounds.WriteTime}
	if r.Body != http.NoBody {
		_ = rc.SetReadDeadline(time.Now().Add(s.cfg.Bounds.RequestTime))
		r = r.WithContext(r.Context()) // a copy: the server wants to find its own body in its own request
		r.Body = &body{ReadCloser: r.Body, rc: rc}
	}
	release, err := s.admit(c, r)
	if err != nil {
		s.refuse(w, r, c, err)
		return
	}
	defer release()
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), callKey{}, c))
	defer cancel(nil)
	c.cancel = cancel
	if s.isStream(c.path) {
		if !s.enlist(c) {
			s.refuse(w, r, c, draining())
			return
		}
		defer s.delist(c)
		_ = rc.SetWriteDeadline(time.Time{}) // that of the request before on this connection
	} else {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, s.unaryTime(c.path))
		defer stop()
		_ = rc.SetWriteDeadline(time.Now().Add(s.unaryTime(c.path) + s.cfg.Bounds.WriteTime))
	}
	r = r.WithContext(ctx)
	if _, pattern := s.mux.Handler(r); pattern == "" {
		_ = s.errs.Write(w, r, jobpb.FromError(connect.Errorf(connect.CodeUnimplemented, "no %s %s here; docs/api.md lists what there is", r.Method, clip(c.path))))
		return
	}
	s.mux.ServeHTTP(w, r)
}

// admit is steps 1 to 3.
func (s *Server) admit(c *call, r *http.Request) (release func(), err error) {
	who, authErr := s.whose(c.conn, c.state)
	c.who = who
	if err := s.sameSite(r); err != nil {
		return nil, err
	}
	if c.path == pathHealth || c.path == pathReady {
		return s.calls.take("health")
	}
	if authErr != nil {
		return nil, authErr
	}
	if who.Role != Admin && !s.viewable(c.path) {
		return nil, refusal("%s has the role %s, which may only look at jobs, at failbacks and at the daemon", who.Name, who.Role)
	}
	if s.isStream(c.path) {
		return s.streams.take(who.Name)
	}
	return s.calls.take(who.Name)
}

// viewable reports whether a viewer may ask for path: what neither changes
// anything nor opens a disk, whose bytes a digest of few would tell.
func (s *Server) viewable(path string) bool {
	if isEvents(path) || path == pathMetrics {
		return true
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return s.specs[path].IdempotencyLevel == connect.IdempotencyNoSideEffects &&
		(service == controlv1.DaemonName || service == controlv1.JobsName || service == controlv1.FailbacksName)
}

func (s *Server) isStream(path string) bool {
	return isEvents(path) || s.specs[path].StreamType != connect.StreamTypeUnary
}

// unaryTime is how long a call of path may take.
func (s *Server) unaryTime(path string) time.Duration {
	switch path {
	case controlv1.FailbacksPlanProcedure, controlv1.FailbacksStartProcedure, controlv1.FailbacksGarbageProcedure:
		return s.cfg.Bounds.HostTime
	}
	return s.cfg.Bounds.UnaryTime
}

// sameSite refuses what a browser sends for a page that is not ours, reads too:
// on a machine with the certificate any page could ask in its owner's name.
func (s *Server) sameSite(r *http.Request) error {
	if r.TLS != nil && !s.rules.Load().hosts(r.Host) {
		return refusal("the host %q is no name of this daemon's certificate", clip(r.Host))
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return refusal("a request of a page of another site")
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	if u, err := url.Parse(origin); err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
		return refusal("a request of a page of another site, %q", clip(origin))
	}
	// The library's rules for what changes something; they may learn more.
	if err := s.site.Check(r); err != nil {
		return refusal("a request of a page of another site: %v", err)
	}
	return nil
}

// clip bounds what a stranger has said in what we say.
func clip(text string) string {
	if len(text) > 128 {
		return strings.ToValidUTF8(text[:128], "") + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// refuse answers one who does not pass the gate.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, c *call, err error) {
	out := jobpb.FromError(err)
	s.audit.refused(r.Context(), c.entry(clip(c.path), "", out))
	_ = s.errs.Write(w, r, out)
}

func (s *Server) enlist(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.live[c] = struct{}{}
	}
	return !s.closing
}

func (s *Server) delist(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, c)
}

// body takes the deadline off a connection once the request is read. The server
// goes on reading to notice that the caller went away; a deadline that ran out
// meanwhile would look the same.
type body struct {
	io.ReadCloser
	rc *http.ResponseController
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// why is the reason for which ctx is done, where it is ours: the daemon stops,
// the caller may no longer call.
func why(ctx context.Context, err error) error {
	if f, ok := errors.AsType[*job.Failure](context.Cause(ctx)); ok {
		return f
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return fmt.Errorf("the call was given up: %w", ctx.Err())
	}
	return err
}
