package nbd

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
)

// hostile is the server's end of one connection, at the mercy of a test.
type hostile struct {
	net.Conn
}

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// send writes; when the client has left, the test is over anyway.
func (s hostile) send(parts ...[]byte) {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	_, _ = s.Write(all)
}

func (s hostile) greet() {
	s.send(be64(magicInit), be64(magicOption), be16(flagFixedNewstyle|flagNoZeroes))
	_, _ = io.ReadFull(s, make([]byte, 4))
}

// option reads one option; 0 when the client has left.
func (s hostile) option() uint32 {
	var b [16]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return 0
	}
	_, _ = io.CopyN(io.Discard, s, int64(binary.BigEndian.Uint32(b[12:])))
	return binary.BigEndian.Uint32(b[8:])
}

func (s hostile) reply(option, kind uint32, payload ...[]byte) {
	var all []byte
	for _, p := range payload {
		all = append(all, p...)
	}
	s.send(be64(magicOptReply), be32(option), be32(kind), be32(uint32(len(all))), all)
}

const hostileSize = 8 << 20

// export is the information of an export as it should be.
func (s hostile) export(option uint32, flags uint16) {
	s.reply(option, repInfo, be16(infoExport), be64(hostileSize), be16(txHasFlags|flags))
}

// answer goes through options the way a good server does, with two contexts,
// until GO is done; instead replaces the answer to one option.
func (s hostile) answer(instead map[uint32]func()) {
	s.greet()
	for {
		option := s.option()
		if other := instead[option]; other != nil {
			other()
			continue
		}
		switch option {
		case optStructuredReply:
			s.reply(option, repAck)
		case optListMetaContext, optSetMetaContext:
			s.reply(option, repMetaContext, be32(7), []byte(contextAllocation))
			if option == optListMetaContext {
				s.reply(option, repMetaContext, be32(7), []byte("x:y"))
			}
			s.reply(option, repAck)
		case optGo:
			s.export(option, txSendFlush|txSendWriteZeroes)
			s.reply(option, repAck)
			return
		default:
			return
		}
	}
}

// request reads the head of a request; its cookie is 0 when the client has left.
func (s hostile) request() (cmd uint16, cookie uint64, e cbt.Extent) {
	var b [requestLen]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return 0, 0, e
	}
	e = cbt.Extent{Off: int64(binary.BigEndian.Uint64(b[16:])), Len: int64(binary.BigEndian.Uint32(b[24:]))}
	cmd = binary.BigEndian.Uint16(b[6:])
	if cmd == cmdWrite {
		_, _ = io.CopyN(io.Discard, s, e.Len)
	}
	return cmd, binary.BigEndian.Uint64(b[8:]), e
}

func (s hostile) chunk(cookie uint64, flags, kind uint16, payload ...[]byte) {
	var all []byte
	for _, p := range payload {
		all = append(all, p...)
	}
	s.chunkHead(cookie, flags, kind, uint32(len(all)))
	s.send(all)
}

func (s hostile) chunkHead(cookie uint64, flags, kind uint16, length uint32) {
	s.send(be32(magicStructuredReply), be16(flags), be16(kind), be64(cookie), be32(length))
}

// listen runs serve for every connection until the end of the test, and then
// looks whether anything was left running.
func listen(t *testing.T, serve func(s hostile)) URI {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u := URI{Network: "unix", Address: filepath.Join(dir, "s")}
	before := runtime.NumGoroutine()
	l, err := net.Listen(u.Network, u.Address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				serve(hostile{conn})
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		for range 500 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
	})
	return u
}
