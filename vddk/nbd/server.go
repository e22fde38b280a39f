package nbd

// The server half of the NBD protocol, after doc/proto.md of the
// NetworkBlockDevice/nbd project.
//
// What is spoken: fixed newstyle only; EXPORT_NAME, GO, INFO, LIST, ABORT,
// STARTTLS, STRUCTURED_REPLY, LIST and SET_META_CONTEXT; every other option,
// extended headers among them, is answered ERR_UNSUP. READ, WRITE, FLUSH, TRIM,
// WRITE_ZEROES, BLOCK_STATUS, DISC; CACHE and RESIZE are not offered.
//
// What a section of the specification leaves to the server:
//
//   - "Handshake phase": unknown client flags drop the connection. An option
//     longer than 64 KiB is skipped and answered ERR_TOO_BIG, one longer than
//     1 MiB drops the connection.
//   - "TLS": forced for all or for none. Until STARTTLS has succeeded every
//     option but ABORT is answered ERR_TLS_REQD, so nothing is negotiated in the
//     clear; bytes between STARTTLS and the TLS handshake drop the connection.
//   - "Metadata": base:allocation, with what NextData says. An extent never
//     reaches beyond its request; at most as many as fit 64 KiB are sent.
//   - "Structured replies": a read longer than a block (1 MiB, less when memory
//     is short) comes as several chunks in any order; with DF it is refused with
//     EOVERFLOW. A piece that lies in a hole as a whole is sent as a hole chunk.
//     Errors carry a text that names no path. Without structured replies a long
//     read that fails in the middle drops the connection, as it must.
//   - "Error values": beyond the end is ENOSPC for WRITE and WRITE_ZEROES, EINVAL
//     else; so is length 0, an unaligned request, an unknown command or flag.
//     A write longer than the largest request is answered EINVAL and drops the
//     connection, because its data cannot be skipped in bounded time. An error
//     of the device that says Retryable is ESHUTDOWN: open it anew, try again.
//   - FUA is accepted on every command. FAST_ZERO is offered, and answered
//     ENOTSUP where zeroing may mean to write zeros.
//   - Multi-conn: all connections share one Device, so a flush on one covers
//     what was answered on the others. After a failed flush of an export every
//     later flush of it fails too, on every connection: the kernel reports a
//     lost write once and then says OK. Whoever added the export has to open
//     its disk anew, and to remove and add it.
//
// # One request's way
//
//  1. The reader, one goroutine a connection, takes the header from its buffer,
//     checks it, and cuts the request into pieces of at most a block. For each
//     it waits for a block of memory (server_pool.go), and reads a write's
//     data into it.
//  2. A worker, one of 16 a connection, takes the piece, does the I/O and sends
//     the reply or chunk, header and data in one write, then gives the block
//     back. Replies leave in the order in which requests end.
//
// Memory is bounded by the pool, work in flight by the number of workers; a
// client that does not read its replies stops its own workers, and is dropped
// after StallTimeout. Nothing is allocated per request.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// ErrServerClosed means that Serve or AddExport was called after Close.
var ErrServerClosed = errors.New("nbd: server is closed")

// Device is what an export serves. vddk.Disk is one. All methods are called
// concurrently; ReadAt and WriteAt are asked for ranges within Size only, which
// must not change. Two abilities are found by assertion:
//
//   - Zero(cbt.Extent, cbt.Allocation) error makes an extent read as zeros;
//     without it zeros are written, and neither trim nor fast zeroing is offered.
//   - NextData(off int64) (cbt.Extent, error) returns the first data at or after
//     off, or io.EOF; without it all is data. It is asked before a read that
//     does not follow known data, so it should be cheap.
//
// The errno of an error (errors.Is with a syscall.Errno) reaches the client
// where the protocol has it; Retryable() bool reaches it as ESHUTDOWN.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Size() int64
	Flush() error
}

// ServerConfig is what a Server needs to know. The zero value serves plain
// connections with the defaults.
type ServerConfig struct {
	// Exports are there from the start.
	Exports []Export
	// TLS, when set, is demanded of every client. With ClientAuth and ClientCAs
	// the client has to show a certificate.
	TLS *tls.Config
	// MaxConnections bounds the clients that have chosen an export. Default 64.
	// As many more may be in their handshake; the oldest of these has to go for
	// a new one.
	MaxConnections int
	// MaxMemory bounds the bytes of requests in flight, over all connections;
	// each may use another 64 KiB. Default 64 MiB, at least 1 MiB.
	MaxMemory int64
	// HandshakeTimeout is the time from accept to the choice of an export.
	// Default 10 s.
	HandshakeTimeout time.Duration
	// StallTimeout is how long a client may leave one reply untaken, or the data
	// of one write unsent, before it is dropped. A client that asks for nothing
	// is never dropped. Default 2 min.
	StallTimeout time.Duration
	// DrainTimeout is how long clients have to take the last replies when their
	// export or the server ends. Default 5 s.
	DrainTimeout time.Duration
	// Idle, when set, is called each time the last client has left. It must
	// not block, nor call the server.
	Idle func()
	// Log gets clients that come and go, and the errors of devices whole; the
	// client gets their errno only. Default: nothing is logged.
	Log *slog.Logger
}

// maxHandshakes bounds the connections that have not chosen an export yet.
const maxHandshakes = 64

// Server serves exports over any number of listeners. All methods may be called
// concurrently. It owns its connections, never a Device.
type Server struct {
	cfg    ServerConfig
	log    *slog.Logger
	blocks *serverPool
	serves sync.WaitGroup // calls of Serve

	mu      sync.Mutex // guards what follows; taken before a connection's mu
	closed  bool
	exports map[string]*serverExport
	groups  map[*serverGroup]struct{}
	conns   map[*serverConn]struct{} // all that are open
	shaking []*serverConn            // those in their handshake, oldest first
	clients int                      // those that are past it
}

// serverGroup is what one call of Serve began.
type serverGroup struct {
	ctx    context.Context
	cancel context.CancelFunc
	conns  sync.WaitGroup
}

// NewServer checks cfg. It opens nothing and starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) {
	cfg.defaults()
	if cfg.MaxConnections < 0 || cfg.MaxMemory < serverBlockSize {
		return nil, fmt.Errorf("nbd: server with %d connections and %d bytes: needs one and %d", cfg.MaxConnections, cfg.MaxMemory, serverBlockSize)
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, blocks: newServerPool(cfg.MaxMemory), exports: map[string]*serverExport{},
		groups: map[*serverGroup]struct{}{}, conns: map[*serverConn]struct{}{},
	}
	for _, x := range cfg.Exports {
		if err := s.AddExport(x); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (c *ServerConfig) defaults() {
	if c.MaxConnections == 0 {
		c.MaxConnections = 64
	}
	if c.MaxMemory == 0 {
		c.MaxMemory = 64 << 20
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.HandshakeTimeout, 10 * time.Second},
		{&c.StallTimeout, 2 * time.Minute},
		{&c.DrainTimeout, 5 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Serve accepts clients until ctx ends, and closes ln. It returns when the
// requests in work have returned and all its connections are closed: nil, or
// the error of the listener. A Device that hangs holds it up.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	g := &serverGroup{}
	g.ctx, g.cancel = context.WithCancel(ctx)
	defer g.cancel()
	if !s.addGroup(g) {
		ln.Close()
		return ErrServerClosed
	}
	defer s.removeGroup(g)
	stop := context.AfterFunc(g.ctx, func() {
		ln.Close()
		s.drain(func(c *serverConn) bool { return c.group == g })
	})
	err := s.accept(g, ln)
	g.cancel()
	stop()
	ln.Close() // where the listener failed by itself before AfterFunc could
	s.drain(func(c *serverConn) bool { return c.group == g })
	g.conns.Wait()
	return err
}

// accept takes what comes. A process without descriptors or memory left waits a
// moment: a client that leaves frees them.
func (s *Server) accept(g *serverGroup, ln net.Listener) error {
	for {
		conn, err := ln.Accept()
		switch {
		case g.ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err == nil:
			s.start(g, conn)
		case isTransientAccept(err):
			s.log.Warn("accept is held up", "err", err)
			select {
			case <-g.ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		default:
			return fmt.Errorf("nbd: accept at %v: %w", ln.Addr(), err)
		}
	}
}

func isTransientAccept(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED},
		func(e syscall.Errno) bool { return errors.Is(err, e) })
}

// start serves conn on a goroutine of its own. Where too many shake hands the
// oldest has to go: whoever opens connections and says nothing keeps nobody out.
func (s *Server) start(g *serverGroup, conn net.Conn) {
	c := newServerConn(s, g, conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.ctx.Err() != nil { // its drain has gone by
		conn.Close()
		return
	}
	if len(s.shaking) >= maxHandshakes {
		s.shaking[0].raw.Close()
		s.shaking = slices.Delete(s.shaking, 0, 1)
	}
	s.conns[c] = struct{}{}
	s.shaking = append(s.shaking, c)
	g.conns.Go(c.run)
}

// drain ends the connections that are asked for: none of their requests is
// taken up any more, those in work return.
func (s *Server) drain(which func(*serverConn) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if which(c) {
			c.drain()
		}
	}
}

// Close ends every Serve and waits for them. It is idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for g := range s.groups {
		g.cancel()
	}
	s.mu.Unlock()
	s.serves.Wait()
	return nil
}

func (s *Server) addGroup(g *serverGroup) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.groups[g] = struct{}{}
	s.serves.Add(1)
	return true
}

func (s *Server) removeGroup(g *serverGroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.groups, g)
	s.serves.Done()
}

// names are the exports that can be chosen, sorted.
func (s *Server) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.exports))
}
