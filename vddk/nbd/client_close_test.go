package nbd

import (
	"bufio"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// deafTLS closes as crypto/tls does: it says so, for which it takes 5 s.
type deafTLS struct{ net.Conn }

func (c deafTLS) Close() error {
	_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, _ = c.Write([]byte{21})
	return c.Conn.Close()
}

// TestCloseOfDeafServer: a server that reads nothing on 16 connections holds
// Close for no longer than one goodbye, in virtual time.
func TestCloseOfDeafServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{stop: make(chan struct{})}
		for range maxConnections {
			ours, theirs := net.Pipe() // without a buffer: every write waits for a reader
			defer theirs.Close()
			c.conns = append(c.conns, newClientConn(&clientHandshake{conn: deafTLS{ours}, r: bufio.NewReader(ours)}, ours, "x"))
		}
		c.start(time.Minute)
		begun := time.Now()
		c.Close()
		if took := time.Since(begun); took > byeTimeout {
			t.Errorf("Close took %v", took)
		}
	})
}
