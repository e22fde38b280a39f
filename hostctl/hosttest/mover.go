package hosttest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// Grain is the size in which a Mover compares.
const Grain = 4096

// Moved is one pass that a Mover has made, or has begun to make.
type Moved struct {
	failback.Move
	Written  []cbt.Extent
	SourceOn bool // the source's VM when it began
	Err      error
}

// Mover moves the true bytes of Fakes. Its faults have the methods "Move" and
// "Compare", with the target's disk label as Step.
type Mover struct {
	faults
	Hosts    map[string]*Fake
	Listed   bool          // what Registered answers
	PerGrain time.Duration // that a grain takes
	log      *Log

	mu     sync.Mutex
	fences map[string]uint64
	moves  []*Moved
	busy   int
	most   int
}

// NewMover makes a mover between hosts.
func NewMover(log *Log, hosts ...*Fake) *Mover {
	m := &Mover{Hosts: map[string]*Fake{}, log: log, fences: map[string]uint64{}}
	for _, h := range hosts {
		m.Hosts[h.Name] = h
	}
	return m
}

// Moves are the passes so far.
func (m *Mover) Moves() []Moved {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Moved, len(m.moves))
	for i, x := range m.moves {
		list[i] = *x
	}
	return list
}

// Most is how many passes ran at once.
func (m *Mover) Most() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.most
}

// Check implements failback.Mover.
func (m *Mover) Check(_ context.Context, host string, _ ...failback.Place) []hostctl.Problem {
	if x := m.next("Check", host, ""); x.When != 0 {
		return []hostctl.Problem{{Reason: failback.ReasonMover, Text: "the proxy of host " + host + " does not answer", Remedy: "start it, and pair it"}}
	}
	return nil
}

// Registered implements failback.Mover.
func (m *Mover) Registered(string) bool { return m.Listed }

// disk finds the bytes of a place, and its VM. With the host's mu held.
func (m *Mover) disk(p failback.Place) (*Fake, *fakeVM, []byte, error) {
	f := m.Hosts[p.VM.Host]
	if f == nil {
		return nil, nil, nil, fmt.Errorf("no proxy for host %q", p.VM.Host)
	}
	if err := f.reach(context.Background()); err != nil {
		return nil, nil, nil, err
	}
	f.mu.Lock()
	v := f.by(p.VM.UUID)
	if v == nil {
		f.mu.Unlock()
		return nil, nil, nil, fmt.Errorf("VM %s: %w", p.VM.UUID, hostctl.ErrNotFound)
	}
	b := v.leaf[p.Disk.UUID]
	if p.Snapshot != "" {
		b = v.points[p.Snapshot][p.Disk.UUID]
	} else if v.Power == hostctl.On {
		f.mu.Unlock()
		return nil, nil, nil, &job.Failure{Reason: job.ReasonBusy, Text: "disk " + p.Disk.File + ": the VM is on and has it locked", Retry: job.RetryNever, Exit: 11}
	}
	if b == nil {
		f.mu.Unlock()
		return nil, nil, nil, fmt.Errorf("no disk %s at %q of VM %s", p.Disk.UUID, p.Snapshot, v.Name)
	}
	return f, v, b, nil
}

// read copies a grain out.
func (m *Mover) read(p failback.Place, off int64) ([]byte, error) {
	f, _, b, err := m.disk(p)
	if err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	return bytes.Clone(b[min(off, int64(len(b))):min(off+Grain, int64(len(b)))]), nil
}

// Compare implements failback.Mover.
func (m *Mover) Compare(ctx context.Context, v *failback.Move) (l failback.Likeness, err error) {
	if err := m.reach(ctx); err != nil {
		return l, err
	}
	if x := m.next("Compare", v.Target.Disk.Label, ""); x.When != 0 {
		return l, x.err()
	}
	l.Total = v.Source.Disk.Size
	step := max(v.Sample, 1)
	if v.Sample > 1 && l.Total/Grain < 64*v.Sample { // a small disk is sampled more
		step = max(l.Total/Grain/64, 1)
	}
	for off := int64(0); off < l.Total; off += Grain * step {
		same, n, err := m.same(v, off)
		if err != nil {
			return l, err
		}
		l.Compared += n
		if !same {
			l.Different += n
		}
	}
	if l.Equal = step == 1 && l.Different == 0; l.Equal {
		l.Root = cbt.Digest(blake3.Sum256(m.all(v.Source)))
	}
	if l.Compared > 0 {
		l.Expected = l.Total * l.Different / l.Compared
	}
	return l, nil
}

func (m *Mover) same(v *failback.Move, off int64) (bool, int64, error) {
	a, err := m.read(v.Source, off)
	if err != nil {
		return false, 0, err
	}
	b, err := m.read(v.Target, off)
	if err != nil {
		return false, 0, err
	}
	b = b[:min(len(a), len(b))]
	return bytes.Equal(a, b), int64(len(a)), nil
}

// Move implements failback.Mover.
func (m *Mover) Move(ctx context.Context, v *failback.Move) (out job.Outcome, err error) {
	if err := m.reach(ctx); err != nil {
		return out, err
	}
	done, err := m.enter(v)
	if err != nil {
		return out, err
	}
	defer func() { done.Err = err; m.leave() }()
	x := m.next("Move", v.Target.Disk.Label, "")
	if x.When == Before && x.At == 0 {
		return out, x.err()
	}
	at := Moment{Host: v.Target.VM.Host, Method: "Move", Step: v.Target.Disk.Label, VM: v.Target.VM.Name}
	if err := m.at(at); err != nil {
		return out, err
	}
	if x.When == Lied { // it says done, and has not looked
		return out, nil
	}
	grains, used := m.plan(v)
	out.ActualTracking, out.ActualTransport, out.Epoch = used, "memory", v.Fence
	n := &out.Counters
	n.Total = v.Source.Disk.Size
	half := len(grains) / 2
	for i, off := range grains {
		if err := m.tick(ctx); err != nil {
			return out, err
		}
		if x.When == Before && n.Scanned >= x.At {
			return out, x.err()
		}
		if err := m.grain(v, off, n, done); err != nil {
			return out, err
		}
		if v.Progress != nil {
			v.Progress(*n)
		}
		if i == half {
			mid := at
			mid.Method, mid.Done = "Moving", true
			if err := m.at(mid); err != nil {
				return out, err
			}
		}
	}
	n.Skipped = n.Total - n.Scanned
	out.State, out.Verified, out.Equal = "Verified", true, used == "full"
	out.Root = cbt.Digest(blake3.Sum256(m.all(v.Source)))
	at.Done = true
	if err := m.at(at); err != nil {
		return out, err
	}
	if x.When == Lost {
		return out, x.err()
	}
	return out, nil
}

// enter refuses a stale controller, and counts.
func (m *Mover) enter(v *failback.Move) (*Moved, error) {
	on := false
	if f := m.Hosts[v.Source.VM.Host]; f != nil { // before m.mu: a host's comes first
		vm, ok := f.VM(v.Source.VM.UUID)
		on = ok && vm.Power == hostctl.On
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := v.Target.VM.UUID + v.Target.Disk.UUID
	if v.Fence < m.fences[key] {
		return nil, &job.Failure{Reason: job.ReasonFenced, Text: fmt.Sprintf("fence %d is below %d", v.Fence, m.fences[key]), Retry: job.RetryNever, Exit: 11}
	}
	m.fences[key] = v.Fence
	done := &Moved{Move: *v, SourceOn: on}
	m.moves = append(m.moves, done)
	m.busy++
	m.most = max(m.most, m.busy)
	return done, nil
}

func (m *Mover) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy--
}

func (m *Mover) tick(ctx context.Context) error {
	if m.PerGrain > 0 {
		t := time.NewTimer(m.PerGrain)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// plan is the grains to compare: those of a hint, and samples of the others. A
// sample that differs makes it all of them.
func (m *Mover) plan(v *failback.Move) (grains []int64, used string) {
	var hinted cbt.Map
	if v.Hint != nil && !v.Full {
		h, _, err := v.Hint.Changed(v.Source.Disk.Size)
		if err == nil {
			hinted, used = h, "hint"
		}
	}
	for off, n := int64(0), 0; off < v.Source.Disk.Size; off, n = off+Grain, n+1 {
		_, in := hinted.Next(off)
		if e, ok := hinted.Next(off); in && ok && e.Off >= off+Grain {
			in = false
		}
		if used == "" || in {
			grains = append(grains, off)
		} else if n%4 == 0 {
			if same, _, err := m.same(v, off); err == nil && !same {
				v.Hint = nil
				return m.plan(v)
			}
		}
	}
	if used == "" {
		used = "full"
	}
	return grains, used
}

func (m *Mover) grain(v *failback.Move, off int64, n *job.Counters, done *Moved) error {
	b, err := m.read(v.Source, off)
	if err != nil {
		return err
	}
	f, vm, leaf, err := m.disk(v.Target)
	if err != nil {
		return err
	}
	defer f.mu.Unlock()
	n.Scanned += int64(len(b))
	n.Verified += int64(len(b))
	to := leaf[off : off+int64(len(b))]
	if bytes.Equal(b, to) {
		n.Same += int64(len(b))
		return nil
	}
	if vm.listed && vm.Marks[hostctl.MarkInconsistent] == "" {
		m.log.mistake("VM " + vm.Name + " is written to without a mark")
	}
	copy(to, b)
	n.Differing, n.Sent, n.Durable = n.Differing+int64(len(b)), n.Sent+int64(len(b)), n.Durable+int64(len(b))
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(done.Written) == 0 {
		m.log.add(Event{Host: f.Name, Method: "Move", Step: fmt.Sprintf("pass %d", v.Pass), VM: vm.Name})
	}
	done.Written = append(done.Written, cbt.Extent{Off: off, Len: int64(len(b))})
	return nil
}

func (m *Mover) all(p failback.Place) []byte {
	f, _, b, err := m.disk(p)
	if err != nil {
		return nil
	}
	defer f.mu.Unlock()
	return bytes.Clone(b)
}
