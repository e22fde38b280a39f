package wire

import "time"

// Limits below the frames (reliability 4.5). They are constants because no two
// sites need different ones, and a peer can raise none of them.
const (
	// handshakeTimeout is short because a half-open handshake holds a slot of
	// the guard; 3 s are ten round trips of the worst line.
	handshakeTimeout = 3 * time.Second
	// openTimeout bounds the wait for the first bytes of an authenticated
	// connection or stream.
	openTimeout = 5 * time.Second
	// idleTimeout ends a link whose peer has sent nothing at all; the peer
	// sends something every keepAlive.
	idleTimeout = 30 * time.Second
	keepAlive   = 10 * time.Second
	// closeTimeout bounds how long an ended link tries to tell the peer why.
	closeTimeout = time.Second

	// maxOneWay is one stream each for manifests, the plan and both ways of
	// refinement, and the data streams.
	maxOneWay = 4 + MaxDataStreams
)
