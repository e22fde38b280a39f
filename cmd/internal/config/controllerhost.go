package config

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/haulback/haulback/cmd/internal/site"
)

// Host is one host that owns VMs, or workloads.
type Host struct {
	Name         string
	Kind         string // KindVSphere or KindOpenStorage
	URL          string // https://HOST[:PORT]/sdk
	User         string
	PasswordFile string // absolute
	Thumbprint   string // SHA-256 of its certificate, "AA:BB:..."; empty: a CA vouches for it
	CAFile       string // of the CAs that count for it; empty: those of the system
	Datacenter   string // empty: the only one
	Mover        string // name of the peer that reaches its disks, or Self
	Export       string // there, of role host
	Registered   bool   // it reaches them only while their VM is in the inventory

	// Of KindOpenStorage, in the place of URL to Datacenter.
	OpenStorage string // profile
	Workloads   []Workload
}

const (
	// KindVSphere is a vCenter or an ESXi.
	KindVSphere = "vsphere"
	// KindOpenStorage is a volume cluster whose workloads are named here.
	KindOpenStorage = "openstorage"
	// Self is the mover of this daemon.
	Self = "self"

	credential = site.CredentialsEnv
)

type hostTOML struct {
	Name       string `toml:"name"`
	Kind       string `toml:"kind"`
	URL        string `toml:"url"`
	User       string `toml:"user"`
	Password   string `toml:"password_file"`
	Thumbprint string `toml:"thumbprint"`
	CA         string `toml:"ca_file"`
	Datacenter string `toml:"datacenter"`
	Mover      string `toml:"mover"`
	Export     string `toml:"export"`
	Registered bool   `toml:"registered"`

	OpenStorage string         `toml:"openstorage"`
	Workload    []workloadTOML `toml:"workload"`
}

func (c *checker) hosts(list []hostTOML, peers site.Peers) (hosts []Host) {
	name := c.names("host")
	for i, t := range list {
		at := fmt.Sprintf("host[%d].", i)
		name(at, t.Name)
		if t.Kind == KindOpenStorage {
			h := c.clusterHost(at, &t, list)
			c.hostMover(at, &h, peers)
			hosts = append(hosts, h)
			continue
		}
		h := Host{
			Name: t.Name, Kind: KindVSphere, URL: t.URL, User: t.User, CAFile: t.CA, Datacenter: t.Datacenter,
			Mover: t.Mover, Export: t.Export, Registered: t.Registered,
		}
		if t.Kind != "" && t.Kind != KindVSphere {
			c.wrong(at+"kind", fmt.Errorf("host %q: kind %q; write %s or %s", t.Name, t.Kind, KindVSphere, KindOpenStorage))
		}
		c.noCluster(at, &t)
		c.wrong(at+"url", hostURL(t))
		if t.User == "" {
			c.wrong(at+"user", fmt.Errorf("host %q: user is missing; name the login, as in user = \"haulback@vsphere.local\"", t.Name))
		}
		h.PasswordFile = c.secret(at+"password_file", fmt.Sprintf("host %q: password_file", t.Name), t.Password)
		if t.Password == "" {
			c.wrong(at+"password_file", fmt.Errorf("host %q: password_file is missing; name a file that has the password and nothing else", t.Name))
		}
		h.Thumbprint = c.thumbprint(at, t)
		c.hostMover(at, &h, peers)
		hosts = append(hosts, h)
	}
	return hosts
}

// hostURL says what is wrong with the address of a host.
func hostURL(t hostTOML) error {
	if t.URL == "" {
		return fmt.Errorf("host %q: url is missing; write url = \"https://HOST\"", t.Name)
	}
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		return fmt.Errorf("host %q: url: no address; write url = \"https://HOST\"", t.Name)
	case u.User != nil:
		return fmt.Errorf("host %q: url: a login does not belong there; write user and password_file", t.Name)
	case u.Scheme != "https":
		return fmt.Errorf("host %q: url %q: only https is spoken to hosts; write url = \"https://HOST\"", t.Name, t.URL)
	case u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" && u.Path != "/sdk":
		return fmt.Errorf("host %q: url %q: write https://HOST, https://HOST:PORT or https://HOST/sdk", t.Name, t.URL)
	}
	return nil
}

var nameOrPath = regexp.MustCompile(`^[A-Za-z0-9@_.:/-]+$`)

// secret is the path of a file with a secret: an absolute one, or the name of
// a credential that systemd has put into its directory.
func (c *checker) secret(key, what, path string) string {
	dir := os.Getenv(credential)
	switch {
	case path == "" || filepath.IsAbs(path):
	case !nameOrPath.MatchString(path): // it may be the secret itself
		c.errs = append(c.errs, c.places.Secret(c.path, key, fmt.Errorf("%s: neither an absolute path nor the name of a credential of systemd; if it is the secret itself, put that into a file, and write the file's path", what)))
		return ""
	case path != filepath.Base(path) || path == "." || path == "..":
		c.wrong(key, fmt.Errorf("%s %q: write an absolute path, or the name of a credential of systemd (LoadCredential=)", what, path))
	case dir == "":
		c.warn(key, "%s %q is the name of a credential, and there are none ($%s is not set); under systemd add LoadCredential=%s:/PATH to the unit", what, path, credential, path)
		return path
	default:
		path = filepath.Join(dir, path)
	}
	if info, err := os.Stat(path); path != "" && err != nil {
		c.warn(key, "%s: %v", what, err)
	} else if path != "" && info.Mode().Perm()&0o077 != 0 && dir == "" {
		c.warn(key, "%s: %s may be read by other users (mode %04o); chmod 600 %s", what, path, info.Mode().Perm(), path)
	}
	return path
}

var thumbprintText = regexp.MustCompile(`^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2})*$`)

// thumbprint reads the SHA-256 of a certificate, with or without colons.
func (c *checker) thumbprint(at string, t hostTOML) string {
	if t.CA != "" && !filepath.IsAbs(t.CA) {
		c.wrong(at+"ca_file", fmt.Errorf("host %q: ca_file %q: not an absolute path; write it from / on", t.Name, t.CA))
	}
	if t.Thumbprint == "" {
		return ""
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(t.Thumbprint, ":", ""))
	switch {
	case t.CA != "":
		c.wrong(at+"thumbprint", fmt.Errorf("host %q: thumbprint and ca_file; one of them says whom to believe, take the other out", t.Name))
	case err != nil || !thumbprintText.MatchString(t.Thumbprint):
		c.wrong(at+"thumbprint", fmt.Errorf("host %q: thumbprint: not hexadecimal; write the SHA-256 of the certificate, 32 bytes as in \"AA:BB:...\"", t.Name))
	case len(raw) == 20:
		c.wrong(at+"thumbprint", fmt.Errorf("host %q: thumbprint: 20 bytes are a SHA-1; write the SHA-256 of the certificate, haulback selfcheck shows it", t.Name))
	case len(raw) != 32:
		c.wrong(at+"thumbprint", fmt.Errorf("host %q: thumbprint: %d bytes; write the SHA-256 of the certificate, which has 32", t.Name, len(raw)))
	}
	return Thumbprint(raw)
}

// Thumbprint is a digest of a certificate as configurations have it.
func Thumbprint(sum []byte) string {
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// hostMover fills in who moves the disks of a host. As with exports, a name that
// is not paired is no mistake.
func (c *checker) hostMover(at string, h *Host, peers site.Peers) {
	if h.Mover == "" {
		h.Mover = Self
	}
	if h.Export == "" {
		h.Export = h.Name
	} else {
		c.wrong(at+"export", site.CheckName("export", h.Export))
	}
	if h.Mover == Self {
		return
	}
	if err := site.CheckName("mover", h.Mover); err != nil {
		c.wrong(at+"mover", fmt.Errorf("host %q: %w; write the name of a peer, or %q", h.Name, err, Self))
		return
	}
	if p, ok := peers.Named(h.Mover); !ok && !c.blind {
		c.warn(at+"mover", "host %q: no peer is called %q, so its disks cannot be reached; run: haulback peer add ID --name %s --address HOST:PORT", h.Name, h.Mover, h.Mover)
	} else if ok && p.Address == "" {
		c.warn(at+"mover", "host %q: the peer %q has no address, so its disks cannot be reached from here; run: haulback peer add ID --name %s --address HOST:PORT", h.Name, h.Mover, h.Mover)
	}
}
