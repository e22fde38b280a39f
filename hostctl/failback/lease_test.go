package failback_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
)

// TestNoActionWithoutALease cuts a controller off from its lease while a step is
// tried again: it asks nothing more of a host, as another may have taken over.
func TestNoActionWithoutALease(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var asked atomic.Int32
		w.prod.Hook(func(m hosttest.Moment) error {
			if m.Method == "SetPower" && m.Step == "power-on" {
				asked.Add(1)
				return &hosttest.Error{Text: "busy", Again: true}
			}
			return nil
		})
		w.start(home())
		for asked.Load() < 3 {
			time.Sleep(time.Second)
		}
		w.db.mu.Lock()
		w.db.cutOff = true
		w.db.mu.Unlock()
		time.Sleep(29 * time.Second) // the lease lives for 30
		before := asked.Load()
		time.Sleep(5 * time.Minute)
		if n := asked.Load() - before; n > 0 {
			t.Errorf("%d actions without a lease", n)
		}
		w.prod.Hook(nil)
		w.db.mu.Lock()
		w.db.cutOff = false
		w.db.mu.Unlock()
		w.activity(failback.Deciding)
		w.power(w.prod, w.original, hostctl.On)
	})
}
