package simvs

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// Proxy stands in front of a server, with the server's certificate, and loses
// replies: the server has executed the call, and the client's connection ends.
// Server.DropReply does the same without a second address.
type Proxy struct {
	url    string
	http   *http.Server
	done   chan struct{}
	drops  dropper
	client *http.Transport
}

// NewProxy listens on loopback.
func NewProxy(s *Server) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.cert.Leaf)
	p := &Proxy{
		url: "https://" + l.Addr().String() + "/sdk", done: make(chan struct{}),
		client: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}
	target := &url.URL{Scheme: "https", Host: s.url.Host}
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: p.client, ErrorLog: discard(),
	}
	p.http = &http.Server{
		Handler: p.drops.wrap(forward), ReadHeaderTimeout: 10 * time.Second, ErrorLog: discard(),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{s.cert}, MinVersion: tls.VersionTLS12},
	}
	go func() {
		defer close(p.done)
		_ = p.http.ServeTLS(l, "", "") // ends with ErrServerClosed
	}()
	return p, nil
}

// URL is where clients find the server behind the proxy.
func (p *Proxy) URL() string { return p.url }

// DropReply loses the reply to the nth call of a method from now on (1: the next
// one); "*" is any method.
func (p *Proxy) DropReply(method string, nth int) { p.drops.add(method, nth) }

// Close ends the proxy and its connections.
func (p *Proxy) Close() error {
	err := p.http.Close()
	<-p.done
	p.client.CloseIdleConnections()
	return err
}

// DropReply loses the reply to the nth call of a method from now on (1: the next
// one); "*" is any method. The call is executed.
func (s *Server) DropReply(method string, nth int) { s.drops.add(method, nth) }
