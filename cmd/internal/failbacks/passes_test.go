package failbacks

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// TestWorld runs everything in two worlds: daemons are dear to start.
func TestWorld(t *testing.T) {
	t.Run(site.QUIC, func(t *testing.T) {
		w := newWorld(t, site.QUIC)
		pairs := [][2]string{{"dr", "home"}, {"dr", "dr"}, {"here", "home"}, {"dr", "here"}, {"here", "here"}}
		if testing.Short() {
			pairs = pairs[:2]
		}
		w.allPasses(t, pairs)
		w.sub(t, "compare", w.compare)
		w.sub(t, "tickets", w.tickets)
		w.sub(t, "refused", w.refused)
	})
	t.Run(site.TLS, func(t *testing.T) {
		w := newWorld(t, site.TLS)
		pairs := [][2]string{{"dr", "home"}, {"dr", "here"}, {"here", "home"}}
		if testing.Short() {
			pairs = pairs[:1]
		}
		w.allPasses(t, pairs)
		w.sub(t, "fence", w.fence)
	})
}

// sub runs a test in w.
func (w *world) sub(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		defer func(t *testing.T) { w.t = t }(w.t)
		w.t = t
		f(t)
	})
}

// allPasses is the way home of a disk: a full pass, one with a hint, one with a
// hint that lies, one whose target was written by another in between, and the
// way back, wherever the two disks are.
func (w *world) allPasses(t *testing.T, pairs [][2]string) {
	for _, pair := range pairs {
		if w.size = small; w.Transport == site.QUIC && pair == [2]string{"dr", "home"} && !testing.Short() {
			w.size = 64 << 20
		}
		w.sub(t, pair[0]+" to "+pair[1], func(t *testing.T) { w.passes(t, pair[0], pair[1]) })
	}
}

func (w *world) passes(t *testing.T, from, to string) {
	prefix := from + "-" + to + "-"
	now := w.content(1)
	base := w.disk(from, prefix+"web.vmdk", now)
	target := w.disk(to, prefix+"home-000001.vmdk", w.content(2))
	run := newRun()
	must := func(what string, m *failback.Move, tracking, reason string) job.Outcome {
		t.Helper()
		out, err := w.Move(t.Context(), m)
		if err != nil || !out.Verified || out.ActualTracking != tracking || !strings.Contains(out.TrackingReason, reason) {
			t.Fatalf("%s: %v (%+v), want %s because of %q", what, err, out, tracking, reason)
		}
		if (out.Root != cbt.Digest{}) != (out.Counters.Skipped == 0) {
			t.Errorf("%s: root %v with %d bytes left out", what, out.Root, out.Counters.Skipped)
		}
		return out
	}
	must("pass 1", w.move(run, 1, snapshot(base), target, nil), "full", "")
	if !w.cmp(base, target) {
		t.Fatal("pass 1: the disks differ")
	}

	changed := guest(now, 3) // and the next snapshot's file is another
	second := w.disk(from, prefix+"web-000001.vmdk", now)
	out := must("pass 2", w.move(run, 2, snapshot(second), target, w.changes(changed, "52 de/2")), "hint", "vsphere 52 de/2, exact")
	if out.Counters.Skipped == 0 || out.Counters.Scanned > out.Counters.Total/2 {
		t.Errorf("pass 2 read %d of %d bytes", out.Counters.Scanned, out.Counters.Total)
	}
	if !w.cmp(second, target) {
		t.Fatal("pass 2: the disks differ")
	}

	changed = guest(now, 4)
	lie := cbt.Extent{Off: 8 << 20, Len: 4 << 20} // no sample misses it
	for i := lie.Off; i < lie.End(); i++ {
		now[i] ^= 1
	}
	third := w.disk(from, prefix+"web-000002.vmdk", now)
	changed.Remove(lie)
	must("pass 3, of a lie", w.move(run, 3, snapshot(third), target, w.changes(changed, "52 de/3")), "full", "distrusted")
	if !w.cmp(third, target) {
		t.Fatal("pass 3: the disks differ")
	}

	// Another run brings another disk to the target; the hint of this one knows
	// nothing of it, and no sample would see it.
	spoiled := bytes.Clone(now)
	spoiled[int64(len(spoiled))-(2<<20)-1] ^= 1
	must("another run", w.move(newRun(), 1, w.disk(from, prefix+"other.vmdk", spoiled), target, nil), "full", "")
	changed = guest(now, 5)
	fourth := w.disk(from, prefix+"web-000003.vmdk", now)
	must("pass 4, on another's disk", w.move(run, 4, snapshot(fourth), target, w.changes(changed, "52 de/4")), "full", "the hint counts from pass 3 of this run, and the target is Verified by pass 1 of run")
	if !w.cmp(fourth, target) {
		t.Fatal("pass 4: the disks differ")
	}
	changed = guest(now, 6)
	fifth := w.disk(from, prefix+"web-000004.vmdk", now)
	must("pass 5, in full at the end", func() *failback.Move {
		m := w.move(run, 5, snapshot(fifth), target, w.changes(changed, "52 de/5"))
		m.Full = true
		return m
	}(), "full", "then everything was read again")
	if !w.cmp(fifth, target) {
		t.Fatal("pass 5: the disks differ")
	}

	// The way back: compare, then move what differs, and compare all.
	back := w.move(newRun(), 1, snapshot(target), base, nil)
	back.Sample = 1
	before, err := os.ReadFile(w.flat(base))
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Compare(t.Context(), back)
	if err != nil || l.Equal || l.Different == 0 || l.Compared != l.Total || l.Error != 0 || l.Root != (cbt.Digest{}) {
		t.Errorf("compare: %+v, %v", l, err)
	}
	if after, err := os.ReadFile(w.flat(base)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the comparison wrote: %v", err)
	}
	must("back", back, "full", "")
	l, err = w.Compare(t.Context(), back)
	if err != nil || !l.Equal || l.Root == (cbt.Digest{}) || !w.cmp(target, base) {
		t.Errorf("compare after the way back: %+v, %v", l, err)
	}
}

// compare: a sample tells disks apart that are two, and counts what differs
// within the interval that it gives.
func (w *world) compare(t *testing.T) {
	w.size = small
	a := w.content(7)
	b := bytes.Clone(a)
	for off := int64(0); off < w.size/4; off += cbt.GrainSize {
		b[off+100] ^= 1 // a quarter of the grains
	}
	for _, pair := range [][2]string{{"dr", "home"}, {"dr", "dr"}, {"here", "here"}, {"home", "here"}, {"here", "dr"}} {
		w.sub(t, pair[0]+" with "+pair[1], func(t *testing.T) {
			prefix := pair[0] + pair[1]
			x, y, z := w.disk(pair[0], prefix+"a.vmdk", a), w.disk(pair[1], prefix+"b.vmdk", b), w.disk(pair[1], prefix+"c.vmdk", a)
			m := w.move(newRun(), 1, snapshot(x), y, nil)
			m.Sample = 4
			l, err := w.Compare(t.Context(), m)
			if err != nil || l.Equal || l.Compared >= l.Total || l.Compared < l.Total/5 || l.Total != w.size {
				t.Fatalf("%+v, %v", l, err)
			}
			// 95 % leave one seed in twenty out: twice the interval leaves none.
			if want := w.size / 4; l.Expected < want-2*l.Error || l.Expected > want+2*l.Error || l.Error == 0 {
				t.Errorf("%+v, %d differ", l, want)
			}
			m = w.move(newRun(), 1, x, z, nil)
			m.Sample = 4
			if l, err = w.Compare(t.Context(), m); err != nil || l.Different != 0 || l.Equal || l.Expected != 0 || l.Root != (cbt.Digest{}) {
				t.Errorf("of equal disks: %+v, %v", l, err)
			}
		})
	}
}
