package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/haulback/haulback/cmd/internal/control/client"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// event is one of an SSE stream.
type event struct {
	id, kind string
	data     struct {
		Revision string
		Job      struct{ Id, Phase string }
		Code     string
		Reason   string
	}
}

// sseOf tells the events at the socket as they come.
func (r *rig) sseOf(ctx context.Context, path string, args ...string) <-chan event {
	r.t.Helper()
	return r.sse(ctx, append([]string{"--unix-socket", r.socket, "http://haulback" + path}, args...)...)
}

// sse starts curl on events and tells them as they come.
func (r *rig) sse(ctx context.Context, args ...string) <-chan event {
	r.t.Helper()
	cmd := exec.CommandContext(ctx, "curl", append([]string{"-sSN"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	events := make(chan event)
	go func() {
		defer close(events)
		defer cmd.Wait()
		var e event
		for lines := bufio.NewScanner(out); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch key {
			case "id":
				e.id = value
			case "event":
				e.kind = value
			case "data":
				if err := json.Unmarshal([]byte(value), &e.data); err != nil {
					r.t.Errorf("data %q: %v", value, err)
				}
			case "":
				if lines.Text() == "" && e.kind != "" { // the end of one; not a comment
					select {
					case events <- e:
					case <-ctx.Done():
						return
					}
				}
				e = event{}
			}
		}
	}()
	return events
}

// next is the next event that fits.
func next(t testing.TB, events <-chan event, what string, fits func(event) bool) event {
	t.Helper()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("%s: the stream ended", what)
			}
			if fits(e) {
				return e
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: it never came", what)
		}
	}
}

// TestEvents follows jobs with curl, breaks off, and goes on with no gap.
func TestEvents(t *testing.T) {
	r := newRig(t, nil)
	r.call("Jobs/Submit", spec("a", "vm"))
	wait(t, "the first job", func() bool { return strings.Contains(r.call("Jobs/Get", `{"id":"a"}`).body, "PHASE_COMPLETED") })
	ctx, cancel := context.WithCancel(t.Context())
	first := r.sseOf(ctx, "/v1/events")
	synced := next(t, first, "synced", func(e event) bool { return e.kind == "synced" })
	if synced.id == "" || synced.id != synced.data.Revision {
		t.Errorf("synced: %+v", synced)
	}
	cancel()

	// while nobody listens
	for i := range 5 {
		r.call("Jobs/Submit", spec(fmt.Sprint("b", i), "vm"))
	}
	for i := range 5 {
		wait(t, "completed", func() bool {
			return strings.Contains(r.call("Jobs/Get", fmt.Sprintf(`{"id":"b%d"}`, i)).body, "PHASE_COMPLETED")
		})
	}
	for _, how := range []struct {
		path string
		args []string
	}{
		{"/v1/events?after=" + synced.id, nil},
		{"/v1/events?after=0", []string{"-H", "Last-Event-ID: " + synced.id}}, // of an EventSource that comes back
	} {
		ctx, cancel := context.WithCancel(t.Context())
		again := r.sseOf(ctx, how.path, how.args...)
		seen := map[string]bool{}
		for len(seen) < 5 {
			e := next(t, again, "what was missed", func(e event) bool { return e.data.Job.Phase == "PHASE_COMPLETED" })
			if e.data.Job.Id == "a" || e.id == "" {
				t.Errorf("%v: what was told before %s is told again: %+v", how, synced.id, e)
			}
			seen[e.data.Job.Id] = true
		}
		cancel()
	}

	one := r.sseOf(t.Context(), "/v1/events?job=c")
	if e, ok := <-one; ok { // an error has a status, not an event
		t.Errorf("a job that is not there: %+v", e)
	}
	if p := r.get("/v1/events?job=c"); p.status != 404 || !strings.Contains(p.body, "not_found") {
		t.Errorf("a job that is not there: %+v", p)
	}
	for _, bad := range []string{"after=-1", "after=x", "after=1&after=2", "before=1", "after=18446744073709551616", "job=" + strings.Repeat("x", 129), "%zz"} {
		if p := r.get("/v1/events?" + bad); p.status != 400 || !strings.Contains(p.body, "invalid_argument") {
			t.Errorf("%s: %+v", bad, p)
		}
	}
	r.call("Jobs/Submit", spec("c", "hang"))
	one = r.sseOf(t.Context(), "/v1/events?job=c")
	next(t, one, "the job alone", func(e event) bool {
		if e.data.Job.Id != "" && e.data.Job.Id != "c" {
			t.Errorf("another job: %+v", e)
		}
		return e.kind == "progress"
	})
	r.call("Jobs/Cancel", `{"id":"c"}`)
	next(t, one, "canceled", func(e event) bool { return e.data.Job.Phase == "PHASE_CANCELED" })

	r.stop() // SIGTERM
	last := next(t, one, "the end", func(e event) bool { return e.kind == "error" })
	if last.data.Code != "unavailable" || last.data.Reason != "DRAINING" {
		t.Errorf("the last event: %+v", last)
	}
	r.end()
}

// forgetful is an engine that has forgotten what was before a revision.
type forgetful struct{ Jobs }

func (f forgetful) Watch(ctx context.Context, after uint64, filter job.Filter) iter.Seq2[job.Event, error] {
	if after == 0 {
		return f.Jobs.Watch(ctx, 0, filter)
	}
	return func(yield func(job.Event, error) bool) {
		yield(job.Event{}, fmt.Errorf("revision 7: %w", store.ErrCompacted))
	}
}

// TestReset begins anew, and says so, where a watch cannot be taken up.
func TestReset(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Jobs = forgetful{c.Jobs} })
	r.call("Jobs/Submit", spec("a", "vm"))
	events := r.sseOf(t.Context(), "/v1/events?after=7")
	if e := next(t, events, "any event", func(event) bool { return true }); e.kind != "reset" {
		t.Errorf("the first event: %+v", e)
	}
	next(t, events, "the job", func(e event) bool { return e.kind == "job" && e.data.Job.Id == "a" })
	next(t, events, "the end of the snapshot", func(e event) bool { return e.kind == "synced" })
}

// TestNDJSON reads lines that are JSON, every one.
func TestNDJSON(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Bounds.KeepAlive = 10 * time.Millisecond })
	r.call("Jobs/Submit", spec("a", "vm"))
	resp, err := r.httpClient().Get("http://haulback/v1/events.ndjson?after=0")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatal(resp.Status, resp.Header)
	}
	alive := 0
	for lines := bufio.NewScanner(resp.Body); ; {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		var m struct {
			Job struct{ Phase string }
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatalf("%q: %v", lines.Bytes(), err)
		}
		if bytes.Equal(lines.Bytes(), []byte("{}")) {
			if alive++; alive > 5 {
				return
			}
		}
	}
}

func (r *rig) transport() connect.Transport {
	return connecthttp.NewTransport(r.httpClient(), "http://haulback")
}

// client is the client of our own programs, which speaks HTTP/2.
func (r *rig) client() controlv1.JobsClient {
	return controlv1.NewJobsClient(client.Socket(r.socket))
}

// TestWatchEnds ends streams within bounds although nobody takes their events.
func TestWatchEnds(t *testing.T) {
	r := newRig(t, nil)
	r.call("Jobs/Submit", spec("a", "vm"))
	stream, err := r.client().Watch(t.Context(), &controlv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetSynced() != nil {
			break
		}
	}
	r.stop()
	for err == nil {
		_, err = stream.Receive()
	}
	f := jobpb.Refusal(err)
	if connect.CodeOf(err) != connect.CodeUnavailable || f.Reason != "DRAINING" || f.Exit != 3 {
		t.Errorf("the end of a watch: %v, %+v", err, f)
	}
	r.end()
	if _, err := r.client().Get(t.Context(), &controlv1.GetRequest{Id: "a"}); jobpb.Refusal(err).Exit != 13 {
		t.Errorf("nobody there: %+v", jobpb.Refusal(err))
	}
}

// TestGone gives back what a caller had who went away without a word.
func TestGone(t *testing.T) {
	r := newRig(t, nil)
	open := func() int {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		return len(r.s.live)
	}
	for _, path := range []string{"/v1/events", "/v1/events.ndjson"} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://haulback"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.httpClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		wait(t, "a stream", func() bool { return open() == 1 })
		cancel()
		resp.Body.Close()
		wait(t, path+" to end", func() bool { return open() == 0 })
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := r.client().Watch(ctx, &controlv1.WatchRequest{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "a watch", func() bool { return open() == 1 })
	cancel()
	wait(t, "the watch to end", func() bool { return open() == 0 })
	wait(t, "slots to be given back", func() bool {
		r.s.streams.mu.Lock()
		defer r.s.streams.mu.Unlock()
		return r.s.streams.n == 0 && len(r.s.streams.by) == 0
	})
}

// TestHealth answers those who keep a daemon running.
func TestHealth(t *testing.T) {
	r := newRig(t, nil)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready"} {
		if p := r.get(path); p.status != 200 || strings.TrimSpace(p.body) != want {
			t.Errorf("%s: %+v", path, p)
		}
	}
	r.daemon.drain = func(ctx context.Context) { _ = r.engine.Drain(ctx) }
	if p := r.call("Daemon/Drain", `{}`); p.status != 200 {
		t.Fatal(p)
	}
	if p := r.get("/readyz"); p.status != 503 || strings.TrimSpace(p.body) != "draining" {
		t.Errorf("draining: %+v", p)
	}
	if p := r.get("/healthz"); p.status != 200 {
		t.Errorf("a daemon that drains is healthy: %+v", p)
	}
	var refused reply
	wait(t, "a refusal", func() bool {
		refused = r.call("Jobs/Submit", spec(fmt.Sprint("late-", time.Now().UnixNano()), "vm"))
		return refused.status != 200
	})
	if a, info := refused.info(t); refused.status != 503 || a.Code != "unavailable" || info.Reason != "DRAINING" || info.Retry != controlv1.Retry_RETRY_BACKOFF {
		t.Errorf("a submit while draining: %+v", refused)
	}
}

// brokenJobs is an engine whose store cannot be read.
type brokenJobs struct{ Jobs }

func (brokenJobs) List(context.Context, job.Filter, job.Page) ([]job.Job, string, error) {
	return nil, "", &job.Failure{Reason: job.ReasonEngine, Text: "jobs.db: input/output error", Retry: job.RetryBackoff, Exit: 13}
}

// TestUnhealthy says so when the jobs cannot be read.
func TestUnhealthy(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Jobs = brokenJobs{c.Jobs} })
	if p := r.get("/healthz"); p.status != 503 || strings.Contains(p.body, "jobs.db") {
		t.Errorf("health: %+v", p)
	}
	p := r.call("Jobs/List", `{}`)
	if _, info := p.info(t); p.status != 503 || info.Reason != "ENGINE_UNAVAILABLE" {
		t.Errorf("list: %+v", p)
	}
}

// FuzzEventsQuery reads any query without a panic, and a good one as it stands.
func FuzzEventsQuery(f *testing.F) {
	for _, seed := range []string{"", "after=1", "after=1&job=x", "after=18446744073709551615", "job=%00", "after=1;job=x", "%", "a=b", "after=&job="} {
		f.Add(seed, "")
		f.Add(seed, "7")
	}
	f.Fuzz(func(t *testing.T, query, last string) {
		after, id, err := eventsQuery(query, last, "job")
		if err != nil {
			if jobpb.FromError(err).Code() != connect.CodeInvalidArgument {
				t.Errorf("%q %q: %v", query, last, err)
			}
			return
		}
		if len(id) > 128 || last != "" && after == 0 && strings.Trim(last, "0") != "" {
			t.Errorf("%q %q: after %d, job %q", query, last, after, id)
		}
	})
}

// FuzzJSON posts any bytes as a submit: an answer that is JSON comes, always.
func FuzzJSON(f *testing.F) {
	r := newRig(f, nil)
	for _, seed := range []string{
		"", "{}", "[]", "null", `{"id":"a"}`, spec("a", "vm"), `{"id":"a","spec":{"retry":"1s"}}`, `{"spec":{"limits":{"windows":[null]}}}`,
		`{"spec":{"disks":[null]}}`, `{"tickets":[null]}`, strings.Repeat("[", 20000), `{"spec":{"retry":"315576000000s","mode":1}}`,
	} {
		f.Add([]byte(seed))
	}
	client := r.httpClient()
	f.Fuzz(func(t *testing.T, body []byte) {
		resp, err := client.Post("http://haulback/haulback.v1.Jobs/Submit", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || !json.Valid(text) || resp.StatusCode >= 500 {
			t.Errorf("%q: %v %s %q", body, err, resp.Status, text)
		}
	})
}
