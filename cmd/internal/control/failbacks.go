package control

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// failbacksHandler is service Failbacks.
type failbacksHandler struct{ s *Server }

// begin is the engine, and a context that knows who asks.
func (h failbacksHandler) begin(ctx context.Context) (context.Context, Failbacks, error) {
	if h.s.cfg.Failbacks == nil {
		return ctx, nil, noController()
	}
	return failback.WithCaller(ctx, callOf(ctx).who.Name), h.s.cfg.Failbacks, nil
}

func noController() error {
	return &job.Failure{
		Reason: jobpb.ReasonUnimplemented, Text: "[controller] is not in this daemon's configuration; ask the daemon that has it", Retry: job.RetryNever, Exit: 10,
	}
}

// pairOf asks the engine for one pair and translates its answer.
func (h failbacksHandler) pairOf(ctx context.Context, name string, ask func(context.Context, Failbacks) (failback.Pair, error)) (*controlv1.Pair, error) {
	ctx, engine, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, jobpb.Invalid("name", "it is missing")
	}
	p, err := ask(ctx, engine)
	if err != nil {
		return nil, err
	}
	return failbackpb.FromPair(&p), nil
}

// PutPair implements controlv1.FailbacksHandler.
func (h failbacksHandler) PutPair(ctx context.Context, req *controlv1.PutPairRequest) (*controlv1.PutPairResponse, error) {
	ctx, engine, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	p, err := failbackpb.ToPair("pair", req.Pair)
	if err != nil {
		return nil, err
	}
	if p.Name == "" {
		return nil, jobpb.Invalid("pair.name", "it is missing")
	}
	if p, err = engine.PutPair(ctx, p, req.ExpectedRevision); err != nil {
		return nil, err
	}
	return &controlv1.PutPairResponse{Pair: failbackpb.FromPair(&p)}, nil
}

// GetPair implements controlv1.FailbacksHandler.
func (h failbacksHandler) GetPair(ctx context.Context, req *controlv1.GetPairRequest) (*controlv1.GetPairResponse, error) {
	p, err := h.pairOf(ctx, req.Name, func(ctx context.Context, f Failbacks) (failback.Pair, error) { return f.Pair(ctx, req.Name) })
	return &controlv1.GetPairResponse{Pair: p}, err
}

// ListPairs implements controlv1.FailbacksHandler.
func (h failbacksHandler) ListPairs(ctx context.Context, _ *controlv1.ListPairsRequest) (*controlv1.ListPairsResponse, error) {
	ctx, engine, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	pairs, revision, err := engine.Pairs(ctx)
	if err != nil {
		return nil, err
	}
	out := &controlv1.ListPairsResponse{Revision: revision}
	for i := range pairs {
		out.Pairs = append(out.Pairs, failbackpb.FromPair(&pairs[i]))
	}
	slices.SortFunc(out.Pairs, func(a, b *controlv1.Pair) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// RemovePair implements controlv1.FailbacksHandler.
func (h failbacksHandler) RemovePair(ctx context.Context, req *controlv1.RemovePairRequest) (*controlv1.RemovePairResponse, error) {
	_, err := h.pairOf(ctx, req.Name, func(ctx context.Context, f Failbacks) (failback.Pair, error) {
		return failback.Pair{}, f.RemovePair(ctx, req.Name, req.ExpectedRevision)
	})
	return &controlv1.RemovePairResponse{}, err
}

// Failover implements controlv1.FailbacksHandler.
func (h failbacksHandler) Failover(ctx context.Context, req *controlv1.FailoverRequest) (*controlv1.FailoverResponse, error) {
	p, err := h.pairOf(ctx, req.Name, func(ctx context.Context, f Failbacks) (failback.Pair, error) {
		return f.Failover(ctx, req.Name, req.ExpectedRevision)
	})
	return &controlv1.FailoverResponse{Pair: p}, err
}

// UndoFailover implements controlv1.FailbacksHandler.
func (h failbacksHandler) UndoFailover(ctx context.Context, req *controlv1.UndoFailoverRequest) (*controlv1.UndoFailoverResponse, error) {
	p, err := h.pairOf(ctx, req.Name, func(ctx context.Context, f Failbacks) (failback.Pair, error) {
		return f.UndoFailover(ctx, req.Name, req.ExpectedRevision)
	})
	return &controlv1.UndoFailoverResponse{Pair: p}, err
}

// CheckReplication implements controlv1.FailbacksHandler.
func (h failbacksHandler) CheckReplication(ctx context.Context, req *controlv1.CheckReplicationRequest) (*controlv1.CheckReplicationResponse, error) {
	_, err := h.pairOf(ctx, req.Name, func(ctx context.Context, f Failbacks) (failback.Pair, error) {
		return failback.Pair{}, f.CheckReplication(ctx, req.Name)
	})
	return &controlv1.CheckReplicationResponse{}, err
}

// specOf reads a spec. Who does not say when to switch is asked: the careful
// answer.
func specOf(m *controlv1.FailbackSpec) (failback.Spec, error) {
	s, err := failbackpb.ToSpec("spec", m)
	if err == nil && s.Destination == "" {
		return s, jobpb.Invalid("spec.destination", "it is missing")
	}
	s.Switch.When = cmp.Or(s.Switch.When, failback.WhenManual)
	return s, err
}

// Plan implements controlv1.FailbacksHandler.
func (h failbacksHandler) Plan(ctx context.Context, req *controlv1.PlanRequest) (*controlv1.PlanResponse, error) {
	ctx, engine, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	s, err := specOf(req.Spec)
	if err != nil {
		return nil, err
	}
	p, err := engine.Plan(ctx, s, req.Measure)
	if err != nil {
		return nil, err
	}
	return &controlv1.PlanResponse{Plan: failbackpb.FromPlan(&p)}, nil
}

// Start implements controlv1.FailbacksHandler.
func (h failbacksHandler) Start(ctx context.Context, req *controlv1.StartRequest) (*controlv1.StartResponse, error) {
	ctx, engine, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	if req.Id == "" {
		return nil, jobpb.Invalid("id", "it is missing; choose one, a UUID for example, so that a repeated start is the same failback")
	}
	s, err := specOf(req.Spec)
	if err != nil {
		return nil, err
	}
	confirmed, err := jobpb.ToDigest("confirmed_digest", req.ConfirmedDigest)
	if err != nil {
		return nil, err
	}
	status, created, err := engine.Start(ctx, req.Id, callOf(ctx).who.Name, s, confirmed)
	if err != nil {
		return nil, err
	}
	return &controlv1.StartResponse{Failback: failbackpb.FromStatus(&status), AlreadyExisted: !created}, nil
}

// statusOf asks the engine for one failback and translates its answer.
func (h failbacksHandler) statusOf(ctx context.Context, id string, ask func(context.Context, Failbacks) (failback.Status, error)) (*controlv1.Failback, error) {
	ctx, engine, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := named(id); err != nil {
		return nil, err
	}
	s, err := ask(ctx, engine)
	if err != nil {
		return nil, err
	}
	return failbackpb.FromStatus(&s), nil
}

// Get implements controlv1.FailbacksHandler.
func (h failbacksHandler) Get(ctx context.Context, req *controlv1.GetFailbackRequest) (*controlv1.GetFailbackResponse, error) {
	f, err := h.statusOf(ctx, req.Id, func(ctx context.Context, f Failbacks) (failback.Status, error) { return f.Get(ctx, req.Id) })
	return &controlv1.GetFailbackResponse{Failback: f}, err
}

// Switch implements controlv1.FailbacksHandler.
func (h failbacksHandler) Switch(ctx context.Context, req *controlv1.SwitchRequest) (*controlv1.SwitchResponse, error) {
	when, err := failbackpb.ToSwitch("switch", req.Switch)
	if err != nil {
		return nil, err
	}
	f, err := h.statusOf(ctx, req.Id, func(ctx context.Context, f Failbacks) (failback.Status, error) {
		if when.When == "" { // to power off a VM that serves has to be said
			return failback.Status{}, jobpb.Invalid("switch.when", "it is missing")
		}
		return f.Switch(ctx, req.Id, when, req.ExpectedRevision)
	})
	return &controlv1.SwitchResponse{Failback: f}, err
}

// Commit implements controlv1.FailbacksHandler.
func (h failbacksHandler) Commit(ctx context.Context, req *controlv1.CommitRequest) (*controlv1.CommitResponse, error) {
	how := failback.CommitOptions{DeleteProtective: req.DeleteProtective, By: callOf(ctx).who.Name}
	f, err := h.statusOf(ctx, req.Id, func(ctx context.Context, f Failbacks) (failback.Status, error) {
		return f.Commit(ctx, req.Id, how, req.ExpectedRevision)
	})
	return &controlv1.CommitResponse{Failback: f}, err
}

// Undo implements controlv1.FailbacksHandler.
func (h failbacksHandler) Undo(ctx context.Context, req *controlv1.UndoRequest) (*controlv1.UndoResponse, error) {
	how := failback.UndoOptions{KeepOff: req.KeepOff, By: callOf(ctx).who.Name}
	f, err := h.statusOf(ctx, req.Id, func(ctx context.Context, f Failbacks) (failback.Status, error) {
		return f.Undo(ctx, req.Id, how, req.ExpectedRevision)
	})
	return &controlv1.UndoResponse{Failback: f}, err
}

// Cancel implements controlv1.FailbacksHandler.
func (h failbacksHandler) Cancel(ctx context.Context, req *controlv1.CancelFailbackRequest) (*controlv1.CancelFailbackResponse, error) {
	f, err := h.statusOf(ctx, req.Id, func(ctx context.Context, f Failbacks) (failback.Status, error) {
		return f.Cancel(ctx, req.Id, req.ExpectedRevision)
	})
	return &controlv1.CancelFailbackResponse{Failback: f}, err
}

// Continue implements controlv1.FailbacksHandler.
func (h failbacksHandler) Continue(ctx context.Context, req *controlv1.ContinueRequest) (*controlv1.ContinueResponse, error) {
	f, err := h.statusOf(ctx, req.Id, func(ctx context.Context, f Failbacks) (failback.Status, error) {
		return f.Continue(ctx, req.Id, req.ExpectedRevision)
	})
	return &controlv1.ContinueResponse{Failback: f}, err
}

// SetLimits implements controlv1.FailbacksHandler.
func (h failbacksHandler) SetLimits(ctx context.Context, req *controlv1.SetFailbackLimitsRequest) (*controlv1.SetFailbackLimitsResponse, error) {
	if req.Limits == nil { // "no limits" has to be said: an empty message
		return nil, jobpb.Invalid("limits", "it is missing; for no limits send an empty one")
	}
	l, err := jobpb.ToLimits("limits", req.Limits)
	if err != nil {
		return nil, err
	}
	priority, err := jobpb.ToPriority("priority", req.Priority)
	if err != nil {
		return nil, err
	}
	f, err := h.statusOf(ctx, req.Id, func(ctx context.Context, f Failbacks) (failback.Status, error) {
		return f.SetLimits(ctx, req.Id, l, priority)
	})
	return &controlv1.SetFailbackLimitsResponse{Failback: f}, err
}

// Garbage implements controlv1.FailbacksHandler.
func (h failbacksHandler) Garbage(ctx context.Context, req *controlv1.GarbageRequest) (*controlv1.GarbageResponse, error) {
	ctx, engine, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	list, err := engine.Garbage(ctx, req.Remove)
	if err != nil {
		return nil, err
	}
	out := &controlv1.GarbageResponse{}
	for i := range list {
		out.Leftovers = append(out.Leftovers, failbackpb.FromLeftover(list[i]))
	}
	return out, nil
}

// GetRecord implements controlv1.FailbacksHandler.
func (h failbacksHandler) GetRecord(ctx context.Context, req *controlv1.GetRecordRequest) (*controlv1.GetRecordResponse, error) {
	if _, _, err := h.begin(ctx); err != nil {
		return nil, err
	}
	if err := named(req.Id); err != nil {
		return nil, err
	}
	if h.s.cfg.FailbackRecord == nil {
		return nil, &job.Failure{Reason: jobpb.ReasonUnimplemented, Text: "this daemon keeps no records of failbacks", Retry: job.RetryNever, Exit: 10}
	}
	text, err := h.s.cfg.FailbackRecord(ctx, req.Id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &job.Failure{
			Reason: job.ReasonNotFound, Text: "there is no record of failback " + clip(req.Id) + " yet; it is written in state Failback, and at its end", Retry: job.RetryNever, Exit: 10,
		}
	}
	return &controlv1.GetRecordResponse{Record: string(text)}, err
}

// ListGroups implements controlv1.FailbacksHandler.
func (h failbacksHandler) ListGroups(ctx context.Context, _ *controlv1.ListGroupsRequest) (*controlv1.ListGroupsResponse, error) {
	if _, _, err := h.begin(ctx); err != nil {
		return nil, err
	}
	out := &controlv1.ListGroupsResponse{}
	if h.s.cfg.FailbackGroups == nil {
		return out, nil
	}
	for _, g := range h.s.cfg.FailbackGroups() {
		m := &controlv1.FailbackGroup{Name: g.Name, Parallel: int32(g.Parallel)}
		members := slices.Clone(g.Members)
		slices.SortStableFunc(members, func(a, b failback.Spec) int {
			return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(a.VM, b.VM))
		})
		for i := range members {
			m.Members = append(m.Members, failbackpb.FromSpec(&members[i]))
		}
		out.Groups = append(out.Groups, m)
	}
	slices.SortFunc(out.Groups, func(a, b *controlv1.FailbackGroup) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// List implements controlv1.FailbacksHandler. Failbacks are few, and the engine
// has them all in memory; what a page bounds is the answer.
func (h failbacksHandler) List(ctx context.Context, req *controlv1.ListFailbacksRequest) (*controlv1.ListFailbacksResponse, error) {
	ctx, engine, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	if req.PageSize < 0 || req.PageSize > maxPage {
		return nil, jobpb.Invalid("page_size", "%d; it is 0 to %d", req.PageSize, maxPage)
	}
	after, err := toMark(req.PageToken)
	if err != nil {
		return nil, err
	}
	list, revision, err := engine.List(ctx, failback.Filter{VM: req.Vm, Group: req.Group, Open: req.Open})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b failback.Status) int { return markOf(&a).compare(markOf(&b)) })
	out := &controlv1.ListFailbacksResponse{Revision: revision}
	want, bytes := cmp.Or(int(req.PageSize), pageJobs), 0
	for i := range list {
		m := markOf(&list[i])
		if req.PageToken != "" && m.compare(after) <= 0 {
			continue
		}
		if n := len(out.Failbacks); n >= want || n > 0 && bytes >= h.s.cfg.Bounds.ListBytes {
			out.NextPageToken = markOf(&list[i-1]).String()
			break
		}
		f := failbackpb.FromStatus(&list[i])
		bytes += proto.Size(f)
		out.Failbacks = append(out.Failbacks, f)
	}
	return out, nil
}
