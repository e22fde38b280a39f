package osd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// open opens the device of an attachment, as its user does.
func open(t *testing.T, a *Attachment, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", a.FD()), flags, 0)
	ok(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// holds wants n bytes of seed at the beginning of the device.
func holds(t *testing.T, a *Attachment, seed byte, n int) {
	t.Helper()
	got := make([]byte, n)
	f := open(t, a, os.O_RDONLY)
	_, err := f.ReadAt(got, 0)
	ok(t, err)
	ok(t, f.Close())
	if !bytes.Equal(got, bytes.Repeat([]byte{seed}, n)) {
		t.Errorf("the device begins with %d, want %d", got[0], seed)
	}
}

// both runs a test with files and with loop devices.
func both(t *testing.T, f func(t *testing.T, r *rig)) {
	for name, loop := range map[string]bool{"files": false, "loop devices": true} {
		t.Run(name, func(t *testing.T) { f(t, newRig(t, osdtest.Config{Loop: loop})) })
	}
}

func TestKeeperVolume(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		id := r.volume("v", 1, 1)
		a := must[*Attachment](t)(r.k.Open(ctx, r.c, "v", "", true))
		if a.Size() != mib || a.Volume().ID != id || a.Path() == "" {
			t.Errorf("%+v at %s", a.Volume(), a.Path())
		}
		f := open(t, a, os.O_RDWR|unix.O_EXCL)
		ok(t, a.Check(ctx))
		if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 4096), 0); err != nil {
			t.Fatal(err)
		}
		ok(t, f.Sync())
		ok(t, f.Close())
		// A writer is alone, in this process and in others.
		_, err := r.k.Open(ctx, r.c, id, "", false)
		wants(t, err, "this process has it open")
		retryable(t, err, true)
		_, err = r.keeper().Open(ctx, r.c, id, "", false)
		wants(t, err, "this process holds it")
		retryable(t, err, true)
		ok(t, a.Release(ctx))
		ok(t, a.Release(ctx))
		if a.FD() != -1 {
			t.Error("the fd lives on")
		}
		r.clean()
		if b := must[[]byte](t)(os.ReadFile(r.server.Image(id))); b[0] != 7 || b[4096] != 1 {
			t.Errorf("the image has %d and %d", b[0], b[4096])
		}
		// Readers share, and the last one detaches.
		n := r.calls("Attach", func() {
			one := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", false))
			two := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", false))
			_, err := r.k.Open(ctx, r.c, id, "", true)
			wants(t, err, "a writer is alone")
			ok(t, one.Release(ctx))
			holds(t, two, 7, 4096)
			ok(t, two.Check(ctx))
			ok(t, two.Release(ctx))
		})
		if n != 1 {
			t.Errorf("two readers: %d calls", n)
		}
		r.clean()
	})
}

func TestKeeperSnapshot(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		id := r.volume("v", 1, 1)
		for _, writable := range []bool{false, true} {
			r.set(func(q *osdtest.Quirks) { q.WritableSnapshots = writable })
			s := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels))
			for volume, snapshot := range map[string]string{"v": s.ID, id: "point", s.ID: ""} {
				_, err := r.k.Open(ctx, r.c, volume, snapshot, true)
				wants(t, err, "no snapshot is written to")
				a := must[*Attachment](t)(r.k.Open(ctx, r.c, volume, snapshot, false))
				b := must[*Attachment](t)(r.k.Open(ctx, r.c, volume, snapshot, false))
				if c := a.Volume(); c.Parent != s.ID || c.ID == s.ID || c.ID != b.Volume().ID {
					t.Errorf("not one clone of %s: %+v, %s", s.ID, c, b.Volume().ID)
				}
				holds(t, b, 1, mib)
				ok(t, a.Release(ctx))
				ok(t, b.Release(ctx))
			}
			for _, v := range r.server.Volumes() {
				if v.ID == s.ID && v.Attached {
					t.Error("the snapshot itself was attached")
				}
			}
		}
		r.clean()
	})
}

// TestKeeperConcurrent: many who open one snapshot at once have one clone.
func TestKeeperConcurrent(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	id := r.volume("v", 1, 1)
	s := must[Volume](t)(r.c.Snapshot(t.Context(), id, "point", labels))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				a, err := r.k.Open(t.Context(), r.c, id, s.ID, false)
				if err != nil {
					t.Error(err)
					return
				}
				if err := a.Release(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r.clean()
	if len(r.k.held) != 0 {
		t.Errorf("still held: %v", r.k.held)
	}
}

// TestKeeperOthers: what somebody else has attached is used and stays; what is on
// another node is refused.
func TestKeeperOthers(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		id := r.volume("v", 1, 1)
		must[string](t)(r.server.AttachOutside(id, ""))
		_, err := r.k.Open(ctx, r.c, id, "", true)
		wants(t, err, "not by haulback")
		a := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", false))
		ok(t, a.Release(ctx))
		r.c.cfg.WriteAttached = true
		a = must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", true))
		ok(t, a.Release(ctx))
		if n := r.server.Calls("Detach"); n != 0 {
			t.Errorf("another's attachment: %d Detach", n)
		}
		// It goes, and comes back under another path, while we have it.
		a = must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", true))
		ok(t, r.server.DetachOutside(id))
		wants(t, a.Check(ctx), "not attached here any more")
		ok(t, a.Release(ctx))

		must[string](t)(r.server.AttachOutside(id, "node-2"))
		_, err = r.k.Open(ctx, r.c, id, "", true)
		if e := class(t, err, Elsewhere); e.Node != "node-2" {
			t.Errorf("node %q", e.Node)
		}
		wants(t, err, "node-2")
		ok(t, r.server.DetachOutside(id))
		r.set(func(q *osdtest.Quirks) { q.Elsewhere = "node-3" }) // just now
		_, err = r.k.Open(ctx, r.c, id, "", true)
		if e := class(t, err, Elsewhere); e.Node != "node-3" {
			t.Errorf("node %q", e.Node)
		}
		ok(t, r.server.DetachOutside(id))
		r.clean()
	})
}

// TestKeeperReattached: what we had attached and somebody attached again since is
// not detached by us.
func TestKeeperReattached(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	for _, node := range []string{"node-2", ""} {
		a := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", true))
		ok(t, r.server.DetachOutside(id))
		if node == "" {
			r.set(func(q *osdtest.Quirks) { q.Path = filepath.Join(r.dir, "images", "x") })
			must[Volume](t)(r.c.Attach(ctx, id))
		} else {
			must[string](t)(r.server.AttachOutside(id, node))
		}
		if n := r.calls("Detach", func() { ok(t, a.Release(ctx)) }); n != 0 {
			t.Errorf("on node %q: %d Detach", node, n)
		}
		ok(t, r.server.DetachOutside(id))
	}
	r.clean()
}

// TestKeeperHere: nothing is attached by an endpoint of another machine.
func TestKeeperHere(t *testing.T) {
	r := newRig(t, osdtest.Config{Listen: "127.0.0.1:0", Hostname: "other"})
	id := r.volume("v", 1, 1)
	_, err := r.k.Open(t.Context(), r.c, id, "", false)
	wants(t, err, `hostname "other"`)
	if n := r.server.Calls("Attach"); n != 0 {
		t.Errorf("%d Attach", n)
	}
	r.clean()
}

// TestKeeperFaults: whatever goes wrong on the way, once, leaves nothing, or what
// Sweep takes away.
func TestKeeperFaults(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	s := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels))
	client := func(string) (*Client, error) { return r.c, nil }
	for _, method := range []string{"Inspect", "InspectWithFilters", "Clone", "Attach", "Detach", "Delete"} {
		for after := range 6 {
			for _, done := range []bool{false, true} {
				r.set(func(q *osdtest.Quirks) {
					q.Fail = map[string]osdtest.Failure{method: {Code: uint32(codes.Unauthenticated), Text: "no", After: after, Times: 1, Done: done}}
				})
				for _, snapshot := range []string{"", s.ID} {
					a, err := r.k.Open(ctx, r.c, id, snapshot, false)
					if err == nil {
						_ = a.Release(ctx)
					}
				}
				r.set(func(q *osdtest.Quirks) { q.Fail = nil })
				r.k.wait.settle = 0
				if _, err := r.k.Sweep(ctx, client); err != nil {
					t.Fatal(err)
				}
				r.clean()
				if len(r.k.held) != 0 {
					t.Fatalf("%s, %d: still held", method, after)
				}
			}
		}
	}
	if t.Failed() {
		return
	}
	// Of what was answered with a failure nothing comes: the row goes at once.
	r.k.wait.settle = time.Minute
	for _, method := range []string{"Attach", "Clone"} {
		r.set(func(q *osdtest.Quirks) { q.Internal = map[string]string{method: "oops"} })
		_, err := r.k.Open(ctx, r.c, id, s.ID, false)
		class(t, err, Suspicious)
		r.clean()
	}
	r.set(func(q *osdtest.Quirks) { q.Internal = nil })

	// A context that ends during Attach, which is done all the same.
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	late, before := make(chan struct{}), r.server.Calls("Attach")
	r.server.Hold("Attach", func(context.Context) <-chan struct{} {
		cancel()
		return late
	})
	_, err := r.k.Open(short, r.c, id, "", true)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if files, _ := os.ReadDir(r.ledger); len(files) != 1 {
		t.Errorf("%d rows of what may still come", len(files))
	}
	close(late)
	for end := time.Now().Add(30 * time.Second); r.server.Calls("Attach") == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was never attached")
		}
	}
	must[[]Swept](t)(r.k.Sweep(ctx, client))
	r.clean()
}

// TestSweepAway: a cluster that is away is asked once and not for each row, and who
// sweeps for one profile does not ask the others.
func TestSweepAway(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	ids := []string{r.volume("v", 1, 1), r.volume("w", 1, 1), r.volume("x", 1, 1)}
	for _, id := range ids {
		v := must[Volume](t)(r.c.Inspect(ctx, id))
		row, _, err := r.k.l.claim(volumeFile(r.c.Identity(v)), entry{Profile: "here", Endpoint: r.cfg.Endpoint, Volume: id, Phase: phaseAttached, Path: "/x"})
		ok(t, err)
		row.leave()
	}
	client := func(string) (*Client, error) { return r.c, nil }
	r.set(func(q *osdtest.Quirks) {
		q.Fail = map[string]osdtest.Failure{"Inspect": {Code: 14, Text: "it is away"}}
	})
	n := r.calls("Inspect", func() {
		all := must[[]Swept](t)(r.k.Sweep(ctx, client))
		for _, s := range all {
			if s.Done || !strings.Contains(s.Text, "it is away") {
				t.Errorf("%+v", s)
			}
		}
		if len(all) != len(ids) {
			t.Errorf("%d rows of %d", len(all), len(ids))
		}
	})
	if n != quick.tries {
		t.Errorf("%d calls, want the %d tries of the first row", n, quick.tries)
	}
	r.set(func(q *osdtest.Quirks) { q.Fail = nil })
	if all := must[[]Swept](t)(r.k.Sweep(ctx, client, "there")); len(all) != 0 {
		t.Errorf("of another profile: %+v", all)
	}
	if all := must[[]Swept](t)(r.k.Sweep(ctx, client, "here")); len(all) != len(ids) {
		t.Errorf("%d rows of %d", len(all), len(ids))
	}
	r.clean()
}

// TestSweepSettle: what was asked for and has not come keeps its row for a while.
func TestSweepSettle(t *testing.T) {
	r := newRig(t, osdtest.Config{})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	s := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels))
	v := must[Volume](t)(r.c.Inspect(ctx, id))
	name := "haulback-read-" + s.ID + "-0123456789abcdef"
	leave := func(file string, e entry) {
		e.Profile, e.Endpoint, e.Identity = "here", r.cfg.Endpoint, r.c.Identity(v)
		row, _, err := r.k.l.claim(file, e)
		ok(t, err)
		row.leave()
	}
	leave(volumeFile(r.c.Identity(v)), entry{Volume: id, Phase: phaseAttaching})
	leave("clone-1.json", entry{Volume: s.ID, Clone: name})
	client := func(p string) (*Client, error) {
		if p != "here" {
			return nil, fmt.Errorf("no profile %s", p)
		}
		return r.c, nil
	}
	for _, s := range must[[]Swept](t)(r.k.Sweep(ctx, client)) {
		if s.Done || s.Text != "what was asked for may still come" {
			t.Errorf("%+v", s)
		}
	}
	// They come late.
	must[string](t)(r.server.AttachOutside(id, ""))
	must[Volume](t)(r.c.Clone(ctx, name, s.ID))
	for _, s := range must[[]Swept](t)(r.k.Sweep(ctx, client)) {
		if !s.Done {
			t.Errorf("%+v", s)
		}
	}
	r.clean()

	// Attached since by another node.
	must[string](t)(r.server.AttachOutside(id, "node-2"))
	leave(volumeFile(r.c.Identity(v)), entry{Volume: id, Phase: phaseAttaching})
	for _, s := range must[[]Swept](t)(r.k.Sweep(ctx, client)) {
		if !s.Done || s.Text != "it is attached on node node-2 now" {
			t.Errorf("%+v", s)
		}
	}
	ok(t, r.server.DetachOutside(id))

	// Not ours: a name that leads to what has another parent, a path that is
	// another, an endpoint that is another, a profile that is gone.
	must[Volume](t)(r.c.Clone(ctx, name[:len(name)-1]+"0", id))
	must[string](t)(r.server.AttachOutside(id, ""))
	leave("clone-2.json", entry{Volume: s.ID, Clone: name[:len(name)-1] + "0"})
	leave(volumeFile(r.c.Identity(v)), entry{Volume: id, Phase: phaseAttached, Path: "/dev/pxd/other"})
	n := r.calls("Detach", func() {
		for _, s := range must[[]Swept](t)(r.k.Sweep(ctx, client)) {
			if !s.Done {
				t.Errorf("%+v", s)
			}
		}
	})
	if left := points(r, id); n != 0 || len(left) != 2 {
		t.Errorf("%d Detach, left %v", n, left)
	}
	row, _, err := r.k.l.claim("volume-1.json", entry{Profile: "gone", Volume: id, Phase: phaseAttached, Path: "/x"})
	ok(t, err)
	row.leave()
	row, _, err = r.k.l.claim("volume-2.json", entry{Profile: "here", Endpoint: "x:1", Volume: "none", Phase: phaseAttached, Path: "/x"})
	ok(t, err)
	row.leave()
	for _, s := range must[[]Swept](t)(r.k.Sweep(ctx, client)) {
		if s.Done {
			t.Errorf("%+v", s)
		}
	}
}

// TestLedger: rows that are torn, strange or never finished.
func TestLedger(t *testing.T) {
	l := ledger{filepath.Join(t.TempDir(), "l")}
	if files, err := l.files(); err != nil || files != nil {
		t.Errorf("no directory: %v, %v", files, err)
	}
	r, adopted, err := l.claim("a.json", entry{Volume: "v", Phase: phaseHeld})
	if err != nil || adopted {
		t.Fatal(adopted, err)
	}
	r.Phase = phaseAttaching
	ok(t, r.note())
	if _, _, err := l.claim("a.json", entry{}); err == nil {
		t.Error("a row that is held was claimed")
	}
	// Killed in the middle of a line: that line was never followed.
	_, err = r.f.WriteAt([]byte(`{"version":1,"volume":"v","path":"`+strings.Repeat("x", 1000)), r.size)
	ok(t, err)
	r.leave()
	if r, adopted, err = l.claim("a.json", entry{}); err != nil || !adopted || r.Phase != phaseAttaching || r.Volume != "v" {
		t.Fatalf("%+v, %v, %v", r, adopted, err)
	}
	r.Phase, r.Path = phaseAttached, "/dev/x"
	ok(t, r.note())
	r.leave()
	if r, _, err = l.claim("a.json", entry{}); err != nil || r.Phase != phaseAttached || r.Path != "/dev/x" {
		t.Fatalf("%+v, %v", r, err)
	}
	ok(t, r.drop())
	if r, adopted, err = l.claim("a.json", entry{Volume: "w"}); err != nil || adopted || r.Volume != "w" {
		t.Fatalf("%+v, %v, %v", r, adopted, err)
	}
	ok(t, os.WriteFile(filepath.Join(l.dir, "b.json.tmp"), nil, 0o600))
	ok(t, os.WriteFile(filepath.Join(l.dir, "c.json"), []byte(`{"version":2,"volume":"v"}`+"\n"), 0o600))
	files, err := l.files()
	if err != nil || len(files) != 2 {
		t.Errorf("%v, %v", files, err)
	}
	if _, err := os.Stat(filepath.Join(l.dir, "b.json.tmp")); err == nil {
		t.Error("what was never finished stays")
	}
	if _, err := l.orphan("c.json"); err == nil {
		t.Error("a row of another version was read")
	}
	if r, err := l.orphan("a.json"); r != nil || err != nil {
		t.Errorf("a row that is held: %v, %v", r, err)
	}
	ok(t, os.Chmod(l.dir, 0o777))
	if _, err := l.files(); err == nil {
		t.Error("a directory of all is taken")
	}
}
