package home

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/simvs"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

const mib = 1 << 20

// TestDestinations brings VMs home in every way, several at a time.
func TestDestinations(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{tables: "[[group]]\nname = \"shop\"\nmembers = [{vm = \"shop0\", order = 1}]\n"})
	for name, test := range map[string]func(*testing.T, *rig){
		"original": original, "delta": delta, "undo": undo, "cancel": cancel, "existing": existing, "undo of existing": undoExisting, "new": newVM, "many": many,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "original" && name != "undo" {
				slow(t)
			}
			test(t, r)
		})
	}
}

// original: the replica is written to until it is off (FB-01, FB-10 to FB-19, FB-31).
func original(t *testing.T, r *rig) {
	p := r.vm(t, "web", 8*mib, 4*mib)
	churn := p.churn(t, 0, 1)
	id := p.begin(t, failback.Spec{Switch: byHand(), Grace: -1, PowerOn: true})
	r.await(t, id, "the passes", standing)
	r.switchNow(t, id)
	s := r.await(t, id, "state Failback", brought)
	if n := <-churn; n == 0 {
		t.Error("nothing was written to the replica meanwhile")
	}
	same(t, "the VM at home and its replica", p.home(t), p.away(t))
	proved(t, s)
	if _, err := r.home.vs.Guest("web"); err != nil {
		t.Error(err)
	}
	_, err := r.api.CheckReplication(t.Context(), &controlv1.CheckReplicationRequest{Name: "web"})
	if f := jobpb.Refusal(err); f == nil || f.Reason != failback.ReasonHeld {
		t.Errorf("replication in state Failback: %v, want %s", err, failback.ReasonHeld)
	}
	if s := r.commit(t, id); s.State != failback.Ready {
		t.Errorf("state %s, want Ready", s.State)
	}
	_, err = r.api.CheckReplication(t.Context(), &controlv1.CheckReplicationRequest{Name: "web"})
	must(t, err)
}

// delta: with nobody writing, what crosses the wire is what differs (FB-01).
func delta(t *testing.T, r *rig) {
	p := r.vm(t, "quiet", 8*mib)
	want := 0
	for at, home, away := 0, p.before[0], p.away(t)[0]; at < len(home); at += 64 << 10 {
		if !bytes.Equal(home[at:at+64<<10], away[at:at+64<<10]) {
			want += 64 << 10
		}
	}
	id := p.begin(t, failback.Spec{Switch: now(), Grace: -1})
	s := r.await(t, id, "state Failback", brought)
	sent := int64(0)
	for _, pass := range s.Disks[0].Passes {
		sent += pass.Counters.Sent
	}
	if want == 0 || sent < int64(want)/2 || sent > int64(want)*11/10 {
		t.Errorf("%d bytes were sent, %d differ", sent, want)
	}
	r.commit(t, id)
	same(t, "the VM at home and its replica", p.home(t), p.away(t))
}

// undo: the replica is what it was when it was powered off, and the VM at home what
// it was before (FB-32).
func undo(t *testing.T, r *rig) {
	p := r.vm(t, "undone", 2*mib, 2*mib)
	id := p.begin(t, failback.Spec{Switch: now(), Grace: -1, PowerOn: true})
	r.await(t, id, "state Failback", brought)
	replica := p.away(t)
	guest, err := r.home.vs.Guest("undone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.WriteAt(0, content(7, mib), mib); err != nil {
		t.Fatal(err)
	}
	if s := r.undo(t, id); s.State != failback.Failover {
		t.Errorf("state %s, want Failover", s.State)
	}
	same(t, "the replica, and it when it was powered off", p.away(t), replica)
	same(t, "the VM at home, and it before the failback", p.home(t), p.before)
	if err := p.replica.Flush(0); err != nil {
		t.Errorf("the replica does not run: %v", err)
	}
}

// cancel: before the switch the replica loses nothing and never stops.
func cancel(t *testing.T, r *rig) {
	p := r.vm(t, "canceled", 2*mib)
	churn := p.churn(t, 0, 3)
	id := p.begin(t, failback.Spec{Switch: byHand()})
	r.await(t, id, "the passes", standing)
	_, err := r.api.Cancel(t.Context(), &controlv1.CancelFailbackRequest{Id: id})
	must(t, err)
	r.await(t, id, "the cancel", is(failback.Canceled))
	same(t, "the VM at home, and it before the failback", p.home(t), p.before)
	select {
	case <-churn:
		t.Error("the replica was stopped")
	default:
	}
	if p := r.pairOf(t, "canceled"); p.State != failback.Failover {
		t.Errorf("state %s, want Failover", p.State)
	}
}

// restored is a VM at home that was restored from an older state.
func (p *pair) restored(t *testing.T) string {
	t.Helper()
	vm := &simvs.VM{Name: p.name + "_restored"}
	for _, b := range p.base {
		vm.Disks = append(vm.Disks, simvs.Disk{Image: image(t, b)})
	}
	add(t, p.r.home.vs, vm)
	return vm.Name
}

// existing: a VM that was restored takes the place of the original (FB-02, FB-18).
func existing(t *testing.T, r *rig) {
	p := r.vm(t, "lost", 2*mib, 2*mib)
	name := p.restored(t)
	id := p.begin(t, failback.Spec{Destination: failback.Existing, TargetHost: "home", Target: hostctl.Query{Name: name}, Switch: now(), Grace: -1})
	s := r.await(t, id, "state Failback", brought)
	proved(t, s)
	same(t, "the restored VM and the replica", flat(t, r.home.vs, name), p.away(t))
	same(t, "the original, and it before", p.home(t), p.before)
	r.commit(t, id)
	known := r.pairOf(t, "lost")
	if known.Original.Name != name || known.State != failback.Ready || !slices.ContainsFunc(known.Excluded, func(x hostctl.Ref) bool { return x.Name == "lost" }) {
		t.Errorf("%+v", known)
	}
}

func undoExisting(t *testing.T, r *rig) {
	p := r.vm(t, "lost2", 2*mib)
	name := p.restored(t)
	id := p.begin(t, failback.Spec{Destination: failback.Existing, TargetHost: "home", Target: hostctl.Query{Name: name}, Switch: now(), Grace: -1})
	r.await(t, id, "state Failback", brought)
	replica := p.away(t)
	r.undo(t, id)
	same(t, "the replica, and it when it was powered off", p.away(t), replica)
	same(t, "the restored VM, and it before", flat(t, r.home.vs, name), p.base)
	if known := r.pairOf(t, "lost2"); known.Original.Name != "lost2" || known.State != failback.Failover || known.Former != nil {
		t.Errorf("%+v", known)
	}
}

// newVM: a VM is made from the replica (FB-03, FB-20 to FB-22).
func newVM(t *testing.T, r *rig) {
	p := r.vm(t, "gone", 2*mib, 3*mib)
	id := p.begin(t, failback.Spec{
		Destination: failback.New, TargetHost: "home", New: &failback.NewTarget{Name: "again", Place: hostctl.Placement{Datastore: "ds-home"}},
		Switch: now(), Grace: -1, PowerOn: true,
	})
	s := r.await(t, id, "state Failback", brought)
	proved(t, s)
	same(t, "the new VM and the replica", flat(t, r.home.vs, "again"), p.away(t))
	r.commit(t, id)
	if known := r.pairOf(t, "gone"); known.Original.Name != "again" || known.State != failback.Ready {
		t.Errorf("%+v", known)
	}
}

// many: eight VMs with two disks each, at a time.
func many(t *testing.T, r *rig) {
	n := 8
	if testing.Short() {
		n = 3
	}
	var pairs []*pair
	var ids []string
	for i := range n {
		p := r.vm(t, fmt.Sprintf("shop%d", i), mib, mib)
		pairs, ids = append(pairs, p), append(ids, p.begin(t, failback.Spec{Switch: now(), Grace: -1}))
	}
	for i, p := range pairs {
		proved(t, r.await(t, ids[i], "state Failback", brought))
		same(t, p.name+" and its replica", p.home(t), p.away(t))
	}
	for i, id := range ids {
		if i%2 == 0 {
			r.commit(t, id)
			continue
		}
		r.undo(t, id)
		same(t, pairs[i].name+", and it before", pairs[i].home(t), pairs[i].before)
	}
	if list := r.home.OK("--json", "failback", "list"); strings.Count(list.Out, `"id":"shop`) != n {
		t.Errorf("haulback failback list has others than these %d\n%s", n, list.Out)
	}
}
