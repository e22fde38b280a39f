package osd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// How a Client shows who it is.
const (
	AuthToken = "token" // a bearer token from TokenFile; an empty one is refused
	AuthNone  = "none"  // the server makes us its guest; has to be asked for
)

// How Storage.Restore goes.
const (
	// RestoreMover leaves it to the mover: the snapshot's clone is compared with the
	// volume, which a proof needs anyway, and what differs is moved back.
	RestoreMover = "mover"
	// RestoreServer asks the server first, and waits as long as it restores.
	RestoreServer = "server"
)

// Defaults of Config.
const (
	DefaultTimeout = 30 * time.Second
	DefaultLong    = 10 * time.Minute
)

// DefaultDevices are the devices that a server may name.
var DefaultDevices = []string{"/dev/loop*", "/dev/pxd/*", "/dev/dm-*", "/dev/mapper/*"}

// Config is a profile: one SDK endpoint and what is believed of it.
type Config struct {
	Name       string // of the profile
	Endpoint   string // HOST:PORT, or unix:///PATH
	CAFile     string // of the CAs that count; empty: those of the system
	ServerName string // in the certificate; empty: the endpoint's host
	Plaintext  bool   // no TLS, by TCP: loopback only. A unix socket never has TLS
	TokenFile  string // 0600 or stricter; read again when it changes, or a token is refused
	Granted    bool   // a service manager has put TokenFile where nobody else can look; its mode does not count
	Auth       string // AuthToken (also when empty) or AuthNone
	Driver     string // which of the server's drivers; empty: its own
	Node       string // id, hostname or scheduler name that the endpoint has to say; empty: this machine's hostname
	Devices    []string
	Files      bool // a regular file may be a volume's device (a test server's)
	// WriteAttached lets a volume be written that somebody else has attached to this
	// node. The server alone says then which device it is.
	WriteAttached bool
	DevRoot       string // where the host's / is, for a daemon in a container; empty: /
	Timeout       time.Duration
	Long          time.Duration // of snapshot, clone, delete and restore
	Restore       string        // RestoreMover (also when empty) or RestoreServer
	Log           *slog.Logger  // nil drops it
	// Called is told of each try of a call, with its method and how it ended: "ok",
	// a Class, or "ended" by the caller. Nil is not. It must not block.
	Called func(method, outcome string)
}

// Check says what is wrong with c as far as that shows without a call: the field,
// as it stands in the configuration, and what to write. It reads ca_file and
// token_file: an empty token makes a server take us for a guest without a word.
func (c *Config) Check() error {
	for _, check := range []func() error{
		c.checkName, c.checkEndpoint, c.checkTLS, c.checkAuth, c.checkDevices, c.checkTimes,
	} {
		if err := check(); err != nil {
			return fmt.Errorf("openstorage %s: %w", cut(c.Name), err)
		}
	}
	return nil
}

func (c *Config) checkName() error {
	switch {
	case !plain(c.Name, maxProfile):
		return fmt.Errorf("name: it has to be 1 to %d of %s", maxProfile, nameRule)
	case c.Driver != "" && !plain(c.Driver, maxProfile):
		return fmt.Errorf("driver: %q is no name of a driver; leave it out for the server's own", cut(c.Driver))
	case c.Node != "" && !plain(c.Node, maxName):
		return fmt.Errorf("node: %q is no id or name of a node; leave it out for this machine's hostname", cut(c.Node))
	}
	return nil
}

// unixPath is the path of a unix socket, or empty for an endpoint by TCP.
func (c *Config) unixPath() string {
	p, ok := strings.CutPrefix(c.Endpoint, "unix://")
	if !ok {
		return ""
	}
	return p
}

func (c *Config) checkEndpoint() error {
	if strings.HasPrefix(c.Endpoint, "unix:") {
		if p := c.unixPath(); !path.IsAbs(p) || path.Clean(p) != p || p == "/" || clean(p) != p {
			return fmt.Errorf("endpoint: %q is no path of a socket; write unix:///PATH", cut(c.Endpoint))
		}
		return nil
	}
	host, port, err := net.SplitHostPort(c.Endpoint)
	n, nerr := strconv.ParseUint(port, 10, 16)
	if err != nil || nerr != nil || n == 0 || !hostName(host) {
		return fmt.Errorf("endpoint: %q; write HOST:PORT (the SDK's port is 9100, Portworx's 9020) or unix:///PATH", cut(c.Endpoint))
	}
	return nil
}

// hostName reports whether s is an address or may be a name.
func hostName(s string) bool {
	return net.ParseIP(s) != nil || plain(s, maxName)
}

// local reports whether what is sent to the endpoint cannot leave this machine. For
// a name the dialer looks again at what it became.
func (c *Config) local() bool {
	if c.unixPath() != "" {
		return true
	}
	host, _, err := net.SplitHostPort(c.Endpoint)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *Config) checkTLS() error {
	bare := c.unixPath() != "" || c.Plaintext
	switch {
	case c.unixPath() != "" && c.Plaintext:
		return errors.New("plaintext: a unix socket never has TLS; leave it out")
	case c.Plaintext && !c.local():
		return errors.New("plaintext: only for a loopback address; give the server a certificate, and its ca_file here")
	case bare && c.CAFile != "":
		return errors.New("ca_file: this endpoint has no TLS; leave it out")
	case bare && c.ServerName != "":
		return errors.New("server_name: this endpoint has no TLS; leave it out")
	case c.ServerName != "" && !hostName(c.ServerName):
		return fmt.Errorf("server_name: %q is no name; write the one in the server's certificate", cut(c.ServerName))
	case bare:
		return nil
	}
	_, err := c.tlsConfig()
	return err
}

// tlsConfig is what the server has to show. There is no way not to ask.
func (c *Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if t.ServerName == "" {
		t.ServerName, _, _ = net.SplitHostPort(c.Endpoint)
	}
	if c.CAFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file %s: there is no certificate in it; write a PEM file of the authority", c.CAFile)
	}
	return t, nil
}

func (c *Config) checkAuth() error {
	switch c.Auth {
	case AuthNone:
		if c.TokenFile != "" {
			return fmt.Errorf("token_file: auth = %q sends no token; leave one of them out", AuthNone)
		}
		return nil
	case "", AuthToken:
	default:
		return fmt.Errorf("auth: %q; write %q or %q", cut(c.Auth), AuthToken, AuthNone)
	}
	if c.TokenFile == "" {
		return fmt.Errorf("token_file: it is missing; write the path of the token, or auth = %q to be the server's guest", AuthNone)
	}
	_, _, err := readToken(c.TokenFile, c.Granted)
	return err
}

func (c *Config) checkDevices() error {
	if c.Devices != nil && len(c.Devices) == 0 {
		return fmt.Errorf("devices: the list is empty; leave it out for %s", strings.Join(DefaultDevices, ", "))
	}
	for _, p := range c.Devices {
		if _, err := path.Match(p, "/"); err != nil || !path.IsAbs(p) || path.Clean(p) != p || p == "/" || clean(p) != p {
			return fmt.Errorf("devices: %q; write a path with wildcards within one part, like %s", cut(p), DefaultDevices[0])
		}
	}
	if c.DevRoot != "" && (!filepath.IsAbs(c.DevRoot) || filepath.Clean(c.DevRoot) != c.DevRoot) {
		return fmt.Errorf("dev_root: %q is no absolute path; write the directory that is the host's /", cut(c.DevRoot))
	}
	return nil
}

func (c *Config) checkTimes() error {
	switch d := c.withDefaults(); {
	case c.Timeout < 0:
		return fmt.Errorf("timeout: %v; write a duration above 0, or leave it out for %v", c.Timeout, DefaultTimeout)
	case c.Long < 0:
		return fmt.Errorf("long_timeout: %v; write a duration above 0, or leave it out for %v", c.Long, DefaultLong)
	case d.Long < d.Timeout:
		return fmt.Errorf("long_timeout: %v is below timeout %v; write one that is not", d.Long, d.Timeout)
	}
	switch c.Restore {
	case "", RestoreMover, RestoreServer:
		return nil
	}
	return fmt.Errorf("restore: %q; write %q or %q", cut(c.Restore), RestoreMover, RestoreServer)
}

// withDefaults is c with what was left out.
func (c *Config) withDefaults() Config {
	d := *c
	if d.Auth == "" {
		d.Auth = AuthToken
	}
	if d.Devices == nil {
		d.Devices = DefaultDevices
	}
	if d.DevRoot == "" {
		d.DevRoot = "/"
	}
	if d.Timeout == 0 {
		d.Timeout = DefaultTimeout
	}
	if d.Long == 0 {
		d.Long = max(DefaultLong, d.Timeout)
	}
	if d.Restore == "" {
		d.Restore = RestoreMover
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return d
}
