package nbd

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

func openServer(t testing.TB, s *nbdtest.Server, cfg Config) *Client {
	t.Helper()
	u, err := ParseURI(s.URI)
	if err != nil {
		t.Fatal(err)
	}
	cfg.URI = u
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestOldServers: nbdkit without the newer parts of the negotiation, one after
// the other, down to a bare newstyle server with its 124 zeros.
func TestOldServers(t *testing.T) {
	content := make([]byte, 3<<20+1)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // never fails
	img := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"no structured replies": {"--no-sr"},
		"no fixed newstyle":     {"--mask-handshake=0"},
		"no NO_ZEROES":          {"--mask-handshake=1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := openServer(t, nbdtest.Unix(t, "nbdkit", append(append([]string{"-f"}, args...), "file", img)...), Config{})
			got := make([]byte, len(content))
			if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
				t.Errorf("read: %v, or wrong bytes", err)
			}
		})
	}
	t.Run("oldstyle", func(t *testing.T) {
		u, err := ParseURI(nbdtest.Unix(t, "nbdkit", "-f", "-o", "file", img).URI)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := Open(t.Context(), Config{URI: u}); err == nil || !strings.Contains(err.Error(), "oldstyle") {
			t.Errorf("oldstyle server: got %v, %v", c, err)
		}
	})
}

// TestFallbackToExportName: a server that knows options but not GO.
func TestFallbackToExportName(t *testing.T) {
	for name, zeroes := range map[string]bool{"": false, "disk": true} {
		u := listen(t, func(s hostile) {
			flags := flagFixedNewstyle | flagNoZeroes
			if zeroes {
				flags = flagFixedNewstyle
			}
			s.send(be64(magicInit), be64(magicOption), be16(flags))
			_, _ = io.ReadFull(s, make([]byte, 4))
			for o := s.option(); o != optExportName; o = s.option() {
				if o == 0 {
					return
				}
				s.reply(o, repErrUnsup)
			}
			s.send(be64(4096), be16(txHasFlags|txSendFlush))
			if zeroes {
				s.send(make([]byte, 124))
			}
			_, cookie, e := s.request()
			s.send(be32(magicSimpleReply), be32(0), be64(cookie), bytes.Repeat([]byte{'Z'}, int(e.Len)))
			s.request()
		})
		u.Export = name
		c, err := Open(t.Context(), Config{URI: u})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4096)
		if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{'Z'}, 4096)) {
			t.Errorf("read: %v, or wrong bytes", err)
		}
		if e, err := c.NextData(10); err != nil || e != (cbt.Extent{Off: 10, Len: 4086}) {
			t.Errorf("map without contexts: got %v, %v, want all data", e, err)
		}
		c.Close()
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b c"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1000*len(name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := nbdtest.Unix(t, "nbdkit", "-f", "-r", "file", "dir="+dir)
	u, err := ParseURI(s.URI)
	if err != nil {
		t.Fatal(err)
	}
	got, err := List(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(x, y Offer) int { return strings.Compare(x.Name, y.Name) })
	if len(got) != 2 || got[0].Name != "a" || got[1].Name != "b c" || got[1].Size != 3000 || !got[0].ReadOnly || !slices.Equal(got[1].Contexts, []string{contextAllocation}) {
		t.Errorf("list: got %+v", got)
	}
	u.Export = "b c"
	c, err := Open(t.Context(), Config{URI: u})
	if err != nil || c.Size() != 3000 {
		t.Fatalf("open %q: %v", u.Export, err)
	}
	c.Close()
	u.Export = "missing"
	if c, err := Open(t.Context(), Config{URI: u}); err == nil {
		t.Errorf("open %q: got %v, no error", u.Export, c)
	}
}

func TestListOfQEMU(t *testing.T) {
	img := filepath.Join(t.TempDir(), "d.qcow2")
	nbdtest.Run(t, "qemu-img", "create", "-f", "qcow2", img, "1M")
	nbdtest.Run(t, "qemu-img", "bitmap", "--add", img, "b0")
	s := nbdtest.Unix(t, "qemu-nbd", "-t", "-r", "-x", "vm disk", "-D", "a disk\nof ours", "-B", "b0", "-f", "qcow2", img)
	u, err := ParseURI(s.URI)
	if err != nil {
		t.Fatal(err)
	}
	got, err := List(t.Context(), u)
	if err != nil || len(got) != 1 || got[0].Name != "vm disk" || got[0].Description != "a disk?of ours" || got[0].Size != 1<<20 ||
		!slices.Contains(got[0].Contexts, "qemu:dirty-bitmap:b0") {
		t.Errorf("list: got %+v, %v", got, err)
	}
}

// TestListKeptSecret: LIST may be forbidden; INFO of one export is then all.
func TestListKeptSecret(t *testing.T) {
	u := listen(t, func(s hostile) {
		s.answer(map[uint32]func(){
			optList: func() { s.reply(optList, repErrPolicy) },
			optInfo: func() {
				s.export(optInfo, 0)
				s.reply(optInfo, repAck)
			},
		})
	})
	u.Export = "x"
	got, err := List(t.Context(), u)
	if err != nil || len(got) != 1 || got[0].Name != "x" || got[0].Size != hostileSize {
		t.Errorf("list: got %+v, %v", got, err)
	}
}

// TestTail: a disk that ends within a block is served as far as the server does.
func TestTail(t *testing.T) {
	s := nbdtest.Unix(t, "nbdkit", "-f", "--filter=blocksize-policy", "memory", "1000001", "blocksize-minimum=512", "blocksize-preferred=4096",
		"blocksize-maximum=64K", "blocksize-error-policy=allow")
	c := openServer(t, s, Config{Writable: true})
	want := bytes.Repeat([]byte("tail"), 300)
	off := c.Size() - int64(len(want))
	if _, err := c.WriteAt(want, off); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := c.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read of the tail: %v, or wrong bytes", err)
	}
	if err := c.Zero(cbt.Extent{Off: c.Size() - 3, Len: 3}, cbt.Deallocate); err != nil {
		t.Errorf("zero the tail: %v", err)
	}
}

func TestWriteFUAAndTrim(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	for _, c := range []struct{ fua, want string }{
		{"native", "write 5 10 fua\ntrim 8192 4096\n"},
		{"none", "write 5 10\nflush\ntrim 8192 4096\n"},
	} {
		s := nbdtest.Unix(t, "nbdkit", "-f", "eval", "get_size=echo 1M", "can_write=exit 0", "can_flush=exit 0", "can_trim=exit 0", "can_fua=echo "+c.fua,
			"pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null; echo write $3 $4 $5 >>"+log, "flush=echo flush >>"+log, "trim=echo trim $3 $4 $5 >>"+log)
		client := openServer(t, s, Config{Writable: true})
		_, err1 := client.WriteFUA([]byte("hello"), 10)
		if err := errors.Join(err1, client.Trim(cbt.Extent{Off: 4096, Len: 8192})); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(log)
		if err != nil || string(got) != c.want {
			t.Errorf("FUA %s: the server saw %q, %v, want %q", c.fua, got, err, c.want)
		}
		if err := os.Remove(log); err != nil {
			t.Fatal(err)
		}
	}
}

// TestErrorsOfServer: the text of a structured error, its place, and numbers
// that the protocol does not have.
func TestErrorsOfServer(t *testing.T) {
	for _, c := range []struct {
		name    string
		payload [][]byte
		kind    uint16
		want    error
		at      cbt.Extent
		text    string
	}{
		{"text", [][]byte{be32(errIO), be16(10), []byte("bad sector")}, chunkError, syscall.EIO, cbt.Extent{Off: 512, Len: 4096}, "bad sector"},
		{"place", [][]byte{be32(errNoSpc), be16(0), be64(600)}, chunkErrorOffset, syscall.ENOSPC, cbt.Extent{Off: 600, Len: 1}, ""},
		{"unknown number", [][]byte{be32(4711), be16(0)}, chunkError, syscall.EIO, cbt.Extent{Off: 512, Len: 4096}, ""},
		{"unknown kind", [][]byte{be32(errNoMem), be16(1), []byte("x"), be64(1)}, chunkFlagError | 99, syscall.ENOMEM, cbt.Extent{Off: 512, Len: 4096}, "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := listen(t, func(s hostile) {
				s.answer(nil)
				_, cookie, _ := s.request()
				s.chunk(cookie, 0, c.kind, c.payload...)
				s.chunk(cookie, chunkFlagDone, chunkNone)
				_, cookie, e := s.request()
				s.chunk(cookie, chunkFlagDone, chunkOffsetHole, be64(uint64(e.Off)), be32(uint32(e.Len)))
				s.request()
			})
			client, err := Open(t.Context(), Config{URI: u})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = client.ReadAt(make([]byte, 4096), 512)
			got, ok := errors.AsType[*Error](err)
			if !ok || !errors.Is(err, c.want) || got.Extent != c.at || got.Text != c.text || got.Op != "read" {
				t.Errorf("got %+v, want %v at %v, %q", got, c.want, c.at, c.text)
			}
			if _, err := client.ReadAt(make([]byte, 4096), 512); err != nil {
				t.Errorf("the connection does not go on: %v", err)
			}
		})
	}
}

// TestChunksInAnyOrder: the protocol allows it, and the bytes must be right.
func TestChunksInAnyOrder(t *testing.T) {
	const length = 64 << 10
	want := make([]byte, length)
	_, _ = rand.NewChaCha8([32]byte{5}).Read(want) // never fails
	clear(want[4096:8192])
	u := listen(t, func(s hostile) {
		s.answer(nil)
		_, cookie, _ := s.request()
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(length / 512) {
			off := i * 512
			if off >= 4096 && off < 8192 {
				s.chunk(cookie, 0, chunkOffsetHole, be64(uint64(off)), be32(512))
			} else {
				s.chunk(cookie, 0, chunkOffsetData, be64(uint64(off)), want[off:off+512])
			}
		}
		s.chunk(cookie, chunkFlagDone, chunkNone)
		s.request()
	})
	c, err := Open(t.Context(), Config{URI: u})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := bytes.Repeat([]byte{0xEE}, length)
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read in shuffled chunks: %v, or wrong bytes", err)
	}
}

// TestPartsOfBlocks: writers of different parts of one block, at the same time,
// do not undo each other, though each writes whole blocks.
func TestPartsOfBlocks(t *testing.T) {
	s := nbdtest.Unix(t, "nbdkit", "-f", "--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4096", "blocksize-preferred=4096",
		"blocksize-maximum=64K", "blocksize-error-policy=error")
	c := openServer(t, s, Config{Writable: true})
	const stripe, workers = 333, 8
	want := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(want) // never fails
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for off := w * stripe; off < len(want); off += workers * stripe {
				p := want[off:min(off+stripe, len(want))]
				if _, err := c.WriteAt(p, int64(off)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := make([]byte, len(want))
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read back: %v, or wrong bytes", err)
	}
}

// TestLimitOfConnections: a server that says that connections see one state,
// but takes two, is used with two.
func TestLimitOfConnections(t *testing.T) {
	img := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, bytes.Repeat([]byte("x"), 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openServer(t, nbdtest.Unix(t, "qemu-nbd", "-t", "-e", "2", "-f", "raw", img), Config{Writable: true})
	if n := c.Connections(); n < 1 || n > 2 {
		t.Errorf("%d connections to a server that takes 2", n)
	}
	if _, err := c.WriteAt(make([]byte, 8<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}
