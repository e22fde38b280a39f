package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/haulback/haulback/cmd/internal/hostdisk"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/strict"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// DefaultListen is every address of the machine at haulback's port.
const DefaultListen = "0.0.0.0:" + site.DefaultPort

// Config is a configuration that was checked.
type Config struct {
	File     string
	DropIns  []string // the files of FILE.d that were read after it, in order
	Listen   string
	QUIC     bool
	TLS      bool
	GRO      bool // the kernel may merge UDP packets that come in
	GSO      bool // it may split what goes out into such
	Site     *site.Site
	Log      Log
	Limits   Limits
	Throttle throttle.Limits // of all sessions together
	Peers    site.Peers      // of the site and of the file
	Own      site.Peers      // of the file alone
	Exports  []Export
	Control  Control
	Metrics  Metrics
	Jobs     Jobs
	// OpenStorage are the profiles that osd:// disks and hosts name.
	OpenStorage []osd.Config

	Controller  *Controller // nil: this daemon is none, and has nothing of the next four
	Hosts       []Host
	Hooks       []Hook
	Replication Replication
	Groups      []Group

	Warnings []string // what may be meant, but is worth a look
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level
	Format string // "text", "json", or "auto": text on a terminal
}

// Limits are those of mover.Config; zero means the engine's default.
type Limits struct {
	Memory, Checkpoint, Window int64
	Workers, Sessions          int
	CPUs                       int // of the process, all of it; 0: what the Go runtime finds
	Refine                     mover.Choice
	Compress                   mover.Choice // of what this daemon sends
}

// Engine is the engine's configuration, without agent and log.
func (l Limits) Engine() mover.Config {
	return mover.Config{Memory: l.Memory, Checkpoint: l.Checkpoint, Window: l.Window, Workers: l.Workers, Sessions: l.Sessions, Refine: l.Refine, Compress: l.Compress}
}

// Export is one disk that peers may use.
type Export struct {
	Name      string
	URI       string
	Role      mover.Role
	Track     string // change tracking that peers may ask for, of a source; empty: none
	Peers     []wire.ID
	Operators []wire.ID
	// Tickets says that a ticket of one of Controllers is wanted as well.
	Tickets     bool
	Controllers []wire.ID
	Host        *hostdisk.Table // of mover.RoleHost: in the place of URI
	names       exportTOML      // of the lists, for Repeer
}

// Repeer is c with paired in the place of the peers of its site: what a change
// of who is paired makes of a configuration that has not changed.
func (c *Config) Repeer(paired site.Peers) (*Config, error) {
	peers := slices.Clone(paired)
	for _, own := range c.Own {
		var err error
		if peers, err = peers.Add(own); err != nil {
			return nil, err
		}
	}
	out := *c
	out.Peers, out.Warnings, out.Exports = peers, nil, slices.Clone(c.Exports)
	mute := &checker{blind: true} // it was told when the names were read
	for i := range out.Exports {
		mute.who("", &out.Exports[i], peers)
	}
	return &out, nil
}

// file is the TOML as it stands.
type file struct {
	Listen     string           `toml:"listen"`
	Transports []string         `toml:"transports"`
	GRO        *bool            `toml:"gro"`
	GSO        *bool            `toml:"gso"`
	StateDir   string           `toml:"state_dir"`
	KeyFile    string           `toml:"key_file"`
	Log        logTOML          `toml:"log"`
	Limits     limitsTOML       `toml:"limits"`
	Control    controlTOML      `toml:"control"`
	Metrics    metricsTOML      `toml:"metrics"`
	Jobs       jobsTOML         `toml:"jobs"`
	Peer       []site.PeerEntry `toml:"peer"`
	Export     []exportTOML     `toml:"export"`

	OpenStorage []openstorageTOML `toml:"openstorage"`

	Controller  *controllerTOML  `toml:"controller"`
	Replication *replicationTOML `toml:"replication"`
	Host        []hostTOML       `toml:"host"`
	Hook        []hookTOML       `toml:"hook"`
	Group       []groupTOML      `toml:"group"`
}

type logTOML struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

type limitsTOML struct {
	Memory     string `toml:"memory"`
	CPUs       int    `toml:"cpus"`
	Workers    int    `toml:"workers"`
	Checkpoint string `toml:"checkpoint"`
	Window     string `toml:"window"`
	Sessions   int    `toml:"sessions"`
	Refine     string `toml:"refine"`
	Compress   string `toml:"compress"`

	Rate     string   `toml:"rate"`
	ReadRate string   `toml:"read_rate"`
	Latency  string   `toml:"latency"`
	Windows  []string `toml:"windows"`
}

type exportTOML struct {
	Name      string   `toml:"name"`
	URI       string   `toml:"uri"`
	Role      string   `toml:"role"`
	Track     string   `toml:"cbt"`
	Peers     []string `toml:"peers"`
	Operators []string `toml:"operators"`
	// Ticket and Controllers are the second lock.
	Ticket      bool     `toml:"ticket"`
	Controllers []string `toml:"controllers"`
	// Datastores, VDDK or OpenStorage are of role "host", in the place of URI.
	Datastores  map[string]string `toml:"datastores"`
	VDDK        string            `toml:"vddk"`
	OpenStorage string            `toml:"openstorage"`
}

// DefaultFile is the configuration that is used when none is named.
const DefaultFile = "/etc/haulback/haulbackd.toml"

// Load reads and checks the file at path with its drop-ins, and the peers of its
// site. The error is every mistake that was found, one a line.
func Load(path string) (*Config, error) {
	cfg, _, err := load(path)
	return cfg, err
}

// Check is Load that also looks at the state directory and the key file, as a daemon
// would before it starts.
func Check(path string) (*Config, error) {
	cfg, err := Load(path)
	if err != nil {
		return nil, err
	}
	if err := cfg.Site.CheckDir(); err != nil {
		return nil, err
	}
	if err := cfg.Site.CheckKey(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// Summary is the configuration in a line, for people.
func (c *Config) Summary() string {
	text := c.File
	switch n := len(c.DropIns); {
	case n == 1:
		text += " and 1 drop-in"
	case n > 1:
		text += fmt.Sprintf(" and %d drop-ins", n)
	}
	text += fmt.Sprintf(": listen %s, state %s, %d peers, %d exports", c.Listen, c.Site.Dir(), len(c.Peers), len(c.Exports))
	if c.Controller != nil {
		text += fmt.Sprintf(", controller %s of %d hosts", c.Controller.Name, len(c.Hosts))
	}
	return text
}

// load is Load that also gives what stands in the files, and where.
func load(path string) (*Config, *document, error) {
	d, err := read(path)
	if err != nil {
		return nil, nil, err
	}
	c := newChecker(d)
	cfg := c.check(&d.file)
	if err := c.err(); err != nil {
		return nil, nil, err
	}
	cfg.DropIns = d.dropIns
	return cfg, d, nil
}

// StillPeers tells which peers still have a [[peer]] table in the file at path and its
// drop-ins, whatever else is wrong with them: one with their ID, or with their name
// and an ID that is none. Its error is one of a file that cannot be read as TOML.
func StillPeers(path string) (stays func(site.Peer) bool, err error) {
	names, err := files(path)
	if err != nil {
		return nil, err
	}
	var ids []wire.ID
	var wrong []string // names of tables whose ID is none
	blind := false     // there is one that says neither
	for _, name := range names {
		text, err := contents(name, name != path)
		if err != nil {
			return nil, err
		}
		var has struct {
			Peer []map[string]any `toml:"peer"`
		}
		if err := strict.Part(name, text, &has); err != nil {
			return nil, err
		}
		for _, table := range has.Peer {
			id, _ := table["id"].(string)
			called, _ := table["name"].(string)
			if id, err := wire.ParseID(id); err == nil {
				ids = append(ids, id)
				continue
			}
			wrong = append(wrong, called)
			blind = blind || called == ""
		}
	}
	return func(p site.Peer) bool {
		return blind || slices.Contains(ids, p.ID) || slices.Contains(wrong, p.Name)
	}, nil
}

// checker collects what is wrong.
type checker struct {
	path     string
	places   strict.Places
	errs     []error
	warnings []string
	blind    bool // who is paired cannot be told
	profiles []osd.Config
	owners   map[string]string // of volumes: the workload that each is in
	secrets  map[string]bool   // keys that were told because of a secret
}

// newChecker is one that has looked for secrets, so that nothing else that it says
// has one.
func newChecker(d *document) *checker {
	c := &checker{path: d.path, places: d.places, secrets: map[string]bool{}}
	c.noSecrets("", reflect.ValueOf(&d.file).Elem())
	return c
}

// err is everything that is wrong, from the top of the file to its end.
func (c *checker) err() error {
	var all []error
	for _, err := range c.errs {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			all = append(all, joined.Unwrap()...)
			continue
		}
		all = append(all, err)
	}
	place := func(err error) strict.Mistake {
		if m, ok := errors.AsType[*strict.Mistake](err); ok {
			return *m
		}
		return strict.Mistake{}
	}
	slices.SortFunc(all, func(a, b error) int {
		x, y := place(a), place(b)
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column), cmp.Compare(a.Error(), b.Error()))
	})
	return errors.Join(all...)
}

// wrong notes a mistake in the value of key.
func (c *checker) wrong(key string, err error) {
	if err != nil && !c.secrets[key] {
		c.errs = append(c.errs, c.places.Wrong(c.path, key, err))
	}
}

func (c *checker) warn(key, format string, args ...any) {
	m := c.places.Wrong(c.path, key, fmt.Errorf(format, args...))
	m.Place = "" // a log has no room for it
	c.warnings = append(c.warnings, m.Error())
}

func (c *checker) check(f *file) *Config {
	cfg := &Config{File: c.path, Listen: c.listen(f.Listen), Log: c.log(f.Log), Limits: c.limits(f.Limits), Throttle: c.throttle(f.Limits)}
	cfg.QUIC, cfg.TLS = c.transports(f.Transports)
	cfg.GRO, cfg.GSO = f.GRO == nil || *f.GRO, f.GSO == nil || *f.GSO
	c.site(f, cfg)
	cfg.OpenStorage = c.openstorage(f.OpenStorage)
	c.profiles = cfg.OpenStorage
	cfg.Exports = c.exports(f.Export, cfg.Peers)
	if cfg.Site != nil {
		cfg.Control = c.control(f.Control, cfg.Site.Dir())
	}
	cfg.Metrics = c.metrics(f.Metrics)
	cfg.Jobs = c.jobs(f.Jobs)
	c.controller(f, cfg)
	cfg.Warnings = c.warnings
	return cfg
}

// keyFile is the path of the private key. Who may read a file is looked at, and
// refused, when it is read.
func (c *checker) keyFile(name string) string {
	dir := os.Getenv(credential)
	switch {
	case name == "" || filepath.IsAbs(name):
		return name
	case name != filepath.Base(name) || name == "." || name == "..":
		c.wrong("key_file", fmt.Errorf("key_file %q: write an absolute path, or the name of a credential of systemd (LoadCredential=)", name))
	case dir == "":
		c.warn("key_file", "key_file %q is the name of a credential, and there are none ($%s is not set); under systemd put the key into /etc/credstore/%s", name, credential, name)
		return name // of no file: no key is made in its place
	}
	return filepath.Join(dir, name)
}

// site finds the state directory and joins its peers with those of the file.
func (c *checker) site(f *file, cfg *Config) {
	if f.StateDir != "" && !filepath.IsAbs(f.StateDir) {
		c.wrong("state_dir", fmt.Errorf("state_dir %q: write an absolute path; a daemon has no current directory to start from", f.StateDir))
	}
	var err error
	if cfg.Site, err = site.At(f.StateDir, c.keyFile(f.KeyFile)); err != nil {
		c.wrong("state_dir", err)
		return
	}
	paired, err := cfg.Site.Peers()
	if err != nil {
		c.errs, c.blind = append(c.errs, err), true
	}
	// CheckPeers names file and line itself.
	if cfg.Peers, err = site.CheckPeers(paired, c.path, c.places, f.Peer); err != nil {
		c.errs = append(c.errs, err)
	}
	cfg.Own, _ = site.CheckPeers(nil, c.path, c.places, f.Peer) // its mistakes are told already
}
