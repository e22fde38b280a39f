package cbt

import (
	"testing"

	"github.com/zeebo/blake3"
)

// The expected values of plain digests are from the test vectors published with
// BLAKE3; those of zero grains are from a second implementation, written from
// the paper. This guards against a hash that is fast and wrong.
func TestHasherVectors(t *testing.T) {
	counting := make([]byte, 1024) // the published input: 0, 1, ... 250, 0, 1, ...
	for i := range counting {
		counting[i] = byte(i % 251)
	}
	h := NewHasher()
	for _, tt := range []struct {
		name string
		in   []byte
		want string
	}{
		{"empty", nil, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
		{"one zero byte", zeros[:1], "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"},
		{"1024 counting", counting, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"},
		{"512 zeros", zeros[:512], "bfa6121552003fe68f6c0727a5b39d380a891397b05494901f86446039c56c24"},
		{"1025 zeros", zeros[:1025], "d2beb49d87e59db174cb3ff1440f1899422968df670d060fd7ce759e8cc160e7"},
		{"zero grain", zeros[:], "3bdeaf8f8e98780b318106aafdc3ca257f73df123d97b69112b26044c91a7d56"},
		{"empty again", []byte{}, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
	} {
		var d Digest
		h.Sum(tt.in, &d)
		if d.String() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, d, tt.want)
		}
	}
	var d Digest
	blake3.DeriveKey("BLAKE3 2019-12-27 16:29:52 test vectors context", nil, d[:])
	if want := "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d"; d.String() != want {
		t.Errorf("derive-key mode: got %v, want %s", d, want)
	}
}

func TestZeroDigest(t *testing.T) {
	h := NewHasher()
	for _, n := range []int{0, 1, 511, 512, 4096, 8191, 8192, 8193, GrainSize - 1, GrainSize} {
		var want Digest
		h.Sum(make([]byte, n), &want)
		for range 2 {
			if got := ZeroDigest(n); got != want {
				t.Errorf("%d zeros: got %v, want %v", n, got, want)
			}
		}
	}
}

// One byte that is not zero, at each place, must be seen at each length and
// alignment.
func TestIsZero(t *testing.T) {
	for n := range 100 {
		for align := range 9 {
			p := make([]byte, align+n+8)
			for i := range p {
				p[i] = 0xff // what lies around must not matter
			}
			p = p[align : align+n]
			clear(p)
			if !IsZero(p) {
				t.Fatalf("%d zeros at alignment %d: false", n, align)
			}
			for i := range p {
				for _, v := range []byte{1, 0x80, 0xff} {
					p[i] = v
					if IsZero(p) {
						t.Fatalf("%d bytes, byte %d is %#x: true", n, i, v)
					}
				}
				p[i] = 0
			}
		}
	}
	// Periods of 8 are what the shifted comparison alone would miss.
	for _, n := range []int{8, 16, 24, GrainSize} {
		p := make([]byte, n)
		for i := 7; i < n; i += 8 {
			p[i] = 1
		}
		if IsZero(p) {
			t.Errorf("%d bytes of period 8: true", n)
		}
	}
	if IsZero(append(make([]byte, GrainSize), 1)) || !IsZero(nil) || !IsZero(zeros[:]) {
		t.Error("grain, nil or one byte after a grain")
	}
}

func TestHashAllocations(t *testing.T) {
	h, r := NewHasher(), NewRoot(1<<40+512)
	p := make([]byte, GrainSize)
	var d Digest
	ZeroDigest(GrainSize)
	for name, f := range map[string]func(){
		"Hasher.Sum":      func() { h.Sum(p, &d) },
		"Hasher.Sum tail": func() { h.Sum(p[:777], &d) },
		"IsZero":          func() { IsZero(p) },
		"ZeroDigest":      func() { d = ZeroDigest(GrainSize) },
		"ZeroDigest tail": func() { d = ZeroDigest(512) },
		"Root.Add":        func() { r.Add(&d) },
		"Root.AddZeros":   func() { r.AddZeros(3000) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	tails := make([]*Root, 12) // AllocsPerRun calls once more than it counts
	for i := range tails {
		tails[i] = NewRoot(9*GrainSize + 512)
	}
	if n := testing.AllocsPerRun(10, func() { tails[0].AddZeros(10); tails = tails[1:] }); n != 0 {
		t.Errorf("Root.AddZeros with the tail allocates %v times", n)
	}
}
