package selfcheck

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/hosts"
	"github.com/haulback/haulback/hostctl/osd"
)

// openstorage asks the endpoint of every profile what it is, all at the same time,
// and those that volumes are opened by whether that is this machine.
func (c *checks) openstorage(ctx context.Context) {
	if c.cfg == nil {
		return
	}
	opens := map[string]bool{}
	for _, e := range c.cfg.Exports {
		if u, err := osd.ParseURI(e.URI); err == nil {
			opens[u.Profile] = true
		}
		if e.Host != nil {
			opens[e.Host.OpenStorage] = true
		}
	}
	results := make([]Result, len(c.cfg.OpenStorage))
	var wg sync.WaitGroup
	for i := range c.cfg.OpenStorage {
		p := &c.cfg.OpenStorage[i]
		wg.Go(func() { results[i] = c.profile(ctx, p, opens[p.Name]) })
	}
	wg.Wait()
	for _, r := range results {
		c.tell(r)
	}
}

func (c *checks) profile(ctx context.Context, p *osd.Config, opens bool) Result {
	ctx, cancel := context.WithTimeout(ctx, hostPatience)
	defer cancel()
	r := Result{Name: "openstorage " + p.Name, Level: OK}
	if c.lacks(&r, p.TokenFile) {
		return r
	}
	client, err := c.volumes.Client(p.Name)
	if err != nil {
		r.Level, r.Text, r.Remedy, r.Usage = Fail, err.Error(), "correct its [[openstorage]]", true
		return r
	}
	about, err := client.About(ctx)
	if err != nil {
		r.Level, r.Text, r.Remedy = Fail, err.Error(), "is the endpoint "+p.Endpoint+" right, does it answer, and is the token of its issuer, and not over?"
		return r
	}
	r.Text = fmt.Sprintf("%s %s at %s, node %s (%s)", about.Driver, about.Version, p.Endpoint, about.Node, about.Hostname)
	if !opens {
		return r
	}
	if err := client.Here(ctx); err != nil {
		r.Level, r.Text, r.Remedy = Fail, err.Error(), "name the endpoint of this machine's own node; a balancer or a Service address attaches volumes anywhere"
	}
	return r
}

// token is the token file of a profile.
func (c *checks) token(profile string) string {
	for _, p := range c.cfg.OpenStorage {
		if p.Name == profile {
			return p.TokenFile
		}
	}
	return ""
}

// workloads looks for every volume of a host of workloads.
func (c *checks) workloads(ctx context.Context, r Result, h *hosts.Opened, about hosts.About, err error) []Result {
	client, cerr := c.volumes.Client(h.OpenStorage)
	if err == nil {
		err = cerr
	}
	if err != nil {
		r.Level, r.Text, r.Remedy = Fail, err.Error(), "see the line openstorage "+h.OpenStorage
		return []Result{r}
	}
	r.Text = fmt.Sprintf("%s: %d workloads", about.Product, len(h.Workloads))
	list := []Result{r}
	for i := range h.Workloads {
		if text := missing(ctx, client, &h.Workloads[i]); text != "" {
			list = append(list, Result{
				Name: r.Name, Level: Fail, Text: fmt.Sprintf("workload %s: %s", h.Workloads[i].Name, text),
				Remedy: "name its volumes as the cluster does, by id where a name is used twice, and let the token's role see them",
			})
		}
	}
	return list
}

// missing says which volumes of a workload cannot be found.
func missing(ctx context.Context, client *osd.Client, w *config.Workload) string {
	var wrong []string
	for _, v := range w.Volumes {
		if _, err := client.Resolve(ctx, v.Volume); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	return strings.Join(wrong, "; ")
}

// end closes what was opened.
func (c *checks) end() {
	if c.volumes != nil {
		_ = c.volumes.Close() // only looked
	}
}
