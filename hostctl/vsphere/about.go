package vsphere

import (
	"context"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
)

// About is what a host says of itself.
type About struct {
	Product string // "VMware vCenter Server 8.0.2 build-22617221"
	User    string // who is logged in, as the host calls it
	// Ahead is how far the host's clock is ahead of ours, as well as half of the
	// round trip tells.
	Ahead time.Duration
}

// About logs in where nobody is, and asks.
func (c *Client) About(ctx context.Context) (a About, err error) {
	err = c.observe(ctx, "ask for its time", func(l *link) error {
		began := c.now()
		t, err := methods.GetCurrentTime(ctx, l)
		if err != nil {
			return err
		}
		took := c.now().Sub(began)
		a = About{Product: clean(l.ServiceContent.About.FullName), User: clean(l.user), Ahead: t.Sub(began.Add(took / 2)).Round(time.Millisecond)}
		return nil
	})
	return a, err
}
