package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// attachHeader is what each TCP connection of a TLS link begins with, inside
// TLS, from the end that dialed it:
//
//	kind u8, index u8, flags u16, "HBT1", token [16]byte
//
// Kind 0 makes a new link of the connection, its control stream; the token is
// zero. Any other is a one-way stream of the link that has the token.
type attachHeader struct {
	id      StreamID // kind 0: the control stream
	reverse bool     // flag 1: the end that dialed reads
	token   attachToken
}

const (
	attachHeaderLen = 24
	attachMagic     = "HBT1"
	attachReverse   = 1
)

// attachToken proves that a connection comes from the end of a link: it is
// exported from the control connection's keys.
type attachToken [16]byte

const attachLabel = "EXPORTER-haulback-attach"

func (h attachHeader) append(b []byte) []byte {
	var flags uint16
	if h.reverse {
		flags = attachReverse
	}
	b = append(b, byte(h.id.Kind), h.id.Index)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, attachMagic...)
	return append(b, h.token[:]...)
}

func parseAttach(b [attachHeaderLen]byte) (attachHeader, error) {
	flags := binary.BigEndian.Uint16(b[2:])
	h := attachHeader{id: StreamID{Kind: StreamKind(b[0]), Index: b[1]}, reverse: flags == attachReverse, token: attachToken(b[8:])}
	control := h.id == StreamID{} && flags == 0 && h.token == attachToken{}
	if string(b[4:8]) != attachMagic || flags > attachReverse || !control && !h.id.valid() {
		return h, Errorf(CodeFrame, "%w: header of a connection % x", ErrFrame, b[:8])
	}
	return h, nil
}

// errCut is a TCP connection that ended without TLS's close_notify. crypto/tls
// calls that io.EOF when it falls between two records, which a killed peer's
// does; it must not look like the end of the data.
var errCut = errors.New("wire: connection cut")

// rawConn is the TCP connection below TLS.
type rawConn struct{ net.Conn }

func (c rawConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

// tuneTCP lets the kernel find out that the peer is gone: unanswered data
// after idleTimeout, silence by probes after the same time.
func tuneTCP(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	// Best effort: without these a dead peer is noticed later.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive / 2, Count: 4})
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(idleTimeout/time.Millisecond))
		})
	}
}

// tcpInfo asks the kernel about a connection and its congestion control; not ok
// if it is not TCP.
func tcpInfo(conn net.Conn) (info *unix.TCPInfo, control string, ok bool) {
	tcp := tcpOf(conn)
	if tcp == nil {
		return nil, "", false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, "", false
	}
	_ = raw.Control(func(fd uintptr) { // of a closed connection nothing is asked
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			control, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		}
	})
	return info, strings.TrimRight(control, "\x00"), info != nil && err == nil
}

// tcpOf is the connection below rawConn, nil if it is not TCP (in tests).
func tcpOf(conn net.Conn) *net.TCPConn {
	raw, _ := conn.(rawConn)
	tcp, _ := raw.Conn.(*net.TCPConn)
	return tcp
}

// resetOnClose makes Close throw away what has not been sent.
func resetOnClose(conn net.Conn) {
	if tcp := tcpOf(conn); tcp != nil {
		tcp.SetLinger(0)
	}
}

// tcpEstablished is the kernel's TCP_ESTABLISHED.
const tcpEstablished = 1

// hungUp reports whether the peer has closed or reset the connection, which a
// program that does not read cannot see otherwise.
func hungUp(conn net.Conn) bool {
	tcp := tcpOf(conn)
	if tcp == nil {
		return false
	}
	sys, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	var info *unix.TCPInfo
	cerr := sys.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return cerr != nil || err == nil && info.State != tcpEstablished
}

// handshake runs the TLS handshake on conn within its timeout.
func handshake(ctx context.Context, conn *tls.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, Errorf(CodeUnreachable, "no TLS handshake with %s within %v", conn.RemoteAddr(), handshakeTimeout))
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// explainTLS turns an error of a TLS connection between self and addr into
// one that says what happened and has a Code.
func explainTLS(err error, addr net.Addr, self ID) error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	if alert, ok := remoteAlert(err); ok {
		return refused(alert, addr, self)
	}
	switch {
	case errors.Is(err, unix.ETIMEDOUT):
		return Errorf(CodeTimeout, "nothing heard from the peer at %s for %v: %w", addr, idleTimeout, err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case isType[tls.RecordHeaderError](err):
		return Errorf(CodeVersion, "%w: no TLS at %s: %w", ErrVersion, addr, err)
	}
	return Errorf(CodeUnreachable, "connection to %s lost: %w", addr, err)
}
