package failback_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
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
	"github.com/haulback/haulback/hostctl/store"
)

const grain = hosttest.Grain

// world is a production site, a DR site with the replica of a VM, a mover, and a
// controller. It lives in a synctest bubble: time takes none.
type world struct {
	t        testing.TB
	log      *hosttest.Log
	prod, dr *hosttest.Fake
	mover    *hosttest.Mover
	db       *memory
	conf     failback.Config
	e        *failback.Engine
	bug      string

	original, replica, restored hostctl.Ref
	before                      [][]byte // of the original
	repl                        *replicator
	records                     []failback.Status

	quit context.CancelFunc
	ran  chan error
}

// replicator is who replicates the VM.
type replicator struct {
	mu          sync.Mutex
	held, calls []string
	fail        error
}

func (r *replicator) Hold(_ context.Context, p *failback.Pair, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, "hold "+p.Name+" "+id)
	if r.fail != nil {
		return r.fail
	}
	if !slices.Contains(r.held, p.Name) {
		r.held = append(r.held, p.Name)
	}
	return nil
}

func (r *replicator) Release(_ context.Context, p *failback.Pair, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, "release "+p.Name+" "+id)
	r.held = slices.DeleteFunc(r.held, func(s string) bool { return s == p.Name })
	return nil
}

func (w *world) Write(_ context.Context, s *failback.Status) error {
	w.records = append(w.records, *s)
	return nil
}

// disk makes the bytes of a disk: the same for the same seed.
func disk(seed uint64, grains int) []byte {
	b := make([]byte, grains*grain)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

// differ changes one grain in so many.
func differ(b []byte, seed uint64, one int) []byte {
	b = bytes.Clone(b)
	other := disk(seed, len(b)/grain)
	for g := 0; g < len(b)/grain; g += one {
		copy(b[g*grain:(g+1)*grain], other[g*grain:(g+1)*grain])
	}
	return b
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		defer w.close()
		f(t, w)
	})
}

// newWorld has VM web with two disks of different sizes, failed over; web's
// replica has changed one grain in ten since.
func newWorld(t testing.TB) *world {
	log := &hosttest.Log{}
	w := &world{t: t, log: log, prod: hosttest.NewFake("prod", log), dr: hosttest.NewFake("dr", log), db: newMemory(), repl: &replicator{}}
	w.before = [][]byte{disk(1, 20), disk(2, 30)}
	nics := []hostctl.NIC{{Key: 4000, Label: "net0", Network: "dr-lan", Connected: true}}
	w.original = w.prod.Add(hostctl.VM{Ref: hostctl.Ref{UUID: "o", Name: "web"}}, w.before...)
	w.replica = w.dr.Add(hostctl.VM{Ref: hostctl.Ref{UUID: "r", Name: "web-replica"}, Power: hostctl.On, NICs: nics, CPUs: 2, MemoryMiB: 512}, differ(w.before[0], 3, 10), differ(w.before[1], 4, 10))
	hosttest.Twins(w.prod, w.original, w.dr, w.replica)
	w.mover = hosttest.NewMover(log, w.prod, w.dr)
	w.conf = failback.Config{
		Controller: "home", Mover: w.mover, Replication: w.repl, Record: w,
		Hosts: map[string]*hostctl.Host{"prod": w.prod.Host(), "dr": w.dr.Host()},
		Log:   slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if os.Getenv("HAULBACK_TEST_LOG") != "" {
		w.conf.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return w
}

// restore adds the VM of destination existing: an older image.
func (w *world) restore() {
	w.restored = w.prod.Add(hostctl.VM{Ref: hostctl.Ref{UUID: "t", Name: "web-restored"}}, differ(w.before[0], 5, 7), differ(w.before[1], 6, 7))
	hosttest.Twins(w.prod, w.restored, w.dr, w.replica)
}

// open starts a controller.
func (w *world) open() {
	w.t.Helper()
	if err := w.try(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) try() (err error) {
	c := w.conf
	if c.Store == nil {
		c.Store, c.Lease = w.db, w.db
	}
	if w.e, err = failback.Open(context.Background(), c); err != nil {
		return err
	}
	w.e.SetBug(w.bug)
	ctx, quit := context.WithCancel(context.Background())
	w.quit, w.ran = quit, make(chan error, 1)
	go func(e *failback.Engine) { w.ran <- e.Run(ctx) }(w.e)
	_, err = w.e.PutPair(ctx, w.pair(), 0)
	var f *job.Failure
	if errors.As(err, &f) && f.Reason == failback.ReasonExists {
		return nil
	}
	return err
}

func (w *world) pair() failback.Pair {
	return failback.Pair{Name: "web", Original: w.original, Replica: w.replica, State: failback.Failover}
}

// close ends the controller; the hosts stay.
func (w *world) close() {
	if w.e == nil {
		return
	}
	w.quit()
	<-w.ran
	_ = w.e.Close() // a dead one's lease is gone
	w.e = nil
}

func home() failback.Spec {
	return failback.Spec{VM: "web", Destination: failback.Original, PowerOn: true}
}

func existing() failback.Spec {
	return failback.Spec{VM: "web", Destination: failback.Existing, Target: hostctl.Query{Name: "web-restored"}, PowerOn: true}
}

func fresh() failback.Spec {
	return failback.Spec{VM: "web", Destination: failback.New, New: &failback.NewTarget{Name: "web-new"}, PowerOn: true, Networks: map[string]string{"dr-lan": "lan"}}
}

func (w *world) start(s failback.Spec) failback.Status {
	w.t.Helper()
	st, created, err := w.e.Start(context.Background(), "fb1", "root", s, cbt.Digest{})
	if err != nil || !created {
		w.t.Fatalf("start: %v, created %v", err, created)
	}
	return st
}

func (w *world) get() failback.Status {
	w.t.Helper()
	st, err := w.e.Get(context.Background(), "fb1")
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// until waits for a condition, an hour of virtual time at most.
func (w *world) until(what string, f func(*failback.Status) bool) failback.Status {
	w.t.Helper()
	for range 20000 {
		synctest.Wait()
		st := w.get()
		if f(&st) {
			return st
		}
		time.Sleep(500 * time.Millisecond)
	}
	st := w.get()
	w.t.Fatalf("never %s: %s", what, tell(&st))
	return st
}

func tell(st *failback.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "state %s, %s, wait %q, halted %+v\n", st.State, st.Activity, st.Wait, st.Halted)
	for _, s := range st.Steps {
		fmt.Fprintf(&b, "  %2d %-22s %-8s %d %s\n", s.Number, s.Name, s.State, s.Attempt, s.Text)
	}
	for _, x := range st.Warnings {
		fmt.Fprintf(&b, "  ! %s\n", x)
	}
	return b.String()
}

func (w *world) activity(a failback.Activity) failback.Status {
	w.t.Helper()
	return w.until(string(a), func(s *failback.Status) bool {
		if s.Halted != nil && a != "" {
			w.t.Fatalf("halted on the way to %s: %s", a, tell(s))
		}
		if s.Activity == a && a.Ended() {
			w.noOpenRow(s)
		}
		return s.Activity == a
	})
}

// noOpenRow fails where an ended failback has a step that is not: its record would
// not be believed.
func (w *world) noOpenRow(s *failback.Status) {
	w.t.Helper()
	for _, row := range s.Steps {
		if row.State == failback.Intent || row.State == failback.Compensating || row.Ended.IsZero() {
			w.t.Errorf("%s, and step %s is %s", s.Activity, row.Name, row.State)
		}
	}
}

func (w *world) halted() failback.Status {
	w.t.Helper()
	return w.until("halted", func(s *failback.Status) bool { return s.Halted != nil })
}

func (w *world) commit() failback.Status {
	w.t.Helper()
	if _, err := w.e.Commit(context.Background(), "fb1", failback.CommitOptions{By: "root"}, 0); err != nil {
		w.t.Fatal(err)
	}
	return w.activity(failback.Committed)
}

func (w *world) undo() failback.Status {
	w.t.Helper()
	if _, err := w.e.Undo(context.Background(), "fb1", failback.UndoOptions{By: "root"}, 0); err != nil {
		w.t.Fatal(err)
	}
	return w.activity(failback.Undone)
}

func (w *world) state(want failback.State) failback.Pair {
	w.t.Helper()
	p, err := w.e.Pair(context.Background(), "web")
	if err != nil || p.State != want {
		w.t.Errorf("pair %+v, %v; want state %s", p, err, want)
	}
	return p
}

// power fails unless a VM is so.
func (w *world) power(f *hosttest.Fake, vm hostctl.Ref, want hostctl.Power) {
	w.t.Helper()
	if is, ok := f.VM(vm.UUID); !ok || is.Power != want {
		w.t.Errorf("VM %s: power %v, want %v", vm.Name, is.Power, want)
	}
}

// equal fails unless the disks of two VMs are.
func (w *world) equal(a *hosttest.Fake, left hostctl.Ref, b *hosttest.Fake, right hostctl.Ref) {
	w.t.Helper()
	for i := range w.before {
		if !bytes.Equal(a.Bytes(left.UUID, i), b.Bytes(right.UUID, i)) {
			w.t.Errorf("disk %d of %s and %s differ", i, left.Name, right.Name)
		}
	}
}

// is fails unless the disks of a VM are these.
func (w *world) is(f *hosttest.Fake, vm hostctl.Ref, want [][]byte) {
	w.t.Helper()
	for i := range want {
		if !bytes.Equal(f.Bytes(vm.UUID, i), want[i]) {
			w.t.Errorf("disk %d of %s is not what it has to be", i, vm.Name)
		}
	}
}

func (w *world) bytes(f *hosttest.Fake, vm hostctl.Ref) (list [][]byte) {
	for i := range w.before {
		list = append(list, f.Bytes(vm.UUID, i))
	}
	return list
}

// clean fails where something of a run is left on a VM.
func (w *world) clean(f *hosttest.Fake, vm hostctl.Ref, keep ...string) {
	w.t.Helper()
	is, ok := f.VM(vm.UUID)
	if !ok {
		return
	}
	for _, s := range is.Snapshots {
		if !slices.ContainsFunc(keep, func(k string) bool { return strings.Contains(s.Name, k) }) {
			w.t.Errorf("VM %s: snapshot %s is left", vm.Name, s.Name)
		}
	}
	for key, value := range is.Marks {
		if key != hostctl.MarkMade && !slices.Contains(keep, key) {
			w.t.Errorf("VM %s: mark %s=%s is left", vm.Name, key, value)
		}
	}
	if len(is.Disabled) > 0 {
		w.t.Errorf("VM %s: %v are left disabled", vm.Name, is.Disabled)
	}
}

func (w *world) noMistakes() {
	w.t.Helper()
	for _, m := range w.log.Mistakes() {
		w.t.Errorf("mistake: %s", m)
	}
}

// refused fails unless an error has a reason and says what helps.
func refused(t testing.TB, err error, reason string) *job.Failure {
	t.Helper()
	var f *job.Failure
	if !errors.As(err, &f) || f.Reason != reason || f.Exit == 0 {
		t.Fatalf("%v; want %s", err, reason)
	}
	return f
}

var _ store.Store = (*memory)(nil)

func asFailure(err error) *job.Failure {
	f, _ := errors.AsType[*job.Failure](err)
	return f
}
