package wire

import "sync"

// ending is why and that a link has ended. The first call of end counts.
type ending struct {
	mu   sync.Mutex
	err  error
	done chan struct{}
}

func newEnding() *ending { return &ending{done: make(chan struct{})} }

// end reports whether it was the one that ended the link.
func (e *ending) end(err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return false
	}
	e.err = err
	close(e.done)
	return true
}

// Done implements Link.
func (e *ending) Done() <-chan struct{} { return e.done }

// Err implements Link.
func (e *ending) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// closedHere is the end of a link that this end asked for.
func closedHere(code Code, text string) *Error {
	return &Error{Code: code, Text: clean(text), Err: ErrClosed}
}
