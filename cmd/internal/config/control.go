package config

import (
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/haulback/haulback/cmd/internal/site"
)

// Control says where the control API listens, and for whom.
type Control struct {
	Socket          string // path of the unix socket; empty: none
	Group           string // whose members may use it; empty: none
	Listen          string // HOST:PORT with mutual TLS; empty: none
	Cert, Key, CA   string // files, PEM; CA signs the callers' certificates
	Admins, Viewers []string
}

// Jobs bound what jobs may do. Zero means the job engine's default.
type Jobs struct {
	Disks, PerHost int           // that run at once
	Keep           time.Duration // of jobs that have ended
	// Allow are patterns of disks that jobs may name, where * is anything. One
	// that begins with a slash is of the real paths of disks of this machine, any
	// other of the names of the rest as they are written, without the files that
	// their parameters name. Nil: everything.
	Allow []string
}

type controlTOML struct {
	Socket  string   `toml:"socket"`
	Group   string   `toml:"group"`
	Listen  string   `toml:"listen"`
	Cert    string   `toml:"cert"`
	Key     string   `toml:"key"`
	CA      string   `toml:"client_ca"`
	Admins  []string `toml:"admins"`
	Viewers []string `toml:"viewers"`
}

type jobsTOML struct {
	Disks   int      `toml:"disks"`
	PerHost int      `toml:"per_host"`
	Keep    string   `toml:"keep"`
	Allow   []string `toml:"allow"`
}

const (
	socketName    = "control.sock"
	noSocket      = "none"
	maxSocketPath = 107 // what the kernel takes
	maxJobDisks   = 1024
)

// DefaultSocket is where a daemon with this state directory listens when its
// configuration does not say: in the directory that its service manager made,
// which is below /run by the name that the state directory has, or in its state
// directory.
func DefaultSocket(state string) string {
	if dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		return filepath.Join(dir, socketName)
	}
	if dir := filepath.Join("/run", filepath.Base(state)); site.Service(state) {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return filepath.Join(dir, socketName)
		}
	}
	return filepath.Join(state, socketName)
}

// control needs the state directory, for the default.
func (c *checker) control(t controlTOML, state string) Control {
	out := Control(t)
	switch {
	case t.Socket == noSocket:
		out.Socket = ""
	case t.Socket == "":
		if out.Socket = DefaultSocket(state); len(out.Socket) > maxSocketPath {
			c.warn("control.socket", "control API: the path of its socket, %s, is longer than the %d bytes that the kernel takes, so there is none; name a shorter one: [control] socket", out.Socket, maxSocketPath)
			out.Socket = ""
		}
	case !filepath.IsAbs(t.Socket):
		c.wrong("control.socket", fmt.Errorf("control.socket %q: write an absolute path, or %q", t.Socket, noSocket))
	case len(t.Socket) > maxSocketPath:
		c.wrong("control.socket", fmt.Errorf("control.socket %q: %d bytes, the kernel takes %d; name a shorter path", t.Socket, len(t.Socket), maxSocketPath))
	}
	if t.Group != "" && out.Socket == "" {
		c.wrong("control.group", fmt.Errorf("control.group: there is no socket that the group could use; take it out, or name a socket"))
	}
	c.controlTLS(t)
	return out
}

// controlTLS checks what belongs to the TCP port.
func (c *checker) controlTLS(t controlTOML) {
	for key, path := range map[string]string{"cert": t.Cert, "key": t.Key, "client_ca": t.CA} {
		switch {
		case t.Listen != "" && path == "":
			c.wrong("control.listen", fmt.Errorf("control.listen: %s is missing; a port needs cert, key and client_ca, there is no access without a certificate", key))
		case t.Listen == "" && path != "":
			c.wrong("control."+key, fmt.Errorf("control.%s: it belongs to listen, which is missing; add it, or take this out", key))
		case path != "" && !filepath.IsAbs(path):
			c.wrong("control."+key, fmt.Errorf("control.%s %q: not an absolute path; write it from / on", key, path))
		}
	}
	for key, names := range map[string][]string{"admins": t.Admins, "viewers": t.Viewers} {
		for _, name := range names {
			if name == "" {
				c.wrong("control."+key, fmt.Errorf("control.%s: an empty name; write the common name, DNS name, e-mail address or URI of a certificate", key))
			}
		}
	}
	if t.Listen == "" {
		if len(t.Admins)+len(t.Viewers) > 0 {
			c.wrong("control.admins", fmt.Errorf("control.admins, control.viewers: they belong to listen, which is missing; add it, or take them out"))
		}
		return
	}
	_, port, err := net.SplitHostPort(t.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		c.wrong("control.listen", fmt.Errorf("control.listen %q: write ADDRESS:PORT, as in \"0.0.0.0:7421\"", t.Listen))
	}
	if len(t.Admins)+len(t.Viewers) == 0 {
		c.warn("control.listen", "control API: nobody may use its port; list names of certificates under admins or viewers")
	}
}

func (c *checker) jobs(t jobsTOML) Jobs {
	out := Jobs{Disks: t.Disks, PerHost: t.PerHost, Allow: t.Allow}
	c.between("jobs.disks", t.Disks, 1, maxJobDisks, "disks that run at once")
	c.between("jobs.per_host", t.PerHost, 1, maxJobDisks, "disks of one host that run at once")
	out.Keep = c.duration("jobs.keep", t.Keep, time.Minute, math.MaxInt64)
	for _, p := range t.Allow {
		if p == "" {
			c.wrong("jobs.allow", fmt.Errorf("jobs.allow: an empty pattern; write \"/srv/images/*\", \"haulback://dr:7420/*\" or \"export:*\""))
		}
	}
	return out
}
