package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"strconv"

	"github.com/haulback/haulback/cmd/internal/limits"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

// listen allows port 0, which means any free one: tests and demonstrations
// read the address from the log.
func (c *checker) listen(s string) string {
	if s == "" {
		return DefaultListen
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		c.wrong("listen", fmt.Errorf("listen %q: write ADDRESS:PORT, as in %q", s, DefaultListen))
		return ""
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		c.wrong("listen", fmt.Errorf("listen %q: the port is a number from 0 to 65535 (0: any free one)", s))
	}
	return s
}

func (c *checker) transports(list []string) (quic, tls bool) {
	if list == nil {
		return true, true
	}
	for _, t := range list {
		if err := site.CheckListen(t); err != nil {
			c.wrong("transports", fmt.Errorf("transports: %w; write one of them, or both", err))
		}
		quic, tls = quic || t == site.QUIC, tls || t == site.TLS
	}
	if len(list) == 0 {
		c.wrong("transports", fmt.Errorf("transports: the list is empty; name quic, tls, or both"))
	}
	return quic, tls
}

func (c *checker) log(t logTOML) Log {
	l := Log{Format: "auto"}
	switch t.Level {
	case "", "info":
		l.Level = slog.LevelInfo
	case "debug":
		l.Level = slog.LevelDebug
	case "warn":
		l.Level = slog.LevelWarn
	case "error":
		l.Level = slog.LevelError
	default:
		c.wrong("log.level", fmt.Errorf("log.level = %q: write debug, info, warn or error", t.Level))
	}
	switch t.Format {
	case "":
	case "auto", "text", "json":
		l.Format = t.Format
	default:
		c.wrong("log.format", fmt.Errorf("log.format = %q: write auto, text or json", t.Format))
	}
	return l
}

// maxCPUs is more than any machine that moves disks has.
const maxCPUs = 1024

func (c *checker) limits(t limitsTOML) Limits {
	l := Limits{
		Memory: c.size("limits.memory", t.Memory), Checkpoint: c.size("limits.checkpoint", t.Checkpoint), Window: c.size("limits.window", t.Window),
		Workers: t.Workers, Sessions: t.Sessions, CPUs: t.CPUs,
	}
	c.between("limits.cpus", t.CPUs, 1, maxCPUs, "CPUs")
	c.between("limits.workers", t.Workers, 1, wire.MaxDataStreams, "goroutines per session and stage")
	c.between("limits.sessions", t.Sessions, 1, math.MaxInt, "sessions at once")
	var err error
	if l.Refine, err = mover.ParseChoice("limits.refine", t.Refine); err != nil {
		c.wrong("limits.refine", err)
	}
	if l.Compress, err = mover.ParseChoice("limits.compress", t.Compress); err != nil {
		c.wrong("limits.compress", err)
	}
	for _, one := range []struct {
		key, text string
		Limits
	}{
		{"limits.memory", t.Memory, Limits{Memory: l.Memory}},
		{"limits.checkpoint", t.Checkpoint, Limits{Checkpoint: l.Checkpoint}},
		{"limits.window", t.Window, Limits{Window: l.Window}},
	} {
		if one.Engine().Validate() != nil { // of this one alone
			c.wrong(one.key, fmt.Errorf("%s = %q: out of range; write %s", one.key, one.text, described(one.key).bounds()))
		}
	}
	return l
}

// size reads a number of bytes; 0 is the default.
func (c *checker) size(key, text string) int64 {
	if text == "" {
		return 0
	}
	n, err := size.Parse(text)
	if err == nil && n == 0 {
		err = fmt.Errorf("size %q: leave the key out for the default", text)
	}
	if err != nil {
		c.wrong(key, fmt.Errorf("%s: %w; write %s", key, err, described(key).bounds()))
	}
	return n
}

// throttle reads what SIGHUP changes of the limits.
func (c *checker) throttle(t limitsTOML) (l throttle.Limits) {
	for _, r := range []struct {
		key, text string
		to        *int64
	}{{"rate", t.Rate, &l.Wire}, {"read_rate", t.ReadRate, &l.Read}} {
		n, err := limits.Rate(r.text)
		if err != nil {
			c.wrong("limits."+r.key, fmt.Errorf("limits.%s: %w; write %s", r.key, err, described("limits."+r.key).bounds()))
		}
		*r.to = n
	}
	var err error
	if l.Latency, err = limits.Latency(t.Latency); err != nil {
		c.wrong("limits.latency", fmt.Errorf("limits.latency: %w; write %s", err, described("limits.latency").bounds()))
	}
	if len(t.Windows) > throttle.MaxWindows {
		c.wrong("limits.windows", fmt.Errorf("limits.windows: %d windows, at most %d may be", len(t.Windows), throttle.MaxWindows))
	}
	for _, text := range t.Windows {
		w, err := limits.Window(text)
		if err != nil {
			c.wrong("limits.windows", fmt.Errorf("limits.windows: %w", err))
		}
		l.Windows = append(l.Windows, w)
	}
	return l
}

func (c *checker) exports(list []exportTOML, peers site.Peers) []Export {
	var exports []Export
	lines := map[string]string{}
	for i, t := range list {
		at := fmt.Sprintf("export[%d].", i)
		if err := site.CheckName("export", t.Name); err != nil {
			c.wrong(at+"name", err)
		} else if first := lines[t.Name]; first != "" {
			c.wrong(at+"name", fmt.Errorf("export %q: the name is used twice, first in %s; rename one of them", t.Name, first))
		} else {
			lines[t.Name] = c.places.At(c.path, at+"name")
		}
		e := Export{Name: t.Name, URI: t.URI, Role: c.role(at, t), Track: t.Track}
		c.track(at, t)
		if e.Role == mover.RoleHost {
			e.Host = c.host(at, t)
		} else {
			c.disk(at, t)
			c.noHost(at, t)
		}
		e.names = t
		c.who(at, &e, peers)
		if len(t.Peers)+len(t.Operators) == 0 && e.Role != mover.RoleHost {
			c.warn(at+"name", "export %q: nobody may use it; list names of peers under peers or operators", t.Name)
		}
		exports = append(exports, e)
	}
	return exports
}

// who finds the identities of those that an export names.
func (c *checker) who(at string, e *Export, peers site.Peers) {
	t := e.names
	e.Peers = c.ids(at+"peers", t.Name, t.Peers, peers)
	e.Operators = c.ids(at+"operators", t.Name, t.Operators, peers)
	e.Controllers = c.ids(at+"controllers", t.Name, t.Controllers, peers)
	e.Tickets = t.Ticket
	if t.Role == hostRole {
		c.whoOfHost(at, e)
		return
	}
	switch {
	case t.Ticket && len(t.Controllers) == 0:
		c.wrong(at+"ticket", fmt.Errorf("export %q: ticket = true, and no controllers; name the peers whose tickets open it", t.Name))
	case !t.Ticket && len(t.Controllers) > 0:
		c.wrong(at+"controllers", fmt.Errorf("export %q: controllers sign tickets, and it wants none; say ticket = true, or take them out", t.Name))
	}
}

// track checks the change tracking of a source.
func (c *checker) track(at string, t exportTOML) {
	switch {
	case t.Track == "":
	case t.Role != "source":
		c.wrong(at+"cbt", fmt.Errorf("export %q: cbt says where a source changed, and role is %q; leave cbt out", t.Name, t.Role))
	default:
		if err := site.CheckTrack(t.Track); err != nil {
			c.wrong(at+"cbt", fmt.Errorf("export %q: %w", t.Name, err))
		}
	}
}

func (c *checker) role(at string, t exportTOML) mover.Role {
	switch t.Role {
	case "source":
		return mover.RoleSource
	case "target":
		return mover.RoleTarget
	case hostRole:
		return mover.RoleHost
	case "":
		c.wrong(at+"role", fmt.Errorf("export %q: role is missing; say role = \"source\" (it is read), \"target\" (it is overwritten), or \"host\" (the disks of its VMs)", t.Name))
	default:
		c.wrong(at+"role", fmt.Errorf("export %q: role %q; write source (it is read), target (it is overwritten), or host (the disks of its VMs)", t.Name, t.Role))
	}
	return 0
}

// disk checks the URI; a disk that is not there may come.
func (c *checker) disk(at string, t exportTOML) {
	if t.URI == "" {
		c.wrong(at+"uri", fmt.Errorf("export %q: uri is missing; name the disk, as in uri = \"file:///srv/disk.img\"", t.Name))
		return
	}
	if isVolume(t.URI) {
		c.volume(at, t)
		return
	}
	u, err := vddk.ParseURI(t.URI)
	switch {
	case err != nil:
		c.wrong(at+"uri", fmt.Errorf("export %q: %w", t.Name, err))
	case !u.Local(): // seen when it is opened
	case u.Path[0] != '/':
		c.wrong(at+"uri", fmt.Errorf("export %q: uri %q: not an absolute path; write it from / on, or a URI", t.Name, t.URI))
	default:
		if _, err := os.Stat(u.Path); errors.Is(err, fs.ErrNotExist) {
			c.warn(at+"uri", "export %q: %s is not there yet; peers are refused until it is", t.Name, u.Path)
		}
	}
}

// ids finds the identities of the peers that an export names. A name that is
// not paired grants nothing and is no mistake: "haulback peer remove" must not
// keep a daemon from starting, or from shutting that peer out.
func (c *checker) ids(key, export string, names []string, peers site.Peers) []wire.ID {
	var ids []wire.ID
	for _, name := range names {
		p, ok := peers.Named(name)
		if !ok {
			if !c.blind {
				c.warn(key, "export %q: no peer is called %q, so nobody is let in by that name; run: haulback peer add ID --name %s, or take it out of the list", export, name, name)
			}
			continue
		}
		ids = append(ids, p.IDs()...)
	}
	return ids
}
