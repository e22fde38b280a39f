package archive

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
)

// golden is the stream of a disk of 65541 bytes: a grain of zeros, then
// "hello". The fields are written by hand from doc.go; the sums are those that
// testdata/judge.py has found right with b3sum.
const golden = `
	89 48 42 41 0d 0a 1a 0a
	01 000000 00000095 00000000
	  0001 01 00 00010000 0000000000010005 000000006ab13b80
	  01020300000000000000000000000000
	  0000000000000000000000000000000000000000000000000000000000000000 00000000000000000000000000000000
	  0000000000000001 0000000000010005 0000000000000000 0000000000000000
	  0006 66696c653a31 0000 0000 0003 616c6c 0003 742f31 01 0001 61 0001 62
	  66f8d7a4a7e26c4fd655d46b1c87666b1212c1005c9d6f98ab523b8e4a49177e
	02 000000 00000010 00000000
	  0000000000000000 0000000000010005
	  54797773a6b025a137d4c63f4cec37937b69b89f759a09489023e2adda20b1d4
	05 000000 00000010 00000000
	  0000000000000000 0000000000010000
	  7412cf384897d1a91b793c824d81ed3fa1156cccc35d47770abcdbc55d137a93
	04 000000 00000050 00000005
	  0000000000010000 00000005 01 000000
	  0000000000000000000000000000000000000000000000000000000000000000
	  ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
	  971d0861ebbb62ff760e62754329a79be2238cde316fd8272f715c5b9f349ffb
	  68656c6c6f
	06 000000 00000048 00000000
	  0000000000000001 0000000000000001 0000000000000005 0000000000010000 0000000000000005
	  88819e18c5f7eebd54446fa8605e50456d68aefcd5975235cdadeb3aeec3511b
	  8e879a5ee309434ab43759915db21b9236cf88d838228228d07df08ab2c8046e`

func goldenStream(t *testing.T) []byte {
	t.Helper()
	want := append(make([]byte, cbt.GrainSize), "hello"...)
	h := &Header{
		Kind: Full, Size: int64(len(want)), Created: time.Unix(0x6ab13b80, 0), Run: [16]byte{1, 2, 3}, Identity: "file:1",
		Reason: "all", Agent: "t/1", Labels: []Label{{"a", "b"}}, Map: mapOf(cbt.Extent{Len: int64(len(want))}),
	}
	var out bytes.Buffer
	w, err := NewWriter(&out, h)
	if err != nil {
		t.Fatal(err)
	}
	r := Record{Extent: cbt.Extent{Off: cbt.GrainSize, Len: 5}}
	cbt.NewHasher().Sum([]byte("hello"), &r.Grains[0])
	new(Encoder).Encode(&r, []byte("hello"), make([]byte, 5))
	if err := w.Append(&Record{Zero: true, Extent: cbt.Extent{Len: cbt.GrainSize}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(&r); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestGolden(t *testing.T) {
	got := goldenStream(t)
	at := 0
	for _, field := range strings.Fields(golden) {
		want, err := hex.DecodeString(field)
		if err != nil {
			t.Fatal(err)
		}
		if at+len(want) > len(got) || !bytes.Equal(got[at:at+len(want)], want) {
			t.Fatalf("at %d: % x\nwant %x", at, got[at:min(at+len(want), len(got))], want)
		}
		at += len(want)
	}
	if at != len(got) {
		t.Errorf("%d bytes, want %d", len(got), at)
	}
}

// TestJudge lets a program that knows the specification alone decode streams.
func TestJudge(t *testing.T) {
	for _, tool := range []string{"/usr/bin/python3", "b3sum", "lz4"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skipped: %s is not installed", tool)
		}
	}
	const g = cbt.GrainSize
	dir := t.TempDir()
	size := int64(2*cbt.BatchSize + 5*g + 321)
	base, want := content(1, size), content(2, size)
	some := mapOf(cbt.Extent{Off: g, Len: 2 * g}, cbt.Extent{Off: 14 * g, Len: 5 * g}, cbt.Extent{Off: 36 * g, Len: g + 321})
	judge := func(name string, stream, base, want []byte) {
		t.Helper()
		file := func(name string, b []byte) string {
			path := filepath.Join(dir, name)
			if b == nil {
				return "-"
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		out := filepath.Join(dir, "out")
		text, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/judge.py", file("stream", stream), file("base", base), out).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the judge decodes other bytes (%v)", name, err)
		}
	}
	over := bytes.Clone(base)
	holes := make([]byte, size)
	for e := range some.All() {
		copy(over[e.Off:e.End()], want[e.Off:])
		copy(holes[e.Off:e.End()], want[e.Off:])
	}
	h := header(Changed, size, some)
	h.Sampled = mapOf(cbt.Extent{Off: g, Len: g})
	judge("golden", goldenStream(t), nil, append(make([]byte, g), "hello"...))
	judge("full, raw", write(t, header(Full, size, mapOf(cbt.Extent{Len: size})), want, true), nil, want)
	judge("full, LZ4, holes", write(t, header(Full, size, some), want, false), nil, holes)
	judge("changed", write(t, h, want, false), base, over)
}
