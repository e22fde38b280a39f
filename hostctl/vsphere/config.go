package vsphere

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
)

// Config says where a host is and how to log in. Secrets come by file.
type Config struct {
	Name string // of the host, as in hostctl.Ref.Host
	URL  string // "https://vcenter.example", the port if it is not 443
	User string
	// PasswordFile is read at each login, so a changed password needs no restart.
	PasswordFile string
	// Thumbprint is the SHA-256 (or SHA-1) of the host's certificate in hex, with
	// or without colons. With it nothing else of the certificate is asked.
	Thumbprint string
	// CAFile has the authorities in PEM that the host's certificate may come
	// from. Empty, without a Thumbprint: those of the system.
	CAFile string
	// Datacenter bounds what is looked at, by name or inventory path. Empty: all.
	Datacenter string
	Log        *slog.Logger // nil: nothing is logged
	// Called is told of each try of a call, with its method and how it ended; nil
	// is not. It must not block.
	Called func(method, class string)
}

// Validate says what is wrong with c, before anybody talks to a host.
func (c *Config) Validate() error {
	_, err := c.parse()
	return err
}

// parse is Validate that keeps the URL.
func (c *Config) parse() (*url.URL, error) {
	if c.Name == "" {
		return nil, errors.New("host: it has no name")
	}
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("host %s: %s", c.Name, fmt.Sprintf(format, args...))
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return nil, wrong("url %q cannot be read; it is like https://vcenter.example", c.URL)
	case u.Scheme != "https" || u.Host == "":
		return nil, wrong("url %q: it has to be https://NAME or https://NAME:PORT", u.Redacted())
	case u.User != nil:
		return nil, wrong("url: it names a user or a password; put them into user and password_file")
	case u.Path != "" && u.Path != "/" && u.Path != "/sdk" || u.RawQuery != "" || u.Fragment != "":
		return nil, wrong("url %q: it may have no path but /sdk", u.Redacted())
	case c.User == "":
		return nil, wrong("user is missing")
	case c.PasswordFile == "":
		return nil, wrong("password_file is missing")
	case c.Thumbprint != "" && c.CAFile != "":
		return nil, wrong("thumbprint and ca_file exclude each other; a thumbprint is the stricter one")
	}
	if _, err := parseThumbprint(c.Thumbprint); err != nil {
		return nil, wrong("thumbprint: %v", err)
	}
	u.Path = "/sdk"
	return u, nil
}

// plainHex takes the colons, blanks and capitals out of a thumbprint.
func plainHex(s string) string {
	return strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(s))
}
