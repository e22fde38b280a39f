package failback_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/failback"
)

// TestFullStore fills the disk of the store at many moments: nothing spins,
// nothing is done that is not in the journal, and it goes on when there is room.
func TestFullStore(t *testing.T) {
	full := errors.New("no space left on device")
	for _, at := range []int32{1, 2, 5, 9, 17, 26, 33, 41, 48, 55} {
		if testing.Short() && at%4 != 1 {
			continue
		}
		bubble(t, func(t *testing.T, w *world) {
			var n, tried atomic.Int32
			var room atomic.Bool
			w.db.setHook(func(_ string, done bool) error {
				if done || n.Add(1) < at || room.Load() {
					return nil
				}
				tried.Add(1)
				return full
			})
			s := home()
			s.Policy = failback.Policy{After: time.Hour}
			_ = w.startFull(s)
			time.Sleep(10 * time.Minute)
			room.Store(true)
			if tried.Load() > 10*60*3 {
				t.Errorf("%d tries in 10 minutes", tried.Load())
			}
			if err := w.startFull(s); err != nil {
				t.Fatalf("full from change %d: %v", at, err)
			}
			w.until("ends", func(s *failback.Status) bool {
				if s.Halted != nil {
					if !strings.Contains(s.Halted.Text, "no space") {
						t.Fatalf("%s", tell(s))
					}
					_, _ = w.e.Continue(context.Background(), "fb1", 0)
				}
				return s.Activity == failback.Committed
			})
			time.Sleep(time.Minute)
			if list, _, _ := w.db.List(t.Context(), "claim."); len(list) > 0 {
				t.Errorf("%d claims are left", len(list))
			}
			w.noMistakes()
			w.equal(w.prod, w.original, w.dr, w.replica)
		})
	}
}

// TestClaimsGoInTheEnd has a store that does not delete for a while.
func TestClaimsGoInTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(manual(home)())
		w.activity(failback.Standing)
		var room atomic.Bool
		w.db.setHook(func(key string, _ bool) error {
			if !room.Load() && strings.HasPrefix(key, "claim.") {
				return errors.New("no space left on device")
			}
			return nil
		})
		if _, err := w.e.Cancel(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Canceled)
		time.Sleep(time.Minute)
		room.Store(true)
		time.Sleep(time.Minute)
		if list, _, _ := w.db.List(t.Context(), "claim."); len(list) > 0 {
			t.Errorf("%d claims are left", len(list))
		}
	})
}

// startFull starts where the store may be full.
func (w *world) startFull(s failback.Spec) error {
	_, _, err := w.e.Start(context.Background(), "fb1", "root", s, cbt.Digest{})
	return err
}
