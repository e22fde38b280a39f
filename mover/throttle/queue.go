package throttle

import (
	"slices"
	"time"
)

// kind is what is counted.
type kind uint8

const (
	wire kind = iota
	read
	kinds = 2
)

// queue is a token bucket of one kind and the jobs that wait for it. It belongs
// to a Throttle, whose lock guards it. It is not golang.org/x/time/rate because
// that hands out times in the future in the order of asking: no one can be let
// past, and who has got his time sleeps it out whatever the rate becomes.
type queue struct {
	rate    int64   // bytes per second; 0: none
	tokens  float64 // bytes that may go now; negative: those that went too early
	filled  time.Time
	virtual int64 // tag of the request that was served last
	flows   map[*Throttle]*flow
	waiting []*flow // those with requests
}

// flow is one job at a queue.
type flow struct {
	start  int64 // tag of its first request
	finish int64 // where the one before ended
	reqs   []*request
}

// request is somebody who waits.
type request struct {
	n      int64
	weight int64
	ready  chan struct{} // closed when granted
	done   bool
}

// burst is what an idle bucket gathers: 50 ms, at least a grain.
func (q *queue) burst() float64 { return max(float64(q.rate)/20, Least) }

// setRate changes the rate; what was saved or borrowed at the old one stays as
// far as it fits.
func (q *queue) setRate(rate int64, now time.Time) {
	if rate == q.rate {
		return
	}
	q.fill(now)
	if q.rate == 0 {
		q.tokens = 0
	}
	q.rate, q.filled = rate, now
	if rate == 0 {
		q.tokens = 0
		return
	}
	q.tokens = min(q.tokens, q.burst())
}

func (q *queue) fill(now time.Time) {
	if d := now.Sub(q.filled); d > 0 && q.rate > 0 {
		q.tokens = min(q.burst(), q.tokens+float64(q.rate)*d.Seconds())
	}
	q.filled = now
}

// open reports whether a request may go now. It may be larger than what there
// is: the next ones wait for longer then, and no rate is too low for a piece.
func (q *queue) open() bool { return q.rate == 0 || q.tokens >= 1 }

// wait is how long it takes to open.
func (q *queue) wait() time.Duration {
	return time.Duration((1-q.tokens)/float64(q.rate)*float64(time.Second)) + 1
}

// flowOf finds the flow of a job; one that has nothing to remember is forgotten.
func (q *queue) flowOf(job *Throttle) *flow {
	f := q.flows[job]
	if f != nil {
		return f
	}
	for j, f := range q.flows {
		if len(f.reqs) == 0 && f.finish <= q.virtual {
			delete(q.flows, j)
		}
	}
	if q.flows == nil {
		q.flows = make(map[*Throttle]*flow)
	}
	f = new(flow)
	q.flows[job] = f
	return f
}

// pass takes n bytes for f without waiting.
func (q *queue) pass(f *flow, n, weight int64) {
	f.start = max(q.virtual, f.finish)
	q.charge(f, n, weight)
}

func (q *queue) charge(f *flow, n, weight int64) {
	q.virtual = f.start
	f.finish = f.start + n*unit/weight
	if q.rate > 0 {
		q.tokens -= float64(n)
	}
}

// add makes r wait.
func (q *queue) add(f *flow, r *request) {
	if len(f.reqs) == 0 {
		f.start = max(q.virtual, f.finish)
		q.waiting = append(q.waiting, f)
	}
	f.reqs = append(f.reqs, r)
}

// grant lets the request with the least tag go; of equals, who came first.
func (q *queue) grant() {
	f := q.waiting[0]
	for _, o := range q.waiting[1:] {
		if o.start < f.start {
			f = o
		}
	}
	r := f.reqs[0]
	q.charge(f, r.n, r.weight)
	r.done = true
	close(r.ready)
	q.drop(f, 0)
	f.start = f.finish
}

// remove takes back a request that was not granted.
func (q *queue) remove(f *flow, r *request) {
	if i := slices.Index(f.reqs, r); i >= 0 {
		q.drop(f, i)
	}
}

func (q *queue) drop(f *flow, i int) {
	f.reqs = slices.Delete(f.reqs, i, i+1)
	if len(f.reqs) == 0 {
		at := slices.Index(q.waiting, f)
		q.waiting = slices.Delete(q.waiting, at, at+1)
	}
}
