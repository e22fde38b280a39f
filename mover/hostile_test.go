package mover_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// evil is a peer that has the right key and does what it likes.
type evil struct {
	t    *testing.T
	ctx  context.Context
	link wire.Link
	in   *wire.Reader
	open wire.Opened
	data wire.Stream
	dw   *wire.DataWriter
}

func (e *evil) send(f wire.Frame) { e.raw(wire.AppendFrame(nil, f)) }

// raw writes bytes to the control stream; that the other side is gone already
// is no failure of the test.
func (e *evil) raw(b []byte) { _, _ = e.link.Control().Write(b) }

func (e *evil) expect(f wire.Frame) {
	e.t.Helper()
	if err := e.in.Expect(f); err != nil {
		e.t.Fatalf("waiting for a frame of type %d: %v", f.Type(), err)
	}
}

func hello(op wire.Op, mode wire.Mode, export string) *wire.Hello {
	return &wire.Hello{Op: op, Mode: mode, Run: wire.RunID{7}, Pass: 1, Export: export, Agent: "evil"}
}

func openFrame(size int64) *wire.Open {
	return &wire.Open{Mode: wire.ModeCopy, Streams: 1, Owner: [16]byte{1}, Size: size, Window: 64, Identity: "evil"}
}

// begin brings a push session to where data are due: all manifests are read.
func (e *evil) begin(o *wire.Open) {
	e.t.Helper()
	e.send(hello(wire.OpPush, o.Mode, "disk"))
	e.expect(new(wire.Welcome))
	e.send(o)
	e.expect(&e.open)
	st, err := e.link.OpenReceive(e.ctx, wire.StreamID{Kind: wire.StreamManifest})
	if err != nil {
		e.t.Fatal(err)
	}
	r := wire.NewReader(st, wire.MaxControlBody)
	for seen := int64(0); seen*cbt.BatchSize < o.Size; {
		typ, body, err := r.Next()
		if err != nil {
			e.t.Fatal(err)
		}
		if typ == wire.TypeHoles {
			var h wire.Holes
			if err := wire.Parse(&h, body); err != nil {
				e.t.Fatal(err)
			}
			seen += h.Run.Count
			continue
		}
		seen++
	}
	e.bind(wire.Position{Tag: e.open.Tag, Pass: 1, Epoch: e.open.Epoch})
	if e.data, err = e.link.OpenSend(e.ctx, wire.StreamID{Kind: wire.StreamData}); err != nil {
		e.t.Fatal(err)
	}
}

// bind makes data frames for a position of the test's choice.
func (e *evil) bind(pos wire.Position) {
	b, err := wire.NewBinder(e.link, pos)
	if err != nil {
		e.t.Fatal(err)
	}
	e.dw = wire.NewDataWriter(make([]byte, wire.DataBufferLen), b)
}

// frame is a data frame with one grain of content at off.
func (e *evil) frame(batch, off int64, content []byte) []byte {
	var d cbt.Digest
	cbt.NewHasher().Sum(content, &d)
	e.dw.Reset(batch, false)
	e.dw.Add(off, content, &d)
	return bytes.Clone(e.dw.Frame())
}

// batch sends a data frame of 16 equal grains.
func (e *evil) batch(batch int64, content []byte) {
	var d cbt.Digest
	cbt.NewHasher().Sum(content, &d)
	e.dw.Reset(batch, false)
	for g := range int64(cbt.BatchGrains) {
		e.dw.Add(batch*cbt.BatchSize+g*cbt.GrainSize, content, &d)
	}
	e.sendData(e.dw.Frame())
}

func (e *evil) sendData(b []byte) { _, _ = e.data.Write(b) }

// grain is content for one grain that does not compress.
func grain() []byte {
	rng := rand.New(rand.NewPCG(9, 9))
	b := make([]byte, cbt.GrainSize)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

const hostileSize = 4<<20 + 512

// A hostile source: whatever it does, it is refused with the code that says
// what is wrong, nothing is written, and the log has one line about it.
func TestHostileSource(t *testing.T) {
	push := func(f func(e *evil)) func(e *evil) {
		return func(e *evil) { e.begin(openFrame(hostileSize)); f(e) }
	}
	patched := func(at int, v byte) func(e *evil) {
		return push(func(e *evil) {
			b := e.frame(1, cbt.BatchSize, grain())
			b[at] ^= v
			e.sendData(b)
		})
	}
	step := func(first, count int64, read wire.Mask) wire.Frame {
		return &wire.Plan{Steps: []wire.Step{{Run: wire.Run{First: first, Count: count}, Read: read}}}
	}
	// hinted sends frames on the plan stream, a Same on the control stream once
	// there is a plan, and for nil data of a grain outside of it.
	hinted := func(frames ...wire.Frame) func(e *evil) {
		return func(e *evil) {
			e.send(hello(wire.OpPush, wire.ModeCopy, "disk"))
			e.expect(new(wire.Welcome))
			o := openFrame(hostileSize)
			o.Hinted = true
			e.send(o)
			e.expect(&e.open)
			plan, err := e.link.OpenSend(e.ctx, wire.StreamID{Kind: wire.StreamPlan})
			if err != nil {
				e.t.Fatal(err)
			}
			e.data = plan // for who wants to end it
			for i, f := range frames {
				_, same := f.(*wire.Same)
				switch {
				case f == nil:
					time.Sleep(time.Second)
					e.bind(wire.Position{Tag: e.open.Tag, Pass: 1, Epoch: e.open.Epoch})
					if e.data, err = e.link.OpenSend(e.ctx, wire.StreamID{Kind: wire.StreamData}); err != nil {
						e.t.Fatal(err)
					}
					e.sendData(e.frame(0, 3*cbt.GrainSize, grain()))
				case same && i > 0:
					time.Sleep(time.Second)
					e.send(f)
				default:
					_, _ = plan.Write(wire.AppendFrame(nil, f))
				}
			}
		}
	}
	head := func(typ byte, n uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{typ, 0, 0, 0}, n)
	}
	for name, c := range map[string]struct {
		do   func(e *evil)
		code wire.Code
	}{
		"first frame is not a hello":  {func(e *evil) { e.send(&wire.Ack{}) }, wire.CodeFrame},
		"garbage":                     {func(e *evil) { e.raw([]byte("GET / HTTP/1.1\r\n\r\n")) }, wire.CodeFrame},
		"hello of 4 GiB":              {func(e *evil) { e.raw(head(1, 1<<32-1)) }, wire.CodeFrame},
		"unknown frame type":          {func(e *evil) { e.raw(head(200, 0)) }, wire.CodeFrame},
		"flags that mean nothing yet": {func(e *evil) { e.raw([]byte{1, 1, 0, 0, 0, 0, 0, 0}) }, wire.CodeFrame},
		"another version": {func(e *evil) {
			b := wire.AppendFrame(nil, hello(wire.OpPush, wire.ModeCopy, "disk"))
			b[9] = 2
			e.raw(b)
		}, wire.CodeVersion},
		"unknown operation":        {func(e *evil) { e.send(hello(99, wire.ModeCopy, "disk")) }, wire.CodeFrame},
		"unknown mode":             {func(e *evil) { e.send(hello(wire.OpPush, 9, "disk")) }, wire.CodeFrame},
		"unknown export":           {func(e *evil) { e.send(hello(wire.OpPush, wire.ModeCopy, "nothing")) }, wire.CodeExport},
		"path as export":           {func(e *evil) { e.send(hello(wire.OpPush, wire.ModeCopy, "/etc/passwd")) }, wire.CodeExport},
		"path tricks in an export": {func(e *evil) { e.send(hello(wire.OpPush, wire.ModeCopy, "../disk/../../disk")) }, wire.CodeExport},
		"export of another peer":   {func(e *evil) { e.send(hello(wire.OpPush, wire.ModeCopy, "theirs")) }, wire.CodeExport},
		"control characters in an export": {func(e *evil) {
			b := wire.AppendFrame(nil, hello(wire.OpPush, wire.ModeCopy, "disk"))
			e.raw(bytes.Replace(b, []byte("disk"), []byte("d\nsk"), 1))
		}, wire.CodeFrame},
		"push to a source":    {func(e *evil) { e.send(hello(wire.OpPush, wire.ModeCopy, "image")) }, wire.CodeRole},
		"pull from a target":  {func(e *evil) { e.send(hello(wire.OpPull, wire.ModeCopy, "disk")) }, wire.CodeRole},
		"a rate that is none": {push(func(e *evil) { e.send(&wire.Pace{Read: 1}) }), wire.CodeFrame},
		"a rate before it opens": {func(e *evil) {
			e.send(hello(wire.OpPush, wire.ModeCopy, "disk"))
			e.expect(new(wire.Welcome))
			e.send(&wire.Pace{Wire: wire.LeastRate - 1})
		}, wire.CodeFrame},
		"order without the right": {func(e *evil) { e.send(hello(wire.OpOrder, wire.ModeCopy, "image")) }, wire.CodeUnauthorized},
		"pass 0": {func(e *evil) {
			h := hello(wire.OpPush, wire.ModeCopy, "disk")
			h.Pass = 0
			e.send(h)
		}, wire.CodeFrame},
		"larger than the target": {func(e *evil) {
			e.send(hello(wire.OpPush, wire.ModeCopy, "disk"))
			e.expect(new(wire.Welcome))
			e.send(openFrame(hostileSize + 1))
		}, wire.CodeTooSmall},
		"wrong grain": {func(e *evil) {
			e.send(hello(wire.OpPush, wire.ModeCopy, "disk"))
			e.expect(new(wire.Welcome))
			b := wire.AppendFrame(nil, openFrame(hostileSize))
			binary.BigEndian.PutUint32(b[8+44:], 4096)
			e.raw(b)
		}, wire.CodeFrame},
		"100 data streams": {func(e *evil) {
			e.send(hello(wire.OpPush, wire.ModeCopy, "disk"))
			e.expect(new(wire.Welcome))
			o := openFrame(hostileSize)
			o.Streams = 100
			e.send(o)
		}, wire.CodeFrame},
		"another mode than in the hello": {func(e *evil) {
			e.send(hello(wire.OpPush, wire.ModeCopy, "disk"))
			e.expect(new(wire.Welcome))
			o := openFrame(hostileSize)
			o.Mode = wire.ModeVerify
			e.send(o)
		}, wire.CodeFrame},
		"says nothing":         {func(e *evil) { time.Sleep(time.Minute) }, wire.CodeTimeout},
		"half a hello":         {func(e *evil) { e.raw([]byte{1, 0, 0}); time.Sleep(time.Minute) }, wire.CodeTimeout},
		"hello and no open":    {func(e *evil) { e.send(hello(wire.OpPush, wire.ModeCopy, "disk")); time.Sleep(time.Minute) }, wire.CodeTimeout},
		"open and no verdicts": {push(func(*evil) { time.Sleep(5 * time.Minute) }), wire.CodeTimeout},
		"half a data frame": {push(func(e *evil) {
			e.sendData(e.frame(1, cbt.BatchSize, grain())[:5000])
			time.Sleep(5 * time.Minute)
		}), wire.CodeTimeout},

		"data of 4 GiB":             {push(func(e *evil) { e.sendData(head(8, 1<<32-1)) }), wire.CodeFrame},
		"control frame among data":  {push(func(e *evil) { e.sendData(wire.AppendFrame(nil, &wire.Ack{})) }), wire.CodeFrame},
		"data outside the disk":     {push(func(e *evil) { e.sendData(e.frame(99, 99<<20, grain())) }), wire.CodeExtent},
		"data beyond the end":       {push(func(e *evil) { e.sendData(e.frame(4, 4<<20, grain())) }), wire.CodeExtent},
		"data not on a grain":       {push(func(e *evil) { e.sendData(e.frame(1, 1<<20+512, grain())) }), wire.CodeExtent},
		"data of another batch":     {push(func(e *evil) { e.sendData(e.frame(1, 2<<20, grain())) }), wire.CodeExtent},
		"half a grain":              {push(func(e *evil) { e.sendData(e.frame(1, 1<<20, grain()[:100])) }), wire.CodeExtent},
		"right block, wrong offset": {patched(8+24+5, 1), wire.CodeBinding},
		"digest of other data":      {patched(8+24+20, 1), wire.CodeBinding},
		"damaged payload":           {patched(8+24+68+100, 1), wire.CodeDigest},
		"damaged binding":           {patched(8+24+60, 1), wire.CodeBinding},
		"no records":                {patched(8+20, 1), wire.CodeFrame},
		"lower epoch": {push(func(e *evil) {
			e.bind(wire.Position{Tag: e.open.Tag, Pass: 1, Epoch: e.open.Epoch - 1})
			e.sendData(e.frame(1, 1<<20, grain()))
		}), wire.CodeFenced},
		"another pass": {push(func(e *evil) {
			e.bind(wire.Position{Tag: e.open.Tag, Pass: 2, Epoch: e.open.Epoch})
			e.sendData(e.frame(1, 1<<20, grain()))
		}), wire.CodeFenced},
		"bound to another disk": {push(func(e *evil) {
			e.bind(wire.Position{Tag: [16]byte{66}, Pass: 1, Epoch: e.open.Epoch})
			e.sendData(e.frame(1, 1<<20, grain()))
		}), wire.CodeBinding},
		"decompression bomb": {push(func(e *evil) {
			var d cbt.Digest
			e.dw.Reset(1, false)
			e.dw.Add(1<<20, make([]byte, cbt.GrainSize), &d) // compresses to 270 bytes
			b := bytes.Clone(e.dw.Frame())
			e.sendData(rebind(e, b, cbt.GrainSize/2)) // and claims to be half of what it expands to
		}), wire.CodeExtent},
		"repeat nobody asked for": {push(func(e *evil) {
			b := e.frame(1, 1<<20, grain())
			b[8+21] = 1
			e.sendData(b)
		}), wire.CodeFrame},
		"equal, outside the plan": {push(func(e *evil) { e.send(&wire.Same{Runs: []wire.Run{{First: 3, Count: 99}}}) }), wire.CodeExtent},
		"equal, twice": {push(func(e *evil) {
			e.send(&wire.Same{Runs: []wire.Run{{First: 2, Count: 1}}})
			e.send(&wire.Same{Runs: []wire.Run{{First: 2, Count: 1}}})
		}), wire.CodeExtent},
		"equal and data": {push(func(e *evil) {
			e.send(&wire.Same{Runs: []wire.Run{{First: 2, Count: 1}}})
			synctest.Wait()
			e.sendData(e.frame(2, 2<<20, grain()))
		}), wire.CodeFrame},
		"a verdict of verify in a copy": {push(func(e *evil) { e.send(&wire.Diff{Batch: 1, Mask: 1}) }), wire.CodeFrame},
		"finish before the end":         {push(func(e *evil) { e.send(&wire.Finish{}) }), wire.CodeFrame},
		"finish with another root": {push(func(e *evil) {
			e.send(&wire.Same{Runs: []wire.Run{{First: 0, Count: 5}}})
			e.send(&wire.Finish{Root: cbt.Digest{6, 6, 6}})
		}), wire.CodeVerify},
		"target's frame from a source": {push(func(e *evil) { e.send(&wire.Verified{}) }), wire.CodeFrame},
		"plan goes back":               {hinted(step(2, 1, 1), step(1, 1, 1)), wire.CodeExtent},
		"plan beyond the disk":         {hinted(step(4, 2, 1)), wire.CodeExtent},
		"plan of more grains":          {hinted(step(4, 1, 2)), wire.CodeExtent},
		"no plan":                      {hinted(), wire.CodeTimeout},
		"another frame for a plan":     {hinted(&wire.Same{Runs: []wire.Run{{Count: 1}}}), wire.CodeFrame},
		"verdict outside the plan":     {hinted(step(0, 1, 1), step(3, 1, 1), &wire.Same{Runs: []wire.Run{{First: 1, Count: 1}}}), wire.CodeExtent},
		"data outside the plan":        {hinted(step(0, 1, 0x81), wire.Frame(nil)), wire.CodeExtent},
		"plan of nothing": {func(e *evil) {
			hinted()(e)
			_ = e.data.CloseWrite()
			root := cbt.NewRoot(hostileSize)
			root.AddSkipped(65)
			sum, _ := root.Sum()
			time.Sleep(time.Second)
			e.send(&wire.Finish{Root: sum})
		}, wire.CodeVerify},
		"data while verifying": {func(e *evil) {
			o := openFrame(hostileSize)
			o.Mode = wire.ModeVerify
			e.begin(o)
			e.sendData(e.frame(1, 1<<20, grain()))
		}, wire.CodeFrame},
	} {
		t.Run(name, func(t *testing.T) { hostileSource(t, c.do, c.code) })
	}
}

// rebind changes the length a record declares and binds it again, as a peer
// that has the key of the link can.
func rebind(e *evil, b []byte, declared uint32) []byte {
	payload := b[8+24+68:]
	e.dw.Reset(1, false)
	var d cbt.Digest
	e.dw.Add(1<<20, make([]byte, declared), &d)
	out := bytes.Clone(e.dw.Frame())[:8+24+68]
	binary.BigEndian.PutUint32(out[8+24+12:], uint32(len(payload)))
	out = append(out, payload...)
	binary.BigEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out
}

func hostileSource(t *testing.T, do func(e *evil), want wire.Code) {
	content := image(rand.New(rand.NewPCG(1, 1)), hostileSize)
	target := disk(content)
	var logged lines
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s, err := newSite(ctx, mover.Config{Memory: 64 << 20, Log: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))},
			movertest.NewCrashableState(movertest.NewPower()).Mount(),
			mover.Export{Name: "disk", Role: mover.RoleTarget, Open: endpoint("disk", target).Open},
			mover.Export{Name: "image", Role: mover.RoleSource, Open: endpoint("image", target).Open})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		link, err := s.dial(ctx)
		if err != nil {
			t.Fatal(err)
		}
		e := &evil{t: t, ctx: ctx, link: link, in: wire.NewReader(link.Control(), wire.MaxControlBody)}
		do(e)
		select {
		case <-link.Done():
		case <-time.After(10 * time.Minute):
			t.Fatal("the link was not closed")
		}
		got, ok := errors.AsType[*wire.Error](link.Err())
		if !ok || got.Code != want || !got.Remote {
			t.Errorf("the link ended with %v, want code %v", link.Err(), want)
		}
	})
	if !bytes.Equal(target.Bytes(), content) {
		t.Error("something was written")
	}
	if n := logged.count(); n != 1 {
		t.Errorf("%d log lines, want 1:\n%s", n, logged.b.String())
	}
}

// lines counts what a log handler writes.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count() int { return strings.Count(l.b.String(), "\n") }

// slowDisk takes a while for each write, and has no way past a cache.
type slowDisk struct {
	mover.WritableDisk
	write time.Duration
}

func (d slowDisk) WriteAt(p []byte, off int64) (int, error) {
	time.Sleep(d.write)
	return d.WritableDisk.WriteAt(p, off)
}

// A source that was killed does not say so. The next run asks it, gets no
// answer, and takes the disk over; a source that answers keeps it, and so does
// one whose answer may be behind data that a limit does not let in, or that wait
// for the disk.
func TestDiskOfADeadSourceIsTakenOver(t *testing.T) {
	content := image(rand.New(rand.NewPCG(1, 1)), hostileSize)
	for name, c := range map[string]struct {
		answers bool
		rate    int64
		write   time.Duration
		batches int64 // of data before the other run comes
		code    wire.Code
	}{
		"dead": {code: wire.CodeOK}, "alive": {answers: true, code: wire.CodeBusy},
		"held back":          {rate: throttle.Least, batches: 2, code: wire.CodeBusy},        // the second has to wait for 16 s
		"behind a slow disk": {write: 16 * time.Second, batches: 4, code: wire.CodeBusy},     // one is written, one waits for the writer
		"dead before a disk": {write: 100 * time.Millisecond, batches: 4, code: wire.CodeOK}, // which has had time for all of them
	} {
		t.Run(name, func(t *testing.T) {
			target := disk(make([]byte, hostileSize))
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				cfg := mover.Config{Memory: 64 << 20, Workers: 1, Limits: throttle.Limits{Wire: c.rate}}
				s, err := newSite(ctx, cfg, movertest.NewCrashableState(movertest.NewPower()).Mount(),
					mover.Export{Name: "disk", Role: mover.RoleTarget, Open: func(context.Context, mover.Access) (mover.Disk, error) {
						w, err := target.Reopen(movertest.ReadWrite)
						return slowDisk{w, c.write}, err
					}})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { s.server.Drain(); _ = s.engine.Close() }()
				link, err := s.dial(ctx)
				if err != nil {
					t.Fatal(err)
				}
				e := &evil{t: t, ctx: ctx, link: link, in: wire.NewReader(link.Control(), wire.MaxControlBody)}
				e.begin(openFrame(hostileSize))
				go func() { // what is not taken keeps who sends it
					for b := range c.batches {
						e.batch(b, grain())
					}
				}()
				time.Sleep(time.Second)
				if c.answers {
					go func() {
						for {
							typ, body, err := e.in.Next()
							if err != nil {
								return
							}
							var p wire.Ping
							if typ == wire.TypePing && wire.Parse(&p, body) == nil {
								e.send(&wire.Ping{Seq: p.Seq, Reply: true})
							}
						}
					}()
				}
				began := time.Now()
				_, err = s.push(ctx, cfg, wire.RunID{99}, content, new(mover.Progress))
				if got := codeOf(err); got != c.code {
					t.Errorf("the other run ended with %v", err)
				}
				if d := time.Since(began); d > 10*time.Second {
					t.Errorf("the other run waited for %v", d)
				}
				link.CloseWithError(wire.CodeOK, "")
			})
			if equal := bytes.Equal(target.Bytes(), content); equal != (c.code == wire.CodeOK) {
				t.Errorf("equal %v", equal)
			}
		})
	}
}
