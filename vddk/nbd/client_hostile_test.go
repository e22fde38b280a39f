package nbd

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
)

// allocated is what f allocates, in all goroutines.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

const maxHostileAlloc = 24 << 20

func TestHostileHandshake(t *testing.T) {
	instead := func(option uint32, f func(s hostile)) func(hostile) {
		return func(s hostile) { s.answer(map[uint32]func(){option: func() { f(s) }}) }
	}
	info := func(payload ...[]byte) func(hostile) {
		return instead(optGo, func(s hostile) {
			s.reply(optGo, repInfo, payload...)
			s.reply(optGo, repAck)
		})
	}
	blocks := func(least, pref, most uint32) func(hostile) {
		return info(be16(infoBlockSize), be32(least), be32(pref), be32(most))
	}
	for _, c := range []struct {
		name  string
		serve func(s hostile)
		want  string
		retry bool
	}{
		{"hangs up", func(hostile) {}, "hung up", true},
		{"hangs up in the greeting", func(s hostile) { s.send(be64(magicInit)) }, "hung up", true},
		{"another protocol", func(s hostile) { s.send([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, "not an NBD server", false},
		{"oldstyle", func(s hostile) { s.send(be64(magicInit), be64(magicOldstyle), make([]byte, 136)) }, "oldstyle", false},
		{"other greeting", func(s hostile) { s.send(be64(magicInit), be64(1), make([]byte, 136)) }, "IHAVEOPT", false},
		{"hangs up in an option", instead(optGo, func(s hostile) { s.Close() }), "hung up", true},
		{"reply magic", instead(optStructuredReply, func(s hostile) { s.send(make([]byte, 20)) }), "STRUCTURED_REPLY starts with 0x0", false},
		{"reply to another option", instead(optGo, func(s hostile) { s.reply(optInfo, repAck) }), "reply to option 6, but GO", false},
		{"reply of 4 GiB", instead(optGo, func(s hostile) {
			s.send(be64(magicOptReply), be32(optGo), be32(repInfo), be32(1<<32-1))
		}), "reply of 4294967295 bytes", false},
		{"error of 4 GiB", instead(optGo, func(s hostile) {
			s.send(be64(magicOptReply), be32(optGo), be32(repErrUnknown), be32(1<<32-1))
		}), "reply of 4294967295 bytes", false},
		{"ACK with payload", instead(optStructuredReply, func(s hostile) { s.reply(optStructuredReply, repAck, be32(1)) }), "ACK of STRUCTURED_REPLY has a payload", false},
		{"reply where there is none", instead(optStructuredReply, func(s hostile) { s.reply(optStructuredReply, repInfo, be32(1)) }), "which has none", false},
		{"no size", info(be16(infoName), []byte("x")), "without the export's size", false},
		{"short information", info([]byte{0}), "information of 1 bytes", false},
		{"short export information", info(be16(infoExport), be64(1)), "export information of 8 bytes", false},
		{"huge export", info(be16(infoExport), be64(1<<63), be16(txHasFlags)), "export of 9223372036854775808 bytes", false},
		{"no flags", info(be16(infoExport), be64(1), be16(0)), "without HAS_FLAGS", false},
		{"wrong kind of reply", instead(optGo, func(s hostile) { s.reply(optGo, repServer) }), "reply of type 2 to GO", false},
		{"short block sizes", info(be16(infoBlockSize), be32(1)), "block sizes of 4 bytes", false},
		{"minimum 0", blocks(0, 4096, 1<<20), "minimum block size of 0", false},
		{"minimum odd", blocks(513, 4096, 1<<20), "minimum block size of 513", false},
		{"minimum huge", blocks(1<<17, 1<<17, 1<<20), "minimum block size of 131072", false},
		{"preferred below minimum", blocks(4096, 512, 1<<20), "preferred block size of 512", false},
		{"preferred odd", blocks(512, 1000, 1<<20), "preferred block size of 1000", false},
		{"maximum below preferred", blocks(512, 4096, 512), "maximum block size of 512", false},
		{"maximum odd", blocks(512, 4096, 1<<20+1), "maximum block size of 1048577", false},
		{"endless information", instead(optGo, func(s hostile) {
			for i := 0; i <= maxOptionReplies+1; i++ {
				s.reply(optGo, repInfo, be16(99))
			}
		}), "more than 65536 replies", false},
		{"short context", instead(optSetMetaContext, func(s hostile) { s.reply(optSetMetaContext, repMetaContext, be32(1)) }), "metadata context of 4 bytes", false},
		{"context not asked for", instead(optSetMetaContext, func(s hostile) {
			s.reply(optSetMetaContext, repMetaContext, be32(1), []byte("x:y"))
			s.reply(optSetMetaContext, repAck)
		}), `context "x:y" was not asked for`, false},
		{"context twice", instead(optSetMetaContext, func(s hostile) {
			s.reply(optSetMetaContext, repMetaContext, be32(1), []byte(contextAllocation))
			s.reply(optSetMetaContext, repMetaContext, be32(2), []byte(contextAllocation))
			s.reply(optSetMetaContext, repAck)
		}), "one number or one name twice", false},
		{"no such export", instead(optGo, func(s hostile) { s.reply(optGo, repErrUnknown, []byte("no\x1b[2Jdisk")) }), "no such export (server: no?[2Jdisk)", false},
		{"shutting down", instead(optGo, func(s hostile) { s.reply(optGo, repErrShutdown) }), "shutting down", true},
		{"wants TLS", instead(optStructuredReply, func(s hostile) { s.reply(optStructuredReply, repErrTLSReqd) }), "use nbds://", false},
		{"unknown error", instead(optGo, func(s hostile) { s.reply(optGo, repFlagError|999) }), "error 0x800003e7", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := listen(t, c.serve)
			var err error
			if n := allocated(func() { _, err = Open(t.Context(), Config{URI: u}) }); n > maxHostileAlloc {
				t.Errorf("allocated %d bytes", n)
			}
			wantFault(t, err, c.want, c.retry)
		})
	}
}

func wantFault(t *testing.T, err error, want string, retry bool) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want an error with %q", err, want)
	}
	class, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err)
	if got := ok && class.Retryable(); got != retry {
		t.Errorf("%v: retryable %v, want %v", err, got, retry)
	}
}

// TestHostileReplies: each answer to one request breaks the protocol in one
// way, which the error names; the connection ends and says so ever after.
func TestHostileReplies(t *testing.T) {
	const off, length = 4096, 65536
	read := func(c *Client) error { _, err := c.ReadAt(make([]byte, length), off); return err }
	write := func(c *Client) error { _, err := c.WriteAt(make([]byte, length), off); return err }
	ask := func(c *Client) error {
		_, err := c.Status(t.Context(), contextAllocation, cbt.Extent{Off: off, Len: length})
		return err
	}
	const done = chunkFlagDone
	data := make([]byte, length)
	for _, c := range []struct {
		name   string
		use    func(c *Client) error
		answer func(s hostile, cookie uint64)
		want   string
	}{
		{"magic", read, func(s hostile, n uint64) { s.send(make([]byte, 32)) }, "reply starts with 0x0"},
		{"cookie 0", read, func(s hostile, n uint64) { s.chunk(0, done, chunkNone) }, "cookie 0x0, which is not in flight"},
		{"other slot", read, func(s hostile, n uint64) { s.chunk(n+1, done, chunkNone) }, "not in flight"},
		{"slot beyond", read, func(s hostile, n uint64) { s.chunk(n|0xff, done, chunkNone) }, "not in flight"},
		{"other use of the slot", read, func(s hostile, n uint64) { s.chunk(n+1<<8, done, chunkNone) }, "not in flight"},
		{"simple reply to read", read, func(s hostile, n uint64) {
			s.send(be32(magicSimpleReply), be32(0), be64(n), data)
		}, "simple reply to a command of type 0"},
		{"simple reply to status", ask, func(s hostile, n uint64) { s.send(be32(magicSimpleReply), be32(0), be64(n)) }, "simple reply to a command of type 7"},
		{"before the range", read, func(s hostile, n uint64) { s.chunk(n, done, chunkOffsetData, be64(off-1), data) }, "outside the read"},
		{"beyond the range", read, func(s hostile, n uint64) { s.chunk(n, done, chunkOffsetData, be64(off+1), data) }, "outside the read"},
		{"offset of 2^63", read, func(s hostile, n uint64) { s.chunk(n, done, chunkOffsetData, be64(1<<63+off), data) }, "outside the read"},
		{"length of 4 GiB", read, func(s hostile, n uint64) {
			s.chunkHead(n, done, chunkOffsetData, 1<<32-1)
			s.send(be64(off))
		}, "outside the read"},
		{"empty data", read, func(s hostile, n uint64) { s.chunk(n, done, chunkOffsetData, be64(off)) }, "data chunk of 8 bytes"},
		{"nothing", read, func(s hostile, n uint64) { s.chunk(n, done, chunkNone) }, "ends with [] answered"},
		{"half", read, func(s hostile, n uint64) { s.chunk(n, done, chunkOffsetData, be64(off), data[:length/2]) }, "ends with [[4096, +32768)] answered"},
		{"hole in the middle", read, func(s hostile, n uint64) {
			s.chunk(n, 0, chunkOffsetData, be64(off), data[:100])
			s.chunk(n, done, chunkOffsetData, be64(off+101), data[:length-101])
		}, "answered"},
		{"twice", read, func(s hostile, n uint64) {
			s.chunk(n, 0, chunkOffsetData, be64(off), data)
			s.chunk(n, done, chunkOffsetHole, be64(off+50), be32(1))
		}, "has [4146, +1) twice"},
		{"overlap", read, func(s hostile, n uint64) {
			s.chunk(n, 0, chunkOffsetHole, be64(off+100), be32(100))
			s.chunk(n, done, chunkOffsetData, be64(off+50), data[:100])
		}, "twice"},
		{"long hole", read, func(s hostile, n uint64) { s.chunk(n, done, chunkOffsetHole, be64(off), be32(length+1)) }, "outside the read"},
		{"empty hole", read, func(s hostile, n uint64) { s.chunk(n, done, chunkOffsetHole, be64(off), be32(0)) }, "outside the read"},
		{"hole of 13 bytes", read, func(s hostile, n uint64) {
			s.chunk(n, done, chunkOffsetHole, be64(off), be32(length), []byte{0})
		}, "hole chunk of 13 bytes"},
		{"fragments", read, func(s hostile, n uint64) {
			for i := range uint64(maxFragments + 1) {
				s.chunk(n, 0, chunkOffsetHole, be64(off+2*i), be32(1))
			}
		}, "more than 1024 fragments"},
		{"none with payload", read, func(s hostile, n uint64) { s.chunk(n, done, chunkNone, be32(1)) }, "NONE with 4 bytes"},
		{"none not done", read, func(s hostile, n uint64) { s.chunk(n, 0, chunkNone) }, "NONE with 0 bytes, done false"},
		{"unknown content", read, func(s hostile, n uint64) { s.chunk(n, done, 3, be64(off)) }, "chunk of type 3"},
		{"status for read", read, func(s hostile, n uint64) { s.chunk(n, done, chunkBlockStatus, be32(7), be32(1), be32(1)) }, "chunk of type 5"},
		{"data for write", write, func(s hostile, n uint64) { s.chunk(n, done, chunkOffsetData, be64(off), data) }, "chunk of type 1"},
		{"error 0", read, func(s hostile, n uint64) { s.chunk(n, done, chunkError, be32(0), be16(0)) }, "error 0"},
		{"short error", read, func(s hostile, n uint64) { s.chunk(n, done, chunkError, be32(5)) }, "error chunk of 4 bytes"},
		{"long error", read, func(s hostile, n uint64) { s.chunkHead(n, done, chunkError, 1<<32-1) }, "error chunk of 4294967295 bytes"},
		{"message longer than chunk", read, func(s hostile, n uint64) { s.chunk(n, done, chunkError, be32(5), be16(9), []byte("x")) }, "with a message of 9"},
		{"error without offset", read, func(s hostile, n uint64) { s.chunk(n, done, chunkErrorOffset, be32(5), be16(0)) }, "error chunk of 6 bytes"},
		{"error elsewhere", read, func(s hostile, n uint64) { s.chunk(n, done, chunkErrorOffset, be32(5), be16(0), be64(off+length)) }, "outside the request"},
		{"endless errors", read, func(s hostile, n uint64) {
			for range maxErrorChunks + 1 {
				s.chunk(n, 0, chunkError, be32(5), be16(0))
			}
		}, "more than 4096 errors"},
		{"status of no extent", ask, func(s hostile, n uint64) { s.chunk(n, done, chunkBlockStatus, be32(7)) }, "status chunk of 4 bytes"},
		{"status of half an extent", ask, func(s hostile, n uint64) { s.chunk(n, done, chunkBlockStatus, be32(7), be64(1), be32(1)) }, "status chunk of 16 bytes"},
		{"status of 4 GiB", ask, func(s hostile, n uint64) { s.chunkHead(n, done, chunkBlockStatus, 1<<32-4) }, "status chunk of 4294967292 bytes"},
		{"status of length 0", ask, func(s hostile, n uint64) { s.chunk(n, done, chunkBlockStatus, be32(7), be32(0), be32(1)) }, "status extent of 0 bytes"},
		{"status beyond", ask, func(s hostile, n uint64) {
			s.chunk(n, done, chunkBlockStatus, be32(7), be32(length), be32(1), be32(1), be32(1))
		}, "beyond the request"},
		{"status of another context", ask, func(s hostile, n uint64) { s.chunk(n, done, chunkBlockStatus, be32(8), be32(1), be32(1)) }, "context 8, which is not active"},
		{"status twice", ask, func(s hostile, n uint64) {
			s.chunk(n, 0, chunkBlockStatus, be32(7), be32(1), be32(1))
			s.chunk(n, done, chunkBlockStatus, be32(7), be32(1), be32(1))
		}, "twice in one reply"},
		{"status missing", ask, func(s hostile, n uint64) { s.chunk(n, done, chunkNone) }, "without the context"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := listen(t, func(s hostile) {
				s.answer(nil)
				_, cookie, _ := s.request()
				c.answer(s, cookie)
				s.request() // until the client leaves
			})
			client, err := Open(t.Context(), Config{URI: u, Writable: true})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if n := allocated(func() { err = c.use(client) }); n > maxHostileAlloc {
				t.Errorf("allocated %d bytes", n)
			}
			wantFault(t, err, c.want, false)
			if _, ok := errors.AsType[*ProtocolError](err); !ok {
				t.Errorf("%v is no ProtocolError", err)
			}
			wantFault(t, client.Alive(), c.want, false)
			wantFault(t, read(client), c.want, false)
		})
	}
}

// TestHostileSilence: a server that stops talking, at any point, is lost after
// Timeout, and everything that waits for it ends.
func TestHostileSilence(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(s hostile, cookie uint64)
		want   string
	}{
		{"at once", func(hostile, uint64) {}, "nothing for 100ms"},
		{"in a head", func(s hostile, n uint64) { s.send(be32(magicStructuredReply)) }, "nothing for 100ms"},
		{"in data", func(s hostile, n uint64) {
			s.chunkHead(n, chunkFlagDone, chunkOffsetData, 8+65536)
			s.send(be64(0), make([]byte, 100))
		}, "nothing for 100ms"},
		{"drips, and is never done", func(s hostile, n uint64) {
			for range 1000 {
				if _, err := s.Write(append(append(append(be32(magicStructuredReply), 0, 0, 0x80, 1), be64(n)...), append(be32(6), 0, 0, 0, 5, 0, 0)...)); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond) // of the bubble
			}
		}, "a request that is 1s old"},
	} {
		t.Run(c.name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { silence(t, c.answer, c.want) }) })
	}
}

// silence asks more than there are slots for of a server that answers the first
// request in a wrong way, and reads on.
func silence(t *testing.T, answer func(s hostile, cookie uint64), want string) {
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ours.Close()
	s := hostile{theirs}
	wg.Go(func() {
		defer theirs.Close()
		s.answer(nil)
		_, cookie, _ := s.request()
		wg.Go(func() { answer(s, cookie) })
		_, _ = io.Copy(io.Discard, s)
	})
	var h clientHandshake
	h.use(ours)
	if err := h.toTransmission(t.Context(), URI{}, []string{contextAllocation}); err != nil {
		t.Fatal(err)
	}
	client := &Client{export: h.export, writable: true, stop: make(chan struct{}), conns: []*clientConn{newClientConn(&h, ours, "x")}}
	if err := client.judge(); err != nil {
		t.Fatal(err)
	}
	client.start(100 * time.Millisecond)
	defer client.Close()
	for range 2 * clientDepth {
		wg.Go(func() {
			_, err := client.ReadAt(make([]byte, 65536), 0)
			wantSilence(t, err, want)
		})
	}
	wg.Wait()
	wantSilence(t, client.Flush(), want)
}

func wantSilence(t *testing.T, err error, want string) {
	t.Helper()
	if lost, ok := errors.AsType[*LostError](err); !ok || !errors.Is(lost, errSilent) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want a LostError with %q", err, want)
	}
}

// TestHostileWindow: a server that reads nothing does not block forever either.
func TestHostileWindow(t *testing.T) {
	u := listen(t, func(s hostile) {
		s.answer(nil)
		time.Sleep(time.Second)
	})
	client, err := Open(t.Context(), Config{URI: u, Writable: true, Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.WriteAt(make([]byte, 4<<20), 0)
	if _, ok := errors.AsType[*LostError](err); !ok {
		t.Errorf("write to a server that does not read: got %v, want a LostError", err)
	}
}

func TestHostileHandshakeHangs(t *testing.T) {
	release := make(chan struct{})
	u := listen(t, func(s hostile) { <-release })
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if c, err := Open(ctx, Config{URI: u}); err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("a server that does not greet: got %v, %v", c, err)
	}
}

// TestHostileSecondConnection: it must see the same disk.
func TestHostileSecondConnection(t *testing.T) {
	var mu sync.Mutex
	size := uint64(hostileSize)
	u := listen(t, func(s hostile) {
		s.answer(map[uint32]func(){optGo: func() {
			mu.Lock()
			defer mu.Unlock()
			if size == hostileSize {
				time.Sleep(moreTimeout) // the others may take so many times as long
			}
			s.reply(optGo, repInfo, be16(infoExport), be64(size), be16(txHasFlags|txCanMultiConn))
			s.reply(optGo, repAck)
			size++
		}})
	})
	c, err := Open(t.Context(), Config{URI: u})
	if err == nil {
		c.Close()
	}
	wantFault(t, err, "a further connection sees 8388609 bytes", false)
}
