package osd

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// points are the ids of what was made of a volume.
func points(r *rig, id string) (all []string) {
	for _, v := range r.server.Volumes() {
		if v.Parent == id {
			all = append(all, v.ID)
		}
	}
	return all
}

func TestSnapshot(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	s := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels))
	if s.Parent != id || s.Size != mib || !s.has(labels) || !s.ReadOnly {
		t.Errorf("%+v", s)
	}
	n := r.calls("SnapshotCreate", func() {
		if again := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels)); again.ID != s.ID {
			t.Errorf("twice: %s and %s", s.ID, again.ID)
		}
	})
	if n != 0 {
		t.Errorf("one that is there: %d calls", n)
	}
	// A clone of the volume and a snapshot of others are none of these.
	must[Volume](t)(r.c.Clone(ctx, "clone", id))
	other := must[Volume](t)(r.c.Snapshot(ctx, id, "point", map[string]string{"haulback.job": "j2"}))
	if all := must[[]Volume](t)(r.c.Snapshots(ctx, id, labels)); len(all) != 1 || all[0].ID != s.ID {
		t.Errorf("%+v", all)
	}
	if all := must[[]Volume](t)(r.c.Snapshots(ctx, id, map[string]string{"haulback.job": "j2"})); len(all) != 1 || all[0].ID != other.ID {
		t.Errorf("%+v", all)
	}
	_, err := r.c.Snapshot(ctx, id, "p", nil)
	class(t, err, Refused)
	_, err = r.c.Snapshot(ctx, "none", "p", labels)
	if !errors.Is(err, hostctl.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
}

// TestSnapshotTwins: of several that earlier calls have left the oldest counts, and
// is the only one after that.
func TestSnapshotTwins(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	r.set(func(q *osdtest.Quirks) { q.CoarseTime = true }) // then the id decides
	id := r.volume("v", 1, 1)
	for range 3 {
		ok(t, r.c.once(t.Context(), op{method: "SnapshotCreate", thing: id}, snapshotCall(r.c, id)))
	}
	all := must[[]Volume](t)(r.c.Snapshots(t.Context(), id, labels))
	if len(all) != 3 {
		t.Fatalf("%d snapshots; the test needs 3", len(all))
	}
	s := must[Volume](t)(r.c.Snapshot(t.Context(), id, "point", labels))
	if left := points(r, id); s.ID != all[0].ID || len(left) != 1 || left[0] != s.ID {
		t.Errorf("it counts %s, the oldest was %s, and there are %v", s.ID, all[0].ID, left)
	}
}

// TestSnapshotLate: an earlier call, which nobody waits for any more, is under way
// when Snapshot looks, and done when it has made its own.
func TestSnapshotLate(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	id := r.volume("v", 1, 1)
	must[Volume](t)(r.c.Inspect(t.Context(), id))
	var calls atomic.Int32
	asked, again, made := make(chan struct{}), make(chan struct{}), make(chan struct{})
	r.server.Hold("SnapshotCreate", func(context.Context) <-chan struct{} {
		switch calls.Add(1) {
		case 1:
			close(asked)
			return again
		case 2:
			close(again)
		}
		return made
	})
	early := make(chan error, 1)
	go func() {
		early <- r.c.once(t.Context(), op{method: "SnapshotCreate", thing: id}, snapshotCall(r.c, id))
		close(made)
	}()
	<-asked
	s := must[Volume](t)(r.c.Snapshot(t.Context(), id, "point", labels))
	ok(t, <-early)
	if left := points(r, id); len(left) != 1 || left[0] != s.ID {
		t.Errorf("it counts %s, and there are %v", s.ID, left)
	}
	if n := r.server.Calls("SnapshotCreate"); n != 2 {
		t.Errorf("%d calls; the test needs 2", n)
	}
}

// TestSnapshotLabels: a server that drops labels makes nothing that stays; one that
// copies them is no trouble.
func TestSnapshotLabels(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	r.set(func(q *osdtest.Quirks) { q.CopyLabels = true })
	v := must[Volume](t)(r.c.Create(ctx, "v", mib, map[string]string{"app": "db"}))
	s := must[Volume](t)(r.c.Snapshot(ctx, v.ID, "point", labels))
	clone := must[Volume](t)(r.c.Clone(ctx, "c", s.ID))
	if !s.has(labels) || s.Labels["app"] != "db" || !clone.has(labels) {
		t.Errorf("labels are not copied: %v, %v", s.Labels, clone.Labels)
	}
	if all := must[[]Volume](t)(r.c.Snapshots(ctx, v.ID, labels)); len(all) != 1 {
		t.Errorf("a clone is taken for a snapshot: %+v", all)
	}
	r.set(func(q *osdtest.Quirks) { q.MoreLabels = map[string]string{"haulback.job": "another"} })
	_, err := r.c.Snapshot(ctx, v.ID, "q", map[string]string{"haulback.job": "j3"})
	wants(t, err, "does not keep the labels")
	if left := points(r, v.ID); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestRestore(t *testing.T) {
	for name, test := range map[string]struct {
		change func(q *osdtest.Quirks)
		class  Class
		want   string // what the error has; empty: none
		retry  bool
	}{
		"at once":      {func(*osdtest.Quirks) {}, 0, "", false},
		"later":        {func(q *osdtest.Quirks) { q.AsyncRestore = 5 }, 0, "", false},
		"for a moment": {func(q *osdtest.Quirks) { q.AsyncRestore, q.RestoreText = 3, "resource temporarily unavailable" }, 0, "", false},
		"wrong":        {func(q *osdtest.Quirks) { q.WrongRestore = true }, 0, "", false}, // who asked proves it
		"absent":       {func(q *osdtest.Quirks) { q.Unimplemented = true }, Unsupported, "Unimplemented", false},
		"not supported": {func(q *osdtest.Quirks) {
			q.Internal = map[string]string{"SnapshotRestore": "x: Operation not supported"}
		}, Unsupported, "not supported", false},
		"as the nfs driver": {func(q *osdtest.Quirks) { q.NoRestore = true }, Suspicious, "no such file", false},
		"fails later":       {func(q *osdtest.Quirks) { q.AsyncRestore, q.RestoreFault = 2, "pool\nis full" }, Refused, "it has failed: pool is full", false},
		"never ends":        {func(q *osdtest.Quirks) { q.AsyncRestore = 1 << 30 }, Transient, "still restoring", true},
		"no answer":         {func(q *osdtest.Quirks) { q.Slow = map[string]time.Duration{"SnapshotRestore": time.Hour} }, Unknown, "may still be restoring", true},
		"refused":           {fails("SnapshotRestore", osdtest.Failure{Code: uint32(codes.FailedPrecondition), Text: "no"}), Refused, "no", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, osdtest.Config{})
			ctx := t.Context()
			id := r.volume("v", 1, 1)
			s := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels))
			r.set(test.change)
			if test.class == Unknown {
				r.c.cfg.Long = 50 * time.Millisecond
			}
			restore := r.c.Restore
			if test.class == Transient {
				restore = r.impatient
			}
			err := restore(ctx, id, s.ID)
			if test.want == "" {
				ok(t, err)
				return
			}
			class(t, err, test.class)
			wants(t, err, test.want)
			retryable(t, err, test.retry)
		})
	}
}

// TestRestoreAgain: asked again while the server is at it, it is waited for and not
// asked twice.
func TestRestoreAgain(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id, other := r.volume("v", 1, 1), r.volume("w", 1, 1)
	s := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels))
	wants(t, r.c.Restore(ctx, other, s.ID), "is no snapshot of it")
	must[string](t)(r.server.AttachOutside(id, ""))
	wants(t, r.c.Restore(ctx, id, s.ID), "it is attached")
	ok(t, r.server.DetachOutside(id))

	r.set(func(q *osdtest.Quirks) { q.AsyncRestore = 10 })
	retryable(t, r.impatient(ctx, id, s.ID), true)
	if n := r.calls("SnapshotRestore", func() { ok(t, r.c.Restore(ctx, id, s.ID)) }); n != 0 {
		t.Errorf("it was asked %d times more", n)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.c.Restore(short, id, s.ID); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("cancelled: %v", err)
	}
}

// impatient is Restore that waits for the answer, and no longer.
func (r *rig) impatient(ctx context.Context, id, snapshot string) error {
	was := r.c.cfg
	defer func() { r.c.cfg = was }()
	r.c.cfg.Called = func(method, _ string) {
		if method == "SnapshotRestore" {
			r.c.cfg.Long = time.Nanosecond
		}
	}
	return r.c.Restore(ctx, id, snapshot)
}

// snapshotCall makes one as an earlier process has.
func snapshotCall(c *Client, id string) call {
	return func(ctx context.Context, o ...grpc.CallOption) error {
		_, err := c.volumes.SnapshotCreate(ctx, &api.SdkVolumeSnapshotCreateRequest{VolumeId: id, Name: "point", Labels: labels}, o...)
		return err
	}
}
