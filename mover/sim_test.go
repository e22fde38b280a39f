package mover_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

// world is one simulated target machine: a disk and a state directory that
// lose what was not flushed, and programs that come and go. What a source
// sends to it lives outside and never crashes.
//
// The invariants are checked after every life of the machine:
//
//	I1 a disk that is Verified holds the source's bytes, durably
//	I2 what the journal calls durable holds the source's bytes, durably
//	I3 without further faults a run ends Verified
//	I4 a disk that was touched is not called Clean or Verified
//	I5 what the source was told is durable is in the journal
type world struct {
	rng   *rand.Rand
	cfg   mover.Config
	power *movertest.Power
	state *movertest.CrashableState
	dev   *movertest.Crashable
	plan  []movertest.Fault // for the next open of the target

	before  []byte // the target before the run
	want    []byte // the source
	run     wire.RunID
	lives   int
	lazy    int      // milliseconds a flush takes after its work
	net     *network // nil: links in memory
	terms   *terms   // nil: no limits and no tickets
	lying   bool
	track   wire.Tracking
	hint    cbt.Hint // of what differs between before and want
	liar    bool     // it leaves some of that out
	survive []int    // per cent of volatile sectors, one of these is drawn
	bug     mover.Bug
}

func newWorld(seed uint64, bug mover.Bug) *world {
	rng := rand.New(rand.NewPCG(seed, 0x4842))
	size := 1<<20 + rng.IntN(3<<20)
	w := &world{
		survive: []int{0, 30, 50, 90, 100},
		rng:     rng, power: movertest.NewPower(), before: image(rng, size), run: wire.RunID{1}, bug: bug,
		cfg: mover.WithBug(mover.Config{
			Memory: 64 << 20, Workers: 1 + rng.IntN(2), Checkpoint: 1 << 20, Window: 4 << 20, Batches: 64,
			CheckpointEvery: time.Duration(1+rng.IntN(40)) * time.Millisecond,
		}, bug),
	}
	if seed%2 == 1 {
		w.cfg.Refine = mover.On
	}
	if w.cfg.Sampling = (cbt.Sampling{Every: 1 + rng.Int64N(12), Least: 1}); rng.IntN(3) == 0 {
		w.track = wire.TrackingUse
		if w.liar = rng.IntN(3) == 0; w.liar {
			w.cfg.Sampling.Every = 1 // no lie goes unseen
		}
	}
	w.newRun(w.newContent())
	w.state = movertest.NewCrashableState(w.power)
	w.dev = movertest.NewCrashableFrom(w.power, w.before)
	return w
}

// newRun begins with a source that holds want, and a tracker that knows where
// the target differs from it.
func (w *world) newRun(want []byte) {
	w.want = want
	w.hint = cbt.Hint{Provider: "test", Size: int64(len(want)), Trust: cbt.Exact, Areas: slices.Collect(differing(w.before, want).All())}
	if w.liar {
		w.hint.Areas = slices.DeleteFunc(w.hint.Areas, func(cbt.Extent) bool { return w.rng.IntN(3) == 0 })
	}
}

// newContent is what a source may hold: related to the target, or not.
func (w *world) newContent() []byte {
	if w.rng.IntN(3) == 0 {
		return image(w.rng, len(w.before))
	}
	b := bytes.Clone(w.before)
	scribble(w.rng, b, 1+w.rng.IntN(40))
	return b
}

// open opens the target disk with the faults planned for it.
func (w *world) open(_ context.Context, a mover.Access) (mover.Disk, error) {
	mode := movertest.ReadOnly
	if a == mover.ReadWrite {
		mode = movertest.ReadWrite
	}
	d, err := w.dev.Open(mode)
	if err != nil {
		return nil, err
	}
	plan := w.plan
	w.plan = nil
	return lazyFlush{movertest.NewFaulty(d, plan...), time.Duration(w.lazy) * time.Millisecond}, nil
}

// lazyFlush is a disk whose Flush takes a while after the work is done: what
// is written meanwhile is not covered.
type lazyFlush struct {
	*movertest.Faulty
	d time.Duration
}

func (d lazyFlush) Flush() error {
	err := d.Faulty.Flush()
	time.Sleep(d.d)
	return err
}

// life runs the copy once, until it ends or the machine dies, and checks the
// invariants. It returns whether the run was Verified.
func (w *world) life(ctx context.Context, link func(wire.Link) wire.Link) (verified bool, runErr, violation error) {
	w.lives++
	machine, err := mover.NewEngine(w.cfg, w.state.Mount())
	if err != nil {
		return false, nil, err
	}
	srv := mover.NewServer(machine, nil)
	source, err := mover.NewEngine(w.cfg, nil)
	if err != nil {
		return false, nil, err
	}
	peer, listener, dial := w.connect(link)
	exp := mover.Export{Name: "disk", Role: mover.RoleTarget, Peers: []wire.ID{peer}, Open: w.open}
	job := mover.Job{
		Run: w.run, Mode: wire.ModeCopy, Retry: 3 * time.Minute, Track: w.track, Source: endpoint("source", disk(w.want)),
		Target: mover.Endpoint{Name: "disk", Remote: &mover.Remote{Name: "disk", Export: "disk", Dial: dial}},
	}
	job.Source.Hint = func(context.Context, mover.Disk) (cbt.Hint, error) { return w.hint, nil }
	ease := func() {}
	if w.terms != nil {
		self := wire.ID{2}
		if w.net != nil {
			self = w.net.far.ID()
		}
		ease = w.terms.apply(w, peer, self, &exp, &job, machine, source)
	}
	srv.SetExports([]mover.Export{exp})
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(serving, listener) }()

	p := new(mover.Progress)
	rep, runErr := source.Run(ctx, job, p)
	ease()
	if w.power.IsCut() || w.rng.IntN(3) == 0 { // the machine dies, or is stopped in order
		w.power.Crash(w.rng, w.survive[w.rng.IntN(len(w.survive))])
	}
	stop()
	<-served
	srv.Drain()
	_ = listener.Close()
	_ = machine.Close() // after a crash it can only fail
	_ = source.Close()
	return rep.State == wire.StateVerified && runErr == nil, runErr, w.check(rep, runErr, p)
}

// connect makes the way from the source to the machine: in memory, or with a
// net over QUIC.
func (w *world) connect(link func(wire.Link) wire.Link) (wire.ID, wire.Listener, func(context.Context) (wire.Link, error)) {
	if w.net != nil {
		return w.net.connect(link)
	}
	l := newPipeListener()
	return wire.ID{1}, l, func(ctx context.Context) (wire.Link, error) {
		a, b := wire.Pipe(wire.ID{1}, wire.ID{2})
		if err := l.offer(ctx, b); err != nil {
			return nil, err
		}
		if link != nil {
			return link(a), nil
		}
		return a, nil
	}
}

// check looks at the disk and the journal as the next program will find them.
func (w *world) check(rep mover.Report, runErr error, p *mover.Progress) error {
	w.power.CutAt(0) // one that did not come
	if runErr == nil {
		w.power.Crash(w.rng, 0) // whatever was only in a cache is gone
	}
	w.dev.DropCaches()
	have := w.dev.Durable()
	id := w.identity()
	j, err := mover.OpenJournal(w.state.Mount(), id, w.bug) // with the bug: not a better replay than the daemon's
	if err != nil {
		return fmt.Errorf("journal after life %d: %w", w.lives, err)
	}
	st := j.State()
	if err := j.Close(); err != nil {
		return err
	}
	equal := bytes.Equal(have, w.want)
	if (st.State == wire.StateVerified && st.Run == w.run || runErr == nil) && !equal {
		return fmt.Errorf("I1: Verified (report %v, journal %v) but the target differs at %d", rep.State, st.State, firstDiff(have, w.want))
	}
	if st.Session == w.run && !w.lying {
		for e := range st.Durable.All() {
			if !bytes.Equal(have[e.Off:e.End()], w.want[e.Off:e.End()]) {
				return fmt.Errorf("I2: the journal calls %v durable, it is not", e)
			}
		}
	}
	touched := !bytes.Equal(have, w.before)
	if touched && (st.State == wire.StateClean || st.Run != w.run) {
		return fmt.Errorf("I4: the disk was touched and its journal says %v of run %v", st.State, st.Run)
	}
	if c := p.Counters(); c.Durable > st.Durable.Len()+c.Redone*64<<10 && st.Session == w.run && c.Reconnects == 0 {
		return fmt.Errorf("I5: %d bytes acknowledged, %d in the journal", c.Durable, st.Durable.Len())
	}
	return nil
}

func (w *world) identity() string {
	d, err := w.dev.Open(movertest.ReadOnly)
	if err != nil {
		return err.Error()
	}
	defer d.Close() // only read
	return d.Identity()
}

func firstDiff(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// pipeListener accepts links that offer hands it.
type pipeListener struct{ c chan wire.Link }

func newPipeListener() *pipeListener { return &pipeListener{c: make(chan wire.Link)} }

func (l *pipeListener) offer(ctx context.Context, link wire.Link) error {
	select {
	case l.c <- link:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *pipeListener) Accept(ctx context.Context) (wire.Link, error) {
	select {
	case link := <-l.c:
		return link, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Addr() string { return "pipe" }
func (l *pipeListener) Close() error { return nil }

// trouble plans what goes wrong in the next life.
func (w *world) trouble() func(wire.Link) wire.Link {
	slow := func(op string, nth int, d time.Duration) movertest.Fault {
		return movertest.Fault{Op: op, Nth: nth, Count: 3, Hook: func() { time.Sleep(d) }}
	}
	if w.rng.IntN(2) == 0 { // writes return while the disk is being flushed
		w.plan = append(w.plan, slow("Flush", 1+w.rng.IntN(3), time.Duration(w.rng.IntN(50))*time.Millisecond))
	}
	if w.rng.IntN(2) == 0 {
		w.plan = append(w.plan, slow("WriteAt", 1+w.rng.IntN(8), time.Duration(w.rng.IntN(30))*time.Millisecond))
	}
	var link func(wire.Link) wire.Link
	if w.rng.IntN(2) == 0 { // data arrive one by one
		d := time.Duration(1+w.rng.IntN(10)) * time.Millisecond
		link = func(l wire.Link) wire.Link { return slowWrites{l, d} }
	}
	w.dev.LoseWrite(0)
	w.dev.FailFlush(0)
	w.lying, w.lazy = false, w.rng.IntN(2)*w.rng.IntN(40)
	switch w.rng.IntN(6) {
	case 0, 1:
		w.power.CutAt(1 + w.rng.IntN(60))
	case 2:
		w.dev.FailFlush(2 + w.rng.IntN(3))
		if w.rng.IntN(2) == 0 {
			w.power.CutAt(8 + w.rng.IntN(25))
		}
	case 3:
		w.lying = true // about one write; read-back finds it, the journal cannot
		w.dev.LoseWrite(1 + w.rng.IntN(8))
	case 4:
		n := w.rng.IntN(4)
		link = func(l wire.Link) wire.Link {
			if n--; n >= 0 {
				time.AfterFunc(time.Duration(1+w.rng.IntN(60))*time.Millisecond, func() { l.CloseWithError(wire.CodeTimeout, "cut by the test") })
			}
			return l
		}
	}
	return link
}

// simulate lives through one seed and returns the first violation.
func simulate(t *testing.T, seed uint64, bug mover.Bug) (violation error) {
	return simulateOn(t, seed, bug, nil)
}

// simulateOn is simulate with links over the network that attach makes.
func simulateOn(t *testing.T, seed uint64, bug mover.Bug, attach func(seed uint64) *network) (violation error) {
	return simulateBound(t, seed, bug, attach, nil)
}

// simulateBound is simulateOn where jobs are bound by terms, if there are any.
func simulateBound(t *testing.T, seed uint64, bug mover.Bug, attach func(seed uint64) *network, x *terms) (violation error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one order of events per seed, nearly
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		w := newWorld(seed, bug)
		w.terms = x
		if attach != nil {
			w.net = attach(seed)
			defer w.net.close()
		}
		for range 1 + w.rng.IntN(4) {
			if w.net != nil {
				w.net.trouble(w.rng)
			}
			_, _, err := w.life(ctx, w.trouble())
			if err != nil {
				violation = err
				return
			}
			if w.rng.IntN(4) == 0 { // another run, of another source
				w.before = w.dev.Durable()
				w.newRun(w.newContent())
				w.run[0]++
			}
		}
		w.power.CutAt(0)
		w.plan, w.lying = nil, false
		w.dev.LoseWrite(0)
		w.dev.FailFlush(0)
		if w.net != nil {
			w.net.quiet()
		}
		ok, err, bad := w.life(ctx, nil)
		switch {
		case bad != nil:
			violation = bad
		case !ok && !errors.Is(err, movertest.ErrPowerCut):
			violation = fmt.Errorf("I3: the run did not end Verified: %w", err)
		}
	})
	return violation
}

func TestSimulatedMachine(t *testing.T) {
	seeds := uint64(600)
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		if err := simulate(t, seed, 0); err != nil {
			t.Fatalf("seed %d: %v\nreplay: go test ./mover -run TestSimulatedMachineSeed -seed %d", seed, err, seed)
		}
	}
	t.Logf("figure: simulated machine: %d seeds, no invariant broken", seeds)
}

// TestSimulatedTerms is TestSimulatedMachine, and TestSimulatedNetwork, with
// limits that change while a job runs, and tickets that are over before it.
func TestSimulatedTerms(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 20
	}
	key := wiretest.Key(t)
	attach := newNetwork(t)
	for seed := range seeds {
		var net func(uint64) *network
		if seed%4 == 3 {
			net = attach
		}
		if err := simulateBound(t, seed, 0, net, newTerms(seed, []*wire.Key{nil, key}[seed/2%2])); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("figure: simulated machine with changing limits and short tickets: %d seeds, no invariant broken", seeds)
}

var simSeed = flag.Uint64("seed", 0, "the seed that TestSimulatedMachineSeed lives through")

func TestSimulatedMachineSeed(t *testing.T) {
	if err := simulate(t, *simSeed, 0); err != nil {
		t.Fatalf("seed %d: %v", *simSeed, err)
	}
}
