package home

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/simvs"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// lies are the ways in which change tracking misleads, and whether a pass must say
// that it did not believe it.
var lies = map[string]struct {
	set  func(*simvs.Switches)
	told bool
}{
	"cap":         {func(s *simvs.Switches) { s.AreaCap = 1 }, false},
	"cutsilently": {func(s *simvs.Switches) { s.AreaCap, s.CapSilently = 1, true }, true},
	"empty":       {func(s *simvs.Switches) { s.ZeroPages = 1000 }, true},
	"unsorted":    {func(s *simvs.Switches) { s.Unsorted = true }, false},
	"overlap":     {func(s *simvs.Switches) { s.Overlap = true }, false},
	"beyond":      {func(s *simvs.Switches) { s.BeyondEnd = true }, false},
	"overreport":  {func(s *simvs.Switches) { s.OverReport = true }, false},
	"underreport": {func(s *simvs.Switches) { s.UnderReport = 1 }, true},
	"fault":       {func(s *simvs.Switches) { s.FaultAtPage = 1 }, true},
}

// TestTrackingLies: whatever a host says of what has changed, the VM comes home to
// the byte, and a pass that did not believe it says so.
func TestTrackingLies(t *testing.T) {
	t.Parallel()
	slow(t)
	names := slices.Sorted(maps.Keys(lies))
	if testing.Short() {
		names = []string{"empty", "underreport"}
	}
	r := newRig(t, options{more: names})
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r.dr.more[name].Switch(lies[name].set)
			p := r.vmAt(t, name, "vm"+name, 4*mib)
			id := p.begin(t, failback.Spec{Switch: byHand(), Grace: -1})
			r.await(t, id, "pass 1", standing)
			for i := range 8 { // after pass 1: the final pass has to find it
				if _, err := p.replica.WriteAt(0, content(uint64(i+1), 64<<10), int64(i)*512<<10); err != nil {
					t.Fatal(err)
				}
			}
			r.switchNow(t, id)
			s := r.await(t, id, "state Failback", brought)
			same(t, "the VM at home and its replica", p.home(t), p.away(t))
			proved(t, s)
			told := false // by the pass that the lie was told to: the one before the switch, or the final one
			for _, pass := range s.Disks[0].Passes[1:] {
				t.Logf("pass %d asked %q, used %q: %s", pass.Number, pass.Asked, pass.Used, pass.Reason)
				told = told || pass.Asked == "cbt" && pass.Used == "full" && pass.Reason != ""
			}
			if lies[name].told && !told {
				t.Errorf("no pass tells that it did not believe the host: %+v", s.Disks[0].Passes)
			}
			r.commit(t, id)
		})
	}
}

// TestHostsInTrouble: sessions end, and a vCenter is not there for a while, in the
// middle of the work; nobody has to do anything.
func TestHostsInTrouble(t *testing.T) {
	t.Parallel()
	slow(t)
	r := newRig(t, options{})
	p := r.vm(t, "web", 2*mib, 2*mib)
	id := p.begin(t, failback.Spec{Switch: byHand(), Grace: -1, PowerOn: true})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 60 { // where a pass takes longer, it has peace at last
			r.home.vs.DropSessions()
			r.dr.vs.DropSessions()
			select {
			case <-ctx.Done():
				return
			case <-time.After(150 * time.Millisecond):
			}
		}
	}()
	r.await(t, id, "the passes, without sessions that last", standing)
	stop()
	<-ended
	r.home.vs.Down()
	r.switchNow(t, id)
	s := r.await(t, id, "the controller to wait for a host", func(s *failback.Status) bool { return strings.Contains(s.Wait, "host home") })
	t.Logf("it waits: %s", s.Wait)
	up(t, r.home.vs)
	proved(t, r.await(t, id, "state Failback", brought))
	same(t, "the VM at home and its replica", p.home(t), p.away(t))
	r.home.vs.Down() // holds the undo until the other one is down
	_, err := r.api.Undo(t.Context(), &controlv1.UndoRequest{Id: id})
	must(t, err)
	r.dr.vs.Down()
	up(t, r.home.vs)
	r.await(t, id, "the controller to wait for the other host", func(s *failback.Status) bool { return strings.Contains(s.Wait, "host dr") })
	up(t, r.dr.vs)
	r.await(t, id, "the undo", is(failback.Undone))
	same(t, "the VM at home, and it before", p.home(t), p.before)
}
