package vsphere

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// dialTimeout bounds connecting and the handshake together.
const dialTimeout = 20 * time.Second

// PinError means that a host shows another certificate than the one that is
// configured: a new one, or another machine.
type PinError struct {
	Host, Want, Got string // Got: SHA-256
}

// Error implements error.
func (e *PinError) Error() string {
	return fmt.Sprintf("host %s: it shows another certificate than that of thumbprint %s; if it was given a new one, and shows the same at its console, write in its [[host]]: thumbprint = %q",
		e.Host, e.Want, withColons(e.Got))
}

// withColons is a thumbprint as browsers and hosts show it.
func withColons(sum string) string {
	var b strings.Builder
	for i := 0; i+1 < len(sum); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(strings.ToUpper(sum[i : i+2]))
	}
	return b.String()
}

// parseThumbprint is the bytes of a SHA-256 or SHA-1 thumbprint; none of none.
func parseThumbprint(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	sum, err := hex.DecodeString(plainHex(s))
	if err != nil || len(sum) != sha256.Size && len(sum) != sha1.Size {
		return nil, fmt.Errorf("%q is no SHA-256 (64 hex digits) or SHA-1 (40)", s)
	}
	return sum, nil
}

// pinned reports whether sum is the thumbprint of the certificate. SHA-1 is what
// VDDK and old tools print; nobody has found a second pre-image of it.
func pinned(sum []byte, cert *x509.Certificate) bool {
	if len(sum) == sha1.Size {
		got := sha1.Sum(cert.Raw)
		return bytes.Equal(sum, got[:])
	}
	got := sha256.Sum256(cert.Raw)
	return bytes.Equal(sum, got[:])
}

// tlsConfig is how the host is known: by thumbprint, or by authorities. ESXi 6.x
// speaks TLS 1.2 only.
func (c *Config) tlsConfig(server string) (*tls.Config, error) {
	sum, err := parseThumbprint(c.Thumbprint)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: server}
	if sum == nil {
		t.RootCAs, err = c.authorities()
		return t, err
	}
	t.InsecureSkipVerify = true // VerifyConnection pins the leaf instead, which is stricter
	t.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("the host shows no certificate")
		}
		if leaf := s.PeerCertificates[0]; !pinned(sum, leaf) {
			got := sha256.Sum256(leaf.Raw)
			return &PinError{Host: c.Name, Want: plainHex(c.Thumbprint), Got: hex.EncodeToString(got[:])}
		}
		return nil
	}
	return t, nil
}

// authorities are those of CAFile; nil means the system's.
func (c *Config) authorities() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("host %s: ca_file: %w", c.Name, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("host %s: ca_file %s: no certificate in it; it has to be PEM", c.Name, c.CAFile)
	}
	return pool, nil
}

// dialer connects as t says. govmomi's own way tries the system's authorities
// before a thumbprint, so a pin would not be one, and it has no deadline.
func dialer(t *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		d := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: 15 * time.Second}, Config: t}
		return d.DialContext(ctx, network, addr)
	}
}
