package hosttest

import (
	"context"
	"sync"
	"time"
)

// When is the moment of a fault within a call.
type When uint8

// The moments.
const (
	Before When = iota + 1 // nothing was done
	Lost                   // it was done, and the reply is lost
	Lied                   // nothing was done, and the reply says that it was
)

// Fault is a planned one. The zero Method or Step is any.
type Fault struct {
	Method string // "Protect"
	Step   string // of the Op
	VM     string // name
	Skip   int    // calls that go well before it
	Times  int    // how often; 0: once; negative: always
	When   When   // 0: none, for Delay alone
	Final  bool   // the error is not retryable
	Text   string
	Delay  time.Duration // the host's task takes so long
	At     int64         // Move: bytes that are compared before it
}

// Error is what a planned fault answers.
type Error struct {
	Text  string
	Again bool
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Retryable says whether the call may be made again.
func (e *Error) Retryable() bool { return e.Again }

func (f *Fault) err() error {
	text := f.Text
	if text == "" {
		text = f.Method + ": planned fault"
	}
	return &Error{Text: text, Again: !f.Final}
}

// Moment is a place in a call where a test may look, or end it with an error.
type Moment struct {
	Host, Method, Step, VM string
	Done                   bool // it was done, the caller does not know yet
}

// faults is a plan.
type faults struct {
	mu   sync.Mutex
	plan []*Fault
	hook func(Moment) error
	down error
}

// Plan adds faults.
func (p *faults) Plan(list ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range list {
		if f.Times == 0 {
			f.Times = 1
		}
		p.plan = append(p.plan, &f)
	}
}

// Hook is called in every call that changes something, before and after.
func (p *faults) Hook(f func(Moment) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = f
}

// Down makes every call fail with a retryable error, until it is called with
// false.
func (p *faults) Down(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down = nil; down {
		p.down = &Error{Text: "connection refused: the host is down", Again: true}
	}
}

// next is the fault of this call, or the zero value.
func (p *faults) next(method, step, vm string) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.plan {
		if f.Times == 0 || f.Method != "" && f.Method != method || f.Step != "" && f.Step != step || f.VM != "" && f.VM != vm {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			return Fault{}
		}
		f.Times--
		return *f
	}
	return Fault{}
}

func (p *faults) at(m Moment) error {
	p.mu.Lock()
	hook := p.hook
	p.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(m)
}

// reach is the beginning of every call.
func (p *faults) reach(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}
