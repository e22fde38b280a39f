package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// ask asks for a job on a connection of HTTP/1.1 and answers the status.
func ask(t *testing.T, conn net.Conn) int {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "GET /haulback.v1.Jobs/List?encoding=json&message=%%7B%%7D HTTP/1.1\r\nHost: haulback.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// TestWatchers opens far more streams than one caller may have: those beyond are
// refused, the others work, and all is given back.
func TestWatchers(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Bounds.CallerStreams = 50 })
	r.call("Jobs/Submit", spec("a", "vm"))
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	var refused, synced int
	var mu sync.Mutex
	var wg sync.WaitGroup
	client := r.client()
	for range 1000 {
		wg.Go(func() {
			watch := func() error {
				stream, err := client.Watch(ctx, &controlv1.WatchRequest{})
				for err == nil {
					var m *controlv1.WatchResponse
					if m, err = stream.Receive(); err == nil && m.GetSynced() != nil {
						mu.Lock()
						synced++
						mu.Unlock()
					}
				}
				return err
			}
			err := watch()
			// The client dials several connections for so many at once, and closes those
			// that turn out to be spare, with who has just come onto them.
			for err != nil && strings.Contains(err.Error(), "client connection force closed") {
				err = watch()
			}
			if ctx.Err() != nil {
				return
			}
			if f := jobpb.Refusal(err); connect.CodeOf(err) != connect.CodeResourceExhausted || f.Reason != "QUOTA" {
				t.Errorf("refused: %v", err)
			}
			mu.Lock()
			refused++
			mu.Unlock()
		})
	}
	wait(t, "all to be answered", func() bool { mu.Lock(); defer mu.Unlock(); return refused == 950 && synced == 50 })
	// requests have slots of their own
	if p := r.call("Jobs/Get", `{"id":"a"}`); p.status != 200 {
		t.Errorf("beside the streams: %+v", p)
	}
	cancel()
	wg.Wait()
	wait(t, "slots to be given back", func() bool { r.s.streams.mu.Lock(); defer r.s.streams.mu.Unlock(); return r.s.streams.n == 0 })
	wait(t, "goroutines to end", func() bool { return runtime.NumGoroutine() < before+50 })
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.entries) > 150 {
		t.Errorf("%d lines of audit for one flood", len(r.entries))
	}
}

// TestSlow cuts off who sends a request one byte at a time, the head or the
// body, and who does not read what he asked for.
func TestSlow(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Bounds.HeaderTime, c.Bounds.RequestTime, c.Bounds.WriteTime, c.Bounds.KeepAlive = time.Second, 200*time.Millisecond, 200*time.Millisecond, time.Millisecond
	})
	for name, text := range map[string]string{
		"head":    "POST /haulback.v1.Jobs/Get HTTP/1.1\r\nHost: x\r\n",
		"nothing": "",
		"body":    "POST /haulback.v1.Jobs/Get HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
	} {
		conn, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		got, err := io.ReadAll(conn)
		if err != nil {
			t.Errorf("%s: the connection is still open: %v", name, err)
		}
		if name == "body" && !strings.Contains(string(got), "deadline_exceeded") {
			t.Errorf("%s: %q", name, got)
		}
		conn.Close()
	}
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	begins := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.ReadFull(conn, begins); err != nil || string(begins) != "HTTP/1.1 200" {
		t.Fatalf("a stream begins with %q, %v", begins, err)
	}
	wait(t, "one who does not read to be cut off", func() bool { r.s.mu.Lock(); defer r.s.mu.Unlock(); return len(r.s.live) == 0 })
}

// TestLongWait leaves a stream alone that is silent for longer than a request
// may take to be sent, and than an event may take to be read.
func TestLongWait(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Bounds.RequestTime, c.Bounds.WriteTime, c.Bounds.IdleTime = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	})
	got := make(chan error, 2)
	for _, client := range []controlv1.JobsClient{r.client(), controlv1.NewJobsClient(connect.NewClient(r.transport()))} { // HTTP/2 and 1.1
		stream, err := client.Watch(t.Context(), &controlv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				m, err := stream.Receive()
				if err != nil || m.GetJob() != nil {
					got <- err
					return
				}
			}
		}()
	}
	select {
	case err := <-got:
		t.Fatalf("a silent stream ended: %v", err)
	case <-time.After(time.Second): // longer than all of them
	}
	if p := r.call("Jobs/Submit", spec("a", "vm")); p.status != 200 {
		t.Fatal(p)
	}
	for range 2 {
		if err := <-got; err != nil {
			t.Errorf("after the silence: %v", err)
		}
	}
}

// TestDeadline ends a call that takes too long, by the daemon's clock or the
// caller's.
func TestDeadline(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Bounds.UnaryTime = 50 * time.Millisecond })
	for _, args := range [][]string{nil, {"-H", "Connect-Timeout-Ms: 10"}} {
		p := r.call("Endpoint/Probe", `{"uri":"/hang"}`, args...)
		if a, info := p.info(t); p.status != 504 || a.Code != "deadline_exceeded" || info.Reason != "DEADLINE" || info.Retry != controlv1.Retry_RETRY_BACKOFF {
			t.Errorf("%v: %+v", args, p)
		}
	}
}

// TestTwoClients submit the same job at the same time: one of them made it.
func TestTwoClients(t *testing.T) {
	r := newRig(t, nil)
	for i := range 10 {
		req := &controlv1.SubmitRequest{Id: fmt.Sprint("both-", i), Spec: &controlv1.JobSpec{
			Mode: controlv1.Mode_MODE_COPY, Disks: []*controlv1.JobDisk{{Source: "/src", Target: fmt.Sprint("/dst", i)}},
		}}
		made := make(chan bool, 2)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				resp, err := r.client().Submit(t.Context(), req)
				if err != nil {
					t.Errorf("submit: %v", err)
					return
				}
				made <- !resp.AlreadyExisted
			})
		}
		wg.Wait()
		if a, b := <-made, <-made; a == b {
			t.Errorf("job %d: made %v and %v", i, a, b)
		}
	}
}

// TestSocket replaces what a dead daemon left and refuses what is not ours.
func TestSocket(t *testing.T) {
	dir := scratch(t)
	path := filepath.Join(dir, "a", "b", "control.sock")
	open := func() (*socket, error) { return listenSocket(t.Context(), path, -1) }
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "another daemon serves it") {
		t.Errorf("a live one: %v", err)
	}
	first.SetUnlinkOnClose(false) // as kill -9 does
	first.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	second, err := open()
	if err != nil {
		t.Fatalf("a stale one: %v", err)
	}
	second.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end the socket is still there: %v", err)
	}
	foreign, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "another program serves it") {
		t.Errorf("that of another program: %v", err)
	}
	foreign.Close()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("the file is gone: %v", err)
	}
	if _, err := listenSocket(t.Context(), filepath.Join(dir, strings.Repeat("x", 120)), -1); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a long path: %v", err)
	}
}

// TestConfig refuses what would let the wrong ones in.
func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"nothing":           {},
		"TCP without TLS":   {Listen: "127.0.0.1:0"},
		"a role that is no": {Listen: "127.0.0.1:0", Access: Access{TLS: TLS{Cert: "a", Key: "b", CA: "c", Allow: []Caller{{"x", "root"}}}}},
		"a name that is no": {Listen: "127.0.0.1:0", Access: Access{TLS: TLS{Cert: "a", Key: "b", CA: "c", Allow: []Caller{{"", Admin}}}}},
	} {
		c.Daemon, c.Endpoint, c.Extents = &fakeDaemon{}, fakeEndpoint{}, fakeExtents{}
		c.Jobs = noJobs{}
		if s, err := Listen(t.Context(), c); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// noJobs is an engine that nobody asks.
type noJobs struct{ Jobs }

// TestExtents holds a driver to what the API promises.
func TestExtents(t *testing.T) {
	r := newRig(t, nil)
	client := controlv1.NewExtentsClient(connect.NewClient(r.transport()))
	for base, want := range map[string]connect.Code{"bitmap:broken": connect.CodeInternal, "bitmap:silent": connect.CodeInternal, "bitmap:x": connect.CodeFailedPrecondition} {
		stream, err := client.Changed(t.Context(), &controlv1.ChangedRequest{Base: base, Target: "/d"})
		for err == nil {
			_, err = stream.Receive()
		}
		if connect.CodeOf(err) != want {
			t.Errorf("%s: %v", base, err)
		}
	}
	for from, want := range map[int64]connect.Code{-1: connect.CodeInvalidArgument, 10001: connect.CodeInvalidArgument} {
		stream, err := client.Allocated(t.Context(), &controlv1.AllocatedRequest{Uri: "/d", StartingOffset: from})
		for err == nil {
			_, err = stream.Receive()
		}
		if connect.CodeOf(err) != want {
			t.Errorf("from %d: %v", from, err)
		}
	}
}

// TestChecksum tells how far a long read is, and ends it with the call.
func TestChecksum(t *testing.T) {
	r := newRig(t, nil)
	client := controlv1.NewEndpointClient(connect.NewClient(r.transport()))
	stream, err := client.Checksum(t.Context(), &controlv1.ChecksumRequest{Uri: "/d"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Receive(); err != nil || m.Result.GetRoot() == "" || m.ReadBytes != 1<<40 {
		t.Errorf("%v %v", m, err)
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the result: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if stream, err = client.Checksum(ctx, &controlv1.ChecksumRequest{Uri: "/hang"}); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Receive(); err != nil || m.Result != nil || m.ReadBytes != 1<<20 || m.TotalBytes != 1<<40 {
		t.Errorf("%v %v", m, err)
	}
	cancel()
	wait(t, "the read to end", func() bool { r.s.mu.Lock(); defer r.s.mu.Unlock(); return len(r.s.live) == 0 })
	for _, bad := range [][]*controlv1.Range{{nil}, {{ByteOffset: 5, SizeBytes: 5}, {ByteOffset: 9, SizeBytes: 1}}, {{ByteOffset: 1, SizeBytes: 1<<63 - 1}}, {{ByteOffset: -1, SizeBytes: 1}}} {
		stream, err := client.Checksum(t.Context(), &controlv1.ChecksumRequest{Uri: "/d", Ranges: bad})
		if err == nil {
			_, err = stream.Receive()
		}
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
