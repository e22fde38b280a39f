package home

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// TestControllerIsKilled kills the controller, which moves the disks as well, at
// random moments: the failback goes on by itself, to the byte, and so do commit
// and undo.
func TestControllerIsKilled(t *testing.T) {
	t.Parallel()
	slow(t)
	r := newRig(t, options{})
	kills := 12
	if testing.Short() {
		kills = 3
	}
	seed := uint64(1)
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round, end := range []failback.Activity{failback.Committed, failback.Undone} {
		p := r.vm(t, "killed"+string(end), 2*mib, 2*mib)
		id := p.begin(t, failback.Spec{Switch: now(), Grace: -1, PowerOn: true})
		killed := r.killUntil(t, random, kills/2, id, brought)
		s := r.await(t, id, "state Failback", brought)
		proved(t, s)
		replica := p.away(t)
		t.Logf("round %d: %d kills to state Failback", round, killed)
		if round == 0 {
			same(t, "the VM at home and its replica", p.home(t), replica)
			_, err := r.api.Commit(t.Context(), &controlv1.CommitRequest{Id: id})
			must(t, err)
		} else {
			_, err := r.api.Undo(t.Context(), &controlv1.UndoRequest{Id: id})
			must(t, err)
		}
		killed = r.killUntil(t, random, kills/2, id, is(end))
		s = r.await(t, id, string(end), is(end))
		t.Logf("round %d: %d kills to %s", round, killed, end)
		if round == 1 {
			same(t, "the replica, and it when it was powered off", p.away(t), replica)
			same(t, "the VM at home, and it before", p.home(t), p.before)
		}
		for _, x := range s.Steps {
			if x.State == failback.Intent || x.State == failback.Compensating {
				t.Errorf("step %s is %s at the end", x.Name, x.State)
			}
		}
	}
	left, err := r.api.Garbage(t.Context(), &controlv1.GarbageRequest{})
	must(t, err)
	for _, l := range left.Leftovers {
		t.Errorf("left: %v", l)
	}
}

// killUntil kills the controller at most n times, and returns how often it was, when
// the failback is there. Restarted it has another port, as nobody dials it.
func (r *rig) killUntil(t *testing.T, random *rand.Rand, n int, id string, there func(*failback.Status) bool) (killed int) {
	t.Helper()
	for killed < n {
		time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond) // a moment, not a bound
		if s := r.status(t.Context(), id); s != nil && (there(s) || s.Halted != nil) {
			return killed
		}
		r.home.kill()
		killed++
		r.home.start(t, anyPort)
	}
	return killed
}

// killEither is killUntil for both daemons, at random. That of the site for disasters
// comes back at its address.
func (r *rig) killEither(t *testing.T, random *rand.Rand, n int, id string, there func(*failback.Status) bool) (killed int) {
	t.Helper()
	for killed < n {
		time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond) // a moment, not a bound
		if s := r.status(t.Context(), id); s != nil && (there(s) || s.Halted != nil) {
			return killed
		}
		of, listen := r.home, anyPort
		if random.IntN(2) == 0 {
			of, listen = r.dr, r.dr.listen
		}
		of.kill()
		killed++
		of.start(t, listen)
	}
	return killed
}
