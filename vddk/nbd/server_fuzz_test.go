package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
)

// pipeListener hands out one end of pipes.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial() net.Conn {
	a, b := net.Pipe()
	l.conns <- b
	return a
}

// servePipes serves on pipes until the test ends.
func servePipes(t testing.TB, cfg ServerConfig) (*Server, *pipeListener) {
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln := newPipeListener()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := within(t, "Serve", done); err != nil {
			t.Error(err)
		}
	})
	return s, ln
}

// FuzzServer says anything to a server. It must not panic, must hang up when
// the client does, must not write outside of the disk, and serve the next one.
func FuzzServer(f *testing.F) {
	hello := be32(3)
	start := join(hello, optionBytes(optStructuredReply, nil), optionBytes(optSetMetaContext, join(str(""), be32(1), str(contextAllocation))), optionBytes(optGo, join(str(""), be16(0))))
	f.Add([]byte{})
	f.Add(join(hello, optionBytes(optList, nil), optionBytes(optInfo, join(str(""), be16(1), be16(3))), optionBytes(optAbort, nil)))
	f.Add(join(hello, optionBytes(optExportName, nil), requestBytes(0, cmdRead, 1, 0, 512)))
	f.Add(join(start, requestBytes(0, cmdRead, 1, 0, 65536), requestBytes(0, cmdBlockStatus, 2, 0, 65536), requestBytes(0, cmdDisconnect, 3, 0, 0)))
	f.Add(join(start, requestBytes(cmdFlagFUA, cmdWrite, 1, 0, 16), make([]byte, 16), requestBytes(0, cmdFlush, 2, 0, 0), requestBytes(0, cmdTrim, 3, 0, 512), requestBytes(0, cmdWriteZeroes, 4, 512, 512)))
	f.Fuzz(func(t *testing.T, said []byte) {
		d := newRawDevice(1 << 17)
		inside := func(op string, e cbt.Extent) error {
			if op != "flush" && op != "map" && e.Check(d.Size()) != nil {
				t.Errorf("%s %v of %d bytes", op, e, d.Size())
			}
			return nil
		}
		d.fail = inside
		_, ln := servePipes(t, ServerConfig{Exports: []Export{{Device: d}}})
		conn := ln.dial()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // it is open
		answered := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, conn)
			answered <- err
		}()
		if _, err := conn.Write(said); err == nil {
			conn.Close()
		}
		if err := within(t, "the answers to end", answered); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the server has not hung up: %v", err)
		}
		next := newRawClient(t, ln.dial()).hello().choose("", true)
		next.write(requestBytes(0, cmdRead, 1, 0, 512))
		if a := next.answer(0); a.code != 0 || len(a.data) != 512 {
			t.Errorf("the next client: %+.100v", a)
		}
		next.conn.Close()
	})
}

// FuzzServerOption parses the data of options: what is accepted says the same
// when it is written again.
func FuzzServerOption(f *testing.F) {
	f.Add(join(str("x"), be16(1), be16(3)))
	f.Add(join(str("x"), be32(2), str("base:"), str("base:allocation")))
	f.Add(join(be32(1<<32-1), be16(1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if name, wanted, err := parseInfo(data); err == nil {
			b := join(str(name), be16(uint16(len(wanted))))
			for _, w := range wanted {
				b = append(b, be16(w)...)
			}
			if !bytes.Equal(b, data) {
				t.Errorf("info %x is written %x", data, b)
			}
		}
		if name, queries, err := parseMetaContext(data); err == nil {
			b := join(str(name), be32(uint32(len(queries))))
			for _, q := range queries {
				b = append(b, str(q)...)
			}
			if !bytes.Equal(b, data) {
				t.Errorf("context %x is written %x", data, b)
			}
		}
	})
}

// FuzzServerRequest checks any header against every export: what passes lies on
// the disk.
func FuzzServerRequest(f *testing.F) {
	f.Add(requestBytes(0, cmdRead, 1, 0, 512))
	f.Add(requestBytes(0, cmdWrite, 1, 1<<63, 1<<31))
	f.Add(requestBytes(1<<9, 99, 1, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < requestLen {
			return
		}
		r, err := parseRequest(b[:requestLen])
		if err != nil {
			if binary.BigEndian.Uint32(b) == magicRequest {
				t.Errorf("header %x: %v", b[:requestLen], err)
			}
			return
		}
		for _, x := range []Export{{}, {ReadOnly: true}, {MinBlock: 512}} {
			x.Device = newRawDevice(1 << 16)
			e, err := newServerExport(x)
			if err != nil {
				t.Fatal(err)
			}
			c := &serverConn{export: e, structured: true, status: &x.Name}
			if r.cmd == cmdFlush || r.cmd == cmdDisconnect || c.check(&r) != 0 {
				continue
			}
			if err := r.extent().Check(e.size); err != nil {
				t.Errorf("header %x passes: %v", b[:requestLen], err)
			}
			if x.ReadOnly && r.cmd != cmdRead && r.cmd != cmdBlockStatus {
				t.Errorf("header %x passes for a read-only export", b[:requestLen])
			}
		}
	})
}
