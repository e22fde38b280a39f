package wire

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// A QUIC connection is one goroutine's work and has one Reno, so a link may
// have several. The further ones come from the end that dialed the first, speak
// a protocol of their own, and prove that they belong to the link before they
// carry anything (doc.go, "Links").
const (
	moreALPN  = "haulback-more/1"
	moreLabel = "EXPORTER-haulback-more"
	moreMagic = "HBQ1"
	moreYes   = 1 // the listener's answer
)

// MaxConnections bounds the connections of a link.
const MaxConnections = 64

const (
	// widenTimeout is below openTimeout, for which the listener waits for the
	// first byte of the control stream. 64 connections at 100 ms take 2 s.
	widenTimeout = 3 * time.Second
	// widenAtOnce leaves room for others: the listener gives a network of 256
	// addresses eight slots.
	widenAtOnce = 4
	// A listener that has no slot may have one soon.
	busyTries = 3
	busyPause = 100 * time.Millisecond
)

// errOneConnection is what the alert of an older peer means here.
var errOneConnection = errors.New("wire: the peer has links of one connection only")

type moreName [16]byte

// moreSecret is what the two ends of a link have from its first connection's
// exporter. The name is told; the key is not.
type moreSecret struct {
	name moreName
	key  [sha256.Size]byte
}

func newMoreSecret(first *quic.Conn) (s moreSecret, err error) {
	state := first.ConnectionState().TLS
	b, err := state.ExportKeyingMaterial(moreLabel, nil, len(s.name)+len(s.key))
	if err == nil {
		copy(s.key[:], b[copy(s.name[:], b):])
	}
	return s, err
}

// proof is worth something on this one connection of this one link only.
func (s *moreSecret) proof(conn *quic.Conn) ([sha256.Size]byte, error) {
	state := conn.ConnectionState().TLS
	bound, err := state.ExportKeyingMaterial(moreLabel, nil, sha256.Size)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return s.seal(bound), nil
}

func (s *moreSecret) seal(bound []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write(bound)
	return [sha256.Size]byte(mac.Sum(nil))
}

// moreHeader is what the dialer begins the bidirectional stream of a further
// connection with.
type moreHeader struct {
	name  moreName
	proof [sha256.Size]byte
}

const moreHeaderLen = len(moreMagic) + len(moreName{}) + sha256.Size

func (h moreHeader) append(b []byte) []byte {
	return append(append(append(b, moreMagic...), h.name[:]...), h.proof[:]...)
}

func parseMore(b [moreHeaderLen]byte) (h moreHeader, err error) {
	if string(b[:len(moreMagic)]) != moreMagic {
		return h, fmt.Errorf("%w: header of a further connection % x", ErrFrame, b[:len(moreMagic)])
	}
	copy(h.proof[:], b[len(moreMagic)+copy(h.name[:], b[len(moreMagic):]):])
	return h, nil
}

// widen dials connections until the link has n. When that cannot be, the link
// goes on with what it has, and Stats says why.
func (l *quicLink) widen(ctx context.Context, n int) {
	if n < 2 {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, widenTimeout, fmt.Errorf("wire: not within %v", widenTimeout))
	defer cancel()
	defer context.AfterFunc(l.first.Context(), cancel)() // who refuses us does so only now
	if err := l.more(ctx, connWindow(1)); err != nil {   // alone: it counts for the windows of the others
		l.lacks(err)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	var todo atomic.Int64
	todo.Store(int64(n - 2))
	for range min(n-2, widenAtOnce) {
		wg.Go(func() {
			for todo.Add(-1) >= 0 {
				if err := l.more(ctx, connWindow(2)); err != nil {
					l.lacks(err)
					return
				}
			}
		})
	}
}

// more makes one more connection. Once the listener may have taken it, it is
// waited for without ctx, so that the two ends do not see two links.
func (l *quicLink) more(ctx context.Context, window uint64) error {
	conf, err := pinned(l.socket.key, moreALPN, []ID{l.peer})
	if err != nil {
		return err
	}
	var conn *quic.Conn
	for try := 1; ; try++ {
		conn, err = l.socket.connect(ctx, l.addr, conf, window)
		tr, ok := errors.AsType[*quic.TransportError](err)
		if !ok || tr.ErrorCode != quic.ConnectionRefused || try == busyTries {
			break
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
		}
	}
	if err != nil {
		if AsError(err, CodeOK).Code == CodeVersion {
			err = errOneConnection
		}
		return err
	}
	if err := l.add(conn, window); err != nil {
		conn.CloseWithError(quic.ApplicationErrorCode(CodeCanceled), "")
		return err
	}
	asked := make(chan error, 1) // 1: nobody may wait for it any more
	go func() {
		err := l.ask(conn)
		if err != nil {
			conn.CloseWithError(quic.ApplicationErrorCode(AsError(err, CodeTimeout).Code), "")
		}
		asked <- err
	}()
	select {
	case err := <-asked:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask has the listener take conn into the link.
func (l *quicLink) ask(conn *quic.Conn) error {
	st, err := conn.OpenStream()
	if err != nil {
		return l.reason(err)
	}
	proof, err := l.secret.proof(conn)
	if err != nil {
		return err
	}
	st.SetDeadline(time.Now().Add(openTimeout))
	if _, err := st.Write(moreHeader{l.secret.name, proof}.append(nil)); err != nil {
		return l.reason(err)
	}
	st.Close()
	var answer [1]byte
	if _, err := io.ReadFull(st, answer[:]); err != nil {
		return l.reason(err)
	}
	if answer[0] != moreYes {
		return Errorf(CodeFrame, "%w: answer %d to a further connection", ErrFrame, answer[0])
	}
	return l.use(conn)
}

// more takes a further connection to its link. The proof comes before anything
// that could do a link harm.
func (l *quicListener) more(ctx context.Context, conn *quic.Conn, window uint64) error {
	peer, err := provenID(conn.ConnectionState().TLS, moreALPN)
	if err != nil {
		return err
	}
	st, err := acceptControl(ctx, conn)
	if err != nil {
		return err
	}
	st.SetDeadline(time.Now().Add(openTimeout))
	var b [moreHeaderLen]byte
	if _, err := io.ReadFull(st, b[:]); err != nil {
		return fmt.Errorf("wire: no header: %w", err)
	}
	h, err := parseMore(b)
	if err != nil {
		return err
	}
	link, err := l.roster.find(ctx, h.name)
	if err != nil {
		return err
	}
	proof, err := link.secret.proof(conn)
	if err != nil {
		return err
	}
	if !hmac.Equal(proof[:], h.proof[:]) || link.peer != peer {
		return Errorf(CodeUnauthorized, "%w: a connection for a link that is not its own", ErrUnknownPeer)
	}
	if err := link.add(conn, window); err != nil {
		return err
	}
	if err := link.use(conn); err != nil {
		return err
	}
	// This never waits, and what comes of it the link will see.
	_, _ = st.Write([]byte{moreYes})
	_ = st.Close()
	return nil
}
