package jobpb

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// Events translates the events of one watch. It remembers the counters of the
// disks that run, and nothing of those that do not. Not safe for concurrent use.
type Events struct {
	seen map[string]map[string]sample // by job and disk
}

// sample is what rates are made of.
type sample struct {
	at            time.Time
	scanned, wire int64
	scan, send    float64 // bytes per second, smoothed
}

// From is the message of an event, nil for a kind that the API does not have.
func (s *Events) From(e *job.Event) *controlv1.WatchResponse {
	out := &controlv1.WatchResponse{Revision: e.Revision, Time: FromTime(e.Time)}
	switch e.Kind {
	case job.Changed:
		if e.Job.Phase != job.InProgress {
			delete(s.seen, e.Job.ID)
		}
		out.Event = &controlv1.WatchResponse_Job{Job: FromJob(&e.Job)}
	case job.Removed:
		delete(s.seen, e.Job.ID)
		out.Event = &controlv1.WatchResponse_Removed{Removed: &controlv1.Removed{Id: e.Job.ID}}
	case job.Synced:
		out.Event = &controlv1.WatchResponse_Synced{Synced: &controlv1.Synced{}}
	case job.Telemetry:
		out.Event = &controlv1.WatchResponse_Progress{Progress: s.progress(e)}
	case job.Note:
		out.Event = &controlv1.WatchResponse_Notice{Notice: &controlv1.Notice{Id: e.Job.ID, Disk: e.Disk, Warning: e.Warning, Text: Text(e.Text)}}
	default:
		return nil
	}
	return out
}

// progress makes rates of two samples. Disks that are not in e have ended.
func (s *Events) progress(e *job.Event) *controlv1.Progress {
	out := &controlv1.Progress{Id: e.Job.ID}
	before, now := s.seen[e.Job.ID], make(map[string]sample, len(e.Counters))
	for i := range e.Counters {
		c := &e.Counters[i]
		p := &controlv1.DiskProgress{Name: c.Disk, Counters: FromCounters(&c.Counters)}
		n := sample{at: e.Time, scanned: c.Scanned, wire: c.Wire}
		if b, ok := before[c.Disk]; ok {
			n = b.next(n)
		}
		p.ScanRateBytes, p.WireRateBytes = int64(n.scan), int64(n.send)
		p.Remaining = remaining(c.Total-c.Scanned, n.scan)
		now[c.Disk] = n
		out.Disks = append(out.Disks, p)
	}
	if s.seen == nil {
		s.seen = make(map[string]map[string]sample)
	}
	s.seen[e.Job.ID] = now
	return out
}

// next smooths: the newest second counts a third.
func (b sample) next(n sample) sample {
	dt := n.at.Sub(b.at).Seconds()
	if dt <= 0 || n.scanned < b.scanned || n.wire < b.wire { // a disk that began anew
		return n
	}
	scan, send := float64(n.scanned-b.scanned)/dt, float64(n.wire-b.wire)/dt
	if b.scan > 0 {
		scan = b.scan + (scan-b.scan)/3
	}
	if b.send > 0 {
		send = b.send + (send-b.send)/3
	}
	n.scan, n.send = scan, send
	return n
}

// longest is the longest time that is worth telling.
const longest = 365 * 24 * time.Hour

func remaining(bytes int64, rate float64) *durationpb.Duration {
	if rate < 1 || bytes < 0 {
		return nil
	}
	seconds := float64(bytes) / rate
	if seconds > longest.Seconds() {
		return nil
	}
	return durationpb.New(time.Duration(seconds) * time.Second)
}
