package micro

import (
	"encoding/binary"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

// headerLen is the header of each frame: type, three zeros, length of the body.
const headerLen = 8

// frames are those that travel for each batch or run of batches.
var frames = []struct {
	name  string
	frame wire.Frame
	empty func() wire.Frame
}{
	{"manifest", &wire.Manifest{Batch: 1 << 20, Grains: cbt.BatchGrains}, func() wire.Frame { return new(wire.Manifest) }},
	{"same", &wire.Same{Runs: runs(64)}, func() wire.Frame { return new(wire.Same) }},
	{"ack", &wire.Ack{Settled: 1 << 20, Received: 1 << 40, Durable: 1 << 39, Verified: 1 << 41}, func() wire.Frame { return new(wire.Ack) }},
}

func runs(n int) (all []wire.Run) {
	for i := range n {
		all = append(all, wire.Run{First: int64(i) * 100, Count: 7})
	}
	return all
}

// BenchmarkFrameBuild appends a frame to a buffer that is kept.
func BenchmarkFrameBuild(b *testing.B) {
	for _, f := range frames {
		b.Run("type="+f.name, func(b *testing.B) {
			buf := wire.AppendFrame(nil, f.frame)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				buf = wire.AppendFrame(buf[:0], f.frame)
			}
		})
	}
}

// BenchmarkFrameParse reads a body into a frame that is kept.
func BenchmarkFrameParse(b *testing.B) {
	for _, f := range frames {
		b.Run("type="+f.name, func(b *testing.B) {
			buf := wire.AppendFrame(nil, f.frame)
			into := f.empty()
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				if err := wire.Parse(into, buf[headerLen:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// binders are of the two ends of a pipe.
func binders(b *testing.B) (source, target *wire.Binder) {
	near, far := wire.Pipe(wiretest.Key(b).ID(), wiretest.Key(b).ID())
	b.Cleanup(func() { near.CloseWithError(wire.CodeOK, ""); far.CloseWithError(wire.CodeOK, "") })
	for _, end := range []struct {
		link wire.Link
		to   **wire.Binder
	}{{near, &source}, {far, &target}} {
		binder, err := wire.NewBinder(end.link, wire.Position{Pass: 1, Epoch: 1})
		if err != nil {
			b.Fatal(err)
		}
		*end.to = binder
	}
	return source, target
}

// fill builds the Data frame of the first batch from p.
func fill(w *wire.DataWriter, p []byte, digests []cbt.Digest) []byte {
	w.Reset(0, false)
	for i := range cbt.BatchGrains {
		w.Add(int64(i)*cbt.GrainSize, p[i*cbt.GrainSize:][:cbt.GrainSize], &digests[i])
	}
	return w.Frame()
}

func digestsOf(p []byte) []cbt.Digest {
	all := make([]cbt.Digest, cbt.BatchGrains)
	h := cbt.NewHasher()
	for i := range all {
		h.Sum(p[i*cbt.GrainSize:][:cbt.GrainSize], &all[i])
	}
	return all
}

// BenchmarkDataBuild builds a Data frame of a whole batch: compression, as the
// writer has it by default, bindings, copies. Hashing is not in it.
func BenchmarkDataBuild(b *testing.B) {
	for _, kind := range kinds {
		b.Run("content="+kind.name, func(b *testing.B) {
			p := content(b, kind.name)[:cbt.BatchSize]
			digests := digestsOf(p)
			source, _ := binders(b)
			w := wire.NewDataWriter(make([]byte, 0, wire.DataBufferLen), source)
			var n int
			b.SetBytes(cbt.BatchSize)
			b.ReportAllocs()
			for b.Loop() {
				n = len(fill(w, p, digests))
			}
			b.ReportMetric(cbt.BatchSize/float64(n), "ratio")
		})
	}
}

// BenchmarkDataParse parses such a frame: bounds and bindings. Expanding and
// hashing are not in it.
func BenchmarkDataParse(b *testing.B) {
	p := content(b, "random")[:cbt.BatchSize]
	source, target := binders(b)
	frame := fill(wire.NewDataWriter(make([]byte, 0, wire.DataBufferLen), source), p, digestsOf(p))
	body := frame[headerLen:]
	if n := binary.BigEndian.Uint32(frame[4:]); int(n) != len(body) {
		b.Fatalf("the header says %d bytes, there are %d", n, len(body))
	}
	var d wire.Data
	b.ReportAllocs()
	for b.Loop() {
		if err := d.ParseData(body, cbt.BatchSize, target); err != nil {
			b.Fatal(err)
		}
	}
}
