package failback_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store/bolt"
)

// TestPutPairByName has VMs that are declared by their names become pairs of
// identities, and those that are not there, or there twice, refused.
func TestPutPairByName(t *testing.T) {
	log := &hosttest.Log{}
	prod, dr := hosttest.NewFake("prod", log), hosttest.NewFake("dr", log)
	original := prod.Add(hostctl.VM{Ref: hostctl.Ref{Name: "shop"}}, make([]byte, hosttest.Grain))
	replica := dr.Add(hostctl.VM{Ref: hostctl.Ref{Name: "shop-dr"}}, make([]byte, hosttest.Grain))
	for range 2 {
		dr.Add(hostctl.VM{Ref: hostctl.Ref{Name: "twins"}}, make([]byte, hosttest.Grain))
	}
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "failback.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	e, err := failback.Open(t.Context(), failback.Config{
		Store: db, Lease: db, Mover: &hosttest.Mover{}, Hosts: map[string]*hostctl.Host{"prod": prod.Host(), "dr": dr.Host()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	name := func(host, vm string) hostctl.Ref { return hostctl.Ref{Host: host, Name: vm} }
	p, err := e.PutPair(t.Context(), failback.Pair{Name: "shop", Original: name("prod", "shop"), Replica: name("dr", "shop-dr")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, side := range []struct{ got, want hostctl.Ref }{{p.Original, original}, {p.Replica, replica}} {
		if side.got.UUID == "" || side.got.UUID != side.want.UUID || side.got.Host != side.want.Host || side.got.Name != side.want.Name {
			t.Errorf("stored as %+v, want %+v", side.got, side.want)
		}
	}
	for _, c := range []struct {
		what    string
		replica hostctl.Ref
		reason  string
	}{
		{"no such VM", name("dr", "gone"), failback.ReasonVMGone},
		{"two of the name", name("dr", "twins"), failback.ReasonVMAmbiguous},
		{"no such host", name("moon", "shop-dr"), failback.ReasonHostUnknown},
		{"no name", name("dr", ""), failback.ReasonInvalid},
	} {
		_, err := e.PutPair(t.Context(), failback.Pair{Name: "other", Original: original, Replica: c.replica}, 0)
		if f, ok := errors.AsType[*job.Failure](err); !ok || f.Reason != c.reason {
			t.Errorf("%s: %v, want reason %s", c.what, err, c.reason)
		} else {
			t.Logf("%s: %s", c.what, f.Text)
		}
	}
}
