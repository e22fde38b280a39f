package mover

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// Stats are what an engine has done since it was made, and what it does now.
// Nothing in Work ever falls.
type Stats struct {
	Work     []Work
	Links    []LinkUse
	Ended    map[Ending]uint64
	Retries  map[wire.Code]uint64 // tries again of passes that this engine drives, by what ended the try before
	Unhinted uint64               // plans for which change tracking was asked for and could not be used
	Dropped  uint64               // hints that were believed at first and then caught, or had nothing to stand on

	Memory, MemoryLimit int64 // of the pool; what is lent counts as taken
}

// Half is which half of a pass, and what the pass is for.
type Half struct {
	Target bool // else the source
	Verify bool // else a copy
}

// Work is what the halves of one kind have done, as Progress counts it, what was
// done twice included; Total is of no use here.
type Work struct {
	Half
	Active   int // that are at work now
	Counters wire.Counters
	Times    [NumTimes]Durations
}

// Ending is how a half ended: CodeOK is well. Of an error without a code Other
// is set.
type Ending struct {
	Half
	Code  wire.Code
	Other bool
}

// LinkUse are the links of one transport over which halves work now.
type LinkUse struct {
	Transport string
	Links     int
	RTT       time.Duration // the longest of their smoothed round trips
}

// The calls that are timed. Reads and writes are of disks, 256 KiB to 1 MiB
// each; of a checkpoint its flush of the disk and its record in the journal.
const (
	TimeRead = iota
	TimeWrite
	TimeFlush
	TimeJournal
	NumTimes
)

// timeBounds is the number of bounds: 64 us, and twice the one before up to
// 16.8 s.
const timeBounds = 19

// Durations is a histogram: Counts[i] are those up to DurationBound(i) and above
// the one before, the last all that are longer.
type Durations struct {
	Counts [timeBounds + 1]uint64
	Sum    time.Duration
}

// DurationBound is the i-th bound.
func DurationBound(i int) time.Duration { return 64 * time.Microsecond << i }

// durations is a Durations that is counted into: two atomic additions a call,
// of which there is one for hundreds of KiB.
type durations struct {
	counts [timeBounds + 1]atomic.Uint64
	sum    atomic.Int64
}

func (d *durations) add(took time.Duration) {
	i := 0
	for i < timeBounds && took > DurationBound(i) {
		i++
	}
	d.counts[i].Add(1)
	d.sum.Add(int64(took))
}

func (d *durations) load() (s Durations) {
	for i := range d.counts {
		s.Counts[i] = d.counts[i].Load()
	}
	s.Sum = time.Duration(d.sum.Load())
	return s
}

// tally sums the Progress of all halves that work here. Only what begins, ends
// and asks takes its lock, never the data path.
type tally struct {
	unhinted, dropped atomic.Uint64

	mu      sync.Mutex
	live    map[*Progress]*counted
	done    map[Half]*Work
	ended   map[Ending]uint64
	retries map[wire.Code]uint64
}

// counted is a Progress at work, and what of it is in done already.
type counted struct {
	half  Half
	link  wire.Link // nil: none yet
	last  wire.Counters
	times [NumTimes]Durations
}

func newTally() *tally {
	return &tally{live: make(map[*Progress]*counted), done: make(map[Half]*Work), ended: make(map[Ending]uint64), retries: make(map[wire.Code]uint64)}
}

// begin counts p until the function it returns is called with how it went.
func (t *tally) begin(h Half, p *Progress) (end func(error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &counted{half: h, last: p.Counters()}
	for i := range p.times {
		c.times[i] = p.times[i].load()
	}
	t.live[p] = c
	p.tally.Store(t)
	return func(err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.collectLocked(p, c)
		delete(t.live, p)
		e := Ending{Half: h, Code: codeOf(err)}
		if err != nil && e.Code == wire.CodeOK {
			if e.Other = !errors.Is(err, context.Canceled); !e.Other {
				e.Code = wire.CodeCanceled
			}
		}
		t.ended[e]++
	}
}

// over notes the link of a half.
func (t *tally) over(p *Progress, link wire.Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.live[p]; c != nil {
		c.link = link
	}
}

// around runs f, which sets counters of p to what is no work: what was done
// before counts, the step does not.
func (t *tally) around(p *Progress, f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.live[p]
	if c != nil {
		t.collectLocked(p, c)
	}
	f()
	if c != nil {
		c.last = p.Counters()
	}
}

// retried counts a try again.
func (t *tally) retried(code wire.Code) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retries[code]++
}

func (t *tally) workLocked(h Half) *Work {
	w := t.done[h]
	if w == nil {
		w = &Work{Half: h}
		t.done[h] = w
	}
	return w
}

// collectLocked adds what p has done since it was last looked at. A counter that
// has fallen was taken back and did nothing.
func (t *tally) collectLocked(p *Progress, c *counted) {
	w, now := t.workLocked(c.half), p.Counters()
	to, is, was := fields(&w.Counters), fields(&now), fields(&c.last)
	for i := range to {
		*to[i] += max(0, *is[i]-*was[i])
	}
	c.last = now
	for i := range p.times {
		d := p.times[i].load()
		for j := range d.Counts {
			w.Times[i].Counts[j] += d.Counts[j] - c.times[i].Counts[j]
		}
		w.Times[i].Sum += d.Sum - c.times[i].Sum
		c.times[i] = d
	}
}

// fields are the counters that are work.
func fields(c *wire.Counters) []*int64 {
	return []*int64{
		&c.Scanned, &c.Holes, &c.Same, &c.Zero, &c.Differing, &c.Sent, &c.Wire, &c.Durable, &c.Verified, &c.ReadBack, &c.Had,
		&c.Bad, &c.Redone, &c.Lost, &c.Reconnects, &c.Skipped, &c.Sampled, &c.Refined,
	}
}

// Stats tells what the engine has done.
func (e *Engine) Stats() Stats {
	t := e.cfg.tally
	s := Stats{
		Unhinted: t.unhinted.Load(), Dropped: t.dropped.Load(), Ended: make(map[Ending]uint64), Retries: make(map[wire.Code]uint64),
		Memory: e.pool.inUse(), MemoryLimit: e.cfg.Memory,
	}
	var links []wire.Link
	t.mu.Lock()
	active := make(map[Half]int)
	for p, c := range t.live {
		t.collectLocked(p, c)
		active[c.half]++
		if c.link != nil {
			links = append(links, c.link)
		}
	}
	for _, h := range []Half{{}, {Verify: true}, {Target: true}, {Target: true, Verify: true}} {
		w := *t.workLocked(h)
		w.Active = active[h]
		s.Work = append(s.Work, w)
	}
	for k, n := range t.ended {
		s.Ended[k] = n
	}
	for k, n := range t.retries {
		s.Retries[k] = n
	}
	t.mu.Unlock()
	s.Links = uses(links)
	return s
}

// uses sums links by their transport.
func uses(links []wire.Link) (list []LinkUse) {
	for _, l := range links {
		name, rtt := l.Transport(), l.Stats().RTT
		i := slices.IndexFunc(list, func(u LinkUse) bool { return u.Transport == name })
		if i < 0 {
			i, list = len(list), append(list, LinkUse{Transport: name})
		}
		list[i].Links++
		list[i].RTT = max(list[i].RTT, rtt)
	}
	slices.SortFunc(list, func(a, b LinkUse) int { return cmp.Compare(a.Transport, b.Transport) })
	return list
}

// inUse are the bytes that sessions have taken or borrowed.
func (p *pool) inUse() int64 {
	return p.taken.Load() + int64(cap(p.store)-len(p.store))*cbt.BatchSize
}
