package control

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store/bolt"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// rig is a server with a real engine, whose transfer is scripted, and a daemon
// that is not one.
type rig struct {
	t      testing.TB
	dir    string
	socket string
	engine *job.Engine
	s      *Server
	daemon *fakeDaemon

	mu      sync.Mutex
	entries []Entry
	stop    context.CancelFunc
	served  chan error
}

func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hb-control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // other users have to reach the socket
		t.Fatal(err)
	}
	return dir
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: scratch(t), daemon: &fakeDaemon{}}
	r.socket = filepath.Join(r.dir, "run", "control.sock")
	r.openEngine(change)
	return r
}

func (r *rig) openEngine(change func(*Config)) {
	t := r.t
	t.Helper()
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(r.dir, "jobs.db")})
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	r.engine, err = job.Open(context.Background(), job.Config{
		Store: db, Queue: db, Lease: db, Log: quiet, Transfer: transfer, Persist: 20 * time.Millisecond, Telemetry: 10 * time.Millisecond, Heartbeat: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ran
		_ = r.engine.Close()
		_ = db.Close()
	})
	cfg := Config{
		Socket: r.socket, Jobs: r.engine, Daemon: r.daemon, Endpoint: fakeEndpoint{}, Extents: fakeExtents{}, Log: quiet, GracePeriod: 2 * time.Second,
		Audit: func(_ context.Context, e Entry) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.entries = append(r.entries, e)
		},
	}
	if change != nil {
		change(&cfg)
	}
	r.serve(cfg)
}

func (r *rig) serve(cfg Config) {
	r.t.Helper()
	var err error
	if r.s, err = Listen(context.Background(), cfg); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.served = cancel, make(chan error, 1)
	go func() { r.served <- r.s.Serve(ctx) }()
	r.t.Cleanup(r.end)
}

// end stops the server and waits for it.
func (r *rig) end() {
	if r.stop == nil {
		return
	}
	r.stop()
	if err := <-r.served; err != nil {
		r.t.Errorf("Serve: %v", err)
	}
	r.stop = nil
}

// audited waits for the entry of a method; curl has its answer a moment before.
func (r *rig) audited(method, reason string) (found Entry) {
	r.t.Helper()
	wait(r.t, "audit of "+method+" "+reason, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, e := range r.entries {
			if e.Method == method && e.Reason == reason {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: it never came", what)
		}
	}
}

// transfer does what the name of the source says.
func transfer(ctx context.Context, t *job.Task) (job.Outcome, error) {
	t.Moving()
	t.Progress(job.Counters{Total: 1 << 40, Scanned: 1 << 20})
	switch {
	case strings.Contains(t.Disk.Source, "fail"):
		return job.Outcome{State: "Inconsistent"}, &job.Failure{Reason: job.ReasonStorage, Text: "read 1 MiB at 0 B: input/output error", Retry: job.RetryAfterReconcile, Exit: 1}
	case strings.Contains(t.Disk.Source, "hang"):
		<-ctx.Done()
		return job.Outcome{State: "Inconsistent"}, ctx.Err()
	}
	return job.Outcome{State: "Verified", Verified: true, Equal: true, Root: cbt.Digest{1}, Counters: job.Counters{Total: 1 << 40, Scanned: 1 << 40, Verified: 1 << 40}, ActualTracking: "full", ActualTransport: "quic"}, nil
}

// fakeDaemon is a daemon that only remembers.
type fakeDaemon struct {
	mu       sync.Mutex
	draining bool
	drain    func(ctx context.Context)
}

func (d *fakeDaemon) Info(context.Context) (*controlv1.GetInfoResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &controlv1.GetInfoResponse{Version: "v0.0.0-test", Protocol: "haulback/1", Features: []string{"jobs"}, Draining: d.draining}, nil
}

func (d *fakeDaemon) Drain(ctx context.Context) (*controlv1.DrainResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draining = true
	if d.drain != nil {
		go d.drain(context.WithoutCancel(ctx))
	}
	return &controlv1.DrainResponse{}, nil
}

func (d *fakeDaemon) Reload(context.Context) ([]string, error) {
	return nil, &job.Failure{Reason: job.ReasonInvalid, Text: "haulbackd.toml:3: unknown key", Retry: job.RetryNever}
}

// fakeEndpoint answers by the name of the disk.
type fakeEndpoint struct{}

func (fakeEndpoint) Probe(ctx context.Context, req *controlv1.ProbeRequest) (*controlv1.ProbeResponse, error) {
	if strings.Contains(req.Uri, "absent") {
		return nil, &job.Failure{Reason: job.ReasonEndpoint, Text: "no such disk", Retry: job.RetryNever}
	}
	if strings.Contains(req.Uri, "panic") {
		panic("a bug of the test")
	}
	if strings.Contains(req.Uri, "hang") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &controlv1.ProbeResponse{Uri: req.Uri, SizeBytes: 1 << 40, CanFlush: proto.Bool(true)}, nil
}

func (fakeEndpoint) Checksum(ctx context.Context, req *controlv1.ChecksumRequest, progress func(read, total int64)) (*controlv1.ChecksumResult, error) {
	progress(1<<20, 1<<40)
	if strings.Contains(req.Uri, "hang") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &controlv1.ChecksumResult{SizeBytes: 1 << 40, ReadBytes: 1 << 40, Root: strings.Repeat("ab", 32)}, nil
}

// fakeExtents has an extent of 10 bytes at every 100.
type fakeExtents struct{}

func (fakeExtents) Allocated(_ context.Context, req *controlv1.AllocatedRequest, head func(ExtentHead) error, each func(cbt.Extent) error) error {
	if err := head(ExtentHead{Size: 10000}); err != nil {
		return err
	}
	for off := int64(0); off < 10000; off += 100 {
		if err := each(cbt.Extent{Off: off, Len: 10}); err != nil {
			return err
		}
	}
	return nil
}

func (fakeExtents) Changed(_ context.Context, req *controlv1.ChangedRequest, head func(ExtentHead) error, each func(cbt.Extent) error) error {
	switch req.Base {
	case "bitmap:broken": // a driver that is out of order
		return errors.Join(head(ExtentHead{Size: 10000}), each(cbt.Extent{Off: 50, Len: 10}), each(cbt.Extent{Off: 0, Len: 10}))
	case "bitmap:silent":
		return nil
	}
	return &job.Failure{Reason: job.ReasonCBT, Text: "no such bitmap", Retry: job.RetryNever}
}

// reply is what curl got.
type reply struct {
	status int
	body   string
	code   int // of curl
}

// answer is an error in Connect's JSON.
type answer struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	} `json:"details"`
}

// info is the ErrorInfo of an error.
func (p reply) info(t testing.TB) (answer, *controlv1.ErrorInfo) {
	t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(p.body), &a); err != nil {
		t.Fatalf("not an error in JSON: %v: %d %q", err, p.status, p.body)
	}
	for _, d := range a.Details {
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(d.Value, "="))
		var m controlv1.ErrorInfo
		if d.Type == "haulback.v1.ErrorInfo" && err == nil && proto.Unmarshal(raw, &m) == nil {
			return a, &m
		}
	}
	t.Fatalf("no ErrorInfo in %q", p.body)
	return a, nil
}

// curl runs the real one.
func curl(t testing.TB, stdin string, args ...string) reply {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--max-time", "30", "-w", "\n%{http_code}"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("curl: %v; install it with apt-get install curl", err)
	}
	at := strings.LastIndex(string(out), "\n")
	p := reply{body: string(out[:max(at, 0)]), code: cmd.ProcessState.ExitCode()}
	p.status, _ = strconv.Atoi(strings.TrimSpace(string(out[at+1:])))
	if p.code != 0 && stderr.Len() > 0 {
		p.body += stderr.String()
	}
	return p
}

// call posts JSON to a method.
func (r *rig) call(method, body string, args ...string) reply {
	r.t.Helper()
	return curl(r.t, body, append([]string{
		"--unix-socket", r.socket, "-H", "Content-Type: application/json", "--data-binary", "@-", "http://haulback/haulback.v1." + method,
	}, args...)...)
}

func (r *rig) get(path string, args ...string) reply {
	r.t.Helper()
	return curl(r.t, "", append([]string{"--unix-socket", r.socket, "http://haulback" + path}, args...)...)
}

// spec is a job of one disk.
func spec(id, source string) string {
	return `{"id":"` + id + `","spec":{"mode":"MODE_COPY","disks":[{"source":"/src/` + source + `","target":"/dst/` + id + `"}]}}`
}
