package payload

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/haulback/haulback/wire"
)

func TestPayload(t *testing.T) {
	for _, transport := range []string{QUIC, Stock, TLS, Raw} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			a, err1 := wire.NewKey()
			b, err2 := wire.NewKey()
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			addr := free(t, transport)
			ready, done := make(chan struct{}), make(chan error, 1)
			go func() { done <- Receive(ctx, transport, addr, b, a.ID(), func() { close(ready) }) }()
			select {
			case <-ready:
			case err := <-done:
				t.Fatal(err)
			}
			const bytes = 5 << 20
			r, err := Send(ctx, transport, addr, a, b.ID(), bytes)
			if err != nil || r.Bytes != bytes || r.Seconds <= 0 || r.Conns < 1 {
				t.Errorf("sent %d bytes: %+v, %v", bytes, r, err)
			}
			if err := <-done; err != nil {
				t.Errorf("the receiver: %v", err)
			}
		})
	}
}

// free is an address where nobody listens.
func free(t *testing.T, transport string) string {
	t.Helper()
	if transport == QUIC || transport == Stock {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
