package vddk

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// The schemes. Kind of a [Description] uses the same words.
const (
	schemeFile  = "file"
	schemeBlock = "block"
	schemeVMDK  = "vmdk"
	schemeVDDK  = "vddk"
)

// supported ends every complaint about a scheme.
const supported = "a plain path, file:///path, block:///path, vmdk:///path, " +
	"nbd://host/export, nbds://host/export, nbd+unix:///export?socket=path, nbds+unix:///export?socket=path, vddk://host/vm, osd://profile/volume"

// builtin reports whether a scheme is one of this package.
func builtin(scheme string) bool {
	switch scheme {
	case schemeFile, schemeBlock, schemeVMDK, schemeVDDK, "nbd", "nbds", "nbd+unix", "nbds+unix":
		return true
	}
	return false
}

// URI names a disk: which driver, and what it opens. Two disks with equal URIs
// are the same disk; the reverse is not true.
type URI struct {
	// Scheme is "file", "block", "vmdk", "nbd", "nbds", "nbd+unix",
	// "nbds+unix", "vddk", one that was registered, or empty for a plain path: then
	// what is found there decides between a file and a block device.
	Scheme string
	// Path is that of a local disk (see Local): absolute for the schemes and
	// as given for a plain path. Otherwise it is empty.
	Path string
	// CreateType is the type of a VMDK that is created: "monolithicFlat" (also
	// when empty), or "vmfs", which ESXi powers on. For vmdk only.
	CreateType string
	// Text is the whole URI of a disk that is not local; its driver has a
	// grammar of its own. Otherwise it is empty.
	Text string
}

// ParseURI reads a plain path or a URI of a scheme that this version knows. It
// opens nothing. Whatever it does not understand it refuses, unknown query
// parameters too: a misread target is overwritten.
func ParseURI(s string) (URI, error) {
	if s == "" || strings.ContainsRune(s, 0) {
		return URI{}, fmt.Errorf("disk %q: not a path or URI", s)
	}
	scheme, ok := schemeOf(s)
	if !ok {
		return URI{Path: s}, nil
	}
	u, err := parseScheme(scheme, s)
	if err != nil {
		shown := HideLogin(s)
		if shown != s { // what a parser says may be a piece of the password
			err = passwordError{err}
		}
		return URI{}, fmt.Errorf("disk %q: %w", redactQueryOf(shown), err)
	}
	return u, nil
}

// passwordError is err of a URI with a password, without a word of its text.
type passwordError struct{ err error }

func (passwordError) Error() string {
	return "a password stands in it; name the file that has it, or take it out"
}

func (e passwordError) Unwrap() error { return e.err }

// redactQueryOf is a URI without secrets in its parameters. They belong into no URI
// of ours: errors are logged, and recorded where a caller is refused.
func redactQueryOf(s string) string {
	s, query, asked := strings.Cut(s, "?")
	if asked {
		s += "?" + redactQuery(query)
	}
	return s
}

// redactQuery cuts the values of parameters whose names say that they are a secret;
// names of files are none.
func redactQuery(query string) string {
	parts := strings.Split(query, "&")
	for i, part := range parts {
		key, value, has := strings.Cut(part, "=")
		if has && value != "" && secretName.MatchString(key) && !strings.HasSuffix(key, "-file") {
			parts[i] = key + "=xxxxx"
		}
	}
	return strings.Join(parts, "&")
}

var secretName = regexp.MustCompile(`(?i)pass|pwd|secret|token|key|cred|cookie|auth`)

// HideLogin is a URI without the password of a login in it, which no URI of ours
// has a place for. It is not read as a URI: what is none has a password as well.
func HideLogin(s string) string {
	head, place, ok := strings.Cut(s, "://")
	at := strings.LastIndexByte(place, '@')
	if !ok || at < 0 {
		return s
	}
	user, password, has := strings.Cut(place[:at], ":")
	if !has || strings.ContainsAny(user, "/?#") || port.MatchString(password) {
		return s
	}
	return head + "://" + user + ":xxxxx" + place[at:]
}

// port is what follows a colon that no name of a user ends with.
var port = regexp.MustCompile(`^[0-9]+[/?#]`)

func parseScheme(scheme, s string) (URI, error) {
	switch scheme {
	case schemeFile, schemeBlock, schemeVMDK:
		return parseLocal(scheme, s)
	case "nbd", "nbds", "nbd+unix", "nbds+unix":
		return URI{Scheme: scheme, Text: s}, errors.Unwrap(parseNBD(s)) // without the URI, which ParseURI shows
	case schemeVDDK:
		return URI{Scheme: scheme, Text: s}, parseVDDK(s)
	}
	return parseRegistered(scheme, s)
}

// Local reports whether the disk has a path on this machine. The socket of an
// NBD server has one, the disk behind it does not.
func (u URI) Local() bool { return u.Path != "" }

// CanCreate reports whether Options.Create can make such a disk.
func (u URI) CanCreate() bool {
	return u.Scheme == "" || u.Scheme == schemeFile || u.Scheme == schemeVMDK
}

// String is the form that ParseURI reads.
func (u URI) String() string {
	switch {
	case !u.Local():
		return u.Text
	case u.Scheme == "":
		return u.Path
	}
	full := url.URL{Scheme: u.Scheme, Path: u.Path}
	if u.CreateType != "" {
		full.RawQuery = url.Values{"createType": {u.CreateType}}.Encode()
	}
	return full.String()
}

// schemeOf returns what stands before the first ":" when it looks like a
// scheme. "a:b" without a slash before the colon is taken for a scheme, so that
// "nbd:host" is refused and not created as a file; "./a:b" names the file.
func schemeOf(s string) (string, bool) {
	i := strings.IndexAny(s, ":/")
	if i <= 0 || s[i] != ':' {
		return "", false
	}
	for _, c := range s[:i] {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.", c) {
			return "", false
		}
	}
	return strings.ToLower(s[:i]), true
}

func parseLocal(scheme, s string) (URI, error) {
	u, err := url.Parse(s)
	if err != nil {
		return URI{}, err
	}
	if strings.ContainsRune(s, '#') {
		return URI{}, fmt.Errorf("fragment; write %%23 for a # in the path")
	}
	createType, err := parseQuery(u)
	if err != nil {
		return URI{}, err
	}
	if err := checkLocal(u); err != nil {
		return URI{}, err
	}
	return URI{Scheme: scheme, Path: path.Clean(u.Path), CreateType: createType}, nil
}

// parseQuery knows the one parameter of a local disk: createType of a VMDK.
func parseQuery(u *url.URL) (createType string, err error) {
	const known = "createType"
	if u.RawQuery == "" && !u.ForceQuery {
		return "", nil
	}
	if u.Scheme != schemeVMDK {
		return "", fmt.Errorf("unknown parameter %q; %s takes none", redactQuery(u.RawQuery), u.Scheme)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", err
	}
	for key := range query {
		if key != known {
			return "", fmt.Errorf("unknown parameter %q; vmdk takes %s", key, known)
		}
	}
	values := query[known]
	if len(values) != 1 || values[0] != typeHosted && values[0] != typeVMFS {
		return "", fmt.Errorf("parameter %q: %s is %s or %s", redactQuery(u.RawQuery), known, typeHosted, typeVMFS)
	}
	return values[0], nil
}

// checkLocal refuses the parts of a URL that no local driver has.
func checkLocal(u *url.URL) error {
	switch {
	case u.Host != "" || u.User != nil:
		return fmt.Errorf("host %q; %s opens local paths only, written %s:///path", u.Host, u.Scheme, u.Scheme)
	case u.Opaque != "" || !strings.HasPrefix(u.Path, "/"):
		return fmt.Errorf("the path must be absolute, written %s:///path", u.Scheme)
	case strings.ContainsRune(u.Path, 0):
		return fmt.Errorf("zero byte in the path")
	}
	return nil
}
