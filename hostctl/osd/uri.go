package osd

import (
	"fmt"
	"strings"
)

// Scheme begins the URIs of volumes: osd://PROFILE/VOLUME[?snapshot=ID].
const Scheme = "osd"

// What a name may have. Profiles are our own. Names and ids are the servers': the
// API bounds neither, so they may be as long as a DNS name, which is what Kubernetes
// makes of them; they come into file names, labels and other names, so nothing that
// means something there is taken. A volume of another name is reached by its id.
const (
	maxProfile = 64  // bytes
	maxName    = 253 // bytes, of a volume's or snapshot's name or id
	nameRule   = "letters, digits, '_', '.' and '-'"
)

// URI names a volume, or a snapshot of it, of a profile.
type URI struct {
	Profile  string
	Volume   string // name or id
	Snapshot string // id or name; empty: the volume itself
}

// ParseURI reads "osd://PROFILE/VOLUME" or "osd://PROFILE/VOLUME?snapshot=ID", and
// refuses whatever is not exactly that. What it takes, String gives back.
func ParseURI(s string) (URI, error) {
	bad := func(why string) (URI, error) {
		return URI{}, fmt.Errorf("%q: %s; it is %s://PROFILE/VOLUME or %s://PROFILE/VOLUME?snapshot=ID", cut(s), why, Scheme, Scheme)
	}
	rest, ok := strings.CutPrefix(s, Scheme+"://")
	if !ok {
		return bad("does not begin with " + Scheme + "://")
	}
	var u URI
	path, query, asked := strings.Cut(rest, "?")
	u.Profile, u.Volume, ok = strings.Cut(path, "/")
	switch {
	case !plain(u.Profile, maxProfile):
		return bad(fmt.Sprintf("the profile is 1 to %d of %s", maxProfile, nameRule))
	case !ok:
		return bad("names no volume")
	case !plain(u.Volume, maxName):
		return bad(fmt.Sprintf("a volume is 1 to %d of %s", maxName, nameRule))
	case !asked:
		return u, nil
	}
	if u.Snapshot, ok = strings.CutPrefix(query, "snapshot="); !ok {
		return bad("after '?' comes snapshot= and nothing else")
	}
	if !plain(u.Snapshot, maxName) {
		return bad(fmt.Sprintf("a snapshot is 1 to %d of %s", maxName, nameRule))
	}
	return u, nil
}

// String is the URI again.
func (u URI) String() string {
	s := Scheme + "://" + u.Profile + "/" + u.Volume
	if u.Snapshot != "" {
		s += "?snapshot=" + u.Snapshot
	}
	return s
}

// plain reports whether s is a name or an id that may stand anywhere.
func plain(s string, most int) bool {
	if s == "" || len(s) > most || s == "." || s == ".." {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}
