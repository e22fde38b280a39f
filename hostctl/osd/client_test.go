package osd

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

func TestResolve(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	web, db := r.volume("web", 1, 1), r.volume("db", 2, 2)
	r.volume("twin", 1, 1)
	r.volume("twin", 1, 2)
	for in, want := range map[string]string{"web": web, web: web, "db": db, db: db} {
		v, err := r.c.Resolve(t.Context(), in)
		if err != nil || v.ID != want {
			t.Errorf("%s is %s, %v; want %s", in, v.ID, err, want)
		}
	}
	v := must[Volume](t)(r.c.Resolve(t.Context(), "db"))
	if v.Name != "db" || v.Size != 2*mib || v.Attached || v.Path != "" || v.Unfit != "" || v.Created.IsZero() {
		t.Errorf("%+v", v)
	}
	if got, want := r.c.Identity(v), "osd:nfs/"+db; got != want {
		t.Errorf("identity %s, want %s", got, want)
	}
	_, err := r.c.Resolve(t.Context(), "none")
	if !errors.Is(err, hostctl.ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	_, err = r.c.Resolve(t.Context(), "twin")
	if a, is := errors.AsType[*hostctl.AmbiguousError](err); !is || len(a.Found) != 2 {
		t.Errorf("twin: %v", err)
	}
	_, err = r.c.Resolve(t.Context(), "../web")
	class(t, err, Refused)
	_, err = r.c.Inspect(t.Context(), "web") // the server takes names
	wants(t, err, "it answers volume "+web)

	// One that is deleted and kept is no second one.
	old := r.volume("web", 1, 3)
	r.set(func(q *osdtest.Quirks) { q.Unfit = map[string]string{old: "trashcan"} })
	if v, err := r.c.Resolve(t.Context(), "web"); err != nil || v.ID != web {
		t.Errorf("web beside a deleted one: %s, %v", v.ID, err)
	}
}

// TestObserveRetries: an observing call is made up to three times.
func TestObserveRetries(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	id := r.volume("v", 1, 1)
	for _, code := range []codes.Code{codes.Unavailable, codes.Aborted, codes.Internal, codes.Unknown} {
		r.set(func(q *osdtest.Quirks) {
			q.Fail = map[string]osdtest.Failure{"Inspect": {Code: uint32(code), Text: "not now", Times: 2}}
		})
		must[Volume](t)(r.c.Inspect(t.Context(), id))
		r.set(func(q *osdtest.Quirks) {
			q.Fail = map[string]osdtest.Failure{"Inspect": {Code: uint32(code), Text: "not now"}}
		})
		n := r.calls("Inspect", func() {
			_, err := r.c.Inspect(t.Context(), id)
			wants(t, err, "not now")
			retryable(t, err, code == codes.Unavailable || code == codes.Aborted)
		})
		if n != 3 {
			t.Errorf("%v: %d calls, want 3", code, n)
		}
	}
	r.set(func(q *osdtest.Quirks) {
		q.Fail = nil
		q.LoseReplies = map[string]int{"Inspect": 2}
	})
	must[Volume](t)(r.c.Inspect(t.Context(), id))

	// No call is without an end.
	r.set(func(q *osdtest.Quirks) { q.Slow = map[string]time.Duration{"Inspect": time.Hour} })
	cfg := r.cfg
	cfg.Timeout = 20 * time.Millisecond
	_, err := r.client(cfg).Inspect(t.Context(), id)
	class(t, err, Unknown)
	wants(t, err, "within 20ms")

	r.set(func(q *osdtest.Quirks) { q.Slow = nil })
	r.server.Down()
	_, err = r.c.Inspect(t.Context(), id)
	class(t, err, Transient)
	ok(t, r.server.Up())
}

func TestMetadata(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	r.cfg.Driver = "nfs"
	must[About](t)(r.client(r.cfg).About(t.Context()))
	for key, want := range map[string]string{"driver": "nfs", "correlation-context-origin": "haulback", "authorization": ""} {
		if got := strings.Join(r.server.Seen(key), ","); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if id := r.server.Seen("correlation-context-id"); len(id) != 1 || len(id[0]) != 36 {
		t.Errorf("correlation-context-id is %q", id)
	}
}

func TestLook(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id, other := r.volume("v", 1, 1), r.volume("w", 1, 2)
	s := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels))
	if v, err := r.c.Look(ctx, "v", "point"); err != nil || v.ID != s.ID {
		t.Errorf("the snapshot by name: %s, %v", v.ID, err)
	}
	_, err := r.c.Look(ctx, "w", s.ID)
	wants(t, err, "it is no snapshot of volume "+other)
	_, err = r.c.Look(ctx, "v", "v")
	wants(t, err, "it is no snapshot")
	for unfit, want := range map[string]string{
		"down": "not up but down", "error": "its error is: a replica is lost", "trashcan": "in the trash can", "pending": "still being made", "deleted": "deleted",
	} {
		r.set(func(q *osdtest.Quirks) { q.Unfit = map[string]string{id: unfit} })
		_, err := r.c.Look(ctx, id, "")
		wants(t, err, want)
		retryable(t, err, false)
	}
	r.set(func(q *osdtest.Quirks) { q.Unfit = map[string]string{id: "degraded"} })
	must[Volume](t)(r.c.Look(ctx, id, ""))
	r.set(func(q *osdtest.Quirks) { q.Unfit, q.AsyncRestore = nil, 1000 })
	retryable(t, r.impatient(ctx, id, s.ID), true)
	_, err = r.c.Look(ctx, id, "")
	wants(t, err, "it is being restored")
	retryable(t, err, true)
}

// labels are ours in these tests.
var labels = map[string]string{"haulback.job": "j1", "haulback.role": "protect"}

func TestLabelled(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	r.volume("plain", 1, 1)
	r.set(func(q *osdtest.Quirks) { q.MoreLabels = map[string]string{"server": "x"} })
	mark := must[Volume](t)(r.c.Create(ctx, "mark", mib, map[string]string{"haulback.job": "j1"}))
	s := must[Volume](t)(r.c.Snapshot(ctx, mark.ID, "s", labels))
	for _, fallback := range []bool{false, true} {
		r.set(func(q *osdtest.Quirks) {
			if fallback {
				q.Fail = map[string]osdtest.Failure{"InspectWithFilters": {Code: uint32(codes.Unimplemented)}}
			}
		})
		all := must[[]Volume](t)(r.c.Labelled(ctx, map[string]string{"haulback.job": "j1"}))
		if len(all) != 2 || all[0].ID != mark.ID || all[1].ID != s.ID {
			t.Errorf("fallback %v: %+v", fallback, all)
		}
		if one := must[[]Volume](t)(r.c.Labelled(ctx, labels)); len(one) != 1 || one[0].ID != s.ID {
			t.Errorf("fallback %v: %+v", fallback, one)
		}
		must[Volume](t)(r.c.Resolve(ctx, "plain"))
	}
	_, err := r.c.Labelled(ctx, nil)
	class(t, err, Refused)
}

func TestHere(t *testing.T) {
	here, err := os.Hostname()
	ok(t, err)
	for name, test := range map[string]struct {
		server osdtest.Config
		node   string
		change func(q *osdtest.Quirks)
		want   string
	}{
		"unix socket":      {server: osdtest.Config{Hostname: "other"}},
		"unix, right node": {server: osdtest.Config{Hostname: "other"}, node: "node-1"},
		"unix, wrong node": {server: osdtest.Config{}, node: "node-2", want: "not of \"node-2\""},
		"this hostname":    {server: osdtest.Config{Listen: "127.0.0.1:0"}},
		"other hostname":   {server: osdtest.Config{Listen: "127.0.0.1:0", Hostname: "other"}, want: `hostname "other"`},
		"configured id":    {server: osdtest.Config{Listen: "127.0.0.1:0", Hostname: "other"}, node: "node-1"},
		"configured name":  {server: osdtest.Config{Listen: "127.0.0.1:0", Hostname: "other"}, node: "other"},
		"balancer":         {server: osdtest.Config{Listen: "127.0.0.1:0"}, change: func(q *osdtest.Quirks) { q.ForeignNode = true }, want: "balancer"},
		"no nodes":         {server: osdtest.Config{Listen: "127.0.0.1:0"}, change: noNodes, want: "Unimplemented"},
		"unix, no nodes":   {server: osdtest.Config{}, change: noNodes},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, test.server)
			r.cfg.Node = test.node
			if test.change != nil {
				r.set(test.change)
			}
			err := r.client(r.cfg).Here(t.Context())
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("this host is %s: %v, want %q", here, err, test.want)
			}
		})
	}
}

func noNodes(q *osdtest.Quirks) {
	q.Fail = map[string]osdtest.Failure{"InspectCurrent": {Code: uint32(codes.Unimplemented)}}
}

func TestSpace(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	for name, test := range map[string]struct {
		size, used int64
		wantFree   int64
		wantSize   int64
	}{
		"half":    {10 * mib, 4 * mib, 6 * mib, 10 * mib},
		"over":    {10 * mib, 40 * mib, 0, 10 * mib},
		"nothing": {-1, 0, 0, 0},
	} {
		r.set(func(q *osdtest.Quirks) { q.PoolSize, q.PoolUsed = test.size, test.used })
		free, size, err := r.c.Space(t.Context())
		if err != nil || free != test.wantFree || size != test.wantSize {
			t.Errorf("%s: %d of %d, %v", name, free, size, err)
		}
	}
	r.set(noNodes)
	if free, size, err := r.c.Space(t.Context()); free != 0 || size != 0 || err != nil {
		t.Errorf("no nodes: %d of %d, %v", free, size, err)
	}
}

func TestOpenIsLazy(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	cfg := r.cfg
	cfg.Endpoint = "unix://" + t.TempDir() + "/none"
	c := r.client(cfg)
	_, err := c.About(t.Context())
	class(t, err, Transient)
	ok(t, c.Close())
	ok(t, c.Close())
	if c.Name() != "here" || c.Config().Long != cfg.Long || c.Config().Restore != RestoreMover {
		t.Errorf("%+v", c.Config())
	}
	if err := (&Config{}).Check(); err == nil || bytes.ContainsRune([]byte(err.Error()), '\n') {
		t.Errorf("an empty Config: %v", err)
	}
}
