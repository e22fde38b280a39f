package failback

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
)

// liveDisk is what a running pass says, between two durable changes.
type liveDisk struct {
	mu    sync.Mutex
	runs  bool
	count job.Counters
	text  string
	since time.Time // of the rate's window
	begun int64     // bytes compared then
	rate  float64
}

func (l *liveDisk) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs, l.count, l.text, l.since, l.rate = true, job.Counters{}, "", time.Time{}, 0
}

// rateWindow is long enough for a rate that can be read.
const rateWindow = 3 * time.Second

func (l *liveDisk) progress(n job.Counters, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count = n
	if l.since.IsZero() {
		l.since, l.begun = now, n.Scanned
		return
	}
	if took := now.Sub(l.since); took >= rateWindow {
		l.rate = float64(n.Scanned-l.begun) / took.Seconds()
		l.since, l.begun = now, n.Scanned
	}
}

func (l *liveDisk) event(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = plain(text)
}

func (l *liveDisk) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs = false
	return l.text
}

// merge shows what runs in a copy of a status.
func (l *liveDisk) merge(d *Disk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := lastPass(d)
	if !l.runs || p == nil || !p.Ended.IsZero() {
		return
	}
	p.Counters, p.Event, p.Rate = l.count, l.text, l.rate
	if l.rate > 0 {
		p.Left = time.Duration(float64(l.count.Total-l.count.Scanned) / l.rate * float64(time.Second)).Round(time.Second)
	}
}

// status is the record's, with what runs.
func (r *run) status() Status {
	r.e.view.RLock()
	c, revision := r.rec, r.revision
	r.e.view.RUnlock()
	s := c.clone().Status
	s.Revision = revision
	for i := range s.Disks {
		if i < len(r.live) {
			r.live[i].merge(&s.Disks[i])
		}
	}
	return s
}

// alarm is a VM that was powered on while it has to be off.
type alarm struct{ vm hostctl.Ref }

func (a *alarm) Error() string {
	return fmt.Sprintf("VM %s was powered on from outside: the pass is void", a.vm.Name)
}

// Retryable says that the pass can be made again.
func (a *alarm) Retryable() bool { return true }

// watched does f while VMs are watched that have to be off: f is stopped when
// one is not, and the error is an *alarm.
func (r *run) watched(ctx context.Context, vms []hostctl.Ref, f func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	watching, off := context.WithCancel(ctx)
	byHost := map[string][]hostctl.Ref{}
	for _, vm := range vms {
		byHost[vm.Host] = append(byHost[vm.Host], vm)
	}
	for of, list := range byHost {
		h, err := r.e.host(of)
		if err != nil {
			off()
			stop(nil)
			return err
		}
		wg.Go(func() {
			for ev, err := range h.Compute.Watch(watching, list) {
				if err != nil {
					if watching.Err() == nil {
						stop(&again{fmt.Sprintf("host %s: the watch of power states ended: %v", of, err)})
					}
					return
				}
				if ev.Power == hostctl.On || ev.Power == hostctl.Suspended {
					ev.VM.Host = of
					stop(&alarm{ev.VM})
					return
				}
			}
		})
	}
	err := f(ctx)
	off()
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	stop(nil)
	return err
}
