package failback_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
	"github.com/haulback/haulback/hostctl/job"
)

// trip is a failback from its start to an end, as an operator wants it.
type trip struct {
	name string
	spec func() failback.Spec
	goal failback.Activity
}

var trips = []trip{
	{"original commit", home, failback.Committed},
	{"original undo", home, failback.Undone},
	{"original cancel", manual(home), failback.Canceled},
	{"existing commit", existing, failback.Committed},
	{"existing undo", existing, failback.Undone},
	{"existing cancel", manual(existing), failback.Canceled},
	{"new commit", fresh, failback.Committed},
	{"new undo", fresh, failback.Undone},
	{"new cancel", manual(fresh), failback.Canceled},
	{"new listed undo", fresh, failback.Undone},
}

func manual(spec func() failback.Spec) func() failback.Spec {
	return func() failback.Spec {
		s := spec()
		s.Switch.When = failback.WhenManual
		return s
	}
}

// trouble is what happens at one event of a trip.
type trouble struct {
	at       int           // the event; 0: none
	crash    bool          // the controller dies there
	takeBack bool          // after the crash somebody takes it back, however far it is
	down     time.Duration // hosts and movers do not answer for so long
	outside  bool          // somebody powers on the VM that has to be off
	mind     bool          // after the crash the operator commits, where he can
	unmark   bool          // somebody takes the mark off the target
	unproved bool          // the final pass of a disk is not Verified
}

// voyage runs a trip with its trouble, in a world of its own.
type voyage struct {
	*world
	trip
	trouble
	mu    sync.Mutex
	n     int
	dead  bool
	names []string
	guest [][]byte // what the replica has to have
	wrote int
	asked bool // for an undo
}

var errDead = errors.New("the process is dead")

// event counts, and is where trouble happens.
func (v *voyage) event(name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.dead {
		return errDead
	}
	v.n++
	v.names = append(v.names, name)
	point := strings.HasPrefix(name, "Protect ") && strings.HasSuffix(name, "-replica") || name == "Protect track-replica-1"
	if v.at == 0 || v.n < v.at || v.down > 0 && strings.HasPrefix(name, "store") || (v.unmark || v.unproved) && !point {
		return nil
	}
	v.at = 0 // once
	switch {
	case v.crash:
		v.dead = true
		return errDead
	case v.down > 0:
		for _, p := range []interface{ Down(bool) }{v.prod, v.dr, v.mover} {
			p.Down(true)
			time.AfterFunc(v.down, func() { p.Down(false) })
		}
		return &hosttest.Error{Text: "connection reset", Again: true}
	case v.unmark:
		v.prod.Change(v.original.UUID, func(vm *hostctl.VM) { delete(vm.Marks, hostctl.MarkInconsistent) })
	case v.unproved:
		v.mover.Plan(hosttest.Fault{Method: "Move", Step: "scsi0:1", Times: -1, When: hosttest.Lied})
	case v.outside:
		v.intrude()
	}
	return nil
}

// intrude powers on a VM that has to be off now, whose guest then writes.
func (v *voyage) intrude() {
	if s := v.state2(); s == failback.Failback || s == failback.Ready {
		return
	}
	write := func(f *hosttest.Fake, vm hostctl.Ref) []byte {
		f.Outside(vm.UUID, hostctl.On)
		b := bytes.Repeat([]byte{0xEE}, 700)
		if err := f.Write(vm.UUID, 0, 5*grain, b); err != nil {
			v.t.Errorf("write: %v", err)
		}
		return b
	}
	if is, _ := v.dr.VM(v.replica.UUID); is.Power == hostctl.Off {
		copy(v.guest[0][5*grain:], write(v.dr, v.replica))
	} else if is, _ := v.prod.VM(v.original.UUID); is.Marks[hostctl.MarkInconsistent] != "" {
		write(v.prod, v.original)
	}
}

func (v *voyage) state2() failback.State {
	if v.e == nil {
		return failback.Failback // nobody drives anything yet
	}
	p, err := v.e.Pair(context.Background(), "web")
	if err != nil {
		return ""
	}
	return p.State
}

// hooks makes every durable change and every effect on a host or disk an event.
func (v *voyage) hook() {
	v.db.setHook(func(key string, done bool) error {
		if !done {
			if v.isDead() {
				return errDead
			}
			return nil
		}
		return v.event("store " + strings.Split(key, ".")[0])
	})
	moment := func(m hosttest.Moment) error {
		if m.Method == "Moving" {
			v.write()
		}
		if !m.Done {
			if v.isDead() {
				return errDead
			}
			return nil
		}
		return v.event(m.Method + " " + m.Step)
	}
	v.prod.Hook(moment)
	v.dr.Hook(moment)
	v.mover.Hook(moment)
}

func (v *voyage) isDead() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.dead
}

// write is the replica's guest, while it serves: to what was compared already
// and to what was not.
func (v *voyage) write() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.guest {
		for _, off := range []int{grain + 100, len(v.guest[i]) - grain} {
			b := bytes.Repeat([]byte{byte(v.wrote + i + 1)}, 1000)
			if v.dr.Write(v.replica.UUID, i, int64(off), b) == nil {
				copy(v.guest[i][off:], b)
			}
		}
	}
	v.wrote++
}

// sail does the trip and checks its end. It answers the names of its events.
func sail(t *testing.T, x trip, trouble trouble, bug string) (names []string, mistakes []string) {
	synctest.Test(t, func(t *testing.T) {
		c := &complaints{TB: t}
		v := &voyage{world: newWorld(c), trip: x, trouble: trouble}
		v.bug = bug
		if strings.HasPrefix(x.name, "existing") {
			v.restore()
		}
		v.mover.Listed = strings.Contains(x.name, "listed")
		v.guest = v.bytes(v.dr, v.replica)
		v.hook()
		defer func() {
			if r := recover(); r != nil && r != errGaveUp {
				panic(r)
			}
			v.close()
			names, mistakes = v.names, append(c.list, v.log.Mistakes()...)
			time.Sleep(2 * v.down) // hosts come back
		}()
		v.steer()
		v.check()
	})
	return names, mistakes
}

// complaints collects what a test complains about, so that a deliberate bug is
// found without failing.
type complaints struct {
	testing.TB
	list []string
}

var errGaveUp = errors.New("gave up")

func (c *complaints) Helper() {}

func (c *complaints) Errorf(format string, args ...any) {
	c.list = append(c.list, fmt.Sprintf(format, args...))
}

func (c *complaints) Fatalf(format string, args ...any) {
	c.Errorf(format, args...)
	panic(errGaveUp)
}

func (c *complaints) Fatal(args ...any) { c.Fatalf("%s", fmt.Sprint(args...)) }

// steer is the operator: he looks, and says what is to be said.
func (v *voyage) steer() {
	ctx := context.Background()
	halts, id := 0, "fb1"
	for range 4000 {
		if v.isDead() {
			v.restart()
		}
		if v.e == nil {
			if err := v.try(); err != nil && !v.isDead() {
				v.t.Fatalf("open: %v", err)
			}
			continue
		}
		synctest.Wait()
		st, err := v.e.Get(ctx, id)
		var f *job.Failure
		switch {
		case v.isDead():
		case errors.As(err, &f) && f.Reason == failback.ReasonUnknown:
			if _, _, err = v.e.Start(ctx, id, "root", v.spec(), cbt.Digest{}); err != nil && !v.isDead() && v.down == 0 {
				v.t.Fatalf("start: %v", err)
			}
		case err != nil:
			v.t.Fatalf("get: %v", err)
		case st.Activity.Ended():
			return
		case st.Halted != nil && (v.unmark || v.unproved) && halts > 0:
			v.goal = failback.Canceled
			_, err = v.e.Cancel(ctx, id, 0)
		case st.Halted != nil:
			if halts++; halts > 5 {
				v.t.Fatalf("halted again and again: %s", tell(&st))
			}
			_, err = v.e.Continue(ctx, id, 0)
		case v.goal == failback.Canceled && st.Activity == failback.Standing || v.takeBack && !v.crash && v.back(&st):
			_, err = v.e.Cancel(ctx, id, 0)
		case v.mind && v.asked && st.Activity == failback.Deciding: // he has forgotten that he asked
			v.goal = failback.Committed
			_, err = v.e.Commit(ctx, id, failback.CommitOptions{}, 0)
		case v.goal == failback.Undone && st.Activity == failback.Deciding:
			v.asked = true
			_, err = v.e.Undo(ctx, id, failback.UndoOptions{}, 0)
		case st.Activity == failback.Deciding:
			v.power(v.dr, v.replica, hostctl.Off)
			_, err = v.e.Commit(ctx, id, failback.CommitOptions{}, 0)
		case st.Activity == failback.Standing:
			_, err = v.e.Switch(ctx, id, failback.Switch{When: failback.WhenNow}, 0)
		}
		if err != nil && !v.isDead() && v.down == 0 {
			v.t.Errorf("verb: %v", err)
		}
		time.Sleep(2 * time.Second)
	}
	st, _ := v.e.Get(ctx, id)
	v.t.Fatalf("never ends: %s", tell(&st))
}

// back reports whether the failback can and has to be taken back now. In state
// Failback that is an undo.
func (v *voyage) back(st *failback.Status) bool {
	switch st.Activity {
	case failback.Committing, failback.Undoing, failback.Canceling:
		return false
	}
	v.goal = failback.Canceled
	if st.State == failback.Failback {
		v.goal = failback.Undone
		return false
	}
	return true
}

// restart is the end of one controller and the beginning of the next.
func (v *voyage) restart() {
	v.mu.Lock()
	v.crash = false
	v.mu.Unlock()
	if v.e != nil {
		v.quit()
		<-v.ran
		v.e = nil
	}
	v.db.died()
	v.mu.Lock()
	v.dead = false
	v.mu.Unlock()
	time.Sleep(3 * time.Second)
}

// check looks at what has to be so at the end.
func (v *voyage) check() {
	st := v.get()
	target := v.original
	if strings.HasPrefix(v.name, "existing") {
		target = v.restored
	}
	if v.spec().Destination == failback.New {
		target = st.Target
	}
	v.is(v.dr, v.replica, v.guest)
	p, err := v.e.Pair(context.Background(), "web")
	if err != nil {
		v.t.Fatal(err)
	}
	if p.Held != "" || p.Former != nil || len(v.repl.held) > 0 {
		v.t.Errorf("held %q by %v, former %v: at the end", p.Held, v.repl.held, p.Former)
	}
	if list, _, _ := v.db.List(context.Background(), "claim."); len(list) > 0 {
		v.t.Errorf("%d claims are left", len(list))
	}
	if len(v.records) == 0 || v.records[len(v.records)-1].Activity != st.Activity {
		v.t.Errorf("the end was not recorded")
	}
	if st.Activity == failback.Committed {
		v.checkHome(&st, &p, target)
		return
	}
	v.power(v.dr, v.replica, hostctl.On)
	v.clean(v.dr, v.replica)
	if p.State != failback.Failover || p.Original.UUID != v.original.UUID {
		v.t.Errorf("pair: %+v", p)
	}
	switch v.spec().Destination {
	case failback.Original:
		v.is(v.prod, v.original, v.before)
	case failback.Existing:
		v.is(v.prod, v.restored, [][]byte{differ(v.before[0], 5, 7), differ(v.before[1], 6, 7)})
	case failback.New:
		if vm, ok := v.prod.VM(target.UUID); ok && target.UUID != "" {
			v.t.Errorf("the new VM is left: %+v", vm)
		}
	}
	v.clean(v.prod, target)
	v.clean(v.prod, v.original)
}

func (v *voyage) checkHome(st *failback.Status, p *failback.Pair, target hostctl.Ref) {
	v.is(v.prod, target, v.guest)
	v.power(v.prod, target, hostctl.On)
	v.power(v.dr, v.replica, hostctl.Off)
	v.clean(v.dr, v.replica, "protect-replica")
	v.clean(v.prod, target)
	if p.State != failback.Ready || p.Original.UUID != target.UUID {
		v.t.Errorf("pair: %+v", p)
	}
	for _, d := range st.Disks {
		if last := d.Passes[len(d.Passes)-1]; !d.Verified || !last.Final || !last.Verified {
			v.t.Errorf("disk %s: %+v", d.Label, d)
		}
	}
}

// TestCrashMatrix does every trip with a crash after every durable change and
// every effect (before, during and after each step), with a restart; with hosts
// that do not answer there for a minute and have lost the reply; and with
// somebody who takes it back after the restart. What a trip shares with one
// before it is sampled, of the rest of it every second event is done, unless
// HAULBACK_LONG is set; the first trip is done as a whole.
func TestCrashMatrix(t *testing.T) {
	clean := make([][]string, len(trips))
	for i, x := range trips {
		var wrong []string
		if clean[i], wrong = sail(t, x, trouble{}, ""); len(wrong) > 0 {
			t.Fatalf("%s without trouble: %s", x.name, strings.Join(wrong, "\n"))
		}
	}
	for i, x := range trips {
		names, known := clean[i], 0
		for _, other := range clean[:i] {
			known = max(known, common(names, other))
		}
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			done := 0
			for k := 1; k <= len(names); k++ {
				if !stops(i, k, known) {
					continue
				}
				done++
				for _, with := range troubles(x, names[k-1], k) {
					_, wrong := sail(t, x, with, "")
					for _, text := range wrong {
						t.Errorf("event %d of %d (%s), %+v: %s", k, len(names), names[k-1], with, text)
					}
					if len(wrong) > 0 {
						return
					}
				}
			}
			t.Logf("%d of %d events, %d are known from trips before: %s", done, len(names), known, strings.Join(names, ", "))
		})
	}
}

// common is how many events two trips begin with alike.
func common(a, b []string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// stops reports whether trip i has trouble at event k, of which known are those
// of a trip before.
func stops(i, k, known int) bool {
	switch {
	case testing.Short():
		return k%14 == 1+i // another part of each
	case i == 0 || os.Getenv("HAULBACK_LONG") != "":
		return true
	case k <= known:
		return k%16 == 1
	}
	return k%2 == 1
}

// troubles are those that an event may meet.
func troubles(x trip, name string, k int) []trouble {
	list := []trouble{{at: k, crash: true}}
	if !strings.HasPrefix(name, "store") {
		list = append(list, trouble{at: k, down: time.Minute})
	}
	if x.goal == failback.Committed && k%4 < 2 {
		list = append(list, trouble{at: k, crash: true, takeBack: true})
	}
	return list
}
