package selfcheck

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/failbacks"
	"github.com/haulback/haulback/cmd/internal/hosts"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

const (
	// hostPatience bounds the looks at one host.
	hostPatience = 30 * time.Second
	// clockOff is how far the clock of a host may be off before its certificate,
	// and what is set for a time, may be.
	clockOff = time.Minute
)

// allNeeds are what a controller does with VMs.
var allNeeds = []hostctl.Need{
	hostctl.NeedPower, hostctl.NeedSnapshot, hostctl.NeedTrack, hostctl.NeedMark, hostctl.NeedRead, hostctl.NeedWrite, hostctl.NeedCreate, hostctl.NeedGuard,
}

// hosts logs in to the hosts of a controller and asks their movers for the disks,
// all at the same time.
func (c *checks) hosts(ctx context.Context) {
	if c.cfg == nil || c.cfg.Controller == nil {
		return
	}
	if len(c.cfg.Hosts) == 0 {
		c.not(Warn, "hosts", "add a table [[host]] for each vCenter, ESXi or volume cluster", "this controller has no hosts")
		return
	}
	opened := hosts.Open(ctx, c.cfg.Hosts, hosts.Options{Client: c.volumes.Client, Log: slog.New(slog.DiscardHandler)})
	list := make([][]Result, len(opened))
	var wg sync.WaitGroup
	for i := range opened {
		h := &opened[i]
		wg.Go(func() { list[i] = append(c.answersHost(ctx, h), c.mover(ctx, h.Host)...) })
	}
	wg.Wait()
	for _, h := range opened {
		if h.Open != nil {
			_ = h.Open.Close(context.WithoutCancel(ctx)) // only looked
		}
	}
	for _, results := range list {
		for _, r := range results {
			c.tell(r)
		}
	}
}

// answersHost is what a host says of itself, and what the login lacks there.
func (c *checks) answersHost(ctx context.Context, h *hosts.Opened) []Result {
	ctx, cancel := context.WithTimeout(ctx, hostPatience)
	defer cancel()
	r := Result{Name: "host " + h.Name, Level: OK}
	if c.lacks(&r, h.PasswordFile) || c.lacks(&r, c.token(h.OpenStorage)) {
		return []Result{r}
	}
	if h.Err != nil {
		r.Level, r.Text, r.Remedy, r.Usage = Fail, h.Err.Error(), "correct its [[host]]", true
		return []Result{r}
	}
	about, err := h.Open.About(ctx)
	if h.Kind == config.KindOpenStorage {
		return c.workloads(ctx, r, h, about, err)
	}
	if err != nil {
		r.Level, r.Text = Fail, hosts.Explain(ctx, h.Host, err).Error()
		r.Remedy = "is " + h.URL + " right, does it answer, and is this its login?"
		if hosts.OfCertificate(err) {
			r.Remedy = "compare the thumbprint with that at the host's console before you write it down"
		}
		return []Result{r}
	}
	r.Text = fmt.Sprintf("%s at %s, as %s", about.Product, h.URL, about.User)
	if about.Ahead.Abs() > clockOff {
		r.Level, r.Remedy = Warn, "let both take their time from the network (NTP)"
		r.Text += fmt.Sprintf("; its clock is %v off ours", about.Ahead)
	}
	problems, err := h.Open.Host().Checker.Check(ctx, hostctl.Ref{Host: h.Name}, allNeeds)
	if err != nil {
		return []Result{r, {Name: r.Name, Level: Warn, Text: "privileges: " + err.Error()}}
	}
	list := []Result{r}
	for _, p := range problems {
		list = append(list, Result{Name: r.Name, Level: Fail, Text: p.Text, Remedy: p.Remedy})
	}
	return list
}

// mover asks whoever moves the disks of a host for its export.
func (c *checks) mover(ctx context.Context, h *config.Host) []Result {
	name := "mover of " + h.Name
	if _, err := os.Lstat(c.site.KeyFile()); err != nil {
		return nil // Key would make one
	}
	key, err := c.site.Key()
	if err != nil {
		return nil // told already
	}
	engine, err := mover.NewEngine(mover.Config{Agent: build.Agent("haulback")}, nil) // a probe has no journal
	if err != nil {
		return []Result{{Name: name, Level: Fail, Text: err.Error()}}
	}
	defer engine.Close() // nothing ran in it
	reached := hosts.Reached(c.cfg.Hosts)
	m := failbacks.Mover{
		Engine: engine, Reach: dialer{c, key}, Key: key, Log: slog.New(slog.DiscardHandler),
		Here: c.volumes.Here, Hosts: func() map[string]failbacks.Host { return reached }, Exports: func() []config.Export { return c.cfg.Exports },
	}
	ctx, cancel := context.WithTimeout(ctx, hostPatience)
	defer cancel()
	var list []Result
	for _, p := range m.Check(ctx, h.Name) {
		list = append(list, Result{Name: name, Level: Fail, Text: p.Text, Remedy: p.Remedy})
	}
	if list == nil {
		list = []Result{{Name: name, Level: OK, Text: fmt.Sprintf("%s reaches its disks by export %q", h.Mover, h.Export)}}
	}
	return list
}

// dialer is transfer.Reach with the key that there is.
type dialer struct {
	c   *checks
	key *wire.Key
}

// Self implements transfer.Reach.
func (d dialer) Self() (wire.ID, error) { return d.key.ID(), nil }

// Peers implements transfer.Reach.
func (d dialer) Peers() (site.Peers, error) { return d.c.peers, nil }

// Dial implements transfer.Reach.
func (d dialer) Dial(ctx context.Context, transport, address string, id wire.ID) (wire.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	return site.Dial(ctx, transport, address, d.key, d.c.peers.Pins(id)...)
}
