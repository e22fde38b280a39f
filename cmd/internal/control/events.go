package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// eventsQuery reads the query of an event stream; object is the
// parameter that names one.
// The Last-Event-ID of one who comes back is newer than the "after" that he
// began with.
func eventsQuery(query, last, object string) (after uint64, id string, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, "", jobpb.Invalid("query", "it cannot be read: %v", err)
	}
	for key, list := range values {
		if key != "after" && key != object {
			return 0, "", jobpb.Invalid("query", "unknown parameter %q; there are after and %s", clip(key), object)
		}
		if len(list) != 1 {
			return 0, "", jobpb.Invalid(key, "it is given %d times", len(list))
		}
	}
	revision := func(field, text string) error {
		if text == "" {
			return nil
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return jobpb.Invalid(field, "%q is no revision: a whole number, as in the id of an event", clip(text))
		}
		after = n
		return nil
	}
	if err := revision("after", values.Get("after")); err != nil {
		return 0, "", err
	}
	if err := revision("Last-Event-ID", last); err != nil {
		return 0, "", err
	}
	id = values.Get(object)
	if len(id) > job.MaxID {
		return 0, "", jobpb.Invalid(object, "%d bytes; an id has %d at most", len(id), job.MaxID)
	}
	return after, id, nil
}

// format is how an event stream is written.
type format struct {
	contentType string
	alive       []byte // a sign of life
	event       func(m happening, text []byte) []byte
	failed      func(text []byte) []byte
}

// happening is a WatchResponse of jobs or of failbacks.
type happening interface {
	proto.Message
	GetRevision() uint64
}

// sse is text/event-stream: "id" is the revision, "event" its kind, "data" the
// JSON of the message.
func sse() *format {
	return &format{
		contentType: "text/event-stream",
		alive:       []byte(": alive\n\n"),
		event: func(m happening, text []byte) []byte {
			var b bytes.Buffer
			if r := m.GetRevision(); r != 0 { // without one a caller keeps the last
				fmt.Fprintf(&b, "id: %d\n", r)
			}
			fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", kindOf(m), text)
			return b.Bytes()
		},
		failed: func(text []byte) []byte { return fmt.Appendf(nil, "event: error\ndata: %s\n\n", text) },
	}
}

// ndjson is one JSON object a line; an empty object is a sign of life.
func ndjson() *format {
	return &format{
		contentType: "application/x-ndjson",
		alive:       []byte("{}\n"),
		event:       func(_ happening, text []byte) []byte { return append(text, '\n') },
		failed:      func(text []byte) []byte { return fmt.Appendf(nil, "{\"error\":%s}\n", text) },
	}
}

// kindOf is the name of an event: that of the field that is set.
func kindOf(m happening) string {
	r := m.ProtoReflect()
	if f := r.WhichOneof(r.Descriptor().Oneofs().ByName("event")); f != nil {
		return string(f.Name())
	}
	return "message"
}

// follower tells what happens to id after a revision, see Server.follow.
type follower func(ctx context.Context, after uint64, id string, begin func() error, send func(happening) error) error

func isEvents(path string) bool {
	switch path {
	case pathSSE, pathNDJSON, pathFailbackSSE, pathFailbackNDJSON:
		return true
	}
	return false
}

// eventPaths is the paths of isEvents and what serves them.
func (s *Server) eventPaths() map[string]http.HandlerFunc {
	jobs := func(ctx context.Context, after uint64, id string, begin func() error, send func(happening) error) error {
		return s.follow(ctx, after, id, begin, func(m *controlv1.WatchResponse) error { return send(m) })
	}
	failbacks := func(ctx context.Context, after uint64, id string, begin func() error, send func(happening) error) error {
		return s.followFailbacks(ctx, after, id, begin, func(m *controlv1.WatchFailbacksResponse) error { return send(m) })
	}
	serve := func(f *format, object string, of follower) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { s.events(w, r, f, object, of) }
	}
	return map[string]http.HandlerFunc{
		pathSSE: serve(sse(), "job", jobs), pathNDJSON: serve(ndjson(), "job", jobs),
		pathFailbackSSE: serve(sse(), "failback", failbacks), pathFailbackNDJSON: serve(ndjson(), "failback", failbacks),
	}
}

// events writes the events of a Watch. Errors before the first one have a
// status, later ones are an event: the last one.
func (s *Server) events(w http.ResponseWriter, r *http.Request, f *format, object string, follow follower) {
	ctx := r.Context()
	after, id, err := eventsQuery(r.URL.RawQuery, r.Header.Get("Last-Event-ID"), object)
	if err != nil {
		_ = s.errs.Write(w, r, jobpb.FromError(err))
		return
	}
	out := &eventWriter{w: w, pace: callOf(ctx).pace, format: f}
	var alive sync.WaitGroup
	done := make(chan struct{})
	err = follow(ctx, after, id, func() error { // he hears at once that he is heard
		alive.Go(func() { out.keepAlive(done, s.cfg.Bounds.KeepAlive) })
		return out.write(f.alive)
	}, out.message)
	close(done)
	alive.Wait()
	made := jobpb.FromError(explain(ctx, err))
	if !out.begun {
		_ = s.errs.Write(w, r, made)
		return
	}
	info, _ := jobpb.Info(made)
	text, err := json.Marshal(struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Reason  string `json:"reason"`
		Retry   string `json:"retry"`
	}{made.Code().String(), made.Message(), info.GetReason(), info.GetRetry().String()})
	if err == nil {
		_ = out.write(f.failed(text)) // he may be gone
	}
}

// eventWriter writes events and signs of life, which come from two goroutines.
type eventWriter struct {
	mu     sync.Mutex
	w      http.ResponseWriter
	pace   paced
	format *format
	begun  bool
}

func (o *eventWriter) message(m happening) error {
	text, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil { // its white space is random
		return err
	}
	return o.write(o.format.event(m, b.Bytes()))
}

func (o *eventWriter) write(b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.begun {
		o.begun = true
		h := o.w.Header()
		h.Set("Content-Type", o.format.contentType)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Accel-Buffering", "no") // a proxy in between must not collect events
	}
	return o.pace.send(func() error {
		if _, err := o.w.Write(b); err != nil {
			return err
		}
		return o.pace.rc.Flush()
	})
}

// keepAlive writes signs of life until done is closed.
func (o *eventWriter) keepAlive(done <-chan struct{}, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if o.write(o.format.alive) != nil {
				return
			}
		case <-done:
			return
		}
	}
}
