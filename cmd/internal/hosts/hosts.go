package hosts

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/failbacks"
	"github.com/haulback/haulback/hostctl/vsphere"
)

// patience bounds a look at a certificate.
const patience = 10 * time.Second

// errSeen ends a handshake in which we have seen what we wanted.
var errSeen = errors.New("seen")

// Thumbprint is that of the certificate which a host shows now. Nobody vouches for
// it, and nothing is sent to the host: the handshake is broken off.
func Thumbprint(ctx context.Context, address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("url: no address")
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "443")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sum := ""
	d := tls.Dialer{Config: &tls.Config{
		ServerName: u.Hostname(), MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection ends it always
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > 0 {
				raw := sha256.Sum256(s.PeerCertificates[0].Raw)
				sum = config.Thumbprint(raw[:])
			}
			return errSeen
		},
	}}
	conn, err := d.DialContext(ctx, "tcp", host)
	if err == nil { // cannot be
		_ = conn.Close()
	}
	if sum == "" {
		return "", fmt.Errorf("look at the certificate of %s: %w", host, err)
	}
	return sum, nil
}

// Explain adds to an error of a host's certificate what it shows, and the line
// that would trust it.
func Explain(ctx context.Context, h *config.Host, err error) error {
	if _, said := errors.AsType[*vsphere.PinError](err); said || h.Kind == config.KindOpenStorage || !OfCertificate(err) {
		return err
	}
	sum, seen := Thumbprint(ctx, h.URL)
	if seen != nil {
		return err
	}
	return fmt.Errorf("%w; if the host shows this SHA-256 at its console, write in its [[host]]: thumbprint = %q", err, sum)
}

// OfCertificate reports whether a host was not believed to be itself.
func OfCertificate(err error) bool {
	_, pin := errors.AsType[*vsphere.PinError](err)
	return pin || vsphere.Untrusted(err)
}

// Reached says how the disks of hosts are reached, by their names.
func Reached(list []config.Host) map[string]failbacks.Host {
	out := map[string]failbacks.Host{}
	for _, h := range list {
		out[h.Name] = failbacks.Host{Name: h.Name, Mover: h.Mover, Export: h.Export, Registered: h.Registered, OpenStorage: h.OpenStorage}
	}
	return out
}
