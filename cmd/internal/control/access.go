package control

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/haulback/haulback/hostctl/job"
)

// rules are an Access with its files read.
type rules struct {
	own   int // uid of the daemon
	group int // gid, or -1
	tls   *tls.Config
	leaf  *x509.Certificate
	pool  *x509.CertPool
	allow []Caller
}

// read reads the files of a. Nothing of it is in force when one has a mistake.
func (a *Access) read(tcp bool) (*rules, error) {
	if err := a.check(tcp); err != nil {
		return nil, err
	}
	r := &rules{own: os.Getuid(), allow: slices.Clone(a.TLS.Allow)}
	var err error
	if r.group, err = groupID(a.Group); err != nil || !tcp {
		return r, err
	}
	cert, err := tls.LoadX509KeyPair(a.TLS.Cert, a.TLS.Key)
	if err != nil {
		return nil, fmt.Errorf("control: certificate %s with key %s: %w", a.TLS.Cert, a.TLS.Key, err)
	}
	pem, err := os.ReadFile(a.TLS.CA)
	if err != nil {
		return nil, fmt.Errorf("control: CA of the callers: %w", err)
	}
	r.pool = x509.NewCertPool()
	if !r.pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("control: CA of the callers %s: no certificate in it", a.TLS.CA)
	}
	if r.leaf = cert.Leaf; r.leaf == nil {
		return nil, fmt.Errorf("control: certificate %s cannot be read", a.TLS.Cert)
	}
	r.tls = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: r.pool,
		SessionTicketsDisabled: true, // a resumed session would keep what was verified once
	}
	return r, nil
}

// refusal is an answer to one who may not call.
func refusal(format string, args ...any) *job.Failure {
	return &job.Failure{Reason: job.ReasonAuth, Text: fmt.Sprintf(format, args...), Retry: job.RetryNever, Exit: 12}
}

// local tells who is on a unix socket. The name is right although he is refused.
func (r *rules) local(c *conn) (Caller, error) {
	if c.strange != nil {
		return Caller{Name: "unknown"}, refusal("this daemon cannot tell who calls: %v", c.strange)
	}
	who := Caller{Name: c.peer.String()}
	if !c.peer.mayUse(r.own, r.group) {
		return who, refusal("%s may not call this daemon: only root, the daemon's own user (uid %d) and members of its control group may", who.Name, r.own)
	}
	who.Role = Admin
	return who, nil
}

// remote tells who has the certificate of a TLS connection. It is verified
// again for every request: it expires, and the CA or the list may have changed.
func (r *rules) remote(state *tls.ConnectionState) (Caller, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return Caller{Name: "unknown"}, refusal("no client certificate")
	}
	leaf, more := state.PeerCertificates[0], x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		more.AddCert(c)
	}
	who := Caller{Name: "cert " + subject(leaf)}
	opts := x509.VerifyOptions{Roots: r.pool, Intermediates: more, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := leaf.Verify(opts); err != nil {
		return who, refusal("the client certificate of %q is no longer good: %v", subject(leaf), err)
	}
	names := names(leaf)
	for _, a := range r.allow {
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, a.Name) }) {
			return Caller{Name: "cert " + a.Name, Role: a.Role}, nil
		}
	}
	return who, refusal("the client certificate of %q is not on the list of those who may call this daemon", subject(leaf))
}

// names are what a certificate may be listed by.
func names(c *x509.Certificate) (all []string) {
	if c.Subject.CommonName != "" {
		all = append(all, c.Subject.CommonName)
	}
	all = append(append(all, c.DNSNames...), c.EmailAddresses...)
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	return all
}

// subject is what a certificate is called in texts; it comes from outside.
func subject(c *x509.Certificate) string {
	n := names(c)
	if len(n) == 0 {
		return "nobody"
	}
	return n[0][:min(len(n[0]), 128)]
}

// hosts reports whether a Host header names this daemon, so that a page of
// another name that resolves to us (DNS rebinding) is refused.
func (r *rules) hosts(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return r.leaf.VerifyHostname(strings.Trim(host, "[]")) == nil
}
