package job

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// gate is a transfer whose disks a test lets go one at a time, in the order in
// which they began.
type gate struct {
	begun chan *Task
	mu    sync.Mutex
	end   map[string]chan struct{}
}

func newGate() *gate { return &gate{begun: make(chan *Task, 10000), end: map[string]chan struct{}{}} }

func (g *gate) transfer(ctx context.Context, k *Task) (Outcome, error) {
	end := make(chan struct{})
	g.mu.Lock()
	g.end[k.Job+"/"+k.Disk.Name] = end
	g.mu.Unlock()
	g.begun <- k
	select {
	case <-end:
		return Outcome{Verified: true}, nil
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	}
}

func (g *gate) release(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.end[name])
}

func name(k *Task) string { return k.Job + "/" + k.Disk.Name }

// none fails when something begins; what is due begins within the look that a
// change causes, so the engine is asked for one.
func (g *gate) none(t *testing.T, r *rig, when string) {
	t.Helper()
	r.e.mu.Lock()
	r.e.schedule(t.Context())
	r.e.mu.Unlock()
	select {
	case k := <-g.begun:
		t.Fatalf("%s: %s began", when, name(k))
	default:
	}
}

// held waits until the engine has all jobs from the queue.
func held(r *rig, n int) {
	for {
		r.e.mu.Lock()
		have := 0
		for _, x := range r.e.jobs {
			if x.act != nil && x.act.delivery != nil {
				have++
			}
		}
		r.e.mu.Unlock()
		if have == n {
			return
		}
		runtime.Gosched()
	}
}

func TestBoundsAndPriority(t *testing.T) {
	t.Parallel()
	g := newGate()
	r := newRig(t, Config{Transfer: g.transfer, MaxDisks: 1})
	s := one("/t")
	for i, p := range []Priority{Low, Normal, High, Normal} {
		s.Priority = p
		r.submit(fmt.Sprint(i), s)
	}
	// All are in the engine's hands before the first look.
	r.e.mu.Lock()
	r.run()
	r.e.mu.Unlock()
	var order []string
	first := <-g.begun
	held(r, 4)
	order = append(order, first.Job)
	for len(order) < 4 {
		g.none(t, r, "one runs")
		g.release(order[len(order)-1] + "/disk0")
		order = append(order, (<-g.begun).Job)
	}
	if first := slices.Index(order, "2"); first > 1 { // the first look may have come before the last Take
		t.Errorf("order %v", order)
	}
	if rest := slices.DeleteFunc(slices.Clone(order[1:]), func(s string) bool { return s == "2" }); !slices.IsSortedFunc(rest, func(a, b string) int {
		return strings.Index("130", a) - strings.Index("130", b)
	}) {
		t.Errorf("order %v, want 2 1 3 0", order)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	g := newGate()
	hosts := func(d Disk) []string {
		_, list, _ := strings.Cut(d.Target, ":")
		return strings.Split(list, ",")
	}
	r := newRig(t, Config{Transfer: g.transfer, MaxDisks: 4, MaxPerHost: 1, Hosts: hosts})
	s := Spec{Mode: Copy}
	for i, h := range []string{"a,x", "a,y", "x,y", "b"} {
		s.Disks = append(s.Disks, Disk{Name: h[:1] + h[len(h)-1:], Source: "/s", Target: fmt.Sprint(i, ":", h)})
	}
	r.submit("j", s)
	r.run()
	got := []string{name(<-g.begun), name(<-g.begun)}
	slices.Sort(got)
	if want := []string{"j/ax", "j/bb"}; !slices.Equal(got, want) {
		t.Errorf("began %v, want %v: a busy host holds others, or has too many", got, want)
	}
	g.none(t, r, "a and x are busy")
	g.release("j/ax")
	if k := <-g.begun; name(k) != "j/ay" {
		t.Errorf("%s began, want j/ay", name(k))
	}
	g.none(t, r, "y is busy")
	g.release("j/ay")
	if k := <-g.begun; name(k) != "j/xy" {
		t.Errorf("%s began, want j/xy", name(k))
	}
}

// TestNoStarvation: a stream of high jobs does not hold a low one for ever, and
// disks of one host do not hold one that needs two.
func TestNoStarvation(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Unix(1e9, 0)
	g := newGate()
	r := newRig(t, Config{Transfer: g.transfer, MaxDisks: 1, AgeStep: time.Minute, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}}).run()
	high, low := one("/t"), one("/t")
	high.Priority, low.Priority = High, Low
	r.submit("h0", high)
	last := (<-g.begun).Job
	r.submit("low", low)
	for i := 1; ; i++ {
		if i > 10 {
			t.Fatal("the low job starves")
		}
		mu.Lock()
		now = now.Add(time.Minute)
		mu.Unlock()
		r.submit(fmt.Sprint("h", i), high)
		held(r, 3)
		g.release(last + "/disk0")
		if last = (<-g.begun).Job; last == "low" {
			if i < 2 {
				t.Errorf("the low job came after %d high ones: priority does not count", i)
			}
			return
		}
	}
}

func TestRoomAtTwoHosts(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Unix(1e9, 0)
	g := newGate()
	r := newRig(t, Config{Transfer: g.transfer, MaxDisks: 10, MaxPerHost: 1, AgeStep: time.Minute, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}, Hosts: func(d Disk) []string { return strings.Split(d.Target[1:], "+") }}).run()
	r.submit("a0", one("/a"))
	r.submit("b0", one("/b"))
	<-g.begun
	<-g.begun
	r.submit("ab", one("/a+b"))
	held(r, 3)
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	r.submit("a1", one("/a"))
	r.submit("b1", one("/b"))
	held(r, 5)
	g.release("a0/disk0")
	r.await("a0", Completed)
	g.none(t, r, "a is kept for ab")
	g.release("b0/disk0")
	if k := <-g.begun; k.Job != "ab" {
		t.Errorf("%s began, want ab", k.Job)
	}
}

// TestThousandJobs finish, never more at once than allowed, and leave nothing
// behind.
func TestThousandJobs(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now, most, total := 0, 0, 0
	r := newRig(t, Config{MaxDisks: 8, MaxActive: 1000, Transfer: func(_ context.Context, k *Task) (Outcome, error) {
		mu.Lock()
		now++
		total++
		most = max(most, now)
		mu.Unlock()
		k.Moving()
		for i := range int64(100) {
			k.Progress(Counters{Scanned: i})
		}
		mu.Lock()
		now--
		mu.Unlock()
		return Outcome{Verified: true}, nil
	}}).run()
	n := 1000
	if testing.Short() {
		n = 200
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < n; i += 4 {
				if _, _, err := r.e.Submit(context.Background(), fmt.Sprint(i), "o", one(fmt.Sprint("/t", i)), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range n {
		r.await(fmt.Sprint(i), Completed)
	}
	if total != n || most > 8 || most < 2 {
		t.Errorf("%d transfers, %d at once", total, most)
	}
	if err := r.halt(); err != nil {
		t.Error(err)
	}
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	if len(r.e.running)+len(r.e.hosts)+r.e.nactive != 0 {
		t.Errorf("left: %d running, hosts %v, %d active", len(r.e.running), r.e.hosts, r.e.nactive)
	}
	for _, x := range r.e.jobs {
		if x.act != nil {
			t.Fatalf("job %s has ended and is in memory", x.id)
		}
	}
}
