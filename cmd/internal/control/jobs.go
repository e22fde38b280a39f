package control

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/store"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// ticketBytes bounds one ticket; a signed ticket has a few hundred bytes.
const ticketBytes = 4096

// Pages: what is asked of the engine at once, and what a caller may ask for.
const (
	batchJobs = 8
	pageJobs  = 100
	maxPage   = 1000
)

// jobsHandler is service Jobs.
type jobsHandler struct{ s *Server }

// Submit implements controlv1.JobsHandler.
func (h jobsHandler) Submit(ctx context.Context, req *controlv1.SubmitRequest) (*controlv1.SubmitResponse, error) {
	if req.Id == "" {
		return nil, jobpb.Invalid("id", "it is missing; choose one, a UUID for example, so that a repeated submit is the same job")
	}
	spec, err := jobpb.ToSpec("spec", req.Spec)
	if err != nil {
		return nil, err
	}
	tickets, err := tickets(req.Tickets)
	if err != nil {
		return nil, err
	}
	j, existed, err := h.s.cfg.Jobs.Submit(ctx, req.Id, callOf(ctx).who.Name, spec, tickets)
	if err != nil {
		return nil, err
	}
	return &controlv1.SubmitResponse{Job: jobpb.FromJob(&j), AlreadyExisted: existed}, nil
}

// tickets reads the tickets of a request.
func tickets(list []*controlv1.Ticket) (map[string][]byte, error) {
	if len(list) > job.MaxDisks {
		return nil, jobpb.Invalid("tickets", "%d tickets; a job has %d disks at most", len(list), job.MaxDisks)
	}
	var out map[string][]byte
	for i, t := range list {
		at := fmt.Sprintf("tickets[%d]", i)
		if n := len(t.GetTicket()); n == 0 || n > ticketBytes {
			return nil, jobpb.Invalid(at+".ticket", "%d bytes; a ticket has 1 to %d", n, ticketBytes)
		}
		if _, twice := out[t.Disk]; twice {
			return nil, jobpb.Invalid(at+".disk", "%q has a ticket already", clip(t.Disk))
		}
		if out == nil {
			out = make(map[string][]byte, len(list))
		}
		out[t.Disk] = t.Ticket
	}
	return out, nil
}

// named refuses a request without an ID.
func named(id string) error {
	if id == "" {
		return jobpb.Invalid("id", "it is missing")
	}
	return nil
}

// Get implements controlv1.JobsHandler.
func (h jobsHandler) Get(ctx context.Context, req *controlv1.GetRequest) (*controlv1.GetResponse, error) {
	j, err := one(ctx, req.Id, h.s.cfg.Jobs.Get)
	return &controlv1.GetResponse{Job: j}, err
}

// one asks the engine for one job and translates its answer.
func one(ctx context.Context, id string, ask func(context.Context, string) (job.Job, error)) (*controlv1.Job, error) {
	if err := named(id); err != nil {
		return nil, err
	}
	j, err := ask(ctx, id)
	if err != nil {
		return nil, err
	}
	return jobpb.FromJob(&j), nil
}

// List implements controlv1.JobsHandler. The engine is asked for a few jobs at a
// time, so that a page of large jobs ends early instead of filling the memory.
func (h jobsHandler) List(ctx context.Context, req *controlv1.ListRequest) (*controlv1.ListResponse, error) {
	if req.PageSize < 0 || req.PageSize > maxPage {
		return nil, jobpb.Invalid("page_size", "%d; it is 0 to %d", req.PageSize, maxPage)
	}
	f := job.Filter{Owner: req.Owner, Labels: req.Labels}
	for _, p := range req.Phases {
		phase, err := jobpb.ToPhase("phases", p)
		if err != nil {
			return nil, err
		}
		f.Phases = append(f.Phases, phase)
	}
	want := int(req.PageSize)
	if want == 0 {
		want = pageJobs
	}
	out := &controlv1.ListResponse{NextPageToken: req.PageToken}
	for bytes := 0; ; {
		jobs, next, err := h.s.cfg.Jobs.List(ctx, f, job.Page{Size: min(want-len(out.Jobs), batchJobs), Token: out.NextPageToken})
		if err != nil {
			return nil, err
		}
		for i := range jobs {
			m := jobpb.FromJob(&jobs[i])
			bytes += proto.Size(m)
			out.Jobs = append(out.Jobs, m)
		}
		out.NextPageToken = next
		if next == "" || len(out.Jobs) >= want || bytes >= h.s.cfg.Bounds.ListBytes {
			return out, nil
		}
	}
}

// Watch implements controlv1.JobsHandler.
func (h jobsHandler) Watch(ctx context.Context, req *controlv1.WatchRequest, stream controlv1.JobsWatchServerStream) error {
	pace := callOf(ctx).pace
	begin := func() error { return pace.send(stream.SendHeaders) } // he hears at once that he is heard
	return h.s.follow(ctx, req.AfterRevision, req.JobId, begin, func(m *controlv1.WatchResponse) error {
		return pace.send(func() error { return stream.Send(m) })
	})
}

// follow tells what happens after a revision until ctx is done. It returns why
// it ended, never nil. It calls begin when the request is known to be in order.
func (s *Server) follow(ctx context.Context, after uint64, id string, begin func() error, send func(*controlv1.WatchResponse) error) error {
	if id != "" && after == 0 { // later the job may have been removed, which is an event
		if _, err := s.cfg.Jobs.Get(ctx, id); err != nil {
			return err
		}
	}
	if err := begin(); err != nil {
		return why(ctx, err)
	}
	var events jobpb.Events
	for {
		err := s.followOnce(ctx, after, id, &events, send)
		if !errors.Is(err, store.ErrCompacted) {
			return why(ctx, err)
		}
		// What the caller missed is no longer known: he gets everything anew.
		if err := send(&controlv1.WatchResponse{Event: &controlv1.WatchResponse_Reset_{Reset_: &controlv1.Reset{}}}); err != nil {
			return why(ctx, err)
		}
		after = 0
	}
}

func (s *Server) followOnce(ctx context.Context, after uint64, id string, events *jobpb.Events, send func(*controlv1.WatchResponse) error) error {
	for e, err := range s.cfg.Jobs.Watch(ctx, after, job.Filter{ID: id}) {
		if err != nil {
			return err
		}
		if m := events.From(&e); m != nil {
			if err := send(m); err != nil {
				return err
			}
		}
	}
	return errors.New("the job engine ended the watch")
}

// Cancel implements controlv1.JobsHandler.
func (h jobsHandler) Cancel(ctx context.Context, req *controlv1.CancelRequest) (*controlv1.CancelResponse, error) {
	j, err := one(ctx, req.Id, h.s.cfg.Jobs.Cancel)
	return &controlv1.CancelResponse{Job: j}, err
}

// Pause implements controlv1.JobsHandler.
func (h jobsHandler) Pause(ctx context.Context, req *controlv1.PauseRequest) (*controlv1.PauseResponse, error) {
	j, err := one(ctx, req.Id, h.s.cfg.Jobs.Pause)
	return &controlv1.PauseResponse{Job: j}, err
}

// Resume implements controlv1.JobsHandler.
func (h jobsHandler) Resume(ctx context.Context, req *controlv1.ResumeRequest) (*controlv1.ResumeResponse, error) {
	j, err := one(ctx, req.Id, h.s.cfg.Jobs.Resume)
	return &controlv1.ResumeResponse{Job: j}, err
}

// SetLimits implements controlv1.JobsHandler.
func (h jobsHandler) SetLimits(ctx context.Context, req *controlv1.SetLimitsRequest) (*controlv1.SetLimitsResponse, error) {
	if req.Limits == nil { // "no limits" has to be said: an empty message
		return nil, jobpb.Invalid("limits", "it is missing; for no limits send an empty one")
	}
	l, err := jobpb.ToLimits("limits", req.Limits)
	if err != nil {
		return nil, err
	}
	j, err := one(ctx, req.Id, func(ctx context.Context, id string) (job.Job, error) { return h.s.cfg.Jobs.SetLimits(ctx, id, l) })
	return &controlv1.SetLimitsResponse{Job: j}, err
}

// SetTickets implements controlv1.JobsHandler.
func (h jobsHandler) SetTickets(ctx context.Context, req *controlv1.SetTicketsRequest) (*controlv1.SetTicketsResponse, error) {
	if err := named(req.Id); err != nil {
		return nil, err
	}
	t, err := tickets(req.Tickets)
	if err != nil {
		return nil, err
	}
	return &controlv1.SetTicketsResponse{}, h.s.cfg.Jobs.SetTickets(ctx, req.Id, t)
}

// Remove implements controlv1.JobsHandler.
func (h jobsHandler) Remove(ctx context.Context, req *controlv1.RemoveRequest) (*controlv1.RemoveResponse, error) {
	if err := named(req.Id); err != nil {
		return nil, err
	}
	return &controlv1.RemoveResponse{}, h.s.cfg.Jobs.Remove(ctx, req.Id)
}
