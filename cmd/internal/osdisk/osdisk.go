package osdisk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/vddk"
)

const (
	// sweepEvery is how often Run looks for what the dead have left.
	sweepEvery = time.Minute
	// sweepTime bounds one look: a cluster that hangs does not keep the others.
	sweepTime = 10 * time.Minute
)

// Disks opens the volumes of profiles. Safe for concurrent use.
type Disks struct {
	keeper *osd.Keeper
	dir    string // of the ledger
	calls  hostctl.Calls
	left   atomic.Int64 // of the last sweep
	log    *slog.Logger
	holds  holds
	warm   atomic.Bool // a device was not read as Coldness had said: all are asked

	mu       sync.Mutex
	profiles []osd.Config
	clients  map[string]*client // by profile
	retired  []*client          // of profiles that have changed, still in use
	closed   bool
}

// client is an osd.Client and who uses it.
type client struct {
	*osd.Client
	config osd.Config
	users  int // guarded by Disks.mu
}

// errNoProfile is a mistake of the caller.
type errNoProfile struct{ text string }

func (e *errNoProfile) Error() string { return e.text }

// Usage is true: somebody has to name another, or configure it.
func (e *errNoProfile) Usage() bool { return true }

// New makes a Disks. dir is its ledger, made at the first use. It talks to nobody.
func New(profiles []osd.Config, dir string, log *slog.Logger) *Disks {
	return &Disks{keeper: osd.NewKeeper(dir, log), dir: dir, log: log, profiles: profiles, clients: map[string]*client{}}
}

// Driver is what vddk.Register wants.
func (d *Disks) Driver() vddk.Driver { return vddk.Driver{Parse: Parse, Open: d.Open} }

// Parse says what is wrong with the URI of a volume.
func Parse(text string) error {
	_, err := osd.ParseURI(text)
	return err
}

// Use puts the profiles of a new configuration in the place of those before. Disks
// that are open keep theirs.
func (d *Disks) Use(profiles []osd.Config) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.profiles = profiles
	for name, c := range d.clients {
		if i := slices.IndexFunc(profiles, func(p osd.Config) bool { return p.Name == name }); i >= 0 && same(&profiles[i], &c.config) {
			continue
		}
		delete(d.clients, name)
		if c.users == 0 {
			d.end(c)
			continue
		}
		d.retired = append(d.retired, c)
	}
}

// same reports whether two profiles mean the same.
func same(a, b *osd.Config) bool {
	x, y := *a, *b
	x.Log, y.Log, x.Called, y.Called = nil, nil, nil, nil
	return reflect.DeepEqual(x, y)
}

// end closes a client that nobody uses.
func (d *Disks) end(c *client) {
	if err := c.Client.Close(); err != nil {
		d.log.Debug("openstorage: not closed", "profile", c.config.Name, "err", err)
	}
}

// Client is the client of a profile, for the life of d. It connects when it is
// used.
func (d *Disks) Client(profile string) (*osd.Client, error) {
	c, err := d.take(profile)
	if err != nil {
		return nil, err
	}
	return c.Client, nil
}

// Here says why the endpoint of a profile does not attach volumes to this machine;
// nil: it does.
func (d *Disks) Here(ctx context.Context, profile string) error {
	c, err := d.take(profile)
	if err != nil {
		return err
	}
	defer d.give(c)
	return c.Here(ctx)
}

// take is the client of a profile, with one more user.
func (d *Disks) take(profile string) (*client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("openstorage: this process ends")
	}
	c, ok := d.clients[profile]
	if !ok {
		i := slices.IndexFunc(d.profiles, func(p osd.Config) bool { return p.Name == profile })
		if i < 0 {
			return nil, d.missing(profile)
		}
		config := d.profiles[i]
		if config.Log == nil {
			config.Log = d.log
		}
		config.Called = d.calls.Of(profile)
		opened, err := osd.Open(config)
		if err != nil {
			return nil, fmt.Errorf("openstorage %q: %w", profile, err)
		}
		c = &client{Client: opened, config: config}
		d.clients[profile] = c
	}
	c.users++
	return c, nil
}

// missing names the profiles that there are.
func (d *Disks) missing(profile string) error {
	names := []string{}
	for _, p := range d.profiles {
		names = append(names, p.Name)
	}
	there := "there is none"
	if len(names) > 0 {
		there = "there are: " + strings.Join(names, ", ")
	}
	return &errNoProfile{fmt.Sprintf("no [[openstorage]] is called %q in the configuration; %s", profile, there)}
}

// give takes a user off c.
func (d *Disks) give(c *client) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.users--
	if i := slices.Index(d.retired, c); i >= 0 && c.users == 0 {
		d.retired = slices.Delete(d.retired, i, i+1)
		d.end(c)
	}
}

// Run sweeps at once and each minute, until ctx is done.
func (d *Disks) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		d.Sweep(ctx, d.log)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sweep takes away what processes that died have left on the volumes of these
// profiles, or of all, and tells log. What cannot be reached stays for the next time.
func (d *Disks) Sweep(ctx context.Context, log *slog.Logger, profiles ...string) {
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	var used []*client
	list, err := d.keeper.Sweep(ctx, func(profile string) (*osd.Client, error) {
		c, err := d.take(profile)
		if err != nil {
			return nil, err
		}
		used = append(used, c)
		return c.Client, nil
	}, profiles...)
	for _, c := range used {
		d.give(c)
	}
	left := 0
	for _, s := range list {
		if !s.Done {
			left++
		}
	}
	if ctx.Err() == nil {
		d.left.Store(int64(left))
	}
	for _, s := range list {
		attrs := []any{"profile", s.Profile, "volume", s.Volume, "clone", s.Clone, "what", s.Text}
		if s.Done {
			log.Warn("a volume that a process had left was swept", attrs...)
			continue
		}
		log.Warn("a volume that a process had left stays for now", attrs...)
	}
	if err != nil && ctx.Err() == nil {
		log.Warn("volumes are not swept", "err", err)
	}
}

// Close ends the clients. What is still open cannot be let go after it.
func (d *Disks) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	var errs []error
	for _, c := range d.clients {
		errs = append(errs, c.Client.Close())
	}
	for _, c := range d.retired {
		errs = append(errs, c.Client.Close())
	}
	d.clients, d.retired = map[string]*client{}, nil
	return errors.Join(errs...)
}
