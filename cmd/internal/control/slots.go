package control

import (
	"fmt"
	"sync"

	"github.com/haulback/haulback/hostctl/job"
)

// slots bounds how much goes on at once, of one caller and in all.
type slots struct {
	what   string
	max    int
	caller int

	mu sync.Mutex
	n  int
	by map[string]int
}

func newSlots(what string, limit, caller int) *slots {
	return &slots{what: what, max: limit, caller: caller, by: make(map[string]int)}
}

// take takes one, or refuses at once: to let callers wait is to keep what they
// sent. The caller gives it back once.
func (s *slots) take(who string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[who] >= s.caller {
		return nil, quota("%s has %d %s open, which is the most that one caller may have", who, s.by[who], s.what)
	}
	if s.n >= s.max {
		return nil, quota("%d %s are open, which is the most that this daemon has", s.n, s.what)
	}
	s.n++
	s.by[who]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.n--
		if s.by[who]--; s.by[who] == 0 {
			delete(s.by, who)
		}
	}, nil
}

func quota(format string, args ...any) error {
	return &job.Failure{Reason: job.ReasonQuota, Text: fmt.Sprintf(format, args...), Retry: job.RetryBackoff, Exit: 13}
}
