package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cbt"
)

// Config says how Open connects. Only URI is needed.
type Config struct {
	URI      URI
	Writable bool
	// Contexts are metadata contexts to activate besides base:allocation.
	// Those that the server lacks are told by [Client.Context].
	Contexts []string
	// Connections is the most that are opened, from 1 to 16. 0 means 4. More than
	// one is opened only when the server says that they see one state.
	Connections int
	// Timeout is how long a server may be silent while a request is in flight.
	// After it the connections are lost. 0 means 60 s. One request may take ten
	// times as long while others are answered.
	Timeout time.Duration
}

const (
	defaultConnections = 4
	maxConnections     = 16
	defaultTimeout     = 60 * time.Second
	maxContexts        = 16
	// moreTimeout and moreTimes bound connecting the second and later
	// connections: this long, and this many times what the first one took. A
	// server with a limit (qemu-nbd -e 2) leaves those beyond it in a queue.
	moreTimeout = 250 * time.Millisecond
	moreTimes   = 10
	// byeTimeout bounds the goodbye of Close to a server that does not read.
	byeTimeout = time.Second
)

// Client is an open export. All methods may be called from any number of
// goroutines; a call is cut into pieces that travel at the same time, on all
// connections. When one connection is lost all are, and every later call
// returns the same [*LostError]: the caller opens anew.
type Client struct {
	uri      URI
	export   Offer
	writable bool
	piece    int64 // bytes of one request of a larger transfer
	conns    []*clientConn
	calls    sync.Pool
	next     atomic.Uint32

	closed   atomic.Bool
	cause    atomic.Pointer[error] // of the first loss
	stop     chan struct{}         // ends the watchdog
	running  sync.WaitGroup
	closing  sync.Once
	rmw      sync.Mutex // one read-modify-write at a time: two may share a block
	flushing sync.Mutex // one flusher: its error must reach every waiter (K4)
	unflush  atomic.Pointer[Error]
	cache    clientMap
}

func (cfg *Config) validate() error {
	switch {
	case cfg.Connections < 0 || cfg.Connections > maxConnections:
		return fmt.Errorf("%d connections; 1 to %d are possible", cfg.Connections, maxConnections)
	case cfg.Timeout < 0:
		return fmt.Errorf("timeout of %v", cfg.Timeout)
	case len(cfg.Contexts) >= maxContexts:
		return fmt.Errorf("%d metadata contexts; %d are possible", len(cfg.Contexts), maxContexts-1)
	}
	return nil
}

// Open connects, negotiates and starts the connections. ctx bounds that, and
// so do 30 s of its own. A server that cannot be reached, or hangs up, is a
// [*LostError]; one that refuses is an [*OptionError].
func Open(ctx context.Context, cfg Config) (*Client, error) {
	c, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("nbd: %s: %w", cfg.URI, err)
	}
	return c, nil
}

func open(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Connections == 0 {
		cfg.Connections = defaultConnections
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	contexts := []string{contextAllocation}
	for _, name := range cfg.Contexts {
		if !slices.Contains(contexts, name) {
			contexts = append(contexts, name)
		}
	}
	begun := time.Now()
	conn, export, err := connect(ctx, cfg.URI, contexts)
	if err != nil {
		return nil, err
	}
	c := &Client{uri: cfg.URI, export: export, writable: cfg.Writable, conns: []*clientConn{conn}, stop: make(chan struct{})}
	if err := c.judge(); err != nil {
		conn.raw.Close()
		return nil, err
	}
	if export.MultiConn && cfg.Connections > 1 {
		if err := c.connectMore(ctx, cfg.Connections-1, moreTimeout+moreTimes*time.Since(begun)); err != nil {
			for _, conn := range c.conns {
				conn.raw.Close()
			}
			return nil, err
		}
	}
	c.start(cfg.Timeout)
	return c, nil
}

// judge refuses what cannot be served honestly.
func (c *Client) judge() error {
	x := &c.export
	c.piece = pieceSize(x)
	switch {
	case !c.writable:
		return nil
	case x.ReadOnly:
		return fmt.Errorf("export %q: %w: the server offers it so", x.Name, ErrReadOnly)
	case !x.can(txSendFlush) && !x.can(txSendFUA):
		return fmt.Errorf("export %q: %w", x.Name, ErrNoFlush)
	}
	return nil
}

// connect opens one connection and takes it to transmission.
func connect(ctx context.Context, u URI, contexts []string) (*clientConn, Offer, error) {
	raw, release, err := clientDial(ctx, u)
	if err != nil {
		return nil, Offer{}, err
	}
	h := &clientHandshake{}
	h.use(raw)
	err = h.toTransmission(ctx, u, contexts)
	if !release() && err == nil {
		err = os.ErrDeadlineExceeded
	}
	if err != nil {
		h.abort(err)
		raw.Close()
		return nil, Offer{}, handshakeError(ctx, u, err)
	}
	return newClientConn(h, raw, u.Address), h.export, nil
}

func (h *clientHandshake) toTransmission(ctx context.Context, u URI, contexts []string) error {
	if err := h.prepare(ctx, u); err != nil {
		return err
	}
	if len(contexts) > 0 {
		if err := h.listContexts(u.Export); err != nil {
			return err
		}
		if err := h.setContexts(u.Export, contexts); err != nil {
			return err
		}
	}
	if err := h.enter(u.Export); err != nil {
		return err
	}
	return h.conn.SetDeadline(time.Time{})
}

// prepare is what comes before an export is named.
func (h *clientHandshake) prepare(ctx context.Context, u URI) error {
	if err := h.greet(); err != nil {
		return err
	}
	if u.TLS {
		if err := h.startTLS(ctx, u); err != nil {
			return err
		}
	}
	return h.askStructured()
}

// connectMore opens further connections at the same time. Fewer than wanted, or
// in time, are fine; one that sees another disk is not.
func (c *Client) connectMore(ctx context.Context, n int, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found := make([]*clientConn, n)
	wrong := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { found[i], wrong[i] = c.connectOneMore(ctx) })
	}
	wg.Wait()
	for _, conn := range found {
		if conn != nil {
			c.conns = append(c.conns, conn)
		}
	}
	return errors.Join(wrong...)
}

func (c *Client) connectOneMore(ctx context.Context) (*clientConn, error) {
	conn, export, err := connect(ctx, c.uri, nil)
	if err != nil {
		return nil, nil //nolint:nilerr // a server may have a limit; what there is will do
	}
	x := &c.export
	if export.Size != x.Size || export.flags != x.flags || export.MinBlock != x.MinBlock || export.MaxBlock != x.MaxBlock ||
		conn.structured != c.conns[0].structured {
		return conn, violation("a further connection sees %d bytes, flags %#x, blocks %d..%d; the first saw %d, %#x, %d..%d",
			export.Size, export.flags, export.MinBlock, export.MaxBlock, x.Size, x.flags, x.MinBlock, x.MaxBlock)
	}
	return conn, nil
}

// start runs a reader for each connection, and the watchdog.
func (c *Client) start(timeout time.Duration) {
	for _, conn := range c.conns {
		c.running.Go(func() { conn.run(c.lose) })
	}
	c.running.Go(func() { c.watch(timeout) })
}

// lose ends all connections after the first loss.
func (c *Client) lose(err error) {
	if c.cause.CompareAndSwap(nil, &err) {
		for _, conn := range c.conns {
			conn.raw.Close()
		}
	}
}

// verdict is what a failed request is told: the first loss explains the others.
func (c *Client) verdict(err error) error {
	if c.closed.Load() {
		if _, lost := err.(*LostError); lost {
			return fs.ErrClosed
		}
	}
	if cause := c.cause.Load(); cause != nil {
		switch err.(type) {
		case *LostError, *ProtocolError:
			return *cause
		}
	}
	return err
}

// Alive is nil while the connections stand, and the reason when they do not.
func (c *Client) Alive() error {
	if c.closed.Load() {
		return &Error{Op: "check", Extent: cbt.Extent{Len: c.export.Size}, Err: fs.ErrClosed}
	}
	if cause := c.cause.Load(); cause != nil {
		return &Error{Op: "check", Extent: cbt.Extent{Len: c.export.Size}, Err: *cause}
	}
	return nil
}

// Offer is what the server said when the first connection was made.
func (c *Client) Offer() Offer { return c.export }

// Connections is the number that were opened.
func (c *Client) Connections() int { return len(c.conns) }

// Size is the length of the export in bytes.
func (c *Client) Size() int64 { return c.export.Size }

// Close says goodbye and ends every call under way. It flushes nothing. It is
// idempotent and returns when nothing of the client runs any more.
func (c *Client) Close() error {
	c.closing.Do(func() {
		c.closed.Store(true)
		close(c.stop)
		var leaving sync.WaitGroup
		for _, conn := range c.conns {
			leaving.Go(conn.bye)
		}
		leaving.Wait()
	})
	c.running.Wait()
	return nil
}

// bye sends DISC if the connection is free for it, and closes it: the one below
// TLS in any case after byeTimeout, for a close of TLS has 5 s of its own.
func (c *clientConn) bye() {
	cut := time.AfterFunc(byeTimeout, func() { c.raw.Close() })
	defer cut.Stop()
	if !c.broken.Load() && c.wmu.TryLock() {
		c.wmu.Unlock()
		_ = c.write(cmdDisconnect, 0, 0, cbt.Extent{}, nil) // there is no answer to wait for
	}
	c.stream.Close()
	c.raw.Close()
}

// watch looks at the connections four times per timeout. One with requests in
// flight that received nothing since five looks ago is lost; so is one with a
// request that is ten timeouts old, whatever else arrives.
func (c *Client) watch(timeout time.Duration) {
	const looks, patience = 4, 10
	ticker := time.NewTicker(max(timeout/looks, time.Millisecond))
	defer ticker.Stop()
	silent := make([]int, len(c.conns))
	before := make([]uint64, len(c.conns))
	for {
		select {
		case <-c.stop:
			return
		case <-ticker.C:
		}
		for i, conn := range c.conns {
			conn.tick.Add(1)
			received := conn.progress.Load()
			n, oldest := conn.inFlight()
			if silent[i]++; n == 0 || received != before[i] {
				silent[i] = 0
			}
			before[i] = received
			switch {
			case silent[i] > looks:
				c.lose(&LostError{conn.addr, fmt.Errorf("%w: nothing for %v", errSilent, timeout)})
				return
			case oldest > looks*patience:
				c.lose(&LostError{conn.addr, fmt.Errorf("%w about a request that is %v old", errSilent, patience*timeout)})
				return
			}
		}
	}
}
