package nbd

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
)

// served wants a well-behaved client to be served now.
func (r *rawServer) served() {
	r.t.Helper()
	k := r.dial().hello().choose("", true)
	for i := range uint64(20) {
		k.write(requestBytes(0, cmdRead, i, 0, 65536))
		if a := k.answer(0); a.code != 0 || len(a.data) != 65536 {
			r.t.Fatalf("read %d beside a hostile client: %+.100v", i, a)
		}
	}
	k.write(requestBytes(0, cmdDisconnect, 0, 0, 0))
	k.closed()
}

// await polls until ok, which is asked with the server's mu held.
func (r *rawServer) await(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestServerHostileOptions are options no client should send: the answer, or
// the end of the connection, and others are served.
func TestServerHostileOptions(t *testing.T) {
	long := strings.Repeat("x", 4097)
	for _, c := range []struct {
		name string
		code uint32
		data []byte
		want uint32
	}{
		{"unknown option", 4242, []byte("abc"), repErrUnsup},
		{"extended headers", optExtendedHeaders, nil, repErrUnsup},
		{"list with data", optList, []byte{1}, repErrInvalid},
		{"structured with data", optStructuredReply, []byte{1}, repErrInvalid},
		{"TLS without", optStartTLS, nil, repErrPolicy},
		{"go: empty", optGo, nil, repErrInvalid},
		{"go: name longer than the option", optGo, join(be32(1000), []byte("x"), be16(0)), repErrInvalid},
		{"go: name of 4 GiB", optGo, join(be32(1<<32-1), be16(0)), repErrInvalid},
		{"go: name too long", optGo, join(str(long), be16(0)), repErrInvalid},
		{"go: not UTF-8", optGo, join(str("\xff\xfe"), be16(0)), repErrInvalid},
		{"go: zero byte", optGo, join(str("a\x00b"), be16(0)), repErrInvalid},
		{"go: more infos than sent", optGo, join(str(""), be16(9), be16(3)), repErrInvalid},
		{"go: fewer infos than sent", optInfo, join(str(""), be16(0), be16(3)), repErrInvalid},
		{"go: 20000 infos", optInfo, join(str(""), be16(20000), make([]byte, 40000)), repErrInvalid},
		{"go: no such export", optGo, join(str("nope"), be16(0)), repErrUnknown},
		{"info: unknown infos", optInfo, join(str(""), be16(2), be16(77), be16(78)), repAck},
		{"meta without structured", optSetMetaContext, join(str(""), be32(0)), repErrInvalid},
		{"meta: 4 G queries", optListMetaContext, join(str(""), be32(1<<32-1)), repErrInvalid},
		{"meta: empty", optListMetaContext, nil, repErrInvalid},
		{"meta: query cut", optListMetaContext, join(str(""), be32(1), be32(5), []byte("ba")), repErrInvalid},
		{"meta: query too long", optListMetaContext, join(str(""), be32(1), str("base:"+long)), repErrInvalid},
		{"meta: no namespace", optListMetaContext, join(str(""), be32(1), str("base")), repErrInvalid},
		{"meta: rest", optListMetaContext, join(str(""), be32(0), []byte("rest")), repErrInvalid},
		{"too long by far", optList, make([]byte, 100_000), repErrTooBig},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(1 << 20)}}})
			k := s.dial().hello()
			k.want(c.want, c.code, c.data)
			k.choose("", true) // in step
			s.served()
		})
	}
}

// TestServerMetaContexts is which queries select base:allocation.
func TestServerMetaContexts(t *testing.T) {
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(1 << 20)}, {Name: "b", Device: newRawDevice(1 << 20)}}})
	k := s.dial().hello()
	k.want(repAck, optStructuredReply, nil)
	for _, c := range []struct {
		code    uint32
		queries []string
		want    int
	}{
		{optListMetaContext, nil, 1},
		{optListMetaContext, []string{"base:"}, 1},
		{optListMetaContext, []string{"base:allocation", "qemu:"}, 1},
		{optListMetaContext, []string{"qemu:dirty-bitmap:x"}, 0},
		{optSetMetaContext, nil, 0},
		{optSetMetaContext, []string{"base:"}, 0},
		{optSetMetaContext, []string{"x-y:z", "base:allocation"}, 1},
		{optSetMetaContext, []string{"base:allocatio"}, 0},
	} {
		data := join(str(""), be32(uint32(len(c.queries))))
		for _, q := range c.queries {
			data = join(data, str(q))
		}
		r := k.option(c.code, data)
		if len(r) != c.want+1 || r[len(r)-1].kind != repAck {
			t.Errorf("option %d, queries %q: %d replies %v, want %d contexts", c.code, c.queries, len(r), r, c.want)
		}
	}
	// Chosen for one export, it does not count for another; nor after a failure.
	k.want(repAck, optSetMetaContext, join(str(""), be32(1), str(contextAllocation)))
	k.want(repErrUnknown, optSetMetaContext, join(str("nope"), be32(1), str(contextAllocation)))
	k.want(repAck, optGo, join(str(""), be16(0)))
	k.write(requestBytes(0, cmdBlockStatus, 1, 0, 512))
	if a := k.answer(0); a.code != errInval {
		t.Errorf("status after a failed choice: %+v", a)
	}
	k = s.dial().hello()
	k.want(repAck, optStructuredReply, nil)
	k.want(repAck, optSetMetaContext, join(str(""), be32(1), str(contextAllocation)))
	k.want(repAck, optGo, join(str("b"), be16(0)))
	k.write(requestBytes(0, cmdBlockStatus, 1, 0, 512))
	if a := k.answer(0); a.code != errInval {
		t.Errorf("status of another export: %+v", a)
	}
}

// TestServerHangsUp is what ends the connection.
func TestServerHangsUp(t *testing.T) {
	for _, c := range []struct {
		name string
		say  func(k *rawClient)
	}{
		{"nothing", func(k *rawClient) { closeWrite(k) }},
		{"unknown client flags", func(k *rawClient) { k.read(18); k.write(be32(1 << 7)) }},
		{"HTTP", func(k *rawClient) { k.read(18); k.write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) }},
		{"no option magic", func(k *rawClient) { k.hello(); k.write(make([]byte, 16)) }},
		{"an option of 4 GiB", func(k *rawClient) { k.hello(); k.write(be64(magicOption), be32(optList), be32(1<<32-1)) }},
		{"an option cut", func(k *rawClient) {
			k.hello()
			k.write(be64(magicOption), be32(optGo), be32(100), []byte("x"))
			closeWrite(k)
		}},
		{"abort", func(k *rawClient) { k.hello(); k.want(repAck, optAbort, nil) }},
		{"old choice of what is not there", func(k *rawClient) { k.hello(); k.write(optionBytes(optExportName, []byte("nope"))) }},
		{"no request magic", func(k *rawClient) { k.hello().choose("", true); k.write(make([]byte, 28)) }},
		{"a request cut", func(k *rawClient) {
			k.hello().choose("", true)
			k.write(requestBytes(0, cmdRead, 1, 0, 512)[:20])
			closeWrite(k)
		}},
		{"a write of 4 GiB", func(k *rawClient) { k.hello().choose("", true); k.write(requestBytes(0, cmdWrite, 1, 0, 1<<32-1)) }},
		{"a write cut", func(k *rawClient) {
			k.hello().choose("", true)
			k.write(requestBytes(0, cmdWrite, 1, 0, 65536), make([]byte, 60000))
			closeWrite(k)
		}},
		{"a long write cut", func(k *rawClient) {
			k.hello().choose("", true)
			k.write(requestBytes(0, cmdWrite, 1, 0, 4<<20), make([]byte, 3<<20))
			closeWrite(k)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(8 << 20)}}})
			k := s.dial()
			c.say(k)
			k.closed()
			s.served()
		})
	}
}

func closeWrite(k *rawClient) { _ = k.conn.(*net.UnixConn).CloseWrite() }

// TestServerOldStyleEnd has a client choose by EXPORT_NAME, with and without
// the 124 zeroes, and then read.
func TestServerOldStyleEnd(t *testing.T) {
	s := serveRaw(t, ServerConfig{Exports: []Export{{Name: "x", Device: newRawDevice(1 << 20)}}})
	for _, noZeroes := range []uint32{0, flagClientNoZeroes} {
		k := s.dial()
		k.read(18)
		k.write(be32(flagClientFixedNewstyle|noZeroes), optionBytes(optExportName, []byte("x")))
		b := k.read(10)
		if noZeroes == 0 {
			k.read(124)
		}
		if binary.BigEndian.Uint64(b) != 1<<20 || binary.BigEndian.Uint16(b[8:])&(txHasFlags|txSendDF) != txHasFlags {
			t.Errorf("size and flags %x", b)
		}
		k.write(requestBytes(0, cmdRead, 1, 0, 512))
		if a := k.answer(512); !a.simple || a.code != 0 {
			t.Errorf("answer %+.100v", a)
		}
	}
}

// TestServerDeafClients ask for gigabytes and read nothing: memory stays
// bounded, and others are served while the deaf hold all of it.
func TestServerDeafClients(t *testing.T) {
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(8 << 20)}}, MaxMemory: 8 << 20, DrainTimeout: time.Millisecond})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	deafen(s, 10)
	s.await("the pool to be empty", func() bool {
		s.blocks.mu.Lock()
		defer s.blocks.mu.Unlock()
		return s.blocks.unmade == 0 && len(s.blocks.free) == 0
	})
	for range 3 {
		s.served()
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the heap grew by %d bytes for deaf clients; the pool has 8 MiB", grown)
	}
}

// TestServerDropsDeafClients after StallTimeout.
func TestServerDropsDeafClients(t *testing.T) {
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(8 << 20)}}, StallTimeout: 300 * time.Millisecond})
	deaf := deafen(s, 3)
	s.await("the deaf clients to be dropped", func() bool { return len(s.conns) == 0 })
	for _, k := range deaf {
		k.closed()
	}
	slow := s.dial().hello().choose("", true) // sends half of a write, and no more
	slow.write(requestBytes(0, cmdWrite, 1, 0, 65536), make([]byte, 30000))
	slow.closed()
	s.served()
}

// deafen makes clients that ask for more than sockets hold, and read nothing.
func deafen(s *rawServer, n int) (deaf []*rawClient) {
	var many []byte
	for i := range uint64(2000) {
		many = append(many, requestBytes(0, cmdRead, i, 0, 1<<20)...)
	}
	for range n {
		k := s.dial().hello().choose("", true)
		k.write(many)
		deaf = append(deaf, k)
	}
	return deaf
}

// TestServerSilentConnections holds many connections that say nothing: a client
// still gets in at once, and the oldest have to go.
func TestServerSilentConnections(t *testing.T) {
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(1 << 20)}}})
	var silent []*rawClient
	for i := range 1000 {
		silent = append(silent, s.dial())
		if i%250 == 249 {
			s.served()
		}
	}
	silent[0].closed()
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	if open > maxHandshakes+64 {
		t.Errorf("%d connections are open", open)
	}
}

// TestServerHandshakeTimeout ends a handshake that does not, and no other.
func TestServerHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 10 * time.Second
		s, err := NewServer(ServerConfig{Exports: []Export{{Device: newRawDevice(1 << 20)}}, HandshakeTimeout: limit})
		if err != nil {
			t.Fatal(err)
		}
		g := &serverGroup{ctx: t.Context()}
		defer g.conns.Wait()
		dial := func() *rawClient {
			ours, theirs := net.Pipe()
			s.start(g, theirs)
			return newRawClient(t, ours)
		}
		idle := dial().hello().choose("", true)
		defer idle.conn.Close()
		slow, began := dial().hello(), time.Now()
		defer slow.conn.Close()
		slow.closed()
		if took := time.Since(began); took != limit {
			t.Errorf("it ended after %v, want %v", took, limit)
		}
		synctest.Wait()
		idle.write(requestBytes(0, cmdRead, 1, 0, 512)) // later than the time-out: it is over for this one
		if a := idle.answer(0); a.code != 0 {
			t.Errorf("answer %+v", a)
		}
	})
}

// TestServerConnectionLimit refuses one too many with a reason.
func TestServerConnectionLimit(t *testing.T) {
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(1 << 20)}}, MaxConnections: 2})
	a, b := s.dial().hello().choose("", true), s.dial().hello().choose("", true)
	c := s.dial().hello()
	c.want(repErrPolicy, optGo, join(str(""), be16(0)))
	a.write(requestBytes(0, cmdDisconnect, 0, 0, 0))
	a.closed()
	for end := time.Now().Add(10 * time.Second); c.last(optGo, join(str(""), be16(0))) != repAck; { // counted off right after the hang-up
		if time.Now().After(end) {
			t.Fatal("no room after a client has left")
		}
	}
	b.write(requestBytes(0, cmdRead, 1, 0, 512))
	b.answer(0)
}

// TestServerSlowDevice wants a stuck request to hold up nobody else.
func TestServerSlowDevice(t *testing.T) {
	gate := make(chan struct{})
	d := newRawDevice(4 << 20)
	d.fail = func(op string, e cbt.Extent) error {
		if op == "read" && e.Off == 1<<20 {
			<-gate
		}
		return nil
	}
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d}}})
	k := s.dial().hello().choose("", true)
	k.write(requestBytes(0, cmdRead, 1, 1<<20, 512), requestBytes(0, cmdRead, 2, 0, 512))
	if a := k.answer(0); a.cookie != 2 {
		t.Errorf("cookie %d is answered first, want 2", a.cookie)
	}
	s.served()
	close(gate)
	if a := k.answer(0); a.cookie != 1 {
		t.Errorf("cookie %d, want 1", a.cookie)
	}
}

// TestServerTLSRequired wants nothing but STARTTLS and ABORT before TLS, nothing
// said before to count after it, and no plain bytes smuggled in between.
func TestServerTLSRequired(t *testing.T) {
	cert := rawCertificate(t)
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(1 << 20)}}, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	k := s.dial().hello()
	for _, code := range []uint32{optList, optGo, optInfo, optStructuredReply, optSetMetaContext, 4242} {
		k.want(repErrTLSReqd, code, nil)
	}
	k.want(repErrInvalid, optStartTLS, []byte{1})
	k.want(repAck, optStartTLS, nil)
	secure := tls.Client(k.conn, &tls.Config{InsecureSkipVerify: true})
	c := &rawClient{t, secure, k.br}
	c.br.Reset(secure)
	c.want(repErrInvalid, optStartTLS, nil)
	c.want(repErrInvalid, optSetMetaContext, join(str(""), be32(0))) // structured replies are to be chosen anew
	c.choose("", true)
	c.write(requestBytes(0, cmdRead, 1, 0, 1<<20))
	if a := c.answer(0); len(a.data) != 1<<20 {
		t.Errorf("answer %+.100v", a)
	}
	old := s.dial().hello()
	old.write(optionBytes(optExportName, nil))
	old.closed()
	smuggler := s.dial().hello()
	smuggler.write(join(optionBytes(optStartTLS, nil), optionBytes(optList, nil)))
	if b, err := io.ReadAll(smuggler.br); len(b) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("plain bytes behind STARTTLS are answered %x, %v", b, err)
	}
}

// TestServerTransientAccept goes on when descriptors are short.
func TestServerTransientAccept(t *testing.T) {
	s, err := NewServer(ServerConfig{Exports: []Export{{Device: newRawDevice(1 << 20)}}})
	if err != nil {
		t.Fatal(err)
	}
	ln := &scriptedListener{errs: []error{syscall.EMFILE, &net.OpError{Op: "accept", Err: syscall.ECONNABORTED}, io.ErrUnexpectedEOF}}
	if err := s.Serve(t.Context(), ln); err == nil || len(ln.errs) != 0 {
		t.Errorf("Serve: %v with %d errors untold, want the last one", err, len(ln.errs))
	}
}

type scriptedListener struct{ errs []error }

func (l *scriptedListener) Accept() (net.Conn, error) {
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}
func (l *scriptedListener) Close() error   { return nil }
func (l *scriptedListener) Addr() net.Addr { return &net.UnixAddr{Name: "x", Net: "unix"} }
