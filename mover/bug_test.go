package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// finders are the tests that have to find a bug. Each returns what it found;
// without a bug that is nothing.
var finders = map[string]func(t *testing.T, bug mover.Bug) error{
	"no drain of old session":  lateWrites,
	"no journal record sum":    damagedRecords,
	"no binding":               flippedBits,
	"no digest check":          flippedBits,
	"lower epoch accepted":     staleOwner,
	"hint believed":            believedLie,
	"hint of any base":         anyBase,
	"pieces not checked":       flippedPieces,
	"piece at another place":   piecesInPlace,
	"answer of the first read": staleAnswers,
}

// bugSeeds is within how many seeds the simulated machine has to find a bug.
const bugSeeds = 1000

// TestBugsAreFound proves that the suite bites: every deliberate mistake in
// the engine is found, and none is reported when there is none.
func TestBugsAreFound(t *testing.T) {
	if len(mover.Bugs) != mover.BugCount {
		t.Fatalf("%d bugs have names, there are %d", len(mover.Bugs), mover.BugCount)
	}
	for name, bug := range mover.Bugs {
		t.Run(name, func(t *testing.T) {
			if find := finders[name]; find != nil {
				if err := find(t, 0); err != nil {
					t.Fatalf("found without a bug: %v", err)
				}
				err := find(t, bug)
				if err == nil {
					t.Fatal("not found")
				}
				t.Logf("figure: deliberate bug %q found: %v", name, err)
				return
			}
			for seed := range uint64(bugSeeds) {
				if err := simulate(t, seed, bug); err != nil {
					t.Logf("figure: deliberate bug %q found by seed %d: %v", name, seed, err)
					return
				}
			}
			t.Fatalf("not found in %d seeds", bugSeeds)
		})
	}
}

// site is a target daemon in the test's process and a way to copy to it.
type site struct {
	engine *mover.Engine
	server *mover.Server
	listen *pipeListener
	wrap   func(wire.Link) wire.Link // what the next dials give
}

func newSite(ctx context.Context, cfg mover.Config, state mover.StateDir, exports ...mover.Export) (*site, error) {
	e, err := mover.NewEngine(cfg, state)
	if err != nil {
		return nil, err
	}
	s := &site{engine: e, server: mover.NewServer(e, nil), listen: newPipeListener()}
	for i := range exports {
		exports[i].Peers = []wire.ID{{1}}
	}
	s.server.SetExports(exports)
	go func() { _ = s.server.Serve(ctx, s.listen) }()
	return s, nil
}

func (s *site) remote(export string) mover.Endpoint {
	return mover.Endpoint{Name: export, Remote: &mover.Remote{Name: export, Export: export, Dial: s.dial}}
}

func (s *site) dial(ctx context.Context) (wire.Link, error) {
	a, b := wire.Pipe(wire.ID{1}, wire.ID{2})
	if err := s.listen.offer(ctx, b); err != nil {
		return nil, err
	}
	if s.wrap != nil {
		return s.wrap(a), nil
	}
	return a, nil
}

// bubble runs f in a synctest bubble and returns its error.
func bubble(t *testing.T, f func(ctx context.Context) error) (err error) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err = f(ctx)
	})
	return err
}

// push copies content to the site's export with a source of its own.
func (s *site) push(ctx context.Context, cfg mover.Config, run wire.RunID, content []byte, p *mover.Progress) (mover.Report, error) {
	source, err := mover.NewEngine(cfg, nil)
	if err != nil {
		return mover.Report{}, err
	}
	defer source.Close() // holds nothing
	return source.Run(ctx, mover.Job{
		Run: run, Mode: wire.ModeCopy, Retry: 20 * time.Minute, Source: endpoint("source", disk(content)), Target: s.remote("disk"),
	}, p)
}

// lateWrites cuts the link while a write hangs in the target's disk. The next
// session must not begin before that write has returned.
func lateWrites(t *testing.T, bug mover.Bug) error {
	return bubble(t, func(ctx context.Context) error {
		rng := rand.New(rand.NewPCG(1, 2))
		want := image(rng, 3<<20)
		power := movertest.NewPower()
		dev := movertest.NewCrashable(power, int64(len(want)))
		held, err := dev.Open(movertest.ReadWrite)
		if err != nil {
			return err
		}
		var inFlight, overlap atomic.Bool // with the bug, sessions are not kept apart
		var wasSlow atomic.Bool
		export := mover.Export{Name: "disk", Role: mover.RoleTarget, Open: func(context.Context, mover.Access) (mover.Disk, error) {
			if inFlight.Load() {
				overlap.Store(true)
			}
			d := &shared{movertest.NewFaulty(held)}
			d.Plan(movertest.Fault{Op: "WriteAt", Hook: func() {
				if wasSlow.CompareAndSwap(false, true) {
					inFlight.Store(true)
					time.Sleep(5 * time.Minute)
					inFlight.Store(false)
				}
			}})
			return d, nil
		}}
		cfg := mover.WithBug(mover.Config{Memory: 64 << 20, Linger: time.Nanosecond}, bug)
		s, err := newSite(ctx, cfg, memState{}, export)
		if err != nil {
			return err
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		cuts := 1
		s.wrap = func(l wire.Link) wire.Link {
			if cuts--; cuts >= 0 {
				time.AfterFunc(time.Second, func() { l.CloseWithError(wire.CodeTimeout, "cut by the test") })
			}
			return l
		}
		_, err = s.push(ctx, cfg, wire.RunID{1}, want, new(mover.Progress))
		if overlap.Load() {
			return errors.New("a session opened the disk while a write of the old one was in flight")
		}
		if err != nil {
			return fmt.Errorf("the run did not end: %w", err)
		}
		return nil
	})
}

// shared is a disk that does not protect itself: no exclusive hold, closing it
// does nothing.
type shared struct{ *movertest.Faulty }

func (shared) Close() error { return nil }

// staleOwner lets a source come back after another one has taken the disk over
// and finished.
func staleOwner(t *testing.T, bug mover.Bug) error {
	return bubble(t, func(ctx context.Context) error {
		rng := rand.New(rand.NewPCG(3, 4))
		old, fresh := image(rng, 2<<20), image(rng, 2<<20)
		target := disk(make([]byte, 2<<20))
		cfg := mover.WithBug(mover.Config{Memory: 64 << 20}, bug)
		state := movertest.NewCrashableState(movertest.NewPower())
		s, err := newSite(ctx, cfg, state.Mount(), mover.Export{Name: "disk", Role: mover.RoleTarget, Open: endpoint("disk", target).Open})
		if err != nil {
			return err
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		var dials atomic.Int32
		s.wrap = func(l wire.Link) wire.Link {
			if dials.Add(1) == 1 { // the first source loses its link in mid-copy; another one does all its work
				time.AfterFunc(time.Millisecond, func() { l.CloseWithError(wire.CodeTimeout, "cut by the test") })
			}
			return slowWrites{l, time.Millisecond}
		}
		result := make(chan error, 1)
		go func() {
			_, err := s.push(ctx, cfg, wire.RunID{1}, old, new(mover.Progress))
			result <- err
		}()
		time.Sleep(50 * time.Millisecond) // the first waits 100 ms and more before it comes back
		if _, err := s.push(ctx, cfg, wire.RunID{2}, fresh, new(mover.Progress)); err != nil {
			return fmt.Errorf("the second source: %w", err)
		}
		first := <-result
		if !bytes.Equal(target.Bytes(), fresh) {
			return errors.New("a source that was fenced off overwrote the disk of its successor")
		}
		if e, ok := errors.AsType[*wire.Error](first); !ok || e.Code != wire.CodeFenced {
			return fmt.Errorf("the first source ended with %w and not with code fenced", first)
		}
		return nil
	})
}

// slowWrites is a link whose data streams take a while for each write.
type slowWrites struct {
	wire.Link
	d time.Duration
}

func (l slowWrites) OpenSend(ctx context.Context, id wire.StreamID) (wire.Stream, error) {
	s, err := l.Link.OpenSend(ctx, id)
	return slowStream{s, l.d}, err
}

type slowStream struct {
	wire.Stream
	d time.Duration
}

func (s slowStream) Write(p []byte) (int, error) {
	time.Sleep(s.d)
	return s.Stream.Write(p)
}

// damagedRecords flips every bit of a journal, one at a time: what is replayed
// is then what was before the record, or "Inconsistent, damaged", and never
// something that was not written.
func damagedRecords(t *testing.T, bug mover.Bug) error {
	j := newJournalFile(t)
	good := j.states()
	for off := range len(j.bytes) {
		if j.bytes[off] == 0 && off%97 != 0 { // padding: a sample of it will do
			continue
		}
		for bit := range 8 {
			if testing.Short() && bit != off%8 { // each costs 8 MiB of memory
				continue
			}
			st, err := j.replay(off, byte(1)<<bit, bug)
			if err != nil {
				return fmt.Errorf("byte %d bit %d: %w", off, bit, err)
			}
			if st.State == wire.StateInconsistent && st.Reason != "" {
				continue
			}
			if !good[stateKey(st)] {
				return fmt.Errorf("byte %d bit %d: replayed to a state that never was: %+v", off, bit, st)
			}
		}
	}
	return nil
}

// flippedBits turns over single bits of Data frames behind TLS's back, as bad
// memory does: each must be refused for what it is, before anything is written.
func flippedBits(t *testing.T, bug mover.Bug) error {
	rng := rand.New(rand.NewPCG(7, 7))
	want := image(rng, 1<<20)
	clear(want[5*cbt.GrainSize : 7*cbt.GrainSize])
	for n := range 120 {
		target := disk(make([]byte, len(want)))
		err := bubble(t, func(ctx context.Context) error {
			cfg := mover.WithBug(mover.Config{Memory: 64 << 20, Workers: 1}, bug)
			state := movertest.NewCrashableState(movertest.NewPower())
			s, err := newSite(ctx, cfg, state.Mount(), mover.Export{Name: "disk", Role: mover.RoleTarget, Open: endpoint("disk", target).Open})
			if err != nil {
				return err
			}
			defer func() { s.server.Drain(); _ = s.engine.Close() }()
			at := rng.IntN(400 << 10)
			if n%2 == 0 {
				at = 8 + rng.IntN(100) // the head of the frame and of its first record
			}
			s.wrap = func(l wire.Link) wire.Link { return flipping{l, at, byte(1) << rng.IntN(8)} }
			p := new(mover.Progress)
			_, err = s.push(ctx, cfg, wire.RunID{1}, want, p)
			e, ok := errors.AsType[*wire.Error](err)
			if !ok || p.Counters().Redone > 0 {
				return fmt.Errorf("bit at %d: run ended with %v after %d redone", at, err, p.Counters().Redone)
			}
			switch e.Code {
			case wire.CodeFrame, wire.CodeBinding, wire.CodeDigest, wire.CodeDecompress, wire.CodeExtent, wire.CodeFenced:
				return nil
			}
			return fmt.Errorf("bit at %d: code %v", at, e.Code)
		})
		if err != nil {
			return err
		}
		if !cbt.IsZero(target.Bytes()) {
			return errors.New("a damaged frame was written")
		}
	}
	return nil
}

// flipping is a link that turns over one bit of the first write of each data
// stream.
type flipping struct {
	wire.Link
	at   int
	mask byte
}

func (l flipping) OpenSend(ctx context.Context, id wire.StreamID) (wire.Stream, error) {
	s, err := l.Link.OpenSend(ctx, id)
	if err != nil || id.Kind != wire.StreamData {
		return s, err
	}
	return &flipStream{Stream: s, flipping: l}, nil
}

type flipStream struct {
	wire.Stream
	flipping
	done bool
}

func (s *flipStream) Write(p []byte) (int, error) {
	if s.done || s.at >= len(p) {
		return s.Stream.Write(p)
	}
	s.done = true
	q := bytes.Clone(p)
	q[s.at] ^= s.mask
	n, err := s.Stream.Write(q)
	if n == len(q) && err == nil {
		return len(p), nil
	}
	return n, errors.Join(err, io.ErrShortWrite)
}
