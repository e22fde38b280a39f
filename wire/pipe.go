package wire

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
)

// pipeBuffer is what one stream of a pipe holds: less than QUIC's window, so
// that a program that needs more than that in flight shows it.
const pipeBuffer = 256 << 10

// Pipe returns the two ends of a link in memory between a and b. The first is
// a's: its Peer is b. It knows no loss and no keys, but bounds, deadlines and
// errors are those of the other transports.
func Pipe(a, b ID) (Link, Link) {
	secret := make([]byte, sha256.Size)
	rand.Read(secret)
	x := &pipeLink{ending: newEnding(), peer: b, secret: secret}
	y := &pipeLink{ending: newEnding(), peer: a, secret: secret}
	x.other, y.other = y, x
	// Each direction ends with the reader's link: both ends end at once.
	toY, toX := newConduit(pipeBuffer, y.done), newConduit(pipeBuffer, x.done)
	x.control = &stream{in: toX, out: toY, explain: x.explain}
	y.control = &stream{in: toY, out: toX, explain: y.explain}
	return x, y
}

type pipeLink struct {
	*ending
	other   *pipeLink
	peer    ID
	secret  []byte
	control Stream
	opened  claims
	coming  arrivals
}

func (l *pipeLink) Peer() ID           { return l.peer }
func (l *pipeLink) RemoteAddr() string { return "pipe" }
func (l *pipeLink) Transport() string  { return "pipe" }
func (l *pipeLink) Stats() LinkStats   { return LinkStats{Connections: 1} }
func (l *pipeLink) Control() Stream    { return l.control }

// explain waits for the reason: the other end's link ends a moment before or
// after this one.
func (l *pipeLink) explain(err error) error {
	if err != ErrClosed {
		return err
	}
	<-l.done
	return l.Err()
}

func (l *pipeLink) OpenSend(ctx context.Context, id StreamID) (Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := l.Err(); err != nil {
		return nil, err
	}
	if err := l.opened.take(id); err != nil {
		return nil, err
	}
	c := newConduit(pipeBuffer, l.other.done)
	if err := l.other.coming.arrive(id, &stream{in: c, explain: l.other.explain}); err != nil {
		return nil, err
	}
	return &stream{out: c, explain: l.explain}, nil
}

func (l *pipeLink) OpenReceive(ctx context.Context, id StreamID) (Stream, error) {
	return l.coming.wait(ctx, id, l.ending)
}

func (l *pipeLink) ExportKey(label string, context []byte, n int) ([]byte, error) {
	return hkdf.Expand(sha256.New, l.secret, label+"\x00"+string(context), n)
}

func (l *pipeLink) CloseWithError(code Code, text string) {
	if l.end(closedHere(code, text)) {
		l.other.end(&Error{Code: code, Text: clean(text), Remote: true})
	}
}
