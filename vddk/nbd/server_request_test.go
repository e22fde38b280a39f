package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// TestServerAnswers is what each request is answered, right and wrong ones, by
// a server with and one without structured replies.
func TestServerAnswers(t *testing.T) {
	const size = 4 << 20
	for _, c := range []struct {
		name         string
		export       string
		flags, cmd   uint16
		off          uint64
		length       uint32
		payload      int
		want, simple uint32 // code with and without structured replies
	}{
		{"read", "rw", 0, cmdRead, 512, 4096, 0, 0, 0},
		{"read to the end", "rw", 0, cmdRead, size - 1, 1, 0, 0, 0},
		{"read with FUA", "rw", cmdFlagFUA, cmdRead, 0, 512, 0, 0, 0},
		{"read with DF", "rw", cmdFlagDF, cmdRead, 0, 65536, 0, 0, errInval},
		{"read with DF, too long", "rw", cmdFlagDF, cmdRead, 0, 2 << 20, 0, errOverflow, errInval},
		{"read beyond the end", "rw", 0, cmdRead, size - 1, 2, 0, errInval, errInval},
		{"read far beyond the end", "rw", 0, cmdRead, 1<<64 - 1, 512, 0, errInval, errInval},
		{"read nothing", "rw", 0, cmdRead, 0, 0, 0, errInval, errInval},
		{"read more than the largest", "rw", 0, cmdRead, 0, 1<<32 - 1, 0, errInval, errInval},
		{"read with a write's flag", "rw", cmdFlagNoHole, cmdRead, 0, 512, 0, errInval, errInval},
		{"unknown flag", "rw", 1 << 9, cmdWrite, 0, 512, 512, errInval, errInval},
		{"unknown command", "rw", 0, 99, 0, 0, 0, errInval, errInval},
		{"cache", "rw", 0, cmdCache, 0, 512, 0, errInval, errInval},
		{"write", "rw", 0, cmdWrite, 0, 512, 512, 0, 0},
		{"write with FUA", "rw", cmdFlagFUA, cmdWrite, size - 512, 512, 512, 0, 0},
		{"write beyond the end", "rw", 0, cmdWrite, size - 511, 512, 512, errNoSpc, errNoSpc},
		{"write nothing", "rw", 0, cmdWrite, 0, 0, 0, errInval, errInval},
		{"write read-only", "ro", 0, cmdWrite, 0, 512, 512, errPerm, errPerm},
		{"flush", "rw", 0, cmdFlush, 0, 0, 0, 0, 0},
		{"flush of a range", "rw", 0, cmdFlush, 512, 512, 0, errInval, errInval},
		{"flush read-only", "ro", 0, cmdFlush, 0, 0, 0, 0, 0},
		{"trim", "rw", 0, cmdTrim, 0, 65536, 0, 0, 0},
		{"trim with FUA", "rw", cmdFlagFUA, cmdTrim, 0, 65536, 0, 0, 0},
		{"trim beyond the end", "rw", 0, cmdTrim, size, 1, 0, errInval, errInval},
		{"trim read-only", "ro", 0, cmdTrim, 0, 512, 0, errPerm, errPerm},
		{"trim where there is none", "bare", 0, cmdTrim, 0, 512, 0, errInval, errInval},
		{"zero", "rw", 0, cmdWriteZeroes, 0, 65536, 0, 0, 0},
		{"zero all", "rw", cmdFlagNoHole, cmdWriteZeroes, 0, size, 0, 0, 0},
		{"zero fast", "rw", cmdFlagFastZero, cmdWriteZeroes, 0, size, 0, 0, 0},
		{"zero fast in place", "rw", cmdFlagFastZero | cmdFlagNoHole, cmdWriteZeroes, 0, size, 0, errNotSup, errNotSup},
		{"zero fast where it is slow", "bare", cmdFlagFastZero, cmdWriteZeroes, 0, size, 0, errNotSup, errNotSup},
		{"zero by writing", "bare", 0, cmdWriteZeroes, 1, 3 << 20, 0, 0, 0},
		{"zero beyond the end", "rw", 0, cmdWriteZeroes, 1, size, 0, errNoSpc, errNoSpc},
		{"zero read-only", "ro", 0, cmdWriteZeroes, 0, 512, 0, errPerm, errPerm},
		{"status", "rw", 0, cmdBlockStatus, 0, size, 0, 0, errInval},
		{"status beyond the end", "rw", 0, cmdBlockStatus, 1, size, 0, errInval, errInval},
		{"unaligned", "sector", 0, cmdRead, 1, 512, 0, errInval, errInval},
		{"unaligned length", "sector", 0, cmdWrite, 0, 513, 513, errInval, errInval},
	} {
		for _, structured := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", c.name, structured), func(t *testing.T) {
				s := serveRaw(t, ServerConfig{Exports: []Export{
					{Name: "rw", Device: newRawDevice(size), FastZero: true},
					{Name: "ro", Device: newRawDevice(size), ReadOnly: true},
					{Name: "bare", Device: onlyDevice{newRawDevice(size)}, FastZero: true},
					{Name: "sector", Device: newRawDevice(size), MinBlock: 512},
				}})
				k := s.dial().hello().choose(c.export, structured)
				k.write(requestBytes(c.flags, c.cmd, 77, c.off, c.length), bytes.Repeat([]byte{9}, c.payload))
				want := c.want
				if !structured {
					want = c.simple
				}
				for {
					n := 0
					if c.cmd == cmdRead {
						n = int(c.length)
					}
					a := k.answer(n)
					if a.cookie != 77 || a.code != want || structured && c.cmd == cmdRead && a.simple || !structured && !a.simple {
						t.Fatalf("answer %+.200v, want cookie 77 and code %d", a, want)
					}
					if a.done {
						break
					}
				}
				// The connection is in step, or everything after it would be wrong.
				k.write(requestBytes(0, cmdRead, 78, 0, 512))
				if a := k.answer(512); a.cookie != 78 || len(a.data) != 512 {
					t.Errorf("the next request is answered %+.100v", a)
				}
			})
		}
	}
}

// TestServerLongRead reads what is longer than a block, in chunks and as one.
func TestServerLongRead(t *testing.T) {
	d := newRawDevice(9<<20 + 1000)
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d}}})
	for _, structured := range []bool{true, false} {
		k := s.dial().hello().choose("", structured)
		got := make([]byte, len(d.data)-500)
		k.write(requestBytes(0, cmdRead, 1, 500, uint32(len(got))))
		chunks := 0
		for done := false; !done; chunks++ {
			a := k.answer(len(got))
			done = a.done
			if a.code != 0 {
				t.Fatalf("answer %+.100v", a)
			}
			if !a.simple {
				a.at -= 500
			}
			copy(got[a.at:], a.data)
		}
		if !bytes.Equal(got, d.data[500:]) {
			t.Errorf("structured %v: the bytes are not those of the disk", structured)
		}
		if structured == (chunks == 1) {
			t.Errorf("structured %v: %d chunks", structured, chunks)
		}
	}
}

// TestServerReadError wants the offset of the failure, the other pieces whole,
// and a connection that goes on.
func TestServerReadError(t *testing.T) {
	d := newRawDevice(4 << 20)
	d.fail = func(op string, e cbt.Extent) error {
		if op == "read" && e.Intersect(cbt.Extent{Off: 2<<20 + 5, Len: 1}).Len > 0 {
			return fmt.Errorf("secret/path: %w", syscall.EIO)
		}
		return nil
	}
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d}}})
	k := s.dial().hello().choose("", true)
	k.write(requestBytes(0, cmdRead, 1, 0, 4<<20))
	bad, good := 0, 0
	for done := false; !done; {
		a := k.answer(0)
		done = a.done
		if a.code == errIO && a.kind == chunkErrorOffset && a.at == 2<<20 {
			bad++
		} else {
			good += len(a.data)
		}
		if bytes.Contains(a.data, []byte("secret")) {
			t.Error("the client got the path")
		}
	}
	if bad != 1 || good != 3<<20 {
		t.Errorf("%d errors and %d good bytes, want 1 and %d", bad, good, 3<<20)
	}
	k = s.dial().hello().choose("", false)
	k.write(requestBytes(0, cmdRead, 1, 2<<20, 4096))
	if a := k.answer(4096); a.code != errIO {
		t.Errorf("simple reply: %+v", a)
	}
	k.write(requestBytes(0, cmdRead, 2, 0, 4<<20)) // fails after its header
	k.read(simpleLen)
	k.closed()
}

// TestServerErrno is the number that a device's error becomes.
func TestServerErrno(t *testing.T) {
	for _, c := range []struct {
		err  error
		want uint32
	}{
		{syscall.EIO, errIO},
		{errors.New("x"), errIO},
		{syscall.ENOSPC, errNoSpc},
		{syscall.EDQUOT, errNoSpc},
		{syscall.EROFS, errPerm},
		{syscall.ENOMEM, errNoMem},
		{syscall.EOPNOTSUPP, errNotSup},
		{syscall.ESHUTDOWN, errShutdown},
		{cbt.ErrBounds, errInval},
		{retryableError{}, errShutdown},
	} {
		d := newRawDevice(1 << 20)
		d.fail = func(op string, _ cbt.Extent) error {
			if op == "write" {
				return fmt.Errorf("write: %w", c.err)
			}
			return nil
		}
		s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d}}})
		k := s.dial().hello().choose("", true)
		k.write(requestBytes(0, cmdWrite, 5, 0, 512), make([]byte, 512))
		if a := k.answer(0); a.code != c.want || a.kind != chunkError {
			t.Errorf("%v: answer %+v, want code %d", c.err, a, c.want)
		}
	}
}

type retryableError struct{}

func (retryableError) Error() string   { return "worker gone" }
func (retryableError) Retryable() bool { return true }

// TestServerFlushStaysFailed wants no flush to succeed after one has failed, on
// any connection, whatever the device says.
func TestServerFlushStaysFailed(t *testing.T) {
	d := newRawDevice(1 << 20)
	var failed atomic.Bool
	d.fail = func(op string, _ cbt.Extent) error {
		if op == "flush" && failed.CompareAndSwap(false, true) {
			return syscall.EIO
		}
		return nil
	}
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d}}})
	for i, r := range [][]byte{
		requestBytes(0, cmdFlush, 1, 0, 0),
		requestBytes(0, cmdFlush, 1, 0, 0),
		join(requestBytes(cmdFlagFUA, cmdWrite, 1, 0, 512), make([]byte, 512)),
		requestBytes(cmdFlagFUA, cmdWriteZeroes, 1, 0, 512),
	} {
		k := s.dial().hello().choose("", true)
		k.write(r)
		if a := k.answer(0); a.code != errIO {
			t.Errorf("request %d after the failure: %+v, want EIO", i, a)
		}
	}
	if d.flushes != 1 {
		t.Errorf("the device was flushed %d times", d.flushes)
	}
}

// TestServerFUA wants one flush per change that asks for it, after all of its
// pieces.
func TestServerFUA(t *testing.T) {
	d := newRawDevice(8 << 20)
	var written, at atomic.Int64
	d.fail = func(op string, e cbt.Extent) error {
		switch op {
		case "write":
			written.Add(e.Len)
		case "flush":
			at.Store(written.Load())
		}
		return nil
	}
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d}}})
	k := s.dial().hello().choose("", true)
	k.write(requestBytes(cmdFlagFUA, cmdWrite, 1, 0, 6<<20+512), make([]byte, 6<<20+512))
	if a := k.answer(0); a.code != 0 || d.flushes != 1 || at.Load() != 6<<20+512 {
		t.Errorf("answer %+v after %d flushes, the last with %d bytes written", a, d.flushes, at.Load())
	}
	k.write(requestBytes(cmdFlagFUA, cmdTrim, 2, 0, 512))
	k.answer(0)
	k.write(requestBytes(cmdFlagFUA, cmdRead, 3, 0, 512))
	k.answer(0)
	k.write(requestBytes(0, cmdWrite, 4, 0, 512), make([]byte, 512))
	k.answer(0)
	if d.flushes != 2 {
		t.Errorf("%d flushes, want 2", d.flushes)
	}
}

// TestServerHoles sends holes as holes, and says so in the status.
func TestServerHoles(t *testing.T) {
	d := newRawDevice(4 << 20)
	d.holes = []cbt.Extent{{Off: 1 << 20, Len: 2<<20 + 100}}
	clear(d.data[1<<20 : 3<<20+100])
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d}, {Name: "sector", Device: d, MinBlock: 512}}})
	k := s.dial().hello().choose("", true)
	for _, c := range []struct {
		flags uint16
		off   uint64
		want  uint16
	}{
		{0, 0, chunkOffsetData},
		{0, 65536, chunkOffsetData},
		{0, 1 << 20, chunkOffsetHole},
		{cmdFlagDF, 1 << 20, chunkOffsetData},
		{0, 1<<20 - 512, chunkOffsetData},
		{0, 3<<20 - 65536 + 100, chunkOffsetHole},
		{0, 3<<20 - 65536 + 101, chunkOffsetData},
	} {
		k.write(requestBytes(c.flags, cmdRead, 1, c.off, 65536))
		if a := k.answer(0); a.kind != c.want || a.at != c.off || !a.done {
			t.Errorf("read at %d with flags %d: chunk %d at %d", c.off, c.flags, a.kind, a.at)
		}
	}
	status := func(k *rawClient, flags uint16, off uint64, length uint32) (text string) {
		k.write(requestBytes(flags, cmdBlockStatus, 1, off, length))
		for b := k.answer(0).data; len(b) >= 8; b = b[8:] {
			text += fmt.Sprintf("%d:%d ", binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]))
		}
		return strings.TrimSpace(text)
	}
	if got, want := status(k, 0, 512, 4<<20-512), "1048064:0 2097252:3 1048476:0"; got != want {
		t.Errorf("status: %s, want %s", got, want)
	}
	if got, want := status(k, cmdFlagReqOne, 1<<20, 65536), "65536:3"; got != want {
		t.Errorf("status of one: %s, want %s", got, want)
	}
	k = s.dial().hello().choose("sector", true)
	if got, want := status(k, 0, 512, 4<<20-512), "1048064:0 2097152:3 1048576:0"; got != want {
		t.Errorf("status in sectors: %s, want %s", got, want)
	}
}

// TestServerManyExtents bounds the answer for a disk that is all crumbs.
func TestServerManyExtents(t *testing.T) {
	d := newRawDevice(64 << 20)
	for off := int64(0); off < d.Size(); off += 1024 {
		d.holes = append(d.holes, cbt.Extent{Off: off, Len: 512})
	}
	d.holes = d.holes[:20000] // NextData of the test is linear
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d}}})
	k := s.dial().hello().choose("", true)
	k.write(requestBytes(0, cmdBlockStatus, 1, 0, 64<<20))
	a := k.answer(0)
	if n := len(a.data) / 8; n != (serverSpareSize-4)/8 {
		t.Errorf("%d extents, want %d", n, (serverSpareSize-4)/8)
	}
}
