package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/osd"
)

type openstorageTOML struct {
	Name       string   `toml:"name"`
	Endpoint   string   `toml:"endpoint"`
	CA         string   `toml:"ca_file"`
	ServerName string   `toml:"server_name"`
	Plaintext  bool     `toml:"plaintext"`
	Token      string   `toml:"token_file"`
	Auth       string   `toml:"auth"`
	Driver     string   `toml:"driver"`
	Node       string   `toml:"node"`
	Devices    []string `toml:"devices"`
	Files      bool     `toml:"files"`
	Attached   bool     `toml:"write_attached"`
	DevRoot    string   `toml:"dev_root"`
	Timeout    string   `toml:"timeout"`
	Long       string   `toml:"long_timeout"`
	Restore    string   `toml:"restore"`
}

// openstorage reads the profiles of volume clusters.
func (c *checker) openstorage(list []openstorageTOML) (profiles []osd.Config) {
	name := c.names("openstorage")
	for i, t := range list {
		at := fmt.Sprintf("openstorage[%d].", i)
		name(at, t.Name)
		p := osd.Config{
			Name: t.Name, Endpoint: t.Endpoint, CAFile: t.CA, ServerName: t.ServerName, Plaintext: t.Plaintext, Auth: t.Auth, Driver: t.Driver, Node: t.Node,
			Devices: t.Devices, Files: t.Files, WriteAttached: t.Attached, DevRoot: t.DevRoot, Restore: t.Restore,
			Timeout: c.duration(at+"timeout", t.Timeout, leastTimeout, mostTimeout), Long: c.duration(at+"long_timeout", t.Long, leastTimeout, mostLong),
		}
		p.TokenFile = c.secret(at+"token_file", fmt.Sprintf("openstorage %q: token_file", t.Name), t.Token)
		p.Granted = site.IsCredential(p.TokenFile)
		if err := c.checkable(p).Check(); err != nil {
			if inner := errors.Unwrap(err); inner != nil {
				err = inner // without the profile's name, which is said in our way
			}
			if key := field(err); key != "name" { // that was told
				c.wrong(at+key, fmt.Errorf("openstorage %q: %w", t.Name, err))
			}
		}
		profiles = append(profiles, p)
	}
	return profiles
}

// checkable is p as it can be looked at: without a token where the service manager
// would have brought it, and there is none. That was said.
func (c *checker) checkable(p osd.Config) *osd.Config {
	if p.TokenFile != "" && !filepath.IsAbs(p.TokenFile) && os.Getenv(credential) == "" && p.Auth != osd.AuthNone {
		p.TokenFile, p.Auth = "", osd.AuthNone
	}
	return &p
}

// field is the key that a mistake in a profile begins with: it is told at its
// line.
func field(err error) string {
	word, _, _ := strings.Cut(err.Error(), " ")
	return strings.Trim(word, `:"`)
}

// profile reports whether the file has a profile of that name, and notes what is
// wrong when it has not.
func (c *checker) profile(key, what, name string) bool {
	for _, p := range c.profiles {
		if p.Name == name {
			return true
		}
	}
	c.wrong(key, fmt.Errorf("%s: no [[openstorage]] is called %q; add one with name = %q and its endpoint", what, name, name))
	return false
}

// volume checks the URI of an export that is a volume. Whether it is there is seen
// when it is opened.
func (c *checker) volume(at string, t exportTOML) {
	u, err := osd.ParseURI(t.URI)
	if err != nil {
		c.wrong(at+"uri", fmt.Errorf("export %q: uri %w", t.Name, err))
		return
	}
	c.profile(at+"uri", fmt.Sprintf("export %q", t.Name), u.Profile)
	if u.Snapshot != "" && t.Role == "target" {
		c.wrong(at+"uri", fmt.Errorf("export %q: uri %q: a snapshot is never written; name the volume alone, or say role = \"source\"", t.Name, t.URI))
	}
	if t.Track != "" {
		c.wrong(at+"cbt", fmt.Errorf("export %q: cbt: OpenStorage tells no changed blocks; leave it out, both sides are read", t.Name))
	}
}

// isVolume reports whether a URI is one of OpenStorage.
func isVolume(uri string) bool {
	scheme, _, ok := strings.Cut(uri, ":")
	return ok && strings.EqualFold(scheme, osd.Scheme)
}

// Profiles are the [[openstorage]] tables of the file at path and its drop-ins,
// whatever else their values are.
func Profiles(path string) ([]osd.Config, error) {
	d, err := read(path)
	if err != nil {
		return nil, err
	}
	c := newChecker(d)
	profiles := c.openstorage(d.file.OpenStorage)
	return profiles, c.err()
}

// ledger is where a state directory has what is held of volumes.
const ledger = "openstorage"

// Ledger is the directory that says what processes of a site hold of volumes.
func Ledger(s *site.Site) string { return filepath.Join(s.Dir(), ledger) }
