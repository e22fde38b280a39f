package job

import (
	"context"
	"testing"

	"github.com/haulback/haulback/hostctl/store"
)

// slow is a store whose disk does not answer while it is held.
type slow struct {
	store.Store
	hold    chan chan struct{} // the next write waits until the channel in it is closed
	waiting chan struct{}
}

func (s *slow) Update(ctx context.Context, key string, value []byte, at uint64) (uint64, error) {
	select {
	case release := <-s.hold:
		s.waiting <- struct{}{}
		<-release
	default:
	}
	return s.Store.Update(ctx, key, value, at)
}

// TestSlowStore: while a write waits for the disk of the store, who only looks
// is answered, from what is durable.
func TestSlowStore(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	r.conf.Transfer = blocked
	if err := r.e.Close(); err != nil {
		t.Fatal(err)
	}
	s := &slow{Store: r.db, hold: make(chan chan struct{}, 1), waiting: make(chan struct{})}
	c := r.conf
	c.Store, c.Queue, c.Lease, c.Log = s, r.db, r.db, quiet
	var err error
	if r.e, err = Open(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	r.run()
	r.submit("j", one("/t"))
	r.await("j", InProgress)
	release, canceled := make(chan struct{}), make(chan error, 1)
	s.hold <- release
	go func() {
		_, err := r.e.Cancel(context.Background(), "j")
		canceled <- err
	}()
	<-s.waiting
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		if j, err := r.e.Get(t.Context(), "j"); err != nil || j.Phase != InProgress || j.Wanted != 0 {
			t.Errorf("get: %+v (%v)", j, err)
		}
		if jobs, _, err := r.e.List(t.Context(), Filter{}, Page{}); err != nil || len(jobs) != 1 {
			t.Errorf("list: %d jobs (%v)", len(jobs), err)
		}
		for ev, err := range r.e.Watch(t.Context(), 0, Filter{}) {
			if err != nil {
				t.Errorf("watch: %v", err)
			}
			if err != nil || ev.Kind == Synced {
				break
			}
		}
	}()
	<-looked // a hang here is the failure
	close(release)
	if err := <-canceled; err != nil {
		t.Fatal(err)
	}
	r.await("j", Canceled)
}
