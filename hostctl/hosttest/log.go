package hosttest

import (
	"slices"
	"sync"
)

// Event is one thing that was changed: by a host action, a pass, or somebody
// outside. What was found as it should be is none.
type Event struct {
	Host, Method, Step, VM string
	Text                   string
}

// Log has the events of several hosts and movers in order. Safe for concurrent
// use.
type Log struct {
	mu       sync.Mutex
	events   []Event
	mistakes []string
}

// Events are those so far.
func (l *Log) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// Mistakes are calls that a careful caller does not make: what was there was
// asked for, a VM that is on was written to, two of one VM ran.
func (l *Log) Mistakes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mistakes)
}

func (l *Log) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *Log) mistake(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mistakes = append(l.mistakes, text)
}
