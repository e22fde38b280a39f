package job

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/hostctl/store/bolt"
)

// TestVirtualMinute runs an engine with its default times for two minutes
// that take none: what is written and told does not grow with what a transfer says,
// lease and delivery outlive their times, and nothing is left running (synctest
// fails a test that leaves a goroutine).
func TestVirtualMinute(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		db, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "db")})
		if err != nil {
			t.Fatal(err)
		}
		starts := 0
		e, err := Open(t.Context(), Config{Store: db, Queue: db, Lease: db, Log: quiet, Transfer: func(ctx context.Context, k *Task) (Outcome, error) {
			starts++
			k.Moving()
			for i := range int64(60000) {
				k.Progress(Counters{Scanned: i})
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Minute) // nothing is new: nothing is written, nothing told
			return Outcome{Verified: true}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- e.Run(ctx) }()
		if _, _, err := e.Submit(ctx, "j", "o", one("/t"), nil); err != nil {
			t.Fatal(err)
		}
		began, telemetry, changes := time.Now(), 0, 0
		for ev, err := range e.Watch(ctx, 0, Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if ev.Kind == Telemetry {
				telemetry++
			}
			if ev.Kind == Changed {
				changes++
			}
			if ended("j")(ev) {
				break
			}
		}
		if took := time.Since(began); took < 2*time.Minute || took > 2*time.Minute+time.Second {
			t.Errorf("took %v of virtual time", took)
		}
		if telemetry < 55 || telemetry > 61 || changes > 5 {
			t.Errorf("told %d times of counters, and %d changes", telemetry, changes)
		}
		writes := 0
		watched, stop := context.WithTimeout(ctx, time.Second)
		for c, err := range db.Watch(watched, "", 0) {
			if err == nil && c.Key == countersKey {
				writes++
			}
		}
		stop()
		if writes < 10 || writes > 13 {
			t.Errorf("counters were written %d times in a minute, want every 5 s", writes)
		}
		if starts != 1 {
			t.Errorf("started %d times", starts)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}
