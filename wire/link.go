package wire

import (
	"context"
	"io"
	"time"
)

// Stream is one byte stream of a Link. A control stream is used in both
// directions, all others in one. Read and Write are each safe for one
// goroutine at a time.
type Stream interface {
	io.Reader
	io.Writer
	// CloseWrite says that no more is written; the peer's Read returns io.EOF
	// after the last byte.
	CloseWrite() error
	// SetReadDeadline and SetWriteDeadline bound the calls that wait.
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// StreamKind says what a one-way stream of a session carries.
type StreamKind uint8

// The stream kinds of protocol 1; append only, never renumber.
const (
	StreamManifest StreamKind = 1 // target to source: Manifest and Holes frames
	StreamData     StreamKind = 2 // source to target: Data frames
	StreamPlan     StreamKind = 3 // source to target: Plan frames
	StreamRefine   StreamKind = 4 // source to target: Refine frames
	StreamParts    StreamKind = 5 // target to source: Parts frames
)

// StreamID names a one-way stream within its link.
type StreamID struct {
	Kind  StreamKind
	Index uint8
}

// Link is an authenticated connection to one peer that carries one disk
// session: a control stream and a few one-way streams named by StreamID. QUIC
// and TLS over TCP implement it, Pipe does so in memory; the frames on the
// streams are the same on all three.
//
// All methods are safe for concurrent use. Whatever ends the link makes every
// pending call on it and on its streams return an error that explains why; a
// *Error of the peer's is kept (errors.AsType finds it).
type Link interface {
	// Peer is the pinned identity at the other end.
	Peer() ID
	// RemoteAddr is where the peer is, for logs.
	RemoteAddr() string
	// Transport is "quic", "tls" or "pipe", for reports.
	Transport() string
	// Stats are the counters of the path so far, as far as the transport knows
	// them; cheap enough to be asked ten times a second.
	Stats() LinkStats
	// Control is the bidirectional stream, open since the link was made.
	Control() Stream
	// OpenSend gives the writing end of the one-way stream id. It may wait
	// until the peer is ready for it.
	OpenSend(ctx context.Context, id StreamID) (Stream, error)
	// OpenReceive gives the reading end of the one-way stream id, as soon as
	// the peer has opened the other.
	OpenReceive(ctx context.Context, id StreamID) (Stream, error)
	// ExportKey derives n bytes that only the two ends of this link know
	// (RFC 5705/8446 exporter); label and context as there.
	ExportKey(label string, context []byte, n int) ([]byte, error)
	// CloseWithError ends the link and tells the peer code and text (at most
	// 256 bytes of it). The first call counts. At the dialing end it may wait
	// up to 2 s until the peer has heard: the program may be about to exit.
	CloseWithError(code Code, text string)
	// Done is closed when the link has ended; Err says why after that.
	Done() <-chan struct{}
	Err() error
}

// LinkStats says what a link has seen of its path. What a transport does not know
// is zero.
type LinkStats struct {
	RTT         time.Duration // smoothed, of the connection that has the control stream
	MinRTT      time.Duration // the least of it
	Connections int           // under the link: 1 and more
	Fewer       string        // why not as many as the dialer asked for; "" if they are
	Sent, Lost  uint64        // packets of all connections, sent by this end and found lost; of TCP: segments sent and sent again
	Control     string        // congestion control of this end's sending: "reno", "cubic", "bbr"
}

// Listener accepts links from pinned peers.
type Listener interface {
	// Accept returns the next link whose handshake succeeded. It returns
	// ErrClosed after Close, ctx.Err() after ctx is done; handshakes that fail
	// are counted and logged by the listener, not returned.
	Accept(ctx context.Context) (Link, error)
	// Addr is the address in use, for messages ("127.0.0.1:7420").
	Addr() string
	// Close stops accepting. Links accepted before live on.
	Close() error
}
