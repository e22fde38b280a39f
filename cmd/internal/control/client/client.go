// Package client reaches the control API of a daemon, for our own programs.
//
// What it returns goes into the generated constructors:
//
//	jobs := controlv1.NewJobsClient(client.Socket("/run/haulback/control.sock"))
//
// An error of a call is made a *job.Failure by jobpb.Refusal.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
)

// alive is how often a silent connection is asked whether it lives: a watch of
// a daemon whose machine died must end.
const alive = 15 * time.Second

// Socket calls the daemon at a unix socket.
func Socket(path string) *connect.Client {
	t := transport()
	t.Protocols.SetUnencryptedHTTP2(true)
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return made(t, "http://haulback")
}

// Files are the caller's certificate and key, and who signs the daemon's.
type Files struct{ Cert, Key, CA string }

// TLS calls the daemon at HOST:PORT.
func TLS(addr string, f Files) (*connect.Client, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("CA of the daemon: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA of the daemon %s: no certificate in it", f.CA)
	}
	t := transport()
	t.Protocols.SetHTTP2(true)
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool}
	return made(t, "https://"+addr), nil
}

func transport() *http.Transport {
	return &http.Transport{
		Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{SendPingTimeout: alive, PingTimeout: alive},
		TLSHandshakeTimeout: alive, IdleConnTimeout: time.Minute,
		Proxy: nil, // never through a proxy of the environment
	}
}

func made(t *http.Transport, base string) *connect.Client {
	return connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: t}, base))
}
