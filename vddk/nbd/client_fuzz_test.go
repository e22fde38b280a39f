package nbd

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// tape is a connection on which a server has said all it will.
type tape struct {
	net.Conn
	*bytes.Reader
}

func (c tape) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c tape) Write(p []byte) (int, error) { return len(p), nil }
func (c tape) Close() error                { return nil }

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// FuzzReplies plays bytes to a connection with a read, a write and a status
// request in flight. Whatever they are: no panic, no byte outside the buffer of
// the read, and a read that succeeds has been answered whole.
func FuzzReplies(f *testing.F) {
	head := func(slot byte, flags, kind uint16, length uint32) []byte {
		return concat(be32(magicStructuredReply), be16(flags), be16(kind), be64(1<<8|uint64(slot)), be32(length))
	}
	f.Add(concat(head(0, 1, chunkOffsetData, 24), be64(8192), make([]byte, 16)), true)
	f.Add(concat(head(0, 0, chunkOffsetHole, 12), be64(8192), be32(8), head(0, 0, chunkOffsetData, 16), be64(8200), make([]byte, 8), head(0, 1, chunkNone, 0)), true)
	f.Add(concat(head(2, 1, chunkBlockStatus, 20), be32(7), be32(4096), be32(1), be32(65536), be32(3)), true)
	f.Add(concat(head(0, 1, chunkErrorOffset, 15), be32(5), be16(1), []byte("x"), be64(8193)), true)
	f.Add(concat(be32(magicSimpleReply), be32(0), be64(1<<8|1), be32(magicSimpleReply), be32(28), be64(1<<8)), true)
	f.Add(concat(be32(magicSimpleReply), be32(0), be64(1<<8), make([]byte, 16)), false)
	f.Fuzz(func(t *testing.T, said []byte, structured bool) {
		h := &clientHandshake{structured: structured, contexts: []clientContext{{contextAllocation, 7}, {"x:y", 9}}}
		h.use(tape{Reader: bytes.NewReader(said)})
		c := newClientConn(h, h.conn, "tape")
		client := &Client{conns: []*clientConn{c}}
		guard := bytes.Repeat([]byte{0xEE}, 48)
		call := [3]*clientCall{}
		for i, cmd := range []uint16{cmdRead, cmdWrite, cmdBlockStatus} {
			call[i] = client.newCall()
			call[i].status = &clientStatus{id: 7}
			e := cbt.Extent{Off: 8192, Len: 16}
			var into []byte
			if cmd == cmdRead {
				into = guard[16:32:32]
			}
			c.submit(call[i], cmd, 0, e, nil, into)
		}
		c.run(func(error) {})
		failed := client.wait(call[0], "read")
		for _, b := range append(guard[:16:16], guard[32:]...) {
			if b != 0xEE {
				t.Fatal("a byte outside the buffer was written")
			}
		}
		if failed == nil && len(said) < simpleLen+16 && len(said) < structuredLen {
			t.Errorf("a read of 16 bytes was answered by %d bytes", len(said))
		}
		for _, e := range call[2].status.extents {
			if e.Len <= 0 || e.Off < 8192 || e.End() > 8192+16 {
				t.Errorf("status extent %v outside the request", e)
			}
		}
	})
}

// FuzzHandshake plays bytes as the server's side of a negotiation.
func FuzzHandshake(f *testing.F) {
	reply := func(option, kind uint32, payload ...[]byte) []byte {
		p := concat(payload...)
		return concat(be64(magicOptReply), be32(option), be32(kind), be32(uint32(len(p))), p)
	}
	greeting := concat(be64(magicInit), be64(magicOption), be16(3))
	f.Add(concat(greeting,
		reply(optStructuredReply, repAck),
		reply(optListMetaContext, repMetaContext, be32(0), []byte("base:allocation")), reply(optListMetaContext, repAck),
		reply(optSetMetaContext, repMetaContext, be32(1), []byte("base:allocation")), reply(optSetMetaContext, repAck),
		reply(optGo, repInfo, be16(infoExport), be64(1<<20), be16(1)),
		reply(optGo, repInfo, be16(infoBlockSize), be32(512), be32(4096), be32(1<<20)),
		reply(optGo, repInfo, be16(infoDescription), []byte("x")), reply(optGo, repAck)))
	f.Add(concat(greeting, reply(optStructuredReply, repErrUnsup), reply(optGo, repErrUnsup), be64(1<<20), be16(1)))
	f.Add(concat(be64(magicInit), be64(magicOption), be16(0), be64(1<<20), be16(1), make([]byte, 124)))
	f.Fuzz(func(t *testing.T, said []byte) {
		h := &clientHandshake{}
		h.use(tape{Reader: bytes.NewReader(said)})
		if h.prepare(t.Context(), URI{}) != nil || h.listContexts("a") != nil || h.setContexts("a", []string{contextAllocation}) != nil || h.enter("a") != nil {
			return
		}
		x := h.export
		if x.Size < 0 || x.MinBlock < 1 || x.MinBlock > maxMinBlock || x.MaxBlock < x.MinBlock || x.MaxBlock%x.MinBlock != 0 || !x.can(txHasFlags) {
			t.Errorf("accepted %+v", x)
		}
		if len(h.contexts) > 1 || len(h.contexts) == 1 && h.contexts[0].name != contextAllocation {
			t.Errorf("accepted contexts %+v", h.contexts)
		}
		c := &Client{export: x}
		c.piece = pieceSize(&x)
		if c.piece < 1 || c.piece%x.MinBlock != 0 {
			t.Errorf("pieces of %d bytes for %+v", c.piece, x)
		}
	})
}

// FuzzNames plays bytes as the reply to LIST.
func FuzzNames(f *testing.F) {
	entry := concat(be32(1), []byte("a"), []byte("more"))
	f.Add(concat(be64(magicOptReply), be32(optList), be32(repServer), be32(uint32(len(entry))), entry, be64(magicOptReply), be32(optList), be32(repAck), be32(0)))
	f.Fuzz(func(t *testing.T, said []byte) {
		h := &clientHandshake{}
		h.use(tape{Reader: bytes.NewReader(said)})
		names, err := h.names()
		total := 0
		for _, n := range names {
			total += len(n)
		}
		if err == nil && (total > len(said) || binary.BigEndian.Uint64(said) != magicOptReply) {
			t.Errorf("%d bytes of names in %d", total, len(said))
		}
	})
}
