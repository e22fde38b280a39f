package nbd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// handshakeTimeout bounds connecting and negotiating when the caller's context
// does not do it sooner.
const handshakeTimeout = 30 * time.Second

// clientDial connects and guards the connection with ctx until release is
// called: while it is guarded, the end of ctx ends every read and write. release
// returns false when that has happened.
func clientDial(ctx context.Context, u URI) (conn net.Conn, release func() bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	conn, err = (&net.Dialer{}).DialContext(ctx, u.Network, u.Address)
	if err != nil {
		cancel()
		return nil, nil, &LostError{u.Address, dialCause(err)}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // fails only on a closed connection
	release = func() bool {
		defer cancel()
		return stop()
	}
	return conn, release, nil
}

// dialCause drops the address, which LostError says already.
func dialCause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// clientTLS upgrades conn after the server agreed to STARTTLS.
func clientTLS(ctx context.Context, conn net.Conn, u URI) (net.Conn, error) {
	config, err := clientTLSConfig(u)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secured, nil
}

// clientTLSConfig trusts the CA in the directory of the URI, or the system's.
func clientTLSConfig(u URI) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname, InsecureSkipVerify: u.SkipVerify}
	if config.ServerName == "" && u.Network == "tcp" {
		host, _, err := net.SplitHostPort(u.Address)
		if err != nil {
			return nil, err
		}
		config.ServerName = host
	}
	if u.Certificates == "" {
		return config, nil
	}
	ca := filepath.Join(u.Certificates, "ca-cert.pem")
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", ca)
	}
	return config, addClientCertificate(config, u.Certificates)
}

// addClientCertificate takes both files or neither.
func addClientCertificate(config *tls.Config, dir string) error {
	certFile, keyFile := filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem")
	_, err1 := os.Stat(certFile)
	_, err2 := os.Stat(keyFile)
	if errors.Is(err1, os.ErrNotExist) && errors.Is(err2, os.ErrNotExist) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return nil
}
