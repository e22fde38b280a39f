package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// fakeController answers as a daemon with a controller does. What a failback
// does is what the test says with set.
type fakeController struct {
	socket string

	mu       sync.Mutex
	changed  chan struct{} // closed at every change, then made anew
	revision uint64
	pairs    map[string]*failback.Pair
	all      map[string]*failback.Status
	plan     failback.Plan
	asked    []string // the verbs, in order
	started  []*controlv1.StartRequest
	left     []failback.Leftover
	expected uint64           // revision that the last verb was about
	denied   string           // verbs are refused with this
	jobs     []*controlv1.Job // of the daemon
	broken   chan struct{}    // ends the watches of failbacks when it is closed
	silent   bool             // a watch of failbacks tells nothing
}

func newFake(t *testing.T) *fakeController {
	t.Helper()
	dir, err := os.MkdirTemp("", "hb-fake-") // a socket's path has to be short
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fakeController{
		socket: filepath.Join(dir, "s"), changed: make(chan struct{}), pairs: map[string]*failback.Pair{}, all: map[string]*failback.Status{},
		plan: failback.Plan{
			VM: "web", Destination: failback.Original, Replica: hostctl.VM{Ref: hostctl.Ref{Host: "dr", Name: "web-replica"}, Power: hostctl.On, Disks: []hostctl.Disk{{Size: 1 << 30}}},
			Target: &hostctl.VM{Ref: hostctl.Ref{Host: "home", Name: "web-prod"}, Power: hostctl.Off, Path: "[ds] web/web.vmx"},
			Disks: []failback.PlanDisk{{
				Label: "scsi0:0", Replica: hostctl.Disk{Size: 1 << 30, File: "[dr] web/web.vmdk"}, Target: &hostctl.Disk{File: "[ds] web/web.vmdk"}, Mode: "hash",
				Reason: "as asked", Differing: 1 << 20, Error: 4096, AtMost: 1 << 30, Matched: "label and size",
			}},
			Actions:  []failback.Action{{Step: "pass-1", Number: 3, Host: "home", VM: "web-prod", Text: "move what differs", Overwrites: "the disk scsi0:0 of home/web-prod", Undo: "revert"}},
			Warnings: []string{"fewer CPUs"}, Why: "the original is there", Bytes: 1 << 20, AtMost: 1 << 30, Time: time.Minute, Downtime: 30 * time.Second, Reckoned: "a sample",
		},
	}
	f.plan.Digest[0] = 0xab
	f.pair("web", "")
	rpc := connect.NewServer(func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if err := next(ctx, spec, stream); err != nil {
				return jobpb.FromError(err)
			}
			return nil
		}
	})
	controlv1.RegisterFailbacksHandler(rpc, f)
	controlv1.RegisterDaemonHandler(rpc, fakeDaemon{})
	controlv1.RegisterJobsHandler(rpc, fakeJobs{f: f})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, rpc)
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", f.socket)
	check(t, err)
	server := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return f
}

func (f *fakeController) bumpLocked() uint64 {
	f.revision++
	close(f.changed)
	f.changed = make(chan struct{})
	return f.revision
}

// pair makes a VM known, with its last failback.
func (f *fakeController) pair(name, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pairs[name] = &failback.Pair{
		Name: name, State: failback.Failover, Since: time.Now(), Failback: id, Revision: f.bumpLocked(), Disks: []failback.DiskPair{},
		Original: hostctl.Ref{Host: "home", ID: "vm-1", Name: name + "-prod"}, Replica: hostctl.Ref{Host: "dr", ID: "vm-2", Name: name + "-replica"},
	}
}

// set makes or changes a failback.
func (f *fakeController) set(id string, change func(*failback.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.all[id]
	if s == nil {
		s = &failback.Status{
			ID: id, Run: "01905a5e-7d3a-7c51-b0cb-3b3a52a1d2e3", Owner: "uid 0", Created: time.Now(), State: failback.Failover, Activity: failback.Syncing,
			Spec:   failback.Spec{VM: "web", Destination: failback.Original, Switch: failback.Switch{When: failback.WhenManual}},
			Target: hostctl.Ref{Host: "home", Name: "web-prod"}, Replica: hostctl.Ref{Host: "dr", Name: "web-replica"},
		}
	}
	c := *s
	change(&c)
	c.Revision = f.bumpLocked()
	f.all[id] = &c
	if p := f.pairs[c.Spec.VM]; p != nil {
		p.Failback = id
	}
}

func (f *fakeController) said() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// begun are the failbacks that were asked for.
func (f *fakeController) begun() []*controlv1.StartRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.started)
}

// digest is that of the plan that it answers.
func (f *fakeController) digest() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.plan.Digest.String()
}

// offer changes what it answers.
func (f *fakeController) offer(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func refusal(reason, text string) error {
	return &job.Failure{Reason: reason, Text: text, Retry: job.RetryNever}
}

func (f *fakeController) onPair(name, verb string) (*controlv1.Pair, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if verb != "" {
		f.asked = append(f.asked, verb)
	}
	p := f.pairs[name]
	if p == nil {
		return nil, refusal(job.ReasonNotFound, "no VM "+name)
	}
	return failbackpb.FromPair(p), nil
}

// on answers a verb: the failback is as change makes it.
func (f *fakeController) on(id, verb string, expected uint64, change func(*failback.Status)) (*controlv1.Failback, error) {
	f.mu.Lock()
	s := f.all[id]
	if verb != "" {
		f.asked = append(f.asked, verb)
		f.expected = expected
	}
	denied := f.denied
	f.mu.Unlock()
	switch {
	case verb != "" && denied != "":
		return nil, &job.Failure{Reason: job.ReasonAuth, Text: denied, Retry: job.RetryNever, Exit: 12}
	case s == nil:
		return nil, refusal(job.ReasonNotFound, "no failback "+id)
	case expected != 0 && expected != s.Revision:
		return nil, refusal(job.ReasonConflict, "the failback has changed")
	}
	if change != nil {
		f.set(id, change)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return failbackpb.FromStatus(f.all[id]), nil
}

func (f *fakeController) PutPair(_ context.Context, r *controlv1.PutPairRequest) (*controlv1.PutPairResponse, error) {
	f.pair(r.Pair.Name, "")
	p, err := f.onPair(r.Pair.Name, "put")
	return &controlv1.PutPairResponse{Pair: p}, err
}

func (f *fakeController) GetPair(_ context.Context, r *controlv1.GetPairRequest) (*controlv1.GetPairResponse, error) {
	p, err := f.onPair(r.Name, "")
	return &controlv1.GetPairResponse{Pair: p}, err
}

func (f *fakeController) ListPairs(context.Context, *controlv1.ListPairsRequest) (*controlv1.ListPairsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &controlv1.ListPairsResponse{Revision: f.revision}
	for _, p := range f.pairs {
		out.Pairs = append(out.Pairs, failbackpb.FromPair(p))
	}
	slices.SortFunc(out.Pairs, func(a, b *controlv1.Pair) int { return len(a.Name) - len(b.Name) })
	return out, nil
}

func (f *fakeController) RemovePair(_ context.Context, r *controlv1.RemovePairRequest) (*controlv1.RemovePairResponse, error) {
	_, err := f.onPair(r.Name, "remove")
	return &controlv1.RemovePairResponse{}, err
}

func (f *fakeController) Failover(_ context.Context, r *controlv1.FailoverRequest) (*controlv1.FailoverResponse, error) {
	p, err := f.onPair(r.Name, "failover")
	return &controlv1.FailoverResponse{Pair: p}, err
}

func (f *fakeController) UndoFailover(_ context.Context, r *controlv1.UndoFailoverRequest) (*controlv1.UndoFailoverResponse, error) {
	p, err := f.onPair(r.Name, "undo-failover")
	return &controlv1.UndoFailoverResponse{Pair: p}, err
}

func (f *fakeController) CheckReplication(_ context.Context, r *controlv1.CheckReplicationRequest) (*controlv1.CheckReplicationResponse, error) {
	p, err := f.onPair(r.Name, "check")
	if err == nil && p.Failback != "" {
		err = refusal(job.ReasonConflict, r.Name+" is held by failback "+p.Failback)
	}
	return &controlv1.CheckReplicationResponse{}, err
}

func (f *fakeController) Plan(_ context.Context, r *controlv1.PlanRequest) (*controlv1.PlanResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, "plan "+r.Spec.Vm)
	p := f.plan
	p.VM = r.Spec.Vm
	return &controlv1.PlanResponse{Plan: failbackpb.FromPlan(&p)}, nil
}

func (f *fakeController) Start(_ context.Context, r *controlv1.StartRequest) (*controlv1.StartResponse, error) {
	s, err := failbackpb.ToSpec("spec", r.Spec)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	existed := f.all[r.Id] != nil
	f.started = append(f.started, r)
	f.mu.Unlock()
	m, err := f.on(r.Id, "", 0, nil)
	if !existed {
		f.set(r.Id, func(st *failback.Status) { st.Spec = s })
		m, err = f.on(r.Id, "start "+s.VM, 0, nil)
	}
	return &controlv1.StartResponse{Failback: m, AlreadyExisted: existed}, err
}

func (f *fakeController) Get(_ context.Context, r *controlv1.GetFailbackRequest) (*controlv1.GetFailbackResponse, error) {
	m, err := f.on(r.Id, "", 0, nil)
	return &controlv1.GetFailbackResponse{Failback: m}, err
}

func (f *fakeController) List(context.Context, *controlv1.ListFailbacksRequest) (*controlv1.ListFailbacksResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &controlv1.ListFailbacksResponse{}
	for _, s := range f.all {
		out.Failbacks = append(out.Failbacks, failbackpb.FromStatus(s))
	}
	return out, nil
}

func (f *fakeController) Watch(ctx context.Context, r *controlv1.WatchFailbacksRequest, stream controlv1.FailbacksWatchServerStream) error {
	for after := r.AfterRevision; ; {
		f.mu.Lock()
		var news []*failback.Status
		silent := f.silent
		for id, s := range f.all {
			if s.Revision > after && (r.FailbackId == "" || r.FailbackId == id) {
				news = append(news, s)
			}
		}
		after = f.revision
		changed, broken := f.changed, f.broken
		f.mu.Unlock()
		if silent && r.AfterRevision == 0 {
			<-ctx.Done()
			return ctx.Err()
		}
		for _, s := range news {
			if err := stream.Send(&controlv1.WatchFailbacksResponse{Revision: s.Revision, Event: &controlv1.WatchFailbacksResponse_Failback{Failback: failbackpb.FromStatus(s)}}); err != nil {
				return err
			}
		}
		if r.AfterRevision == 0 {
			r.AfterRevision = 1 // it is told once
			if err := stream.Send(&controlv1.WatchFailbacksResponse{Revision: after, Event: &controlv1.WatchFailbacksResponse_Synced{Synced: &controlv1.Synced{}}}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-broken:
			return errors.New("broken")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeController) Switch(_ context.Context, r *controlv1.SwitchRequest) (*controlv1.SwitchResponse, error) {
	w, err := failbackpb.ToSwitch("switch", r.Switch)
	if err != nil {
		return nil, err
	}
	m, err := f.on(r.Id, "switch "+string(w.When), r.ExpectedRevision, func(s *failback.Status) { s.Spec.Switch = w })
	return &controlv1.SwitchResponse{Failback: m}, err
}

func (f *fakeController) Commit(_ context.Context, r *controlv1.CommitRequest) (*controlv1.CommitResponse, error) {
	m, err := f.on(r.Id, "commit", r.ExpectedRevision, func(s *failback.Status) { s.Activity = failback.Committing })
	if err == nil {
		f.set(r.Id, func(s *failback.Status) {
			s.Activity, s.State, s.Ended = failback.Committed, failback.Ready, time.Now()
		})
	}
	return &controlv1.CommitResponse{Failback: m}, err
}

func (f *fakeController) Undo(_ context.Context, r *controlv1.UndoRequest) (*controlv1.UndoResponse, error) {
	m, err := f.on(r.Id, "undo", r.ExpectedRevision, func(s *failback.Status) { s.Activity = failback.Undoing })
	if err == nil {
		f.set(r.Id, func(s *failback.Status) {
			s.Activity, s.State, s.Ended = failback.Undone, failback.Failover, time.Now()
		})
	}
	return &controlv1.UndoResponse{Failback: m}, err
}

func (f *fakeController) Cancel(_ context.Context, r *controlv1.CancelFailbackRequest) (*controlv1.CancelFailbackResponse, error) {
	m, err := f.on(r.Id, "cancel", r.ExpectedRevision, func(s *failback.Status) { s.Activity, s.Ended = failback.Canceled, time.Now() })
	return &controlv1.CancelFailbackResponse{Failback: m}, err
}

func (f *fakeController) Continue(_ context.Context, r *controlv1.ContinueRequest) (*controlv1.ContinueResponse, error) {
	m, err := f.on(r.Id, "continue", r.ExpectedRevision, func(s *failback.Status) { s.Halted = nil })
	return &controlv1.ContinueResponse{Failback: m}, err
}

func (f *fakeController) SetLimits(_ context.Context, r *controlv1.SetFailbackLimitsRequest) (*controlv1.SetFailbackLimitsResponse, error) {
	m, err := f.on(r.Id, "limits "+r.Priority.String(), 0, nil)
	return &controlv1.SetFailbackLimitsResponse{Failback: m}, err
}

func (f *fakeController) Garbage(_ context.Context, r *controlv1.GarbageRequest) (*controlv1.GarbageResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &controlv1.GarbageResponse{}
	for _, l := range f.left {
		if !r.Remove {
			l.Error = ""
		}
		out.Leftovers = append(out.Leftovers, failbackpb.FromLeftover(l))
	}
	if r.Remove {
		f.asked = append(f.asked, "gc")
	}
	return out, nil
}

func (f *fakeController) GetRecord(_ context.Context, r *controlv1.GetRecordRequest) (*controlv1.GetRecordResponse, error) {
	_, err := f.on(r.Id, "", 0, nil)
	return &controlv1.GetRecordResponse{Record: "{\"record\":1}\n"}, err
}

func (f *fakeController) ListGroups(context.Context, *controlv1.ListGroupsRequest) (*controlv1.ListGroupsResponse, error) {
	return &controlv1.ListGroupsResponse{Groups: []*controlv1.FailbackGroup{{Name: "shop", Members: []*controlv1.FailbackSpec{
		{Vm: "db", Order: 1, Priority: controlv1.Priority_PRIORITY_HIGH}, {Vm: "web", Order: 2},
	}}}}, nil
}

// fakeDaemon is the daemon of a fakeController.
type fakeDaemon struct {
	controlv1.UnimplementedDaemonHandler
}

func (fakeDaemon) GetInfo(context.Context, *controlv1.GetInfoRequest) (*controlv1.GetInfoResponse, error) {
	return &controlv1.GetInfoResponse{Version: "v9", SiteId: "id", Features: []string{"failbacks"}, Jobs: 1, Capacity: &controlv1.Capacity{RunningDisks: 4}}, nil
}

// fakeJobs are its jobs, which never change by themselves.
type fakeJobs struct {
	controlv1.UnimplementedJobsHandler
	f *fakeController
}

func (j fakeJobs) Watch(ctx context.Context, _ *controlv1.WatchRequest, stream controlv1.JobsWatchServerStream) error {
	j.f.mu.Lock()
	list := j.f.jobs
	j.f.mu.Unlock()
	for _, m := range list {
		if err := stream.Send(&controlv1.WatchResponse{Event: &controlv1.WatchResponse_Job{Job: m}}); err != nil {
			return err
		}
	}
	if err := stream.Send(&controlv1.WatchResponse{Revision: 1, Event: &controlv1.WatchResponse_Synced{Synced: &controlv1.Synced{}}}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (j fakeJobs) Get(_ context.Context, r *controlv1.GetRequest) (*controlv1.GetResponse, error) {
	j.f.mu.Lock()
	defer j.f.mu.Unlock()
	for _, m := range j.f.jobs {
		if m.Id == r.Id {
			return &controlv1.GetResponse{Job: m}, nil
		}
	}
	return nil, refusal(job.ReasonNotFound, "no job "+r.Id)
}

func (j fakeJobs) Pause(_ context.Context, r *controlv1.PauseRequest) (*controlv1.PauseResponse, error) {
	j.f.mu.Lock()
	defer j.f.mu.Unlock()
	j.f.asked = append(j.f.asked, "pause "+r.Id)
	return &controlv1.PauseResponse{Job: j.f.jobs[0]}, nil
}
