package home

import (
	"testing"

	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

const mib = 1 << 20

// TestOriginal brings a VM with two disks home while its replica is written to,
// and commits (FB-01, FB-10 to FB-19, FB-31).
func TestOriginal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.vm(t, "web", 8*mib, 4*mib)
	churn := p.churn(t, 0, 1)
	id := p.begin(t, failback.Spec{Switch: failback.Switch{When: failback.WhenManual}, Grace: -1})
	r.await(t, id, "the passes", standing)
	_, err := r.api.Switch(t.Context(), &controlv1.SwitchRequest{Id: id, Switch: failbackpb.FromSwitch(now())})
	must(t, err)
	s := r.await(t, id, "state Failback", brought)
	if n := <-churn; n == 0 {
		t.Error("nothing was written to the replica meanwhile")
	}
	same(t, "the VM at home and its replica", flat(t, r.home.vs, "web"), flat(t, r.dr.vs, "web_replica"))
	for _, d := range s.Disks {
		if !d.Verified {
			t.Errorf("%s is not verified: %+v", d.Label, d)
		}
	}
	_, err = r.api.Commit(t.Context(), &controlv1.CommitRequest{Id: id})
	must(t, err)
	s = r.await(t, id, "the commit", is(failback.Committed))
	if s.State != failback.Ready {
		t.Errorf("state %s, want Ready", s.State)
	}
}
