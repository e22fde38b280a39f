package nbd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// serverWorkers is how many requests of a connection are in work at a time:
	// what nbdkit has, and enough for a disk that needs a queue.
	serverWorkers = 16
	// serverReadBuffer holds 146 headers. Larger, and more of each write's data
	// is copied once more out of it.
	serverReadBuffer = 4096
	// serverSendBuffer is asked of the kernel, which doubles it: several replies
	// have room, so that workers go on while the client is not scheduled. With
	// the kernel's default of 208 KiB a copy over a unix socket took a tenth to a
	// third more time; more than this gained nothing.
	serverSendBuffer = 512 << 10
)

// errServerEnd ends a connection in order.
var errServerEnd = errors.New("end of connection")

// serverConn is one connection.
type serverConn struct {
	server *Server
	group  *serverGroup
	raw    net.Conn // what was accepted: deadlines and the end go here
	conn   net.Conn // raw, or TLS on it
	br     *bufio.Reader
	log    *slog.Logger

	// Negotiated; read-only from the moment that export is set (under the
	// server's mu), except in the goroutine of the handshake.
	secure     bool
	noZeroes   bool
	structured bool
	status     *string // export for which base:allocation was chosen
	export     *serverExport

	mu       sync.Mutex // guards deadlines against drain
	draining bool
	stallBy  time.Time // the write deadline, moved now and then only

	work  chan serverPiece
	ops   chan *serverOp // unused ones
	spare *serverBlock   // guarded by the pool

	writeMu sync.Mutex // one reply at a time, and the order of an op's chunks
	small   [serverSmall]byte

	dataFrom, dataTo atomic.Int64          // known data: no question for the map
	warned           atomic.Bool           // an error of the device was logged
	lost             atomic.Pointer[error] // why a worker hung up
}

func newServerConn(s *Server, g *serverGroup, conn net.Conn) *serverConn {
	log := s.log
	if a := conn.RemoteAddr(); a != nil {
		log = log.With("peer", a.String())
	}
	return &serverConn{server: s, group: g, raw: conn, conn: conn, br: bufio.NewReaderSize(conn, serverReadBuffer), log: log}
}

// run is the connection's life.
func (c *serverConn) run() {
	defer c.server.remove(c)
	defer c.raw.Close()
	_ = c.raw.SetDeadline(time.Now().Add(c.server.cfg.HandshakeTimeout)) // a connection that refuses fails its first read
	if err := c.handshake(); err != nil {
		if err != errServerEnd {
			c.log.Debug("handshake ended", "err", err)
		}
		return
	}
	c.log = c.log.With("disk", c.export.Name)
	c.log.Info("client came")
	err := c.serve()
	if err != nil {
		c.log.Info("client lost", "err", err)
	} else {
		c.log.Info("client left")
	}
	_ = c.conn.Close() // says farewell on TLS
}

// serve is the transmission phase. It returns when every request has.
func (c *serverConn) serve() error {
	growSendBuffer(c.raw)
	c.work = make(chan serverPiece)
	c.ops = make(chan *serverOp, serverWorkers+2) // one each, one at the reader, one between
	for range cap(c.ops) {
		c.ops <- new(serverOp)
	}
	c.spare = newServerBlock(serverSpareSize, true)
	var workers sync.WaitGroup
	for range serverWorkers {
		workers.Go(c.worker)
	}
	err := c.begin()
	for err == nil {
		err = c.request()
	}
	close(c.work)
	workers.Wait()
	if lost := c.lost.Load(); lost != nil {
		return *lost
	}
	if errors.Is(err, io.EOF) || err == errServerEnd || c.isDraining() {
		return nil
	}
	return err
}

// lose ends the connection because of an answer that could not be given.
func (c *serverConn) lose(err error) {
	c.lost.CompareAndSwap(nil, &err)
	c.raw.Close()
}

// growSendBuffer goes past net.core.wmem_max where this process may, else up to
// it. What comes of it shows in the speed only. TCP grows its buffer by itself,
// unless told a size.
func growSendBuffer(conn net.Conn) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, serverSendBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, serverSendBuffer)
		}
	})
}

// begin takes the deadline of the handshake away.
func (c *serverConn) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return errServerEnd
	}
	return c.raw.SetDeadline(time.Time{})
}

// drain ends the connection after the requests in work; while it shakes hands
// at once. The server's mu is held.
func (c *serverConn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return
	}
	c.draining = true
	if c.export == nil {
		c.raw.Close()
		return
	}
	now := time.Now()
	_ = errors.Join(c.raw.SetReadDeadline(now), c.raw.SetWriteDeadline(now.Add(c.server.cfg.DrainTimeout))) // closed already
}

func (c *serverConn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// readBy bounds the time for the data of a write; the zero time ends that.
func (c *serverConn) readBy(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return errServerEnd
	}
	return c.raw.SetReadDeadline(t)
}

// writeSoon bounds the time of the next reply. The deadline is moved when a
// quarter of it has gone only: a system-wide timer per reply would cost more
// than it is worth.
func (c *serverConn) writeSoon() {
	stall := c.server.cfg.StallTimeout
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.draining && c.stallBy.Sub(now) < stall*3/4 {
		c.stallBy = now.Add(stall)
		_ = c.raw.SetWriteDeadline(c.stallBy) // closed already
	}
}

// enter makes c a client of the export, or says why not.
func (s *Server) enter(c *serverConn, name string) *optionError {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exports[name]
	switch {
	case x == nil:
		return &optionError{repErrUnknown, noSuchExport(name)}
	case c.isDraining():
		return &optionError{repErrShutdown, "the server is about to stop"}
	case s.clients >= s.cfg.MaxConnections:
		return &optionError{repErrPolicy, fmt.Sprintf("the server has %d clients already, which is its limit", s.clients)}
	}
	c.export = x
	x.users++
	s.clients++
	s.unshake(c)
	return nil
}

// remove forgets a connection that is closed.
func (s *Server) remove(c *serverConn) {
	if s.forget(c) && s.cfg.Idle != nil {
		s.cfg.Idle()
	}
}

// forget reports whether c was the last client.
func (s *Server) forget(c *serverConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.unshake(c)
	x := c.export
	if x == nil {
		return false
	}
	if x.users--; x.users == 0 && x.gone {
		close(x.idle)
	}
	if s.clients--; s.clients > 0 {
		return false
	}
	s.blocks.trim()
	return true
}

func (s *Server) unshake(c *serverConn) {
	if i := slices.Index(s.shaking, c); i >= 0 {
		s.shaking = slices.Delete(s.shaking, i, i+1)
	}
}
