package osd

import (
	"os"
	"testing"

	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// open opens the device of an attachment, as its user does.
// TestKeeperUsed: what somebody has come to use is not detached under them, as the
// server would attach it a second time; the sweeper does when they have gone. And
// nothing is written to what they use.
func TestKeeperUsed(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		id := r.volume("v", 1, 1)
		a := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", false))
		user := must[*os.File](t)(os.OpenFile(a.Path(), os.O_RDWR, 0))
		if n := r.calls("Detach", func() { ok(t, a.Release(ctx)) }); n != 0 {
			t.Errorf("detached under its user: %d Detach", n)
		}
		ok(t, user.Close())
		for _, s := range must[[]Swept](t)(r.k.Sweep(ctx, func(string) (*Client, error) { return r.c, nil })) {
			if !s.Done {
				t.Errorf("%+v", s)
			}
		}
		r.clean()

		path := must[string](t)(r.server.AttachOutside(id, ""))
		user = must[*os.File](t)(os.OpenFile(path, os.O_RDWR, 0))
		r.c.cfg.WriteAttached = true
		_, err := r.k.Open(ctx, r.c, id, "", true)
		wants(t, err, "has it open")
		a = must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", false))
		ok(t, a.Release(ctx))
		ok(t, user.Close())
		ok(t, r.server.DetachOutside(id))
		r.clean()
	})
}

// TestKeeperNames: a server whose names of this node do not agree leaves what we
// have attached where it is; the row stays and says so, until the names agree.
func TestKeeperNames(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	a := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", false))
	call := func(n string) {
		r.c.mu.Lock()
		defer r.c.mu.Unlock()
		about := *r.c.about
		about.Node, about.Hostname, about.Scheduler = n, n, n
		r.c.about = &about
	}
	call("another")
	wants(t, a.Release(ctx), "correct node")
	call(r.server.Node())
	for _, s := range must[[]Swept](t)(r.k.Sweep(ctx, func(string) (*Client, error) { return r.c, nil })) {
		if !s.Done {
			t.Errorf("%+v", s)
		}
	}
	r.clean()
}

// TestKeeperClients: readers of one volume have their own clients, and the one who
// came first may close its before the others have gone.
func TestKeeperClients(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	other := r.client(r.cfg)
	first := must[*Attachment](t)(r.k.Open(ctx, other, id, "", false))
	a := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", false))
	ok(t, first.Release(ctx))
	ok(t, other.Close())
	ok(t, a.Check(ctx))
	b := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", false))
	ok(t, b.Release(ctx))
	ok(t, a.Release(ctx))
	r.clean()
}
