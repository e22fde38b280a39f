package nbd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The schemes of the NBD URI specification (doc/uri.md of the NBD project).
const (
	schemeTCP     = "nbd"
	schemeTCPTLS  = "nbds"
	schemeUnix    = "nbd+unix"
	schemeUnixTLS = "nbds+unix"
)

// maxSocketPath is the longest path that sockaddr_un holds with its final zero.
const maxSocketPath = 107

// URI names an export of an NBD server. It holds no secret: certificates are
// named by their directory.
type URI struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the absolute path of the socket
	Export  string // may be empty: the default export
	TLS     bool   // encrypted, or no connection at all
	User    string // TLS user name; certificates have no use for it

	Certificates string // directory with ca-cert.pem and, for a client certificate, client-cert.pem and client-key.pem
	Hostname     string // the name that the certificate must have, if not that of the address
	SkipVerify   bool   // tls-verify-peer=0: encrypted, but to whom is unknown
}

// ParseURI reads nbd://, nbds://, nbd+unix:// and nbds+unix://. What it does
// not understand it refuses: unknown and repeated parameters, a fragment, a
// password. A "+" is a plus, as RFC 3986 has it, and not a space.
func ParseURI(s string) (URI, error) {
	u, err := parseURI(s)
	if err != nil {
		return URI{}, fmt.Errorf("nbd: uri %q: %w", redactURI(s), err)
	}
	return u, nil
}

// redactURI cuts a password, which has no place there, out of the error.
func redactURI(s string) string {
	if u, err := url.Parse(s); err == nil {
		return u.Redacted()
	}
	head, rest, ok := strings.Cut(s, "://")
	if at := strings.LastIndexByte(rest, '@'); ok && at >= 0 {
		return head + "://..." + rest[at:]
	}
	return s
}

func parseURI(s string) (URI, error) {
	if strings.ContainsRune(s, '#') {
		return URI{}, errors.New("has a fragment; write %23 for a # in the export name")
	}
	parsed, err := url.Parse(s)
	if err != nil {
		return URI{}, errors.Unwrap(err) // without the URI, which ParseURI shows redacted
	}
	var u URI
	if err := u.setScheme(parsed.Scheme); err != nil {
		return URI{}, err
	}
	if parsed.Opaque != "" {
		return URI{}, fmt.Errorf("needs // after %q", parsed.Scheme+":")
	}
	if err := u.setExport(parsed.Path); err != nil {
		return URI{}, err
	}
	if err := u.setUser(parsed.User); err != nil {
		return URI{}, err
	}
	params, err := uriParams(parsed.RawQuery)
	if err != nil {
		return URI{}, err
	}
	if err := u.setAddress(parsed, params); err != nil {
		return URI{}, err
	}
	return u, u.setTLS(params)
}

func (u *URI) setScheme(scheme string) error {
	switch scheme {
	case schemeTCP, schemeTCPTLS:
		u.Network = "tcp"
	case schemeUnix, schemeUnixTLS:
		u.Network = "unix"
	case "nbd+vsock", "nbds+vsock":
		return errors.New("vsock is not supported; use TCP or a unix socket")
	default:
		return fmt.Errorf("unknown scheme %q; supported: nbd, nbds, nbd+unix, nbds+unix", scheme)
	}
	u.TLS = strings.HasPrefix(scheme, schemeTCPTLS)
	return nil
}

// setExport takes the path without its first slash: "//disk" is "/disk".
func (u *URI) setExport(path string) error {
	u.Export = strings.TrimPrefix(path, "/")
	switch {
	case len(u.Export) > maxStringLen:
		return fmt.Errorf("export name of %d bytes; the protocol has room for %d", len(u.Export), maxStringLen)
	case strings.ContainsRune(u.Export, 0) || !utf8.ValidString(u.Export):
		return fmt.Errorf("export name %q is not UTF-8 or has a zero byte", u.Export)
	}
	return nil
}

func (u *URI) setUser(user *url.Userinfo) error {
	if user == nil {
		return nil
	}
	if _, set := user.Password(); set {
		return errors.New("has a password; NBD has none")
	}
	if u.User = user.Username(); u.User != "" && !u.TLS {
		return fmt.Errorf("user %q serves TLS only; use nbds", u.User)
	}
	return nil
}

// uriParams cuts the query into its parameters, each at most once.
func uriParams(query string) (map[string]string, error) {
	params := make(map[string]string)
	if query == "" {
		return params, nil
	}
	for field := range strings.SplitSeq(query, "&") {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, fmt.Errorf("parameter %q has no value", field)
		}
		if _, known := uriKeys[key]; !known {
			return nil, fmt.Errorf("unknown parameter %q", key)
		}
		if _, twice := params[key]; twice {
			return nil, fmt.Errorf("parameter %q stands there twice", key)
		}
		text, err := url.PathUnescape(value)
		if err != nil {
			return nil, fmt.Errorf("parameter %q: %w", key, err)
		}
		if text == "" || strings.ContainsRune(text, 0) {
			return nil, fmt.Errorf("parameter %q is empty or has a zero byte (abstract sockets are not supported)", key)
		}
		params[key] = text
	}
	return params, nil
}

// uriKeys are the parameters of the specification; the value is whether TLS is
// needed.
var uriKeys = map[string]bool{
	"socket": false, "tls-certificates": true, "tls-verify-peer": true,
	"tls-hostname": true, "tls-psk-file": true, "tls-type": true,
}

func (u *URI) setAddress(parsed *url.URL, params map[string]string) error {
	socket, has := params["socket"]
	if u.Network == "tcp" {
		if has {
			return fmt.Errorf("parameter socket=%s belongs to nbd+unix", socket)
		}
		return u.setTCP(parsed)
	}
	switch {
	case parsed.Host != "":
		return fmt.Errorf("host %q; a unix socket is written %s:///EXPORT?socket=/PATH", parsed.Host, parsed.Scheme)
	case !has:
		return errors.New("needs the parameter socket=/PATH")
	case !filepath.IsAbs(socket):
		return fmt.Errorf("socket=%s must be absolute: a daemon has no directory of its own", socket)
	case len(socket) > maxSocketPath:
		return fmt.Errorf("socket path of %d bytes; the kernel takes %d", len(socket), maxSocketPath)
	}
	u.Address = socket
	return nil
}

func (u *URI) setTCP(parsed *url.URL) error {
	host, port := parsed.Hostname(), parsed.Port()
	if host == "" {
		return errors.New("names no host")
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, ":[]%") {
		return fmt.Errorf("host %q is neither a name nor an address", host)
	}
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > maxTCPPort {
		return fmt.Errorf("port %q is not in 1..%d", port, maxTCPPort)
	}
	u.Address = net.JoinHostPort(host, strings.TrimLeft(port, "0"))
	return nil
}

func (u *URI) setTLS(params map[string]string) error {
	for key := range params {
		if uriKeys[key] && !u.TLS {
			return fmt.Errorf("parameter %q serves TLS only; use nbds", key)
		}
	}
	if _, has := params["tls-psk-file"]; has || params["tls-type"] == "psk" {
		return errors.New("pre-shared keys (tls-psk-file) are not supported; use certificates (tls-certificates)")
	}
	if kind, has := params["tls-type"]; has && kind != "x509" {
		return fmt.Errorf("tls-type=%s is not supported; only x509 is", kind)
	}
	switch verify := params["tls-verify-peer"]; verify {
	case "", "1":
	case "0":
		u.SkipVerify = true
	default:
		return fmt.Errorf("tls-verify-peer=%s is neither 0 nor 1", verify)
	}
	u.Certificates, u.Hostname = params["tls-certificates"], params["tls-hostname"]
	if u.Certificates != "" && !filepath.IsAbs(u.Certificates) {
		return fmt.Errorf("tls-certificates=%s must be absolute: a daemon has no directory of its own", u.Certificates)
	}
	if u.TLS && u.Network == "unix" && u.Hostname == "" && !u.SkipVerify {
		return errors.New("TLS on a unix socket needs tls-hostname=NAME: the name in the server's certificate")
	}
	return nil
}

// String is the form that ParseURI reads, with the port always written.
func (u URI) String() string {
	out := url.URL{Scheme: schemeTCP, Path: "/" + u.Export}
	if u.TLS {
		out.Scheme = schemeTCPTLS
	}
	var query []string
	add := func(key, value string) {
		if value != "" {
			query = append(query, key+"="+uriEscape(value))
		}
	}
	if u.Network == "unix" {
		out.Scheme += "+unix"
		add("socket", u.Address)
	} else {
		out.Host = u.Address
	}
	if u.User != "" {
		out.User = url.User(u.User)
	}
	add("tls-certificates", u.Certificates)
	add("tls-hostname", u.Hostname)
	if u.SkipVerify {
		add("tls-verify-peer", "0")
	}
	out.RawQuery = strings.Join(query, "&")
	return out.String()
}

// uriEscape keeps the slashes of a path readable. A space is %20: the "+" of
// forms is a plus here.
func uriEscape(s string) string {
	return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(s))
}
