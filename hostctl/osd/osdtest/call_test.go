package osdtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// late calls with a deadline that passes.
func (c *client) late(do func(*client) error) error {
	ctx, cancel := context.WithTimeout(c.ctx, 20*time.Millisecond)
	defer cancel()
	with := *c
	with.ctx = ctx
	return do(&with)
}

// TestFail has each way to fail a call on purpose.
func TestFail(t *testing.T) {
	r := quirky(t, func(q *Quirks) {
		q.Internal = map[string]string{"Attach": "No more NBD devices left."}
		q.Fail = map[string]Failure{
			"Clone":          {Code: uint32(codes.Aborted), Text: "try again", After: 1, Times: 2},
			"Enumerate":      {Code: uint32(codes.ResourceExhausted), Text: "full"},
			"SnapshotCreate": {Code: uint32(codes.Internal), Text: "no answer", Times: 1, Done: true},
			"Node.Enumerate": {Code: uint32(codes.Unavailable), Text: "down"},
		}
	})
	for range 2 {
		_, err := r.plug(r.id)
		wants(t, err, codes.Internal, "No more NBD devices left.")
		_, err = r.volume.Enumerate(r.ctx, &api.SdkVolumeEnumerateRequest{})
		wants(t, err, codes.ResourceExhausted, "full")
		_, err = r.node.Enumerate(r.ctx, &api.SdkNodeEnumerateRequest{})
		wants(t, err, codes.Unavailable, "down")
	}
	for i, code := range []codes.Code{codes.OK, codes.Aborted, codes.Aborted, codes.OK} {
		if _, err := r.clone("c", r.id); (err == nil) != (code == codes.OK) {
			t.Errorf("clone %d: %v", i, err)
		}
	}
	_, err := r.client.snapshot(r.id, "n", nil)
	wants(t, err, codes.Internal, "no answer")
	must(t)(r.client.snapshot(r.id, "n", nil))
	if n := len(r.snapshots(r.id, nil)); n != 4 {
		t.Errorf("%d snapshots and clones; the failed call's is there, too", n)
	}
	if n := r.s.Calls("Clone"); n != 4 {
		t.Errorf("%d calls of Clone", n)
	}
	if n, all := r.s.Calls("Node.Enumerate"), r.s.Calls(""); n != 2 || all < 10 {
		t.Errorf("%d calls of %d", n, all)
	}
}

// TestLoseReplies does the thing and breaks the connection; the next call goes well.
func TestLoseReplies(t *testing.T) {
	r := quirky(t, func(q *Quirks) { q.LoseReplies = map[string]int{"SnapshotCreate": 1} })
	before := r.s.Calls("SnapshotCreate")
	_, err := r.client.snapshot(r.id, "n", nil)
	wants(t, err, codes.Unavailable, "") // "error reading from server: EOF", or a reset
	if strings.Contains(err.Error(), "connection lost") {
		t.Errorf("it was answered: %v", err)
	}
	if n := len(r.snapshots(r.id, nil)); n != 2 || r.s.Calls("SnapshotCreate") != before+1 {
		t.Errorf("%d snapshots, %d calls", n, r.s.Calls("SnapshotCreate")-before)
	}
	must(t)(r.client.snapshot(r.id, "n", nil))
}

// TestSlow takes its time.
func TestSlow(t *testing.T) {
	const slow = 50 * time.Millisecond
	r := quirky(t, func(q *Quirks) { q.Slow = map[string]time.Duration{"SnapshotCreate": slow} })
	began := time.Now()
	must(t)(r.client.snapshot(r.id, "n", nil))
	if took := time.Since(began); took < slow {
		t.Errorf("it took %v", took)
	}
}

// TestHold does the thing for a caller who is gone.
func TestHold(t *testing.T) {
	r := quirky(t, nil)
	before := r.s.Calls("SnapshotCreate")
	goes := func(until <-chan struct{}) {
		t.Helper()
		with := *r.client
		ctx, cancel := context.WithCancel(r.ctx)
		with.ctx = ctx
		r.s.Hold("SnapshotCreate", func(context.Context) <-chan struct{} {
			cancel()
			return until
		})
		_, err := with.snapshot(r.id, "n", nil)
		wants(t, err, codes.Canceled, "")
	}
	until := make(chan struct{})
	goes(until)
	if n := len(r.snapshots(r.id, nil)); n != 1 {
		t.Errorf("%d snapshots before its time", n)
	}
	close(until)
	for deadline := time.Now().Add(10 * time.Second); r.s.Calls("SnapshotCreate") == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it was never done")
		}
	}
	if n := len(r.snapshots(r.id, nil)); n != 2 {
		t.Errorf("%d snapshots", n)
	}
	goes(nil)
	r.s.Hold("SnapshotCreate", nil)
	must(t)(r.client.snapshot(r.id, "n", nil))
	r.s.Set(func(q *Quirks) { q.Slow = map[string]time.Duration{"SnapshotCreate": time.Hour} })
	goes(until)
	ok(t, r.s.Close()) // does not wait for those
}

// TestDown is a server that goes and comes back with what it had.
func TestDown(t *testing.T) {
	for _, listen := range []string{"unix", "127.0.0.1:0"} {
		s, c := start(t, Config{Listen: listen})
		id := must(t)(c.create("data", mib, nil))
		path, at := must(t)(c.plug(id)), s.Endpoint()
		s.Down()
		s.Down()
		_, err := c.create("more", mib, nil)
		wants(t, err, codes.Unavailable, "")
		ok(t, s.Up())
		ok(t, s.Up())
		c = dial(t, at, plain)
		if v := c.inspect(id); v.GetDevicePath() != path {
			t.Errorf("%s: at %s", listen, v.GetDevicePath())
		}
		c.ctx = metadata.AppendToOutgoingContext(c.ctx, "driver", "nfs")
		c.inspect(id)
		if got := s.Seen("Driver"); len(got) != 1 || got[0] != "nfs" {
			t.Errorf("metadata %q", got)
		}
		ok(t, s.Close())
		if s.Up() == nil {
			t.Error("a closed server comes up")
		}
	}
}
