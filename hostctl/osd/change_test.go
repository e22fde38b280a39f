package osd

import (
	"context"
	"errors"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// change is one mutating call, with what it is called on and how its effect shows.
type change struct {
	prepare func(t *testing.T, r *rig) string // id
	call    func(t *testing.T, r *rig, id string) error
	effects func(r *rig, id string) int // of the call
}

// changes are all of them.
var changes = map[string]change{
	"Create": {
		call: func(t *testing.T, r *rig, _ string) error {
			_, err := r.c.Create(t.Context(), "made", mib, labels)
			return err
		},
		effects: func(r *rig, _ string) int { return count(r, func(v osdtest.Info) bool { return v.Name == "made" }) },
	},
	"Clone": {
		call: func(t *testing.T, r *rig, id string) error {
			_, err := r.c.Clone(t.Context(), "made", id)
			return err
		},
		effects: func(r *rig, id string) int { return count(r, func(v osdtest.Info) bool { return v.Parent == id }) },
	},
	"SnapshotCreate": {
		call: func(t *testing.T, r *rig, id string) error {
			_, err := r.c.Snapshot(t.Context(), id, "made", labels)
			return err
		},
		effects: func(r *rig, id string) int { return count(r, func(v osdtest.Info) bool { return v.Parent == id }) },
	},
	"Attach": {
		call: func(t *testing.T, r *rig, id string) error {
			_, err := r.c.Attach(t.Context(), id)
			return err
		},
		effects: func(r *rig, id string) int { return count(r, func(v osdtest.Info) bool { return v.Attached }) },
	},
	"Detach": {
		prepare: func(t *testing.T, r *rig) string {
			id := r.volume("v", 1, 1)
			must[string](t)(r.server.AttachOutside(id, ""))
			return id
		},
		call:    func(t *testing.T, r *rig, id string) error { return r.c.Detach(t.Context(), id) },
		effects: func(r *rig, id string) int { return count(r, func(v osdtest.Info) bool { return !v.Attached }) },
	},
	"Delete": {
		call:    func(t *testing.T, r *rig, id string) error { return r.c.Delete(t.Context(), id) },
		effects: func(r *rig, id string) int { return 1 - count(r, func(v osdtest.Info) bool { return v.ID == id }) },
	},
	"SnapshotRestore": {
		prepare: func(t *testing.T, r *rig) string {
			id := r.volume("v", 1, 1)
			must[Volume](t)(r.c.Snapshot(t.Context(), id, "point", labels))
			return id
		},
		call: func(t *testing.T, r *rig, id string) error {
			s := must[[]Volume](t)(r.c.Snapshots(t.Context(), id, labels))
			return r.c.Restore(t.Context(), id, s[0].ID)
		},
		effects: func(*rig, string) int { return 1 },
	},
}

func count(r *rig, is func(v osdtest.Info) bool) int {
	n := 0
	for _, v := range r.server.Volumes() {
		if is(v) {
			n++
		}
	}
	return n
}

// TestReconcile: of each mutating call, a reply that is lost, a server that takes
// too long and is done all the same, and what passes, have one effect.
func TestReconcile(t *testing.T) {
	for method, test := range changes {
		idempotent := method == "SnapshotRestore" // nothing tells that a restore was done
		for name, fault := range map[string]struct {
			change func(q *osdtest.Quirks)
			calls  int
		}{
			"no fault":           {func(*osdtest.Quirks) {}, 1},
			"lost reply":         {func(q *osdtest.Quirks) { q.LoseReplies = map[string]int{method: 1} }, 1},
			"slow":               {func(*osdtest.Quirks) {}, 1},
			"unavailable":        {fails(method, osdtest.Failure{Code: uint32(codes.Unavailable), Times: 2}), 3},
			"aborted":            {fails(method, osdtest.Failure{Code: uint32(codes.Aborted), Times: 1}), 2},
			"Internal":           {fails(method, osdtest.Failure{Code: uint32(codes.Internal), Text: "oops", Times: 2}), 3},
			"Internal, but done": {fails(method, osdtest.Failure{Code: uint32(codes.Internal), Text: "oops", Times: 1, Done: true}), 1},
		} {
			t.Run(method+"/"+name, func(t *testing.T) {
				r := newRig(t, osdtest.Config{})
				prepare := test.prepare
				if prepare == nil {
					prepare = func(_ *testing.T, r *rig) string { return r.volume("v", 1, 1) }
				}
				id := prepare(t, r)
				r.set(fault.change)
				if name == "slow" {
					r.c = r.slow(method)
				}
				n := r.calls(method, func() {
					err := test.call(t, r, id)
					if err != nil && !(idempotent && name == "slow") {
						t.Error(err)
					}
				})
				if got := test.effects(r, id); got != 1 {
					t.Errorf("%d effects: %+v", got, r.server.Volumes())
				}
				if n > fault.calls && !idempotent {
					t.Errorf("%d calls, want %d", n, fault.calls)
				}
			})
		}
	}
}

// slow is a client whose calls of a method are not answered in time, and are done
// when it has given them up: before it looks.
func (r *rig) slow(method string) *Client {
	c := r.client(r.cfg)
	_ = c.conn.Close()
	var giveUp atomic.Value
	r.server.Hold(method, func(ctx context.Context) <-chan struct{} {
		giveUp.Load().(context.CancelFunc)()
		return ctx.Done()
	})
	conn, err := c.dial(grpc.WithUnaryInterceptor(func(ctx context.Context, full string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
		if path.Base(full) != method {
			return invoke(ctx, full, req, reply, cc, o...)
		}
		once, cancel := context.WithCancel(ctx)
		defer cancel()
		giveUp.Store(cancel)
		before := r.server.Calls(method)
		err := invoke(once, full, req, reply, cc, o...)
		for r.server.Calls(method) == before && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if status.Code(err) == codes.Canceled {
			err = status.FromContextError(context.DeadlineExceeded).Err()
		}
		return err
	}))
	ok(r.t, err)
	c.use(conn)
	return c
}

func fails(method string, f osdtest.Failure) func(q *osdtest.Quirks) {
	return func(q *osdtest.Quirks) { q.Fail = map[string]osdtest.Failure{method: f} }
}

// TestGivesUp: no mutating call is made more than three times, and what it says at
// the end is what is known.
func TestGivesUp(t *testing.T) {
	for method, test := range changes {
		for text, want := range map[string]Class{"oops": Suspicious, "Volume is busy": Transient, "Operation not supported": Unsupported} {
			t.Run(method+"/"+text, func(t *testing.T) {
				r := newRig(t, osdtest.Config{})
				id := ""
				if test.prepare != nil {
					id = test.prepare(t, r)
				} else {
					id = r.volume("v", 1, 1)
				}
				r.set(func(q *osdtest.Quirks) { q.Internal = map[string]string{method: text} })
				n := r.calls(method, func() {
					err := test.call(t, r, id)
					wants(t, err, text)
					if method == "SnapshotRestore" && want == Transient {
						class(t, err, Unknown)
						return
					}
					class(t, err, want)
				})
				if tries := 3; want == Unsupported && n != 1 || want != Unsupported && n != tries {
					t.Errorf("%d calls", n)
				}
			})
		}
	}
}

func TestCreateClone(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	v := must[Volume](t)(r.c.Create(ctx, "a", 2*mib, labels))
	if again := must[Volume](t)(r.c.Create(ctx, "a", 2*mib, labels)); again.ID != v.ID {
		t.Errorf("twice: %s and %s", v.ID, again.ID)
	}
	_, err := r.c.Create(ctx, "a", mib, labels)
	class(t, err, NameConflict)
	_, err = r.c.Create(ctx, "a", 2*mib, map[string]string{"haulback.job": "j2"})
	class(t, err, NameConflict)

	// A name whose volume is attached holds the call for minutes: it is not made.
	must[string](t)(r.server.AttachOutside(v.ID, ""))
	r.set(func(q *osdtest.Quirks) { q.HangCreate = true })
	must[Volume](t)(r.c.Create(ctx, "a", 2*mib, labels))
	ok(t, r.server.DetachOutside(v.ID))

	c := must[Volume](t)(r.c.Clone(ctx, "c", v.ID))
	if c.Parent != v.ID || c.Size != v.Size || c.Name != "c" {
		t.Errorf("a clone: %+v", c)
	}
	other := r.volume("other", 2, 1)
	_, err = r.c.Clone(ctx, "c", other)
	class(t, err, NameConflict)
	_, err = r.c.Clone(ctx, "d", "none")
	if !errors.Is(err, hostctl.ErrNotFound) {
		t.Errorf("a clone of nothing: %v", err)
	}
	r.set(func(q *osdtest.Quirks) { q.EmptyIDs = true })
	_, err = r.c.Create(ctx, "e", mib, nil)
	wants(t, err, "names no volume")
	_, err = r.c.Clone(ctx, "e", v.ID)
	wants(t, err, "names no volume")
	_, err = r.c.Snapshot(ctx, v.ID, "e", labels)
	wants(t, err, "names no snapshot")
	_, err = r.c.Create(ctx, "a b", mib, nil)
	class(t, err, Refused)
}

func TestDelete(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	id := r.volume("v", 1, 1)
	must[string](t)(r.server.AttachOutside(id, ""))
	r.set(func(q *osdtest.Quirks) { q.DeleteAttached = true }) // the fake driver deletes it
	wants(t, r.c.Delete(t.Context(), id), "it is attached")
	ok(t, r.server.DetachOutside(id))
	ok(t, r.c.Delete(t.Context(), id))
	ok(t, r.c.Delete(t.Context(), id))
	ok(t, r.c.Delete(t.Context(), "none"))
}

func TestAttachDetach(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	v := must[Volume](t)(r.c.Attach(ctx, id))
	if again := must[Volume](t)(r.c.Attach(ctx, id)); again.Path != v.Path || v.Path == "" || !v.Attached || v.AttachedOn != "node-1" {
		t.Errorf("%+v, and again %+v", v, again)
	}
	ok(t, r.c.Detach(ctx, id))
	ok(t, r.c.Detach(ctx, id))
	ok(t, r.c.Detach(ctx, "none"))

	must[string](t)(r.server.AttachOutside(id, "node-2"))
	_, err := r.c.Attach(ctx, id)
	if e := class(t, err, Elsewhere); e.Node != "node-2" {
		t.Errorf("the node is %q", e.Node)
	}
	retryable(t, err, false)
	ok(t, r.c.Detach(ctx, id)) // it is not attached here
	if n := count(r, func(v osdtest.Info) bool { return v.On == "node-2" }); n != 1 {
		t.Error("it was detached from another node")
	}
	ok(t, r.server.DetachOutside(id))

	r.set(func(q *osdtest.Quirks) { q.EmptyPath = true })
	_, err = r.c.Attach(ctx, id)
	wants(t, err, "names no device")
	r.set(func(q *osdtest.Quirks) { q.EmptyPath = false })
	ok(t, r.c.Detach(ctx, id))

	r.set(func(q *osdtest.Quirks) { q.Secure = true })
	if v = must[Volume](t)(r.c.Attach(ctx, id)); strings.Contains(v.Path, "encrypted-") {
		t.Errorf("the path is the bare one: %s", v.Path)
	}
	r.set(func(q *osdtest.Quirks) { q.Secure, q.NoAttachedOn = false, true })
	v = must[Volume](t)(r.c.Inspect(ctx, id))
	if !v.Attached || v.AttachedOn != "" || !v.here {
		t.Errorf("attached, and it says not where: %+v", v)
	}
	ok(t, r.c.Detach(ctx, id))
}
