package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
)

// rawDevice is a disk in memory with what tests need to happen.
type rawDevice struct {
	mu      sync.Mutex
	data    []byte
	reads   int
	flushes int

	fail  func(op string, e cbt.Extent) error // nil: all is well
	holes []cbt.Extent
}

func newRawDevice(size int) *rawDevice {
	d := &rawDevice{data: make([]byte, size)}
	pattern := make([]byte, 65537) // prime, so that no two blocks are equal
	for i := range pattern {
		pattern[i] = byte(i>>9) ^ byte(i)
	}
	for rest := d.data; len(rest) > 0; {
		rest = rest[copy(rest, pattern):]
	}
	return d
}

func (d *rawDevice) check(op string, off, n int64) error {
	if d.fail == nil {
		return nil
	}
	return d.fail(op, cbt.Extent{Off: off, Len: n})
}

func (d *rawDevice) ReadAt(p []byte, off int64) (int, error) {
	if err := d.check("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	return copy(p, d.data[off:]), nil
}

func (d *rawDevice) WriteAt(p []byte, off int64) (int, error) {
	if err := d.check("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(d.data[off:], p), nil
}

func (d *rawDevice) Size() int64 { return int64(len(d.data)) }

func (d *rawDevice) Flush() error {
	d.mu.Lock()
	d.flushes++
	d.mu.Unlock()
	return d.check("flush", 0, 0)
}

func (d *rawDevice) Zero(e cbt.Extent, _ cbt.Allocation) error {
	if err := d.check("zero", e.Off, e.Len); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[e.Off:e.End()])
	return nil
}

func (d *rawDevice) NextData(off int64) (cbt.Extent, error) {
	if err := d.check("map", off, 0); err != nil {
		return cbt.Extent{}, err
	}
	for _, h := range d.holes {
		if off < h.Off {
			return cbt.Extent{Off: off, Len: h.Off - off}, nil
		}
		if off < h.End() {
			off = h.End()
		}
	}
	if off >= d.Size() {
		return cbt.Extent{}, io.EOF
	}
	return cbt.Extent{Off: off, Len: d.Size() - off}, nil
}

// onlyDevice hides the abilities of a device.
type onlyDevice struct{ Device }

// rawServer serves on a socket of its own until the test ends.
type rawServer struct {
	*Server
	t      testing.TB
	socket string
	done   chan error
	cancel context.CancelFunc
}

func serveRaw(t testing.TB, cfg ServerConfig) *rawServer {
	t.Helper()
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nbd") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rawServer{Server: s, t: t, socket: filepath.Join(dir, "s"), done: make(chan error, 1)}
	ln, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r.cancel = cancel
	go func() { r.done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := within(t, "Serve", r.done); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// within takes from ch, and fails the test where nothing comes.
func within[T any](t testing.TB, what string, ch chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
		select {
		case ch <- v: // for whoever asks again
		default:
		}
	case <-time.After(30 * time.Second):
		t.Errorf("waited in vain for %s", what)
	}
	return v
}

// rawClient says what a client says, byte by byte, right or wrong.
type rawClient struct {
	t    testing.TB
	conn net.Conn
	br   *bufio.Reader
}

func (r *rawServer) dial() *rawClient {
	r.t.Helper()
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return newRawClient(r.t, conn)
}

func newRawClient(t testing.TB, conn net.Conn) *rawClient {
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // fails only when closed
	return &rawClient{t, conn, bufio.NewReader(conn)}
}

func (c *rawClient) write(b ...[]byte) {
	for _, x := range b {
		if _, err := c.conn.Write(x); err != nil {
			c.t.Logf("write: %v", err) // the server may have hung up already
		}
	}
}

func (c *rawClient) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.br, b); err != nil {
		c.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// closed wants the server to hang up; what it says before does not matter.
func (c *rawClient) closed() {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c.br); err != nil && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "pipe") {
		c.t.Errorf("the server has not hung up: %v", err)
	}
}

func (c *rawClient) hello() *rawClient {
	c.t.Helper()
	b := c.read(18)
	if binary.BigEndian.Uint64(b) != magicInit || binary.BigEndian.Uint64(b[8:]) != magicOption || binary.BigEndian.Uint16(b[16:]) != 3 {
		c.t.Fatalf("greeting %x", b)
	}
	c.write(be32(flagClientFixedNewstyle | flagClientNoZeroes))
	return c
}

func str(s string) []byte { return append(be32(uint32(len(s))), s...) }

func join(b ...[]byte) (all []byte) {
	for _, x := range b {
		all = append(all, x...)
	}
	return all
}

func optionBytes(code uint32, data []byte) []byte {
	return join(be64(magicOption), be32(code), be32(uint32(len(data))), data)
}

// option sends one and returns the replies up to the last.
func (c *rawClient) option(code uint32, data []byte) (replies []rawReply) {
	c.t.Helper()
	c.write(optionBytes(code, data))
	for {
		h := c.read(20)
		r := rawReply{binary.BigEndian.Uint32(h[12:]), c.read(int(binary.BigEndian.Uint32(h[16:])))}
		if binary.BigEndian.Uint64(h) != magicOptReply || binary.BigEndian.Uint32(h[8:]) != code {
			c.t.Fatalf("reply %x to option %d", h, code)
		}
		replies = append(replies, r)
		if r.kind == repAck || r.kind&repFlagError != 0 {
			return replies
		}
	}
}

type rawReply struct {
	kind uint32
	data []byte
}

// last is the kind of the last reply to an option.
func (c *rawClient) last(code uint32, data []byte) uint32 {
	c.t.Helper()
	r := c.option(code, data)
	return r[len(r)-1].kind
}

func (c *rawClient) want(want uint32, code uint32, data []byte) {
	c.t.Helper()
	if got := c.last(code, data); got != want {
		c.t.Errorf("option %d with %.40x: last reply %#x, want %#x", code, data, got, want)
	}
}

// choose goes on to the transmission phase.
func (c *rawClient) choose(name string, structured bool) *rawClient {
	c.t.Helper()
	if structured {
		c.want(repAck, optStructuredReply, nil)
		c.want(repAck, optSetMetaContext, join(str(name), be32(1), str(contextAllocation)))
	}
	c.want(repAck, optGo, join(str(name), be16(0)))
	return c
}

func requestBytes(flags, cmd uint16, cookie, off uint64, length uint32) []byte {
	return join(be32(magicRequest), be16(flags), be16(cmd), be64(cookie), be64(off), be32(length))
}

// rawAnswer is a simple reply, or a chunk.
type rawAnswer struct {
	simple bool
	done   bool
	kind   uint16
	cookie uint64
	code   uint32 // of an error
	at     uint64 // offset of an error, data or a hole
	data   []byte
}

// answer reads one; a simple reply to a read is followed by want bytes.
func (c *rawClient) answer(want int) (a rawAnswer) {
	c.t.Helper()
	switch m := binary.BigEndian.Uint32(c.read(4)); m {
	case magicSimpleReply:
		b := c.read(12)
		a = rawAnswer{simple: true, done: true, code: binary.BigEndian.Uint32(b), cookie: binary.BigEndian.Uint64(b[4:])}
		if a.code == 0 {
			a.data = c.read(want)
		}
	case magicStructuredReply:
		b := c.read(16)
		a = rawAnswer{done: binary.BigEndian.Uint16(b)&chunkFlagDone != 0, kind: binary.BigEndian.Uint16(b[2:]), cookie: binary.BigEndian.Uint64(b[4:])}
		a.parse(c.read(int(binary.BigEndian.Uint32(b[12:]))))
	default:
		c.t.Fatalf("answer begins with %#x", m)
	}
	return a
}

func (a *rawAnswer) parse(b []byte) {
	switch a.kind {
	case chunkOffsetData, chunkOffsetHole:
		a.at, a.data = binary.BigEndian.Uint64(b), b[8:]
	case chunkBlockStatus:
		a.data = b[4:]
	case chunkError, chunkErrorOffset:
		a.code = binary.BigEndian.Uint32(b)
		if a.kind == chunkErrorOffset {
			a.at = binary.BigEndian.Uint64(b[len(b)-8:])
		}
	}
}
