package control

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/store"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// mark is a place in the list of failbacks: the newest first.
type mark struct {
	created int64 // nanoseconds of Unix
	id      string
}

func markOf(s *failback.Status) mark { return mark{s.Created.UnixNano(), s.ID} }

func (m mark) compare(o mark) int {
	return cmp.Or(cmp.Compare(o.created, m.created), strings.Compare(m.id, o.id))
}

// String is the page token.
func (m mark) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s", m.created, m.id))
}

func toMark(token string) (m mark, err error) {
	if token == "" {
		return m, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	created, id, ok := strings.Cut(string(text), " ")
	n, perr := strconv.ParseInt(created, 10, 64)
	if err != nil || perr != nil || !ok {
		return m, jobpb.Invalid("page_token", "%q is none; give the next_page_token of the page before", clip(token))
	}
	return mark{n, id}, nil
}

// Watch implements controlv1.FailbacksHandler.
func (h failbacksHandler) Watch(ctx context.Context, req *controlv1.WatchFailbacksRequest, stream controlv1.FailbacksWatchServerStream) error {
	pace := callOf(ctx).pace
	begin := func() error { return pace.send(stream.SendHeaders) } // he hears at once that he is heard
	return h.s.followFailbacks(ctx, req.AfterRevision, req.FailbackId, begin, func(m *controlv1.WatchFailbacksResponse) error {
		return pace.send(func() error { return stream.Send(m) })
	})
}

// followFailbacks tells what happens after a revision until ctx is done. It
// returns why it ended, never nil. It calls begin when the request is known to
// be in order.
func (s *Server) followFailbacks(ctx context.Context, after uint64, id string, begin func() error, send func(*controlv1.WatchFailbacksResponse) error) error {
	ctx, engine, err := failbacksHandler{s}.begin(ctx)
	if err != nil {
		return err
	}
	if id != "" {
		if _, err := engine.Get(ctx, id); err != nil {
			return err
		}
	}
	if err := begin(); err != nil {
		return why(ctx, err)
	}
	w := &failbackWatch{engine: engine, id: id, send: send}
	for {
		err := w.from(ctx, after)
		if !errors.Is(err, store.ErrCompacted) {
			return why(ctx, err)
		}
		// What the caller missed is no longer known: he gets everything anew.
		if err := w.tell(&controlv1.WatchFailbacksResponse{Event: &controlv1.WatchFailbacksResponse_Reset_{Reset_: &controlv1.Reset{}}}); err != nil {
			return why(ctx, err)
		}
		after = 0
	}
}

// failbackWatch is one caller's watch.
type failbackWatch struct {
	engine Failbacks
	id     string
	send   func(*controlv1.WatchFailbacksResponse) error
	after  uint64            // the revision that the changes begin after
	told   map[string]uint64 // the revision of each failback that was told last
}

func (w *failbackWatch) tell(m *controlv1.WatchFailbacksResponse) error {
	m.Time = timestamppb.New(time.Now())
	return w.send(m)
}

// from tells a snapshot when nothing is known, then the changes.
func (w *failbackWatch) from(ctx context.Context, after uint64) error {
	if after == 0 {
		var err error
		if after, err = w.snapshot(ctx); err != nil {
			return err
		}
	}
	w.after, w.told = after, make(map[string]uint64)
	for s, err := range w.engine.Watch(ctx, w.id, after) {
		if err != nil {
			return err
		}
		if err := w.tell(w.event(&s)); err != nil {
			return err
		}
	}
	return errors.New("the failback engine ended the watch")
}

// snapshot tells what there is, and answers the revision that it is of.
func (w *failbackWatch) snapshot(ctx context.Context) (uint64, error) {
	list, revision, err := w.engine.List(ctx, failback.Filter{})
	if err != nil {
		return 0, err
	}
	for i := range list {
		if w.id != "" && list[i].ID != w.id {
			continue
		}
		event := &controlv1.WatchFailbacksResponse_Failback{Failback: failbackpb.FromStatus(&list[i])}
		if err := w.tell(&controlv1.WatchFailbacksResponse{Event: event}); err != nil {
			return 0, err
		}
	}
	return revision, w.tell(&controlv1.WatchFailbacksResponse{Revision: revision, Event: &controlv1.WatchFailbacksResponse_Synced{Synced: &controlv1.Synced{}}})
}

// event is a change, or progress when its failback has not changed.
func (w *failbackWatch) event(s *failback.Status) *controlv1.WatchFailbacksResponse {
	m := failbackpb.FromStatus(s)
	if s.Revision <= max(w.after, w.told[s.ID]) {
		return &controlv1.WatchFailbacksResponse{Event: &controlv1.WatchFailbacksResponse_Progress{Progress: m}}
	}
	w.told[s.ID] = s.Revision
	return &controlv1.WatchFailbacksResponse{Revision: s.Revision, Event: &controlv1.WatchFailbacksResponse_Failback{Failback: m}}
}
