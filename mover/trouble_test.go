package mover_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// terms are what the jobs of a world are bound by besides its faults: limits that
// change while a job runs, of the job and of both daemons, and tickets that are
// soon over. They have a generator of their own, so that the other faults of a
// seed stay what they were.
type terms struct {
	rng *rand.Rand
	key *wire.Key // of the controller; nil: no tickets
	mu  sync.Mutex
}

func newTerms(seed uint64, key *wire.Key) *terms {
	return &terms{rng: rand.New(rand.NewPCG(seed, 0x7e51)), key: key}
}

// limits are some, or none.
func (x *terms) limits() (l throttle.Limits) {
	x.mu.Lock()
	defer x.mu.Unlock()
	rate := func() int64 {
		if x.rng.IntN(2) == 0 {
			return 0
		}
		return 1 << (20 + x.rng.IntN(6)) // a batch gets through in the life of a ticket
	}
	l = throttle.Limits{Wire: rate(), Read: rate(), Priority: throttle.Priority(x.rng.IntN(3) - 1)}
	if x.rng.IntN(3) == 0 {
		l.Latency = time.Duration(1+x.rng.IntN(20)) * time.Millisecond
	}
	if x.rng.IntN(4) == 0 { // its end comes while the job runs, or never
		l.Windows = []throttle.Window{{From: x.rng.IntN(1440), To: x.rng.IntN(1440), Wire: rate(), Read: rate()}}
	}
	return l
}

// pace sets limits again and again until stop is called.
func (x *terms) pace(sets ...func(throttle.Limits) error) (stop func()) {
	x.mu.Lock()
	every := time.Duration(1+x.rng.IntN(60)) * time.Millisecond
	left := 1 + x.rng.IntN(100)
	x.mu.Unlock()
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < left; i++ {
			for _, set := range sets {
				if err := set(x.limits()); err != nil {
					panic(err) // limits of the test
				}
			}
			select {
			case <-over:
				return
			case <-time.After(every):
			}
		}
		<-over
	}()
	return func() { close(over); <-done }
}

// apply binds a job of w from source to machine.
func (x *terms) apply(w *world, peer, self wire.ID, exp *mover.Export, job *mover.Job, engines ...*mover.Engine) (stop func()) {
	thr := new(throttle.Throttle)
	job.Throttle = thr
	sets := []func(throttle.Limits) error{thr.Set}
	for _, e := range engines {
		sets = append(sets, e.SetLimits)
	}
	if x.key != nil {
		exp.Tickets = &mover.TicketPolicy{Self: []wire.ID{self}, Controllers: []wire.ID{x.key.ID()}}
		job.Target.Remote.Ticket = x.ticket(w, peer, self)
	}
	return x.pace(sets...)
}

// ticket gives tickets that last for a few seconds, and now and then the one before
// while it is good.
func (x *terms) ticket(w *world, peer, self wire.ID) mover.TicketFunc {
	id, size, epoch := w.identity(), int64(len(w.before)), uint64(w.lives)<<16 // later than all of the life before
	var last []byte
	var until time.Time
	return func(context.Context) ([]byte, error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if time.Now().Before(until) && x.rng.IntN(3) == 0 {
			return last, nil
		}
		if x.rng.IntN(8) == 0 { // the controller is another one now
			epoch++
		}
		k := wire.Ticket{
			Op: wire.TicketWrite, Run: w.run, Source: peer, Target: self, Epoch: epoch, Life: time.Duration(8+x.rng.IntN(8)) * time.Second,
			Size: size, Export: "disk", Identity: id,
		}
		until = time.Now().Add(k.Life)
		var err error
		last, err = k.Sign(x.key, time.Now())
		return last, err
	}
}
