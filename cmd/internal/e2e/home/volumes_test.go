package home

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
	"github.com/haulback/haulback/hostctl/simvs"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// twins are the disks of an original and of its replica, which were written on
// both sides since they were one.
func twins(seed uint64, sizes ...int) (original, replica [][]byte) {
	for i, size := range sizes {
		base := content(seed+uint64(i), size)
		original = append(original, written(base, seed+uint64(i)+50, size/16))
		replica = append(replica, written(base, seed+uint64(i)+70, size/16))
	}
	return original, replica
}

// TestVolumes brings workloads home whose disks are OpenStorage volumes, on loop
// devices: between two clusters, and to and from a vSphere.
func TestVolumes(t *testing.T) {
	t.Parallel()
	loops(t)
	var home, dr []load
	before := map[string][][]byte{}
	pairs := map[string]func(*testing.T, *rig, [][]byte){"commit": volumesCommit, "undo": volumesUndo, "here": volumesToVSphere, "there": volumesFromVSphere}
	seed := uint64(7000)
	replicas := map[string][][]byte{}
	for name := range pairs {
		a, b := twins(seed, 4*mib, 2*mib)
		seed += 100
		before[name], replicas[name] = a, b
		if name != "here" {
			home = append(home, load{name: name, disks: a, compute: map[string]string{"there": "vm"}[name]})
		}
		if name != "there" {
			dr = append(dr, load{name: name + "r", on: true, disks: b, compute: map[string]string{"here": "none"}[name]})
		}
	}
	r := newRig(t, options{shelves: map[string][]load{"home": home, "dr": dr}})
	for name, test := range pairs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			switch name {
			case "here":
				vm := &simvs.VM{Name: name}
				for _, b := range before[name] {
					vm.Disks = append(vm.Disks, simvs.Disk{Image: image(t, b)})
				}
				add(t, r.home.vs, vm)
			case "there":
				vm := &simvs.VM{Name: name + "r", On: true}
				for _, b := range replicas[name] {
					vm.Disks = append(vm.Disks, simvs.Disk{Image: image(t, b)})
				}
				add(t, r.dr.vs, vm)
			}
			test(t, r, before[name])
		})
	}
}

// volumesCommit: the replica is written to between the passes.
func volumesCommit(t *testing.T, r *rig, _ [][]byte) {
	home, away := r.home.shelf.side("commit"), r.dr.shelf.side("commitr")
	p := r.pairUp(t, "vcommit", home, away)
	id := p.begin(t, failback.Spec{Switch: byHand(), PowerOn: true})
	r.await(t, id, "the passes", standing)
	r.dr.shelf.write(t, "commitr", 0, mib, content(99, 3*64<<10))
	r.switchNow(t, id)
	s := r.await(t, id, "state Failback", brought)
	proved(t, s)
	if s := r.commit(t, id); s.State != failback.Ready {
		t.Errorf("state %s, want Ready", s.State)
	}
	same(t, "the volumes at home and those of the replica", home.disks(), away.disks())
}

// volumesUndo: both sides are what they were, whatever was written at home since.
func volumesUndo(t *testing.T, r *rig, before [][]byte) {
	home, away := r.home.shelf.side("undo"), r.dr.shelf.side("undor")
	p := r.pairUp(t, "vundo", home, away)
	id := p.begin(t, failback.Spec{Switch: now(), PowerOn: true})
	r.await(t, id, "state Failback", brought)
	replica := away.disks()
	same(t, "the volumes at home and those of the replica", home.disks(), replica)
	r.home.shelf.write(t, "undo", 0, 0, content(5, mib))
	if s := r.undo(t, id); s.State != failback.Failover {
		t.Errorf("state %s, want Failover", s.State)
	}
	same(t, "the replica, and it when it was powered off", away.disks(), replica)
	same(t, "the volumes at home, and they before the failback", home.disks(), before)
}

// volumesToVSphere: the replica is on volumes, and nothing here can stop it; the
// original is a VM of a vSphere.
func volumesToVSphere(t *testing.T, r *rig, _ [][]byte) {
	slow(t)
	home := side{"home", "here", func() [][]byte { return flat(t, r.home.vs, "here") }}
	away := r.dr.shelf.side("herer")
	p := r.pairUp(t, "vhere", home, away)
	id := p.begin(t, failback.Spec{Switch: now(), Grace: time.Millisecond})
	s := r.await(t, id, "somebody to stop the replica", func(s *failback.Status) bool { return s.Halted != nil })
	if s.Halted.Step != "power-off-replica" || !strings.Contains(s.Halted.Text, "stop it yourself") {
		t.Fatalf("halted: %+v", *s.Halted)
	}
	r.dr.shelf.power("herer", "off")
	r.goOn(t, id)
	proved(t, r.await(t, id, "state Failback", brought))
	r.commit(t, id)
	same(t, "the VM at home and the replica's volumes", home.disks(), away.disks())
}

// volumesFromVSphere: the reverse. The workload at home is a VM whose disks are
// volumes.
func volumesFromVSphere(t *testing.T, r *rig, before [][]byte) {
	home := r.home.shelf.side("there")
	away := side{"dr", "therer", func() [][]byte { return flat(t, r.dr.vs, "therer") }}
	p := r.pairUp(t, "vthere", home, away)
	id := p.begin(t, failback.Spec{Switch: now(), Grace: -1, PowerOn: true})
	proved(t, r.await(t, id, "state Failback", brought))
	same(t, "the volumes at home and the replica's disks", home.disks(), away.disks())
	if !r.home.shelf.runs("there") {
		t.Error("it does not run")
	}
	r.home.shelf.write(t, "there", 1, 0, content(6, 64<<10))
	r.undo(t, id)
	same(t, "the volumes at home, and they before", home.disks(), before)
}

// TestVolumesKilled kills either daemon at random moments. Whatever was cut off:
// the bytes are right, there is exactly one protective snapshot, and no clone, no
// attachment and no loop device is left.
func TestVolumesKilled(t *testing.T) {
	t.Parallel()
	slow(t)
	loops(t)
	original, replica := twins(9000, 4*mib, 4*mib)
	r := newRig(t, options{shelves: map[string][]load{"home": {{name: "k", disks: original}}, "dr": {{name: "kr", on: true, disks: replica}}}})
	home, away := r.home.shelf.side("k"), r.dr.shelf.side("kr")
	for _, s := range []*shelf{r.home.shelf, r.dr.shelf} { // the effect comes after the caller is gone
		s.srv.Set(func(q *osdtest.Quirks) {
			const late = 60 * time.Millisecond
			q.Slow = map[string]time.Duration{"SnapshotCreate": late, "Clone": late, "Attach": late, "Detach": late, "Delete": late}
		})
	}
	kills := 16
	if testing.Short() {
		kills = 4
	}
	seed := uint64(1)
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	p := r.pairUp(t, "vkilled", home, away)
	for _, end := range []failback.Activity{failback.Undone, failback.Committed} {
		before := home.disks()
		id := p.begin(t, failback.Spec{Switch: now(), PowerOn: true})
		killed := r.killEither(t, random, kills/4, id, brought)
		proved(t, r.await(t, id, "state Failback", brought))
		frozen := away.disks()
		same(t, "the volumes at home and those of the replica", home.disks(), frozen)
		var err error
		if end == failback.Undone {
			_, err = r.api.Undo(t.Context(), &controlv1.UndoRequest{Id: id})
		} else {
			_, err = r.api.Commit(t.Context(), &controlv1.CommitRequest{Id: id})
		}
		must(t, err)
		killed += r.killEither(t, random, kills/4, id, is(end))
		r.await(t, id, string(end), is(end))
		t.Logf("%d kills to %s", killed, end)
		same(t, "the replica, and it when it was powered off", away.disks(), frozen)
		if end == failback.Undone {
			same(t, "the volumes at home, and they before", home.disks(), before)
		}
	}
	// What the last killed process held is given back by the next.
	r.home.stop(t)
	r.dr.stop(t)
	r.home.shelf.clean()
	r.dr.shelf.clean("kr")
}
