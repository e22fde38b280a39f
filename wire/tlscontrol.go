package wire

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// On TCP the control stream is cut into chunks, so that the end of a link has
// a place of its own, as it has in QUIC, whatever frame is half written:
//
//	length u16, that many bytes    1 to 16382
//	0                              no more bytes in this direction
//	0xffff, code u16, text         the link has ended; text as in frames
const (
	chunkEnd   = 0
	chunkClose = 0xffff
	// maxChunk and its length fill one TLS record.
	maxChunk = 16<<10 - 2
)

// controlBuffer is what the pump reads ahead of the session: a few of the
// largest control frames. When it is full the peer waits.
const controlBuffer = 256 << 10

// controlConn is the control connection of a TLS link. A pump reads it all
// the time: that is how a link learns that it has ended when nobody reads.
type controlConn struct {
	conn    *tls.Conn
	inbound *conduit
	unread  bool // the pump's: the peer has hung up on a session that does not read

	mu  sync.Mutex // one chunk at a time
	buf []byte
}

func newControlConn(conn *tls.Conn, done <-chan struct{}) *controlConn {
	return &controlConn{conn: conn, inbound: newConduit(controlBuffer, done)}
}

func (c *controlConn) Read(p []byte) (int, error)         { return c.inbound.Read(p) }
func (c *controlConn) SetReadDeadline(t time.Time) error  { return c.inbound.SetReadDeadline(t) }
func (c *controlConn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

func (c *controlConn) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n := min(len(p)-written, maxChunk)
		if err := c.chunk(uint16(n), p[written:written+n]); err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

func (c *controlConn) CloseWrite() error { return c.chunk(chunkEnd, nil) }

// chunk writes one chunk unless the link has ended.
func (c *controlConn) chunk(length uint16, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.inbound.done:
		return net.ErrClosed
	default:
		return c.chunkLocked(length, body)
	}
}

func (c *controlConn) chunkLocked(length uint16, body []byte) error {
	c.buf = binary.BigEndian.AppendUint16(c.buf[:0], length)
	c.buf = append(c.buf, body...)
	_, err := c.conn.Write(c.buf)
	return err
}

// sayClose tells the peer why, after the link has ended here. A Write that is
// stuck because the peer does not read is given up together with it; then a
// reset has to do, which does not queue behind those bytes.
func (c *controlConn) sayClose(e *Error) {
	c.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chunkLocked(chunkClose, e.appendBody(nil)) != nil || c.conn.CloseWrite() != nil {
		resetOnClose(c.conn.NetConn())
	}
}

// pump passes the peer's bytes on until the connection ends, and returns why:
// a *Error when the peer said so. After the link's end it discards.
func (c *controlConn) pump() error {
	in := bufio.NewReaderSize(c.conn, 2*maxChunk)
	body := make([]byte, maxChunk)
	for {
		var head [2]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return cut(err)
		}
		switch n := int(binary.BigEndian.Uint16(head[:])); {
		case n == chunkEnd:
			c.inbound.CloseWrite()
		case n == chunkClose:
			return readClose(in)
		case n > maxChunk:
			return Errorf(CodeFrame, "%w: chunk of %d bytes", ErrFrame, n)
		default:
			if _, err := io.ReadFull(in, body[:n]); err != nil {
				return cut(err)
			}
			c.pass(body[:n])
		}
	}
}

// hangUpCheck is how often a pump that waits for the session to read looks
// whether the peer is still there.
const hangUpCheck = time.Second

// pass waits until the session has room for p. Bytes are thrown away when
// nobody will read them: after the link's end, after an end of the stream,
// and when the peer has hung up and the reason may stand behind them.
func (c *controlConn) pass(p []byte) {
	for !c.unread {
		c.inbound.SetWriteDeadline(time.Now().Add(hangUpCheck))
		n, err := c.inbound.Write(p)
		if p = p[n:]; !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		c.unread = hungUp(c.conn.NetConn())
	}
}

// cut is for a connection that ends without a close chunk, even if TLS ended
// in order.
func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errCut
	}
	return err
}

// readClose reads code and text; both are bounded by the text's limit.
func readClose(in io.Reader) error {
	body := make([]byte, 4, 4+maxText)
	if _, err := io.ReadFull(in, body); err != nil {
		return cut(err)
	}
	n := int(binary.BigEndian.Uint16(body[2:]))
	if n > maxText {
		return Errorf(CodeFrame, "%w: closing text of %d bytes", ErrFrame, n)
	}
	body = body[:4+n]
	if _, err := io.ReadFull(in, body[4:]); err != nil {
		return cut(err)
	}
	e := new(Error)
	if err := e.parseBody(body); err != nil {
		return err
	}
	return e
}
