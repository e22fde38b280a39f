package lz4block

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"
)

// contents are inputs of n bytes that take different ways through the encoder.
var contents = map[string]func(p []byte){
	"zeros":  func([]byte) {},
	"random": func(p []byte) { noise(p, 1) },
	"period": func(p []byte) { // matches at a short distance that overlap themselves
		for i := range p {
			p[i] = byte(i % 7)
		}
	},
	"words": func(p []byte) { // short literals and short matches
		r := rand.New(rand.NewPCG(2, 2))
		for i := 0; i < len(p); {
			i += copy(p[i:], fmt.Sprintf("%x,", r.IntN(3000)))
		}
	},
	"far": func(p []byte) { // long literals, then matches as long and as far as can be
		half := len(p) / 2
		noise(p[:half], 3)
		copy(p[half:], p[:half])
	},
	"islands": func(p []byte) { // long literals between long matches
		noise(p, 4)
		for i := 0; i < len(p); i += 3000 {
			clear(p[i:min(len(p), i+1+i%2000)])
		}
	},
}

func noise(p []byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

// expand decodes a block as the description says and holds it to the rules of
// its end, which a decoder need not check.
func expand(block []byte, n int) ([]byte, error) {
	var out []byte
	i := 0
	long := func(v int) (int, error) {
		for more := v == nibble; more; i++ {
			if i == len(block) {
				return 0, errors.New("cut short in a length")
			}
			v += int(block[i])
			more = block[i] == 255
		}
		return v, nil
	}
	for {
		if i == len(block) {
			return nil, errors.New("cut short before a token")
		}
		token := block[i]
		i++
		lits, err := long(int(token >> 4))
		if err != nil || i+lits > len(block) {
			return nil, fmt.Errorf("%d literals at %d: %v", lits, i, err)
		}
		out = append(out, block[i:i+lits]...)
		if i += lits; i == len(block) {
			if lits < min(n, 5) || token&nibble != 0 {
				return nil, fmt.Errorf("ends with token %#x and %d literals", token, lits)
			}
			return out, nil
		}
		if i+2 > len(block) {
			return nil, errors.New("cut short in a distance")
		}
		off := int(binary.LittleEndian.Uint16(block[i:]))
		i += 2
		size, err := long(int(token & nibble))
		if err != nil || off == 0 || off > len(out) || len(out) > n-12 {
			return nil, fmt.Errorf("match at %d of %d, distance %d: %v", len(out), n, off, err)
		}
		for range size + minMatch {
			out = append(out, out[len(out)-off])
		}
	}
}

// check encodes src into room bytes and says how long the block is.
func check(t *testing.T, e *Encoder, src []byte, room int) int {
	t.Helper()
	dst := make([]byte, room+8)
	noise(dst[room:], 9)
	fence := bytes.Clone(dst[room:])
	n := e.Encode(dst[:room:room], src)
	if !bytes.Equal(dst[room:], fence) || n < 0 || n > room {
		t.Fatalf("%d bytes into %d: block of %d, behind it %x", len(src), room, n, dst[room:])
	}
	if n == 0 {
		return 0
	}
	got := make([]byte, len(src))
	if k, err := lz4.UncompressBlock(dst[:n], got); err != nil || k != len(src) || !bytes.Equal(got, src) {
		t.Fatalf("%d bytes: block of %d expands to %d: %v", len(src), n, k, err)
	}
	if own, err := expand(dst[:n], len(src)); err != nil || !bytes.Equal(own, src) {
		t.Fatalf("%d bytes: block of %d breaks the format: %v", len(src), n, err)
	}
	return n
}

// TestEncode takes every short length and, of long ones, all or a part.
func TestEncode(t *testing.T) {
	for name, fill := range contents {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var e Encoder
			src := make([]byte, MaxInput)
			fill(src)
			step := 1571
			if testing.Short() {
				step = 9973
			}
			for n := 0; n <= MaxInput; n++ {
				if n > 300 && n < MaxInput-20 {
					n = min(n+step, MaxInput-20)
				}
				if k := check(t, &e, src[:n], lz4.CompressBlockBound(n)+room); k == 0 {
					t.Fatalf("%d bytes have no room in what any block fits", n)
				}
			}
		})
	}
}

// TestRoom gives less and less room: a block is right, or there is none.
func TestRoom(t *testing.T) {
	var e Encoder
	for name, fill := range contents {
		src := make([]byte, 700)
		fill(src)
		whole := check(t, &e, src, 1000)
		for room := range 800 {
			n := check(t, &e, src, room)
			if n > 0 != (room >= whole) && !(n == 0 && room < whole+24) {
				t.Errorf("%s: block of %d in %d bytes, where all take %d", name, n, room, whole)
			}
		}
	}
	if n := e.Encode(make([]byte, 2*MaxInput), make([]byte, MaxInput+1)); n != 0 {
		t.Errorf("an input that is too long gives a block of %d", n)
	}
}

// TestSame encodes the same input after others: nothing is left of them.
func TestSame(t *testing.T) {
	var e Encoder
	src, dst := make([]byte, 20000), make([]byte, MaxInput+1000)
	contents["words"](src)
	want := bytes.Clone(dst[:new(Encoder).Encode(dst, src)])
	for name, fill := range contents {
		other := make([]byte, MaxInput)
		fill(other)
		e.Encode(dst, other)
		if got := dst[:e.Encode(dst, src)]; !bytes.Equal(got, want) {
			t.Errorf("after %s: %d bytes, another block than before, of %d", name, len(got), len(want))
		}
	}
}

// TestGolden fixes blocks. Who changes the encoder on purpose changes them.
func TestGolden(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"nothing", "", "00"},
		{"literals", "haulback", "80" + hex.EncodeToString([]byte("haulback"))},
		{"match", "abcdefghabcdefghabcdefgh", "87" + hex.EncodeToString([]byte("abcdefgh")) + "0800" + "50" + hex.EncodeToString([]byte("defgh"))},
		{"long literals", "0123456789abcdefghij", "f005" + hex.EncodeToString([]byte("0123456789abcdefghij"))},
		{"zeros", string(make([]byte, 1000)), "1f000100ffffffd2500000000000"},
		{"match too late", "0123456789abcdefghijklmn0123456789a", "f014" + hex.EncodeToString([]byte("0123456789abcdefghijklmn0123456789a"))},
	} {
		var e Encoder
		dst := make([]byte, 2000)
		n := e.Encode(dst, []byte(c.src))
		if got := hex.EncodeToString(dst[:n]); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	for name, want := range map[string]string{"words": "fadef2ccb1fb59d4", "islands": "d6497844c14aa125", "far": "90ea6e23fccf7f08"} {
		var e Encoder
		src, dst := make([]byte, MaxInput), make([]byte, MaxInput)
		contents[name](src)
		sum := sha256.Sum256(dst[:e.Encode(dst, src)])
		if got := hex.EncodeToString(sum[:8]); got != want {
			t.Errorf("%s: block with sum %s, want %s", name, got, want)
		}
	}
}

// TestGuarded has both slices end, and begin, where memory ends.
func TestGuarded(t *testing.T) {
	const page = 4096
	guarded := func() []byte {
		m, err := unix.Mmap(-1, 0, MaxInput+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(m) })
		if err := errors.Join(unix.Mprotect(m[:page], unix.PROT_NONE), unix.Mprotect(m[page+MaxInput:], unix.PROT_NONE)); err != nil {
			t.Fatal(err)
		}
		return m[page : page+MaxInput]
	}
	src, dst, back := guarded(), guarded(), make([]byte, MaxInput)
	var e Encoder
	for name, fill := range contents {
		for _, n := range []int{1, 12, 13, 14, 29, 100, 4096, 65521, MaxInput} {
			for _, room := range []int{n - n/16, n, MaxInput} {
				for _, at := range []struct{ src, dst int }{{0, MaxInput - room}, {MaxInput - n, 0}} {
					in, out := src[at.src:at.src+n], dst[at.dst:at.dst+room]
					clear(in)
					fill(in)
					k := e.Encode(out, in) // a fault ends the test
					if k == 0 {
						continue
					}
					if got, err := lz4.UncompressBlock(out[:k], back); err != nil || got != n || !bytes.Equal(back[:n], in) {
						t.Errorf("%s, %d bytes into %d: %v", name, n, room, err)
					}
				}
			}
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	var e Encoder
	src, dst := make([]byte, MaxInput), make([]byte, MaxInput)
	contents["words"](src)
	if n := testing.AllocsPerRun(10, func() { e.Encode(dst, src) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRatio compares with the reference encoder on what disks hold: program
// code and text.
func TestRatio(t *testing.T) {
	var e Encoder
	var ref lz4.Compressor
	var own, theirs int
	dst := make([]byte, lz4.CompressBlockBound(MaxInput))
	for i, src := range corpus(t) {
		if i%8 != 0 { // enough, and the race detector is slow
			continue
		}
		own += e.Encode(dst, src)
		n, err := ref.CompressBlock(src, dst)
		if err != nil {
			t.Fatal(err)
		}
		theirs += n
	}
	if float64(theirs) < 0.98*float64(own) {
		t.Errorf("%d bytes where the reference needs %d", own, theirs)
	}
}

// TestReferenceTool lets the lz4 program of the format's author expand blocks,
// in a frame of 64 KiB blocks without checksums.
func TestReferenceTool(t *testing.T) {
	tool, err := exec.LookPath("lz4")
	if err != nil {
		t.Skip("the program lz4 is not here: blocks are not compared with its author's decoder")
	}
	frame := []byte{0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82}
	var e Encoder
	var want []byte
	for _, name := range []string{"zeros", "random", "period", "words", "far", "islands"} {
		for _, n := range []int{MaxInput, 12345, 13, 5} {
			src := make([]byte, n)
			contents[name](src)
			dst := make([]byte, lz4.CompressBlockBound(n)+room)
			k := e.Encode(dst, src)
			if k > MaxInput { // a frame's block is no longer than its input
				continue
			}
			frame = binary.LittleEndian.AppendUint32(frame, uint32(k))
			frame, want = append(frame, dst[:k]...), append(want, src...)
		}
	}
	cmd := exec.CommandContext(t.Context(), tool, "-dc")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(append(frame, 0, 0, 0, 0)), os.Stderr
	got, err := cmd.Output()
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d: %v", len(got), len(want), err)
	}
}

func FuzzEncode(f *testing.F) {
	for _, fill := range contents {
		p := make([]byte, 900)
		fill(p)
		f.Add(p, uint16(60000))
		f.Add(p[:40], uint16(40))
	}
	var e Encoder
	f.Fuzz(func(t *testing.T, src []byte, room uint16) {
		check(t, &e, src[:min(len(src), MaxInput)], int(room))
	})
}
