package worker

import (
	"strings"
	"sync"
)

// maxSaid bounds what is remembered of one VM in lines. What is new beyond it
// is said each time.
const maxSaid = 64

// said are the warnings of the library that were passed on: it gives most of
// them again whenever a disk is opened.
type said struct {
	mu    sync.Mutex
	lines map[string]bool
}

// first reports whether text was not said before. Numbers do not count: times,
// threads and addresses are others each time.
func (s *said) first(text string) bool {
	key := strings.Map(func(r rune) rune {
		if strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return -1
		}
		return r
	}, text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines[key] {
		return false
	}
	if s.lines == nil {
		s.lines = map[string]bool{}
	}
	if len(s.lines) < maxSaid {
		s.lines[key] = true
	}
	return true
}
