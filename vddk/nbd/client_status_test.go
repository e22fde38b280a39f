package nbd

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// TestWholeStatus compares the rounding with a bitmap: a block is a hole only
// when all of it was told to be one, and each question brings at least a block.
func TestWholeStatus(t *testing.T) {
	const least, size = 8, 8*20 + 3
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 3))
		name, good, bad := contextAllocation, uint32(allocationHole|allocationZero), uint32(allocationHole)
		if seed%2 == 1 {
			name, good, bad = contextDirtyBitmap+"b", 0, dirtyBitmapDirty
		}
		var found []StatusExtent
		var promised [size]bool
		first := r.Int64N(10) * least
		off := first
		for range 1 + r.IntN(12) {
			e := StatusExtent{cbt.Extent{Off: off, Len: min(1+r.Int64N(20), size-off)}, good}
			if r.IntN(3) == 0 {
				e.Flags = bad
			}
			if e.Len <= 0 {
				break
			}
			for i := e.Off; i < e.End(); i++ {
				promised[i] = e.Flags == good
			}
			found, off = append(found, e), e.End()
		}
		out := wholeStatus(found, name, least, size)
		at := first
		for _, e := range out {
			if e.Off != at || e.Len <= 0 || e.End()%least != 0 && e.End() != size {
				t.Fatalf("seed %d: %v: not whole blocks from %d on", seed, out, first)
			}
			at = e.End()
			for b := e.Off; b < e.End(); b += least {
				all := true
				for i := b; i < min(b+least, size); i++ {
					all = all && promised[i]
				}
				if isGood := e.Flags == good; isGood != all {
					t.Fatalf("seed %d: block at %d: flags %d, all of it was promised: %v\n%v", seed, b, e.Flags, all, out)
				}
			}
		}
		if at <= first || at < off/least*least {
			t.Fatalf("seed %d: told to %d, of [%d, %d)", seed, at, first, off)
		}
	}
}

// TestStatusBelowBlock: a server whose extents are smaller than its least block
// is asked a bounded number of times, and what it does not tell counts as data.
func TestStatusBelowBlock(t *testing.T) {
	var asked atomic.Int64
	bitmap := contextDirtyBitmap + "b"
	u := listen(t, func(s hostile) {
		context := func(option uint32) func() {
			return func() {
				s.reply(option, repMetaContext, be32(7), []byte(contextAllocation))
				s.reply(option, repMetaContext, be32(8), []byte(bitmap))
				s.reply(option, repAck)
			}
		}
		s.answer(map[uint32]func(){
			optListMetaContext: context(optListMetaContext), optSetMetaContext: context(optSetMetaContext),
			optGo: func() {
				s.export(optGo, 0)
				s.reply(optGo, repInfo, be16(infoBlockSize), be32(4096), be32(4096), be32(32<<20))
				s.reply(optGo, repAck)
				for {
					cmd, cookie, _ := s.request()
					if cookie == 0 {
						return
					}
					if cmd == cmdBlockStatus {
						if asked.Add(1) > 2*hostileSize/4096 {
							return
						}
						s.chunk(cookie, 0, chunkBlockStatus, be32(7), be32(100), be32(allocationHole|allocationZero))
						s.chunk(cookie, chunkFlagDone, chunkBlockStatus, be32(8), be32(100), be32(0))
					}
				}
			},
		})
	})
	c, err := Open(t.Context(), Config{URI: u, Contexts: []string{bitmap}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if e, err := c.NextData(5000); err != nil || e != (cbt.Extent{Off: 5000, Len: 8192 - 5000}) {
		t.Errorf("NextData: %v, %v after %d questions", e, err, asked.Load())
	}
	if dirty, err := c.DirtyBitmap(t.Context(), "b"); err != nil || len(dirty) != 1 || dirty[0].Len != hostileSize {
		t.Errorf("DirtyBitmap: %v, %v after %d questions, want all", dirty, err, asked.Load())
	}
}

// TestStatusOfBlocksizePolicy: nbdkit's filter enlarges the least block and
// passes the file's own extents on.
func TestStatusOfBlocksizePolicy(t *testing.T) {
	img := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 1<<20); err != nil {
		t.Fatal(err)
	}
	c := openServer(t, nbdtest.Unix(t, "nbdkit", "-f", "--filter=blocksize-policy", "file", img,
		"blocksize-minimum=64k", "blocksize-preferred=64k", "blocksize-maximum=1M", "blocksize-error-policy=error"), Config{})
	if c.Offer().MinBlock != 65536 {
		t.Fatalf("least block of %d bytes", c.Offer().MinBlock)
	}
	if e, err := c.NextData(0); err != nil || e != (cbt.Extent{Len: 65536}) {
		t.Errorf("NextData: %v, %v, want the first 64 KiB", e, err)
	}
	if e, err := c.NextData(65536); err == nil {
		t.Errorf("NextData behind it: %v, want none", e)
	}
}
