package vddk

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// The schemes of this version. Kind of a [Description] uses the same words.
const (
	schemeFile  = "file"
	schemeBlock = "block"
)

// URI names a disk: which driver, and what it opens.
type URI struct {
	// Scheme is "file", "block", or empty for a plain path: then what is found
	// there decides.
	Scheme string
	// Path is absolute for the schemes and as given for a plain path.
	Path string
}

// ParseURI reads a plain path, file:///path or block:///path. It opens nothing.
// Whatever it does not understand it refuses: a misread target is overwritten.
func ParseURI(s string) (URI, error) {
	if s == "" || strings.ContainsRune(s, 0) {
		return URI{}, fmt.Errorf("disk %q: not a path or URI", s)
	}
	scheme, ok := schemeOf(s)
	if !ok {
		return URI{Path: s}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return URI{}, fmt.Errorf("disk %q: %w", s, err)
	}
	if err := checkScheme(scheme); err != nil {
		return URI{}, fmt.Errorf("disk %q: %w", s, err)
	}
	if strings.ContainsRune(s, '#') {
		return URI{}, fmt.Errorf("disk %q: fragment; write %%23 for a # in the path", s)
	}
	if err := checkLocal(u); err != nil {
		return URI{}, fmt.Errorf("disk %q: %w", s, err)
	}
	return URI{Scheme: scheme, Path: path.Clean(u.Path)}, nil
}

// String is the form that ParseURI reads.
func (u URI) String() string {
	if u.Scheme == "" {
		return u.Path
	}
	return (&url.URL{Scheme: u.Scheme, Path: u.Path}).String()
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

func checkScheme(scheme string) error {
	switch scheme {
	case schemeFile, schemeBlock:
		return nil
	case "nbd", "vmdk", "vddk":
		return fmt.Errorf("scheme %q is not in this version; supported: a plain path, file:///path, block:///path", scheme)
	}
	return fmt.Errorf("unknown scheme %q; supported: a plain path, file:///path, block:///path (nbd, vmdk, vddk: not in this version)", scheme)
}

// checkLocal refuses the parts of a URL that neither driver has.
func checkLocal(u *url.URL) error {
	switch {
	case u.RawQuery != "" || u.ForceQuery:
		return fmt.Errorf("unknown parameter %q; %s takes none", u.RawQuery, u.Scheme)
	case u.Host != "" || u.User != nil:
		return fmt.Errorf("host %q; %s opens local paths only, written %s:///path", u.Host, u.Scheme, u.Scheme)
	case u.Opaque != "" || !strings.HasPrefix(u.Path, "/"):
		return fmt.Errorf("the path must be absolute, written %s:///path", u.Scheme)
	case strings.ContainsRune(u.Path, 0):
		return fmt.Errorf("zero byte in the path")
	}
	return nil
}
