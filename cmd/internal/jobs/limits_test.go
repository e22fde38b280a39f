package jobs

import (
	"testing"

	"github.com/haulback/haulback/mover/throttle"
)

// TestShares: the disks of a job share one throttle, those of two jobs do not,
// and nothing is kept of a job without disks.
func TestShares(t *testing.T) {
	var s Shares
	take := func(job string, rate int64) *throttle.Throttle {
		t.Helper()
		th, err := s.take(job, throttle.Limits{Wire: rate})
		if err != nil {
			t.Fatal(err)
		}
		return th
	}
	a, b, other := take("a", 1<<20), take("a", 2<<20), take("b", 1<<20)
	if a != b || a == other {
		t.Errorf("two disks of a job have %p and %p, another job %p", a, b, other)
	}
	if now, _, _ := a.Now(); now.Wire != 2<<20 {
		t.Errorf("after the second disk came with newer limits: %d", now.Wire)
	}
	if _, err := s.take("a", throttle.Limits{Wire: 1}); err == nil {
		t.Error("a limit of 1 byte per second was taken")
	}
	s.drop("a")
	if c := take("a", 1<<20); c != a {
		t.Error("one of two disks has ended, and the next gets another throttle")
	}
	for range 2 {
		s.drop("a")
	}
	s.drop("b")
	if len(s.live) != 0 {
		t.Errorf("kept without disks: %v", s.live)
	}
}
