package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// runsOf compares two images grain by grain; unread are offsets of grains that
// cannot be read.
func runsOf(a, b []byte, unread ...int) (list []mover.BadRun) {
	for off := 0; off < len(a); off += cbt.GrainSize {
		end := min(off+cbt.GrainSize, len(a))
		bad := slices.Contains(unread, off)
		if !bad && bytes.Equal(a[off:end], b[off:end]) {
			continue
		}
		if n := len(list); n > 0 && list[n-1].Off+list[n-1].Len == int64(off) && list[n-1].Unreadable == bad {
			list[n-1].Len += int64(end - off)
			continue
		}
		list = append(list, mover.BadRun{Off: int64(off), Len: int64(end - off), Unreadable: bad})
	}
	return list
}

// every second grain: more runs than a Report keeps.
func striped(size int) (a, b []byte) {
	a = image(rand.New(rand.NewPCG(4, 2)), size)
	a[5<<20], a[10<<20] = 1, 1 // no holes: these are read
	b = bytes.Clone(a)
	for off := 100; off < size; off += 2 * cbt.GrainSize {
		b[off] ^= 1
	}
	for i := 9 << 20; i < 12<<20; i++ { // and a long one
		b[i] ^= 0x80
	}
	return a, b
}

// All that differs is listed, once and in order, whatever happens meanwhile: a
// link that is cut keeps what is settled, a disk that is lost has all of it
// found again.
func TestDifferentIsTheWholeList(t *testing.T) {
	const size = 160<<20 + 777
	a, b := striped(size)
	eio := func(off int) movertest.Fault {
		return movertest.Fault{Op: "ReadAt", Extent: cbt.Extent{Off: int64(off), Len: 1}, Count: -1, Err: syscall.EIO}
	}
	cold := func(f movertest.Fault) movertest.Fault { f.Op = "ReadCold"; return f }
	lost := movertest.Fault{Op: "ReadAt", Extent: cbt.Extent{Off: 100 << 20, Len: 16 << 20}, Count: -1, Err: errLost{}, Hook: func() { time.Sleep(time.Second) }}
	for name, tt := range map[string]struct {
		source, target [][]movertest.Fault
		unread         []int
		reconnects     bool
		cut            bool
		way            int // the one that a short run takes; with a cut all
	}{
		"smooth":                {way: 2},
		"cut":                   {cut: true, reconnects: true},
		"source lost":           {source: [][]movertest.Fault{{lost}}, reconnects: true},
		"target lost":           {target: [][]movertest.Fault{{cold(lost)}}, reconnects: true, way: 1},
		"source unreadable":     {source: [][]movertest.Fault{{eio(5 << 20), eio(10 << 20)}}, unread: []int{5 << 20, 10 << 20}, way: 2},
		"target unreadable":     {target: [][]movertest.Fault{{cold(eio(5 << 20)), cold(eio(10 << 20))}}, unread: []int{5 << 20, 10 << 20}},
		"lost after unreadable": {source: [][]movertest.Fault{{eio(5 << 20), lost}, {eio(5 << 20)}}, unread: []int{5 << 20}, reconnects: true, way: 1},
	} {
		for i, how := range []string{"local", "push", "pull"} {
			if tt.cut && how == "local" {
				continue
			}
			if testing.Short() && !tt.cut && i != tt.way {
				continue // each way has its turn: all of all take minutes under the race detector
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				src, dst := &flaky{m: disk(a), plans: tt.source}, &flaky{m: disk(b), plans: tt.target}
				got, rep, err := compare(t, src.open, dst.open, how, tt.cut)
				if codeOf(err) != wire.CodeVerify {
					t.Fatalf("ended with %v", err)
				}
				want := runsOf(a, b, tt.unread...)
				if !slices.Equal(got, want) {
					t.Errorf("%d runs %v..., want %d: %v...", len(got), got[:min(3, len(got))], len(want), want[:3])
				}
				if (rep.Counters.Reconnects > 0) != tt.reconnects {
					t.Errorf("%d reconnects", rep.Counters.Reconnects)
				}
				if len(rep.Bad) != 1000 || !slices.Equal(rep.Bad, want[:1000]) {
					t.Errorf("the report has %d runs", len(rep.Bad))
				}
			})
		}
	}
}

// A disk that comes back with other contents makes two lists that are not one.
func TestDifferentOfTwoStates(t *testing.T) {
	const size = 64 << 20
	a, b := striped(size)
	other := bytes.Clone(a)
	other[20<<20+3*cbt.GrainSize+7] ^= 1 // a grain that was equal
	for _, how := range []string{"local", "push", "pull"} {
		t.Run(how, func(t *testing.T) {
			opens := 0
			open := func(context.Context, mover.Access) (mover.Disk, error) {
				content, plan := other, movertest.Fault{Op: "Flush"}
				if opens++; opens == 1 {
					content = a
					plan = movertest.Fault{Op: "ReadAt", Extent: cbt.Extent{Off: 48 << 20, Len: 1 << 20}, Count: -1, Err: errLost{}, Hook: func() { time.Sleep(time.Second) }}
				}
				m, err := disk(content).Reopen(movertest.ReadOnly)
				if err != nil {
					return nil, err
				}
				return named{movertest.NewFaulty(m, plan)}, nil
			}
			dst := &flaky{m: disk(b)}
			_, _, err := compare(t, open, dst.open, how, false)
			if codeOf(err) != wire.CodeDiskChanged || !strings.Contains(err.Error(), "compare again") {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// compare is a verify with its list, and two cuts if asked for.
func compare(t *testing.T, src, dst mover.OpenDisk, how string, cut bool) (got []mover.BadRun, rep mover.Report, err error) {
	t.Helper()
	return compareTo(t, src, dst, how, func(list []mover.BadRun, link wire.Link) {
		if n := len(list); cut && (n == 100 || n == 700) {
			link.CloseWithError(wire.CodeTimeout, "cut by the test")
		}
	})
}

// compareTo is a verify whose list is told to tell.
func compareTo(t *testing.T, src, dst mover.OpenDisk, how string, tell func([]mover.BadRun, wire.Link)) (got []mover.BadRun, rep mover.Report, err error) {
	t.Helper()
	bug := bubble(t, func(ctx context.Context) error {
		cfg := mover.Config{Workers: 1, Batches: 64}
		s, err2 := newSite(ctx, cfg, memState{}, mover.Export{Name: "target", Role: mover.RoleTarget, Open: dst},
			mover.Export{Name: "source", Role: mover.RoleSource, Open: src})
		if err2 != nil {
			return err2
		}
		e, err2 := mover.NewEngine(cfg, memState{})
		if err2 != nil {
			return err2
		}
		job := mover.Job{
			Run: wire.RunID{1}, Mode: wire.ModeVerify, Retry: time.Minute,
			Source: mover.Endpoint{Name: "source", Open: src}, Target: mover.Endpoint{Name: "target", Open: dst},
		}
		var links []wire.Link
		wrap := func(r *mover.Remote) mover.Endpoint {
			dial := r.Dial
			r.Dial = func(ctx context.Context) (wire.Link, error) {
				l, err := dial(ctx)
				links = append(links, l)
				return l, err
			}
			return mover.Endpoint{Name: r.Name, Remote: r}
		}
		switch how {
		case "push":
			job.Target = wrap(s.remote("target").Remote)
		case "pull":
			job.Source = wrap(s.remote("source").Remote)
		}
		p := &mover.Progress{Different: func(r mover.BadRun) {
			got = append(got, r)
			if len(links) == 0 { // local
				links = append(links, nil)
			}
			tell(got, links[len(links)-1])
		}}
		rep, err = e.Run(ctx, job, p)
		s.server.Drain()
		return errors.Join(e.Close(), s.engine.Close())
	})
	if bug != nil {
		t.Fatal(fmt.Errorf("rig: %w", bug))
	}
	return got, rep, err
}

// Who cannot take the list as fast as it comes holds the comparison up, and no
// watchdog takes that for a lost link.
func TestDifferentMayBlock(t *testing.T) {
	a, b := striped(64 << 20)
	for _, how := range []string{"local", "push", "pull"} {
		t.Run(how, func(t *testing.T) {
			blocked := 0
			got, rep, err := compareTo(t, (&flaky{m: disk(a)}).open, (&flaky{m: disk(b)}).open, how, func(list []mover.BadRun, _ wire.Link) {
				if n := len(list); n == 3 || n == 300 {
					blocked++
					time.Sleep(5 * time.Minute)
				}
			})
			if codeOf(err) != wire.CodeVerify || rep.Counters.Reconnects > 0 || blocked != 2 {
				t.Errorf("%d reconnects, blocked %d times, %v", rep.Counters.Reconnects, blocked, err)
			}
			if want := runsOf(a, b); !slices.Equal(got, want) {
				t.Errorf("%d runs, want %d", len(got), len(want))
			}
		})
	}
}
