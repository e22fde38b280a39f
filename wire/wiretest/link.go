package wiretest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/wire"
)

// MakeLink makes the two ends of a new link; what it opened besides them it
// closes in t.Cleanup.
type MakeLink func(t *testing.T) (dialer, listener wire.Link)

// patience bounds waits that end at once unless there is a bug.
const patience = 20 * time.Second

// Connect dials and accepts one link. It sends a byte on the control stream,
// because a listener sees a QUIC link only then, and takes it out again.
func Connect(t testing.TB, l wire.Listener, dial func(context.Context) (wire.Link, error)) (dialer, listener wire.Link) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dialer, err := dial(ctx)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	if _, err := dialer.Control().Write([]byte{'!'}); err != nil {
		t.Fatalf("first byte: %v", err)
	}
	listener, err = l.Accept(ctx)
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	if _, err := io.ReadFull(listener.Control(), make([]byte, 1)); err != nil {
		t.Fatalf("first byte: %v", err)
	}
	return dialer, listener
}

// TestLink is the conformance suite of wire.Link.
func TestLink(t *testing.T, mk MakeLink) {
	cases := []struct {
		name string
		run  func(t *testing.T, d, l wire.Link)
	}{
		{"Names", testNames},
		{"Control", testControl},
		{"Streams", testStreams},
		{"Large", testLarge},
		{"CloseByDialer", func(t *testing.T, d, l wire.Link) { testClose(t, d, l) }},
		{"CloseByListener", func(t *testing.T, d, l wire.Link) { testClose(t, l, d) }},
		{"CloseWhileWriting", testCloseWhileWriting},
		{"ExportKey", func(t *testing.T, d, l wire.Link) { testExportKey(t, d, l, mk) }},
		{"Deadlines", testDeadlines},
		{"Cancel", testCancel},
		{"StreamIDs", testStreamIDs},
		{"OneWay", testOneWay},
	}
	for _, c := range cases {
		before := runtime.NumGoroutine()
		t.Run(c.name, func(t *testing.T) {
			d, l := mk(t)
			defer l.CloseWithError(wire.CodeOK, "test over")
			defer d.CloseWithError(wire.CodeOK, "test over")
			c.run(t, d, l)
		})
		NoLeak(t, before)
	}
}

// NoLeak waits until there are at most before goroutines, and fails with all
// stacks when that does not happen.
func NoLeak(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func testNames(t *testing.T, d, l wire.Link) {
	if d.Peer() == l.Peer() || d.Peer().IsZero() || l.Peer().IsZero() {
		t.Errorf("peers %s and %s", d.Peer(), l.Peer())
	}
	if d.Transport() != l.Transport() || d.Transport() == "" || d.RemoteAddr() == "" || l.RemoteAddr() == "" {
		t.Errorf("transports %q %q, addresses %q %q", d.Transport(), l.Transport(), d.RemoteAddr(), l.RemoteAddr())
	}
	if d.Err() != nil || l.Err() != nil {
		t.Errorf("living links have Err %v, %v", d.Err(), l.Err())
	}
}

func testControl(t *testing.T, d, l wire.Link) {
	var wg sync.WaitGroup
	defer wg.Wait()
	want := random(1, 300<<10) // more than a chunk and a buffer
	wg.Go(func() {
		if _, err := io.Copy(onlyWriter{l.Control()}, l.Control()); err != nil {
			t.Errorf("echo: %v", err)
		}
		l.Control().CloseWrite()
	})
	wg.Go(func() { send(t, d.Control(), want) })
	expect(t, d.Control(), want)
}

// onlyWriter keeps io.Copy from looking for other methods.
type onlyWriter struct{ io.Writer }

// allStreams are the ids of protocol 1.
func allStreams() []wire.StreamID {
	ids := []wire.StreamID{{Kind: wire.StreamManifest}, {Kind: wire.StreamPlan}, {Kind: wire.StreamRefine}, {Kind: wire.StreamParts}}
	for i := range wire.MaxDataStreams {
		ids = append(ids, wire.StreamID{Kind: wire.StreamData, Index: uint8(i)})
	}
	return ids
}

// testStreams opens every stream in both directions at once, the receiver
// sometimes before the sender.
func testStreams(t *testing.T, d, l wire.Link) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, id := range allStreams() {
		for way, ends := range [][2]wire.Link{{d, l}, {l, d}} {
			want := random(uint64(id.Kind)<<16|uint64(id.Index)<<8|uint64(way), 64<<10+int(id.Index))
			wg.Go(func() {
				if s, err := ends[0].OpenSend(t.Context(), id); err != nil {
					t.Errorf("send %v: %v", id, err)
				} else {
					send(t, s, want)
				}
			})
			wg.Go(func() {
				if s, err := ends[1].OpenReceive(t.Context(), id); err != nil {
					t.Errorf("receive %v: %v", id, err)
				} else {
					expect(t, s, want)
				}
			})
		}
	}
}

func testLarge(t *testing.T, d, l wire.Link) {
	const size = 24 << 20
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, ends := range [][2]wire.Link{{d, l}, {l, d}} {
		out, in := pair(t, ends[0], ends[1], 0)
		wg.Go(func() { send(t, out, random(7, size)) })
		wg.Go(func() {
			sum := sha256.New()
			n, err := io.Copy(sum, in)
			if want := sha256.Sum256(random(7, size)); err != nil || n != size || !bytes.Equal(sum.Sum(nil), want[:]) {
				t.Errorf("received %d bytes of %d, other bytes or %v", n, size, err)
			}
		})
	}
}

// pair opens a data stream from one end to the other.
func pair(t *testing.T, from, to wire.Link, index uint8) (out, in wire.Stream) {
	t.Helper()
	id := wire.StreamID{Kind: wire.StreamData, Index: index}
	var wg sync.WaitGroup
	var sendErr, recvErr error
	wg.Go(func() { out, sendErr = from.OpenSend(t.Context(), id) })
	wg.Go(func() { in, recvErr = to.OpenReceive(t.Context(), id) })
	wg.Wait()
	if sendErr != nil || recvErr != nil {
		t.Fatalf("stream %v: %v, %v", id, sendErr, recvErr)
	}
	return out, in
}

// testClose checks that whatever waits at either end returns the reason.
func testClose(t *testing.T, closer, other wire.Link) {
	_, in := pair(t, closer, other, 0)
	_, home := pair(t, other, closer, 1)
	pending := map[string]func(wire.Link) error{
		"control": func(l wire.Link) error { _, err := l.Control().Read(make([]byte, 1)); return err },
		"stream": func(l wire.Link) error {
			s := in
			if l == closer {
				s = home
			}
			_, err := s.Read(make([]byte, 1))
			return err
		},
	}
	text := strings.Repeat("no space\n left ", 40)
	var wg sync.WaitGroup
	for name, call := range pending {
		wg.Go(func() { checkClosedHere(t, name, call(closer)) })
		wg.Go(func() { checkClosedThere(t, name, call(other)) })
	}
	closer.CloseWithError(wire.CodeNoSpace, text)
	closer.CloseWithError(wire.CodeOK, "the second call does not count")
	wg.Wait()
	waitDone(t, closer)
	waitDone(t, other)
	checkClosedHere(t, "Err", closer.Err())
	checkClosedThere(t, "Err", other.Err())
	for _, l := range []wire.Link{closer, other} {
		id := wire.StreamID{Kind: wire.StreamData, Index: 5}
		if _, err := l.OpenSend(t.Context(), id); err == nil {
			t.Error("OpenSend on a dead link works")
		}
		if _, err := l.OpenReceive(t.Context(), id); err == nil {
			t.Error("OpenReceive on a dead link works")
		}
	}
}

func checkClosedHere(t *testing.T, what string, err error) {
	t.Helper()
	if e, ok := errors.AsType[*wire.Error](err); !errors.Is(err, wire.ErrClosed) || !ok || e.Remote || e.Code != wire.CodeNoSpace {
		t.Errorf("%s at the closer: %#v, want ErrClosed and the code", what, err)
	}
}

func checkClosedThere(t *testing.T, what string, err error) {
	t.Helper()
	e, ok := errors.AsType[*wire.Error](err)
	if !ok || !e.Remote || e.Code != wire.CodeNoSpace || !strings.HasPrefix(e.Text, "no space") || len(e.Text) > 256 || strings.Contains(e.Text, "\n") {
		t.Errorf("%s at the other end: %v (%T), want the peer's code and a clean text", what, err, err)
	}
}

// testCloseWhileWriting closes under writes that wait for a reader, on the
// control stream as well.
func testCloseWhileWriting(t *testing.T, d, l wire.Link) {
	out, _ := pair(t, d, l, 0)
	var wg sync.WaitGroup
	for _, s := range []wire.Stream{out, d.Control()} {
		wg.Go(func() {
			for {
				if _, err := s.Write(make([]byte, 1<<20)); err != nil {
					checkClosedHere(t, "write", err)
					return
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // likely, not surely, enough to fill the buffers
	d.CloseWithError(wire.CodeNoSpace, "no space")
	wg.Wait()
	waitDone(t, l)
	if l.Err() == nil {
		t.Error("the other end lives")
	}
}

func waitDone(t *testing.T, l wire.Link) {
	t.Helper()
	select {
	case <-l.Done():
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		t.Fatalf("the link does not end:\n%s", buf[:runtime.Stack(buf, true)])
	}
}

func testExportKey(t *testing.T, d, l wire.Link, mk MakeLink) {
	key := func(l wire.Link, label, context string) string {
		k, err := l.ExportKey(label, []byte(context), 32)
		if err != nil || len(k) != 32 {
			t.Fatalf("ExportKey: %x, %v", k, err)
		}
		return string(k)
	}
	const label = "EXPORTER-haulback-test"
	base := key(d, label, "x")
	if key(l, label, "x") != base {
		t.Error("the ends have different keys")
	}
	if key(d, label, "y") == base || key(d, label+"2", "x") == base {
		t.Error("label or context do not matter")
	}
	d2, l2 := mk(t)
	defer l2.CloseWithError(wire.CodeOK, "")
	defer d2.CloseWithError(wire.CodeOK, "")
	if key(d2, label, "x") == base {
		t.Error("another link has the same key")
	}
}

func testDeadlines(t *testing.T, d, l wire.Link) {
	out, in := pair(t, d, l, 0)
	for name, s := range map[string]wire.Stream{"control": l.Control(), "stream": in} {
		for _, wait := range []time.Duration{-time.Second, 20 * time.Millisecond} {
			s.SetReadDeadline(time.Now().Add(wait))
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: read deadline in %v: %v", name, wait, err)
			}
		}
		s.SetReadDeadline(time.Time{})
	}
	for name, ends := range map[string][2]wire.Stream{"control": {d.Control(), l.Control()}, "stream": {out, in}} {
		if _, err := ends[0].Write([]byte("after")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(ends[1], got); err != nil || string(got) != "after" {
			t.Errorf("%s after a deadline: %q, %v", name, got, err)
		}
	}
	// Nobody reads: more than any window and socket buffer has to wait.
	out.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := out.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write deadline: %v", err)
	}
}

func testCancel(t *testing.T, d, l wire.Link) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	id := wire.StreamID{Kind: wire.StreamData}
	if _, err := l.OpenReceive(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("OpenReceive: %v", err)
	}
	if _, err := d.OpenSend(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Skipf("OpenSend did not need to wait: %v", err)
	}
	out, in := pair(t, d, l, 0)
	go send(t, out, []byte("x"))
	expect(t, in, []byte("x"))
}

func testStreamIDs(t *testing.T, d, l wire.Link) {
	for _, id := range []wire.StreamID{{}, {Kind: 9}, {Kind: wire.StreamManifest, Index: 1}, {Kind: wire.StreamPlan, Index: 1}, {Kind: wire.StreamData, Index: wire.MaxDataStreams}} {
		if _, err := d.OpenSend(t.Context(), id); err == nil {
			t.Errorf("OpenSend(%v) works", id)
		}
		if _, err := l.OpenReceive(t.Context(), id); err == nil {
			t.Errorf("OpenReceive(%v) works", id)
		}
	}
	pair(t, d, l, 3)
	id := wire.StreamID{Kind: wire.StreamData, Index: 3}
	if _, err := d.OpenSend(t.Context(), id); err == nil {
		t.Error("a stream can be opened twice")
	}
	if _, err := l.OpenReceive(t.Context(), id); err == nil {
		t.Error("a stream can be received twice")
	}
	if d.Err() != nil || l.Err() != nil {
		t.Errorf("a local mistake ended the link: %v, %v", d.Err(), l.Err())
	}
}

func testOneWay(t *testing.T, d, l wire.Link) {
	out, in := pair(t, l, d, 0)
	if _, err := out.Read(make([]byte, 1)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("read of a sending stream: %v", err)
	}
	if _, err := in.Write(make([]byte, 1)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("write to a receiving stream: %v", err)
	}
	if err := in.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite of a receiving stream: %v", err)
	}
}

// send writes all of p and the end.
func send(t testing.TB, s wire.Stream, p []byte) {
	if n, err := s.Write(p); err != nil || n != len(p) {
		t.Errorf("wrote %d bytes of %d: %v", n, len(p), err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Errorf("CloseWrite: %v", err)
	}
}

// expect reads to the end and compares.
func expect(t testing.TB, s wire.Stream, want []byte) {
	t.Helper()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, want %d, equal %v, %v", len(got), len(want), bytes.Equal(got, want), err)
	}
}

// random returns n bytes that depend on seed only.
func random(seed uint64, n int) []byte {
	p := make([]byte, n)
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	rand.NewChaCha8(key).Read(p)
	return p
}
