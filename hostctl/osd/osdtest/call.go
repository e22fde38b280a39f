package osdtest

import (
	"context"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// A call goes through
//
//	1  call     metadata is noted, who asks is found out and may or may not
//	2  wait     Config.Delay, Quirks.Slow and Hold; the caller may go, the call does not
//	3  perform  Quirks.Internal and Fail, the service, the count, Quirks.LoseReplies
//
// The services lock the server from here on.

func (s *Server) call(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	service, method := names(info.FullMethod)
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	s.seen = md.Copy()
	s.mu.Unlock()
	key := method
	if service == "Node" && method != "InspectCurrent" {
		key = "Node." + method
	}
	ctx, err := s.admit(ctx, service, method)
	if err != nil {
		s.count(key)
		return nil, err
	}
	return s.wait(ctx, key, func(ctx context.Context) (any, error) { return handle(ctx, req) })
}

// names of /openstorage.api.OpenStorageVolume/Inspect are Volume and Inspect.
func names(full string) (service, method string) {
	service, method, _ = strings.Cut(strings.TrimPrefix(full, "/openstorage.api.OpenStorage"), "/")
	return service, method
}

type reply struct {
	answer any
	err    error
}

func (s *Server) wait(ctx context.Context, key string, do func(context.Context) (any, error)) (any, error) {
	s.mu.Lock()
	delay, hold := s.cfg.Delay+s.quirks.Slow[key], s.holds[key]
	s.mu.Unlock()
	if delay == 0 && hold == nil {
		return s.perform(ctx, key, do)
	}
	done := make(chan reply, 1)
	s.slow.Go(func() {
		if !s.held(ctx, delay, hold) {
			done <- reply{nil, status.Error(codes.Unavailable, "server is closed")}
			return
		}
		answer, err := s.perform(context.WithoutCancel(ctx), key, do)
		done <- reply{answer, err}
	})
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// held waits until a call is to be done; false: the server is closed.
func (s *Server) held(ctx context.Context, delay time.Duration, hold Hold) bool {
	if hold != nil {
		select {
		case <-hold(ctx):
		case <-s.closing:
			return false
		}
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closing:
		return false
	}
}

func (s *Server) perform(ctx context.Context, key string, do func(context.Context) (any, error)) (any, error) {
	failure, fails := s.fails(key)
	if fails && !failure.Done {
		s.count(key)
		return nil, failure.err()
	}
	answer, err := do(ctx)
	s.count(key)
	if err != nil {
		return nil, err
	}
	if fails {
		return nil, failure.err()
	}
	if s.loses(key) {
		breakConnection(ctx)
		return nil, status.Error(codes.Unavailable, "connection lost")
	}
	return answer, nil
}

func (s *Server) count(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[key]++
}

// fails takes one of the failures that are planned.
func (s *Server) fails(key string) (Failure, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text, is := s.quirks.Internal[key]; is {
		return Failure{Code: uint32(codes.Internal), Text: text}, true
	}
	f, is := s.quirks.Fail[key]
	if !is {
		return f, false
	}
	left := f
	switch {
	case f.After > 0:
		left.After--
	case f.Times == 1:
		delete(s.quirks.Fail, key)
		return f, true
	case f.Times > 1:
		left.Times--
	}
	s.quirks.Fail[key] = left
	return f, f.After == 0
}

func (f *Failure) err() error { return status.Error(codes.Code(f.Code), f.Text) }

func (s *Server) loses(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quirks.LoseReplies[key] <= 0 {
		return false
	}
	s.quirks.LoseReplies[key]--
	return true
}

// breakable lets a call find its connection.
type breakable struct {
	credentials.TransportCredentials
}

type connection struct {
	credentials.AuthInfo
	conn net.Conn
}

func (b breakable) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := b.TransportCredentials.ServerHandshake(c)
	return conn, connection{info, c}, err
}

func (b breakable) Clone() credentials.TransportCredentials {
	return breakable{b.TransportCredentials.Clone()}
}

func (s *Server) credentials() credentials.TransportCredentials {
	if s.cert != nil {
		return breakable{credentials.NewServerTLSFromCert(s.cert)}
	}
	return breakable{insecure.NewCredentials()}
}

func breakConnection(ctx context.Context) {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(connection); ok {
			c.conn.Close()
		}
	}
}
