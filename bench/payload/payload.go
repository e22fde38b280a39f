// Package payload sends bytes over an encrypted link and throws them away: the
// rate that the transport alone can have, without a disk, a hash or a journal.
//
// The transports are the two of package wire as haulback uses them, with pinned
// keys, and plain crypto/tls over TCP, which is what they are held against. The
// sender writes pieces of 256 KiB, of random bytes, to one-way data streams; the
// receiver reads them to their end and answers with one byte.
package payload

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/haulback/haulback/wire"
)

// The transports.
const (
	QUIC  = "quic"
	Stock = "quic-stock" // QUIC with the UDP socket of quic-go
	TLS   = "tls"
	Raw   = "crypto/tls"
)

// piece is how much is written, and read, at once: as much as haulback reads.
const piece = 256 << 10

// streams are as many as a disk has for its data where the transport is one of ours.
const streams = 2

// Result is what the sender has seen.
type Result struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"` // from the first byte until the receiver has had the last
	Lost    uint64  `json:"lost"`    // packets, or segments that were sent again
	Sent    uint64  `json:"packets"`
	Conns   int     `json:"connections"`
}

// peer is the one identity that may connect.
type peer wire.ID

func (p peer) Allowed(id wire.ID) bool { return id == wire.ID(p) }

// Receive serves one sender at an address and returns when it has gone. Ready
// is called when it listens. Not for Raw are key and from, the identity of the sender.
func Receive(ctx context.Context, transport, addr string, key *wire.Key, from wire.ID, ready func()) error {
	if transport == Raw {
		return receiveRaw(ctx, addr, ready)
	}
	l, err := listen(transport, addr, key, peer(from))
	if err != nil {
		return err
	}
	defer l.Close()
	ready()
	link, err := l.Accept(ctx)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(link.Control(), make([]byte, 1)); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for i := range uint8(streams) {
		g.Go(func() error {
			s, err := link.OpenReceive(gctx, wire.StreamID{Kind: wire.StreamData, Index: i})
			if err != nil {
				return err
			}
			return drain(s)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if _, err := link.Control().Write([]byte{1}); err != nil {
		return err
	}
	select {
	case <-link.Done(): // the sender hangs up
	case <-ctx.Done():
	}
	return ctx.Err()
}

func packets(transport string) wire.PacketOptions {
	return wire.PacketOptions{Stock: transport == Stock}
}

func listen(transport, addr string, key *wire.Key, from peer) (wire.Listener, error) {
	if transport != TLS {
		pc, _, err := packets(transport).Listen(addr)
		if err != nil {
			return nil, err
		}
		return wire.ListenQUIC(pc, key, from, wire.ListenConfig{})
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return wire.ListenTLS(l, key, from, wire.ListenConfig{})
}

// drain reads a stream to its end.
func drain(r io.Reader) error {
	buf := make([]byte, piece)
	for {
		if _, err := r.Read(buf); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// Send sends so many bytes to a receiver at an address, which has the identity to.
func Send(ctx context.Context, transport, addr string, key *wire.Key, to wire.ID, bytes int64) (Result, error) {
	if transport == Raw {
		return sendRaw(ctx, addr, bytes)
	}
	link, err := dial(ctx, transport, addr, key, to)
	if err != nil {
		return Result{}, err
	}
	defer link.CloseWithError(wire.CodeOK, "")
	if _, err := link.Control().Write([]byte{1}); err != nil { // QUIC tells of a stream when something is on it
		return Result{}, err
	}
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for i := range uint8(streams) {
		g.Go(func() error {
			s, err := link.OpenSend(gctx, wire.StreamID{Kind: wire.StreamData, Index: i})
			if err != nil {
				return err
			}
			if err := fill(s, bytes/streams); err != nil {
				return err
			}
			return s.CloseWrite()
		})
	}
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	if _, err := io.ReadFull(link.Control(), make([]byte, 1)); err != nil {
		return Result{}, err
	}
	took := time.Since(began)
	st := link.Stats()
	return Result{bytes / streams * streams, took.Seconds(), st.Lost, st.Sent, max(st.Connections, 1)}, nil
}

func dial(ctx context.Context, transport, addr string, key *wire.Key, to wire.ID) (wire.Link, error) {
	if transport == TLS {
		return wire.DialTLS(ctx, addr, key, to)
	}
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	pc, _, err := packets(transport).Listen("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return wire.DialQUIC(ctx, pc, udp, key, wire.DialConfig{}, to)
}

// fill writes n random bytes, the same ones again and again: nothing here compresses.
func fill(w io.Writer, n int64) error {
	buf := make([]byte, piece)
	_, _ = rand.Read(buf) // it cannot fail
	for n > 0 {
		k, err := w.Write(buf[:min(n, piece)])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// receiveRaw is Receive with a certificate of the moment.
func receiveRaw(ctx context.Context, addr string, ready func()) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, public, private)
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", addr, &tls.Config{
		MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
	})
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	ready()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := drain(c); err != nil {
		return err
	}
	_, err = c.Write([]byte{1})
	return err
}

// sendRaw is Send to a receiver whom nobody knows: what is measured is the
// transport, and nothing that is secret is sent.
func sendRaw(ctx context.Context, addr string, bytes int64) (Result, error) {
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, DynamicRecordSizingDisabled: true}}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return Result{}, err
	}
	defer nc.Close()
	c, ok := nc.(*tls.Conn)
	if !ok {
		return Result{}, fmt.Errorf("a TLS connection is a %T", nc)
	}
	began := time.Now()
	if err := fill(c, bytes); err != nil {
		return Result{}, err
	}
	if err := c.CloseWrite(); err != nil {
		return Result{}, err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return Result{}, err
	}
	return Result{Bytes: bytes, Seconds: time.Since(began).Seconds(), Conns: 1}, nil
}
