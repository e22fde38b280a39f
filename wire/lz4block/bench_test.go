package lz4block

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pierrec/lz4/v4"
)

// corpus is 64 KiB pieces of this program, of the repository's text, and, where
// HAULBACK_CORPUS names a file, of that instead: a disk image, for one.
func corpus(tb testing.TB) (out [][]byte) {
	names := []string{os.Getenv("HAULBACK_CORPUS")}
	if names[0] == "" {
		self, err := os.Executable()
		if err != nil {
			tb.Fatal(err)
		}
		text, err := filepath.Glob("../../*/*.go")
		if err != nil {
			tb.Fatal(err)
		}
		names = append(text, self)
	}
	var all []byte
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			tb.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			tb.Fatal(err)
		}
		// at most 256 pieces of a file, from all over it
		for at, step := int64(0), max(1, st.Size()/MaxInput/256)*MaxInput; at < st.Size(); at += step {
			p := make([]byte, MaxInput)
			n, _ := f.ReadAt(p, at)
			all = append(all, p[:n]...)
		}
		_ = f.Close() // only read
	}
	for len(all) > MaxInput {
		if p := all[:MaxInput]; !zero(p) { // as on the way of a disk's grains
			out = append(out, p)
		}
		all = all[MaxInput:]
	}
	return out
}

func zero(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}

// BenchmarkEncode runs this encoder and the reference over the corpus.
func BenchmarkEncode(b *testing.B) {
	var own Encoder
	var ref lz4.Compressor
	for _, c := range []struct {
		name   string
		encode func(dst, src []byte) int
	}{
		{"own", own.Encode},
		{"pierrec", func(dst, src []byte) int {
			n, err := ref.CompressBlock(src, dst)
			if err != nil {
				return 0
			}
			return n
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			all := corpus(b)
			dst := make([]byte, MaxInput-MaxInput/16)
			b.SetBytes(int64(len(all)) * MaxInput)
			out := 0
			for b.Loop() {
				out = 0
				for _, src := range all {
					n := c.encode(dst, src)
					if n == 0 {
						n = len(src)
					}
					out += n
				}
			}
			b.ReportMetric(float64(len(all))*MaxInput/float64(out), "ratio")
		})
	}
}
