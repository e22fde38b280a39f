package mover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/haulback/haulback/wire"
)

// lane is a link whose control stream is in use. send is safe for concurrent
// use, receive is for one goroutine.
type lane struct {
	link wire.Link
	in   *wire.Reader

	turn chan struct{} // 1: who sends; a write may wait for the network
	out  []byte

	base uint32 // that of a Base before Open; 0: there was none

	ended  chan struct{} // closed when receive has failed
	unhook func() bool   // takes off what ends the lane with its caller's context; may be nil
	once   sync.Once
	reason error // after ended
}

func newLane(link wire.Link) *lane {
	return &lane{link: link, in: wire.NewReader(link.Control(), wire.MaxControlBody), ended: make(chan struct{}), turn: make(chan struct{}, 1)}
}

// send writes one frame to the control stream.
func (l *lane) send(f wire.Frame) error {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.out = wire.AppendFrame(l.out[:0], f)
	_, err := l.link.Control().Write(l.out)
	return onLink(err)
}

// receive reads the next control frame; the body is valid until the next call.
func (l *lane) receive() (wire.Type, []byte, error) {
	t, body, err := l.in.Next()
	if err != nil {
		err = onLink(err)
		l.once.Do(func() {
			l.reason = err
			close(l.ended)
		})
	}
	return t, body, err
}

// expect reads one frame of f's type within the deadline for answers.
func (l *lane) expect(f wire.Frame) error { return l.expectWithin(firstFrame, f) }

func (l *lane) expectWithin(d time.Duration, f wire.Frame) error {
	err := l.in.ExpectWithin(l.link.Control(), d, f)
	if errors.Is(err, os.ErrDeadlineExceeded) && l.link.Err() == nil {
		return wire.Errorf(wire.CodeTimeout, "no frame of type %d within %v", f.Type(), d)
	}
	return onLink(err)
}

// expectAlive is expectWithin a peer that may need longer and knocks meanwhile,
// or says what its job is limited to.
func (l *lane) expectAlive(d time.Duration, f wire.Frame, by *terms) error {
	for until := time.Now().Add(longest); ; {
		if err := l.link.Control().SetReadDeadline(time.Now().Add(d)); err != nil {
			return onLink(err)
		}
		t, body, err := l.in.Next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && l.link.Err() == nil, err == nil && t != f.Type() && time.Now().After(until):
			return wire.Errorf(wire.CodeTimeout, "no frame of type %d within %v", f.Type(), d)
		case err != nil:
			return onLink(err)
		case t == wire.TypePing:
			d = openWait // it lives
			continue
		case t == wire.TypePace:
			if err := by.takePace(body); err != nil {
				return err
			}
			continue
		case t == wire.TypeBase && f.Type() == wire.TypeOpen && l.base == 0:
			var b wire.Base
			if err := wire.Parse(&b, body); err != nil {
				return err
			}
			l.base = b.Pass
			continue
		case t != f.Type():
			return onLink(fmt.Errorf("%w: type %d where %d has to come", wire.ErrFrame, t, f.Type()))
		}
		if err := wire.Parse(f, body); err != nil {
			return err
		}
		return onLink(l.link.Control().SetReadDeadline(time.Time{}))
	}
}

// longest is how long a source may give signs of life and not begin: asking for
// the changes of a disk of many TiB takes minutes.
const longest = 30 * time.Minute

// why finds the reason behind an error of a one-way stream. When a link ends,
// all its streams fail at once; the control stream knows why, perhaps a moment
// later.
func (l *lane) why(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || !retryable(onLink(err)) {
		return err
	}
	if e, ok := errors.AsType[*wire.Error](err); ok && !e.Remote {
		return err // of this end: a disk, a hint
	}
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-l.ended:
		return l.reason
	case <-t.C:
	case <-ctx.Done():
	}
	return onLink(err)
}

// end closes the link, telling the peer why.
func (l *lane) end(err error) {
	if l.unhook != nil {
		l.unhook()
	}
	l.say(err)
}

// say closes the link with the reason.
func (l *lane) say(err error) {
	if err == nil {
		l.link.CloseWithError(wire.CodeOK, "done")
		return
	}
	code := wire.CodeInternal
	if errors.Is(err, context.Canceled) {
		code = wire.CodeCanceled
	}
	e := wire.AsError(err, code)
	if e.Remote {
		l.link.CloseWithError(wire.CodeOK, "")
		return
	}
	l.link.CloseWithError(e.Code, e.Text)
}

// knock sends a sign of life now and then while an answer takes its time. A
// peer that was killed and started again answers a packet with something in it
// at once with "I do not know you"; an empty one it drops, and this end would
// wait for the idle time-out. The function it returns stops that, and waits.
func (l *lane) knock() (stop func()) {
	return beside(func(stopped <-chan struct{}) {
		tick := time.NewTicker(knockEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if l.send(&wire.Ping{Reply: true}) != nil {
					return
				}
			case <-stopped:
				return
			}
		}
	})
}

// beside runs f in a goroutine until stop is called, which waits for its end.
func beside(f func(stopped <-chan struct{})) (stop func()) {
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		f(stopped)
	}()
	return func() {
		close(stopped)
		<-ended
	}
}

// knockEvery is short against every time-out.
const knockEvery = 2 * time.Second

// farewell waits, the last word being said, for the peer to close the link, and
// reports whether it did: then it has heard it.
func (l *lane) farewell(ctx context.Context) bool {
	t := time.NewTimer(firstFrame)
	defer t.Stop()
	select {
	case <-l.link.Done():
	case <-t.C:
	case <-ctx.Done():
	}
	l.link.CloseWithError(wire.CodeOK, "done")
	e, ok := errors.AsType[*wire.Error](l.link.Err())
	return ok && e.Remote
}

// endWith closes the link when the group of ctx fails, or parent is done: that
// wakes everyone who waits for a stream. A group that ends well, which cancels
// its context too, leaves the link open.
func (l *lane) endWith(ctx, parent context.Context) {
	context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); parent.Err() != nil || cause != context.Canceled {
			l.end(cause)
		}
	})
}

// whenDone cancels when the link ends: who waits for a disk must not go on
// waiting for a peer that is gone, or it takes the disk from its successor.
// The function it returns stops that, and waits.
func (l *lane) whenDone(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	return beside(func(stopped <-chan struct{}) {
		select {
		case <-l.link.Done():
			cancel(onLink(l.link.Err()))
		case <-stopped:
		case <-ctx.Done():
		}
	})
}
