package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/wire"
)

// ports are the sockets of a daemon: QUIC on UDP and TLS on TCP, one number.
type ports struct {
	addr      string
	socket    *wire.Socket // nil without QUIC
	packets   *wire.PacketConn
	listeners []wire.Listener
	refusals  *wire.Refusals
}

// freeTries bounds the search for a number that is free on UDP and on TCP,
// which only port 0 needs.
const freeTries = 16

// listen opens what peers connect to, or takes it over where it was opened for us.
func listen(ctx context.Context, cfg *config.Config, key *wire.Key, d *Daemon, log *slog.Logger) (*ports, error) {
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		p, err := listenOnce(ctx, cfg, key, d, log)
		if err == nil {
			return p, nil
		}
		if port != "0" || d.passed.any() || try == freeTries || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, refusal(err)
		}
		log.Debug("port is taken on TCP, trying another", "listen", host)
	}
}

// refusal is of an address that cannot be had.
func refusal(err error) error {
	return exitcode.Port(fmt.Errorf("listen: %w; free the address, or change listen in the configuration", err))
}

func listenOnce(ctx context.Context, cfg *config.Config, key *wire.Key, d *Daemon, log *slog.Logger) (p *ports, err error) {
	p = &ports{addr: cfg.Listen, refusals: new(wire.Refusals)}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	lc := wire.ListenConfig{KnownAddrs: d.lives, Inviter: &d.inviter, Refusals: p.refusals, Log: log}
	if l := d.passed.tls; l != nil {
		p.addr = l.Addr().String() // UDP and TCP have one number
	}
	if cfg.QUIC {
		err = p.quic(key, knocks{d}, lc, d.passed.quic)
	}
	if cfg.TLS && err == nil {
		err = p.tls(ctx, key, knocks{d}, lc, d.passed.tls)
	}
	return p, err
}

// quic serves QUIC on the socket had, or opens one.
func (p *ports) quic(key *wire.Key, peers wire.Peers, lc wire.ListenConfig, had *net.UDPConn) error {
	options, err := site.PacketOptions()
	if err != nil {
		return err
	}
	open := func() (*wire.PacketConn, wire.BufferHint, error) { return options.Listen(p.addr) }
	if had != nil {
		open = func() (*wire.PacketConn, wire.BufferHint, error) { return options.Use(had) }
	}
	pc, hint, err := open()
	if err != nil {
		return err
	}
	log := lc.Log
	p.packets = pc
	if gro := pc.Stats().GRO; gro != "on" {
		log.Info("UDP packets are not merged", "reason", gro)
	}
	if advice := hint.String(); advice != "" {
		log.Warn("small socket buffers", "reason", advice)
	}
	p.addr = pc.LocalAddr().String()
	p.socket = wire.NewSocket(pc, key)
	l, err := p.socket.Listen(peers, lc)
	if err != nil {
		return err
	}
	p.listeners = append(p.listeners, l)
	return nil
}

// tls serves TLS on the listener had, or opens one.
func (p *ports) tls(ctx context.Context, key *wire.Key, peers wire.Peers, lc wire.ListenConfig, had *net.TCPListener) (err error) {
	var inner net.Listener = had
	if had == nil {
		inner, err = new(net.ListenConfig).Listen(ctx, "tcp", p.addr)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("tcp %s is in use by another program, see: ss -ltnp: %w", p.addr, err)
	}
	if err != nil {
		return err
	}
	if advice := wire.TCPHint(); advice != "" {
		lc.Log.Info("small socket buffers", "reason", advice)
	}
	p.addr = inner.Addr().String()
	l, err := wire.ListenTLS(inner, key, peers, lc)
	if err != nil {
		inner.Close()
		return err
	}
	p.listeners = append(p.listeners, l)
	return nil
}

// closeListeners takes no new links; those that exist live on.
func (p *ports) closeListeners() (err error) {
	for _, l := range p.listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// tell logs what the UDP socket has seen.
func (p *ports) tell(log *slog.Logger) {
	if p.packets != nil {
		log.Debug("udp socket", "packets", p.packets.Stats())
	}
}

func (p *ports) close() error {
	err := p.closeListeners()
	if p.socket != nil {
		err = errors.Join(err, p.socket.Close())
	}
	return err
}
