package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// maxSocketPath is what the kernel takes, without the zero byte at the end.
const maxSocketPath = 107

// nbdPlace is where NBD clients find the disk.
type nbdPlace struct {
	socket  string // path, or empty
	address string // of a TCP port, or empty
	passed  bool   // by systemd: both empty
	tls     *tls.Config
	anyone  bool   // to everybody who reaches a TCP port: --any-client
	madeDir string // for the socket, to be removed
}

// newNBDPlace checks the flags: who can get in has to be what was meant.
func newNBDPlace(f *nbdFlags) (*nbdPlace, error) {
	p := &nbdPlace{socket: f.socket, address: f.listen, anyone: f.anyClient}
	p.passed = f.socket == "" && f.listen == "" && os.Getenv("LISTEN_FDS") != ""
	if len(f.socket) > maxSocketPath {
		return nil, usage("--socket: %d bytes; the path of a socket has %d at most, name a shorter one", len(f.socket), maxSocketPath)
	}
	if f.socket != "" && f.listen != "" {
		return nil, usage("--socket and --listen: name one of them")
	}
	if f.tlsCA != "" && f.anyClient {
		return nil, usage("--tls-ca and --any-client: say one of them")
	}
	if (f.tlsCert == "") != (f.tlsKey == "") {
		return nil, usage("--tls-cert and --tls-key belong together: name both")
	}
	if (f.tlsCA != "" || f.anyClient) && f.tlsCert == "" {
		return nil, usage("--tls-ca and --any-client need --tls-cert and --tls-key")
	}
	if f.plain && (f.listen == "" || f.tlsCert != "") {
		return nil, usage("--insecure-loopback is for --listen without TLS")
	}
	if f.listen != "" {
		if err := p.checkListen(f); err != nil {
			return nil, err
		}
	}
	if f.tlsCert == "" {
		return p, nil
	}
	var err error
	p.tls, err = nbdTLS(f)
	return p, err
}

// checkListen is who may reach a TCP port.
func (p *nbdPlace) checkListen(f *nbdFlags) error {
	host, port, err := net.SplitHostPort(f.listen)
	if err != nil || port == "" {
		return usage("--listen %q: write HOST:PORT, as in 127.0.0.1:10809", f.listen)
	}
	ip, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && ip.IsLoopback()
	switch {
	case f.tlsCert == "" && !f.plain && loopback:
		return usage("--listen %s: TCP without TLS lets every user of this machine in; use --socket, or --tls-cert and --tls-key, or say --insecure-loopback", f.listen)
	case f.tlsCert == "" && !loopback:
		return usage("--listen %s: a port of the network needs TLS; add --tls-cert, --tls-key and --tls-ca (without TLS only a loopback address, with --insecure-loopback)", f.listen)
	case f.tlsCert != "" && f.tlsCA == "" && !f.anyClient:
		return usage("--listen %s: everybody who reaches the port, every user of this machine too, would get the disk; add --tls-ca with the authorities of the clients' certificates, or say --any-client", f.listen)
	}
	return nil
}

// nbdTLS loads the certificates. TLS 1.2 is what the NBD specification wants of
// every server.
func nbdTLS(f *nbdFlags) (*tls.Config, error) {
	info, err := os.Stat(f.tlsKey)
	if err != nil {
		return nil, usage("--tls-key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, usage("--tls-key %s: every user can read it (mode %04o); chmod 600 it", f.tlsKey, info.Mode().Perm())
	}
	cert, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
	if err != nil {
		return nil, usage("--tls-cert %s, --tls-key %s: %w", f.tlsCert, f.tlsKey, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}
	if f.tlsCA == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(f.tlsCA)
	if err != nil {
		return nil, usage("--tls-ca: %w", err)
	}
	cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, usage("--tls-ca %s: no certificate in it; PEM is wanted", f.tlsCA)
	}
	return cfg, nil
}

// open makes the socket or port, or takes those that were passed.
func (p *nbdPlace) open(ctx context.Context) ([]net.Listener, error) {
	if p.passed {
		return p.takePassed()
	}
	if p.address != "" {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
		if err != nil {
			return nil, fmt.Errorf("--listen: %w", err)
		}
		return []net.Listener{ln}, nil
	}
	if p.socket == "" {
		if err := p.makeDir(); err != nil {
			return nil, err
		}
	}
	ln, err := listenUnix(ctx, p.socket)
	if err != nil {
		p.remove()
		return nil, err
	}
	return []net.Listener{ln}, nil
}

// takePassed uses systemd's sockets. Their maker answers for who can open a
// unix socket; any other is treated as if it was listened on here.
func (p *nbdPlace) takePassed() ([]net.Listener, error) {
	all, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets that were passed: %w", err)
	}
	var ln []net.Listener
	for _, l := range all {
		if l == nil {
			continue
		}
		if err := p.checkPassed(l); err != nil {
			return nil, err
		}
		ln = append(ln, l)
	}
	if len(ln) == 0 {
		return nil, usage("LISTEN_FDS=%s is set, and no socket was passed; unset it or name --socket", os.Getenv("LISTEN_FDS"))
	}
	return ln, nil
}

// checkPassed is who may reach a socket that was passed.
func (p *nbdPlace) checkPassed(l net.Listener) error {
	_, unix := l.(*net.UnixListener)
	switch {
	case unix:
		return nil
	case p.tls == nil:
		return usage("the socket %v that was passed is TCP, and there is no TLS; add --tls-cert, --tls-key and --tls-ca", l.Addr())
	case p.tls.ClientAuth != tls.RequireAndVerifyClientCert && !p.anyone:
		return usage("the socket %v that was passed is TCP, and everybody who reaches it would get the disk; add --tls-ca with the authorities of the clients' certificates, or say --any-client", l.Addr())
	}
	return nil
}

// makeDir makes a place for a socket that was not named.
func (p *nbdPlace) makeDir() error {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if info, err := os.Stat(base); !filepath.IsAbs(base) || err != nil || !info.IsDir() {
		base = os.TempDir()
	}
	dir, err := os.MkdirTemp(base, "haulback-nbd-")
	if err != nil {
		return fmt.Errorf("directory for the socket: %w; name one with --socket", err)
	}
	p.madeDir, p.socket = dir, filepath.Join(dir, "sock")
	if len(p.socket) > maxSocketPath {
		p.remove()
		return usage("the directory %s is too deep for a socket; name a shorter path with --socket", base)
	}
	return nil
}

// remove takes the directory of the socket away; the socket itself went with
// its listener.
func (p *nbdPlace) remove() {
	if p.madeDir != "" {
		os.RemoveAll(p.madeDir)
	}
}

// uri is what a client is given.
func (p *nbdPlace) uri(addr net.Addr, export string) string {
	scheme := "nbd"
	if p.tls != nil {
		scheme = "nbds"
	}
	u := url.URL{Scheme: scheme, Host: addr.String(), Path: "/" + export}
	if addr.Network() != "unix" {
		if host, port, err := net.SplitHostPort(addr.String()); err == nil {
			if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
				u.Host = net.JoinHostPort(hostname(), port)
			}
		}
		return u.String()
	}
	// In a query url.Values writes "+" for a space, which others take for a plus.
	path := strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(addr.String()))
	u.Scheme, u.Host = scheme+"+unix", ""
	return u.Scheme + "://" + u.EscapedPath() + "?socket=" + path
}

// hostname is how others may know this machine.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
