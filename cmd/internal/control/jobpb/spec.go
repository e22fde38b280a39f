package jobpb

import (
	"fmt"
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// FromSpec is the message of a spec.
func FromSpec(s *job.Spec) *controlv1.JobSpec {
	out := &controlv1.JobSpec{
		Mode: fromMode(s.Mode), Full: s.Full, Transport: s.Transport, Retry: FromDuration(s.Retry),
		Limits: FromLimits(s.Limits), Priority: FromPriority(s.Priority), Labels: maps.Clone(s.Labels),
	}
	for _, d := range s.Disks {
		out.Disks = append(out.Disks, &controlv1.JobDisk{
			Name: d.Name, Source: d.Source, Target: d.Target, Tracking: d.Tracking, Strict: d.Strict, Sample: d.Sample, Create: d.Create,
		})
	}
	return out
}

// ToSpec is the spec in a message; field is what the caller calls the message.
func ToSpec(field string, m *controlv1.JobSpec) (s job.Spec, err error) {
	if m == nil {
		return s, Invalid(field, "it is missing")
	}
	s = job.Spec{Full: m.Full, Transport: m.Transport}
	if len(m.Labels) > 0 {
		s.Labels = maps.Clone(m.Labels)
	}
	if s.Mode, err = toMode(field+".mode", m.Mode); err != nil {
		return s, err
	}
	if s.Priority, err = ToPriority(field+".priority", m.Priority); err != nil {
		return s, err
	}
	if s.Retry, err = ToDuration(field+".retry", m.Retry); err != nil {
		return s, err
	}
	if s.Limits, err = ToLimits(field+".limits", m.Limits); err != nil {
		return s, err
	}
	if len(m.Disks) > job.MaxDisks { // before anything is built of them
		return s, Invalid(field+".disks", "%d disks; a job has %d at most, submit several jobs", len(m.Disks), job.MaxDisks)
	}
	for i, d := range m.Disks {
		if d == nil {
			return s, Invalid(fmt.Sprintf("%s.disks[%d]", field, i), "it is missing")
		}
		s.Disks = append(s.Disks, job.Disk{
			Name: d.Name, Source: d.Source, Target: d.Target, Tracking: d.Tracking, Strict: d.Strict, Sample: d.Sample, Create: d.Create,
		})
	}
	return s, nil
}

// FromLimits is the message of limits, nil when there are none.
func FromLimits(l job.Limits) *controlv1.Limits {
	if l.Wire == 0 && l.Read == 0 && l.Latency == 0 && len(l.Windows) == 0 {
		return nil
	}
	out := &controlv1.Limits{WireBytes: l.Wire, ReadBytes: l.Read, Latency: FromDuration(l.Latency)}
	for i := range l.Windows {
		w := &l.Windows[i]
		m := &controlv1.LimitWindow{FromMinute: int32(w.From), ToMinute: int32(w.To), WireBytes: w.Wire, ReadBytes: w.Read}
		for day := time.Sunday; day <= time.Saturday; day++ {
			if w.Days[day] {
				m.Days = append(m.Days, fromWeekday(day))
			}
		}
		out.Windows = append(out.Windows, m)
	}
	return out
}

// maxWindows is more than a week of hours; it bounds what one request makes.
const maxWindows = 256

// ToLimits is the limits in a message; none are no limits.
func ToLimits(field string, m *controlv1.Limits) (l job.Limits, err error) {
	if m == nil {
		return l, nil
	}
	l = job.Limits{Wire: m.WireBytes, Read: m.ReadBytes}
	if l.Latency, err = ToDuration(field+".latency", m.Latency); err != nil {
		return l, err
	}
	if len(m.Windows) > maxWindows {
		return l, Invalid(field+".windows", "%d windows, %d at most", len(m.Windows), maxWindows)
	}
	for i, w := range m.Windows {
		at := fmt.Sprintf("%s.windows[%d]", field, i)
		if w == nil {
			return l, Invalid(at, "it is missing")
		}
		out := job.Window{From: int(w.FromMinute), To: int(w.ToMinute), Wire: w.WireBytes, Read: w.ReadBytes}
		for _, d := range w.Days {
			day, err := toWeekday(at+".days", d)
			if err != nil {
				return l, err
			}
			out.Days[day] = true
		}
		l.Windows = append(l.Windows, out)
	}
	return l, nil
}

// FromDuration is the message of a duration, nil for none.
func FromDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// ToDuration refuses what package time cannot hold: AsDuration would saturate,
// and "for ever" would become 292 years without a word.
func ToDuration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, Invalid(field, "not a duration")
	}
	out := d.AsDuration()
	if out.Nanoseconds()/int64(time.Second) != d.Seconds {
		return 0, Invalid(field, "%d seconds are out of range", d.Seconds)
	}
	return out, nil
}

// FromTime is the message of a time, nil for none.
func FromTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// ToTime is the time in a message; none is the zero time.
func ToTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
