package home

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/simvs"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// deeds are what a vSphere's own log says was done to its VMs. Logins are no deeds.
func deeds(t *testing.T, vs *simvs.Server) (list []string) {
	t.Helper()
	u, err := url.Parse(vs.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("looker@vsphere.local", vs.Password())
	c, err := govmomi.NewClient(t.Context(), u, true)
	if err != nil {
		t.Fatal(err)
	}
	log, err := event.NewManager(c.Client).CreateCollectorForEvents(t.Context(), types.EventFilterSpec{})
	if err == nil {
		err = log.SetPageSize(t.Context(), 1000)
	}
	if err != nil {
		t.Fatal(err)
	}
	events, err := log.LatestPage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		switch e := e.(type) {
		case *types.UserLoginSessionEvent, *types.UserLogoutSessionEvent:
		case *types.TaskEvent:
			list = append(list, fmt.Sprintf("%d %s", e.Key, e.Info.DescriptionId))
		default:
			list = append(list, fmt.Sprintf("%d %T", e.GetEvent().Key, e))
		}
	}
	return list
}

// TestBadInputIsRefusedBeforeAnyAction: what an operator or a site can get wrong is
// refused with the thing, the remedy and the exit code, by plan and by start, and
// neither vSphere has done anything to any VM since: their own logs say so.
func TestBadInputIsRefusedBeforeAnyAction(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{room: 24 * mib})
	for _, vs := range []*simvs.Server{r.home.vs, r.dr.vs} {
		vs.AddUser("looker@vsphere.local", vs.Password(), "System.View", "System.Read")
	}
	img := func(sizes ...int) (list []simvs.Disk) {
		for i, size := range sizes {
			list = append(list, simvs.Disk{Image: image(t, content(uint64(i+1), size))})
		}
		return list
	}
	declare := func(name string, home, dr []simvs.Disk) {
		o := add(t, r.home.vs, &simvs.VM{Name: name, Disks: home})
		p := add(t, r.dr.vs, &simvs.VM{Name: name + "_replica", Disks: dr, On: true})
		_, err := r.api.PutPair(t.Context(), &controlv1.PutPairRequest{Pair: failbackpb.FromPair(&failback.Pair{
			Name: name, Original: hostctl.Ref{Host: "home", ID: o}, Replica: hostctl.Ref{Host: "dr", ID: p},
		})})
		must(t, err)
	}
	const half = mib / 2
	declare("ready", img(half), img(half))
	declare("web", img(mib), img(mib))
	declare("small", img(half), img(mib))
	declare("twins", img(half, mib, mib), img(mib))
	add(t, r.home.vs, &simvs.VM{Name: "runs", Disks: img(mib), On: true})
	for _, name := range []string{"web", "small", "twins"} {
		r.home.OK("failback", "failover", name)
	}
	filler := filepath.Join(r.home.vs.Datastores()["ds-home"], "filler")
	before := [][]string{deeds(t, r.home.vs), deeds(t, r.dr.vs)}
	if len(before[0]) == 0 || len(before[1]) == 0 {
		t.Fatal("the logs are empty")
	}
	for _, c := range []struct {
		name string
		args []string
		set  func()
		code int
		want []string // thing and remedy
	}{
		{"unknown VM", []string{"nobody"}, nil, 10, []string{"nobody", "vm list"}},
		{"wrong state", []string{"ready"}, nil, 10, []string{"ready", "haulback failback failover"}},
		{"target too small", []string{"small"}, nil, 10, []string{"scsi0:0", "524288 bytes (512.0 KiB)", "1048576", "grow it"}},
		{"running target", []string{"web", "--destination", "existing", "--target", "home/runs"}, nil, 10, []string{"runs", "power it off"}},
		{"ambiguous disks", []string{"twins"}, nil, 10, []string{"scsi0:0", "scsi0:1", "scsi0:2", "rule"}},
		{"no room", []string{"web"}, func() {
			if err := os.WriteFile(filler, make([]byte, 24*mib), 0o600); err != nil {
				t.Fatal(err)
			}
		}, 5, []string{"ds-home", "rollback point", "free space there"}},
		{"missing privilege", []string{"web"}, func() {
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			r.home.vs.AddUser(r.home.vs.User(), r.home.vs.Password(), "System.View", "System.Read", "VirtualMachine.Interact.PowerOn")
		}, 5, []string{r.home.vs.User(), "Global.DisableMethods", "role"}},
	} {
		if c.set != nil {
			c.set()
		}
		for _, verb := range [][]string{{"plan"}, {"start", "--yes"}} {
			res := r.home.Run(slices.Concat([]string{"failback"}, verb, c.args)...)
			if res.Code != c.code {
				t.Errorf("%s: %s: exit code %d, want %d", c.name, verb[0], res.Code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(res.Stderr, w) {
					t.Errorf("%s: %s: %q is not in %s", c.name, verb[0], w, res.Stderr)
				}
			}
		}
	}
	for i, vs := range []*simvs.Server{r.home.vs, r.dr.vs} {
		if now := deeds(t, vs); !slices.Equal(now, before[i]) {
			t.Errorf("done to VMs meanwhile: %v, and before: %v", now, before[i])
		}
	}
	res, err := r.api.List(t.Context(), &controlv1.ListFailbacksRequest{})
	must(t, err)
	if len(res.Failbacks) != 0 {
		t.Errorf("%d failbacks are stored", len(res.Failbacks))
	}
}
