package jobpb

import (
	"encoding/hex"
	"strings"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// FromJob is the message of a job.
func FromJob(j *job.Job) *controlv1.Job {
	out := &controlv1.Job{
		Id: j.ID, Spec: FromSpec(&j.Spec), SpecDigest: FromDigest(j.Digest), Owner: j.Owner, Revision: j.Revision,
		Phase: FromPhase(j.Phase), Wanted: FromPhase(j.Wanted), Limits: FromLimits(j.Limits),
		Created: FromTime(j.Created), Started: FromTime(j.Started), Ended: FromTime(j.Ended), Failure: FromFailure(j.Failure),
	}
	tracking := make(map[string]string, len(j.Spec.Disks))
	for _, d := range j.Spec.Disks {
		tracking[d.Name] = d.Tracking
	}
	for i := range j.Disks {
		d := &j.Disks[i]
		asked := tracking[d.Name]
		if i < len(j.Spec.Disks) && j.Spec.Disks[i].Name == "" { // named by its place
			asked = j.Spec.Disks[i].Tracking
		}
		out.Disks = append(out.Disks, &controlv1.DiskStatus{
			Name: d.Name, Run: d.Run, Phase: FromPhase(d.Phase), Starts: int32(d.Starts), Started: FromTime(d.Started), Ended: FromTime(d.Ended),
			Outcome: fromOutcome(&d.Outcome, asked, j.Spec.Transport), Failure: FromFailure(d.Failure),
		})
	}
	return out
}

// ToJob is the job in a message, for programs that call the API. A phase that
// this program does not know is 0.
func ToJob(m *controlv1.Job) (*job.Job, error) {
	if m == nil {
		return nil, Invalid("job", "it is missing")
	}
	spec, err := ToSpec("job.spec", m.Spec)
	if err != nil {
		return nil, err
	}
	limits, err := ToLimits("job.limits", m.Limits)
	if err != nil {
		return nil, err
	}
	d, err := ToDigest("job.spec_digest", m.SpecDigest)
	if err != nil {
		return nil, err
	}
	out := &job.Job{
		ID: m.Id, Spec: spec, Digest: d, Owner: m.Owner, Revision: m.Revision, Phase: phase(m.Phase), Wanted: phase(m.Wanted), Limits: limits,
		Created: ToTime(m.Created), Started: ToTime(m.Started), Ended: ToTime(m.Ended), Failure: ToFailure(m.Failure),
	}
	for _, s := range m.Disks {
		outcome, err := toOutcome(s.GetOutcome())
		if err != nil {
			return nil, err
		}
		out.Disks = append(out.Disks, job.DiskStatus{
			Name: s.GetName(), Run: s.GetRun(), Phase: phase(s.GetPhase()), Starts: int(s.GetStarts()), Started: ToTime(s.GetStarted()),
			Ended: ToTime(s.GetEnded()), Outcome: outcome, Failure: ToFailure(s.GetFailure()),
		})
	}
	return out, nil
}

func phase(p controlv1.Phase) job.Phase {
	out, err := ToPhase("", p)
	if err != nil {
		return 0
	}
	return out
}

func fromOutcome(o *job.Outcome, tracking, transport string) *controlv1.Outcome {
	out := &controlv1.Outcome{
		State: o.State, Verified: o.Verified, Equal: o.Equal, Epoch: o.Epoch, Root: FromDigest(o.Root), Counters: FromCounters(&o.Counters),
		RequestedTracking: tracking, ActualTracking: o.ActualTracking, TrackingReason: Text(o.TrackingReason),
		RequestedTransport: transport, ActualTransport: o.ActualTransport,
		TransportReason: o.TransportReason, Connections: uint32(max(o.Connections, 0)), CongestionControl: o.Congestion,
		ColdReads: o.Cold, SourceIdentity: Text(o.SourceIdentity), TargetIdentity: Text(o.TargetIdentity), LargerBytes: o.Larger,
	}
	for _, e := range o.Bad {
		out.Bad = append(out.Bad, &controlv1.BadExtent{ByteOffset: e.Off, SizeBytes: e.Len, Unreadable: e.Unreadable})
	}
	return out
}

func toOutcome(m *controlv1.Outcome) (o job.Outcome, err error) {
	if m == nil {
		return o, nil
	}
	o = job.Outcome{
		State: m.State, Verified: m.Verified, Equal: m.Equal, Epoch: m.Epoch, Counters: ToCounters(m.Counters),
		ActualTracking: m.ActualTracking, TrackingReason: m.TrackingReason, ActualTransport: m.ActualTransport,
		TransportReason: m.TransportReason, Connections: int(m.Connections), Congestion: m.CongestionControl,
		Cold: m.ColdReads, SourceIdentity: m.SourceIdentity, TargetIdentity: m.TargetIdentity, Larger: m.LargerBytes,
	}
	for _, e := range m.Bad {
		o.Bad = append(o.Bad, job.Extent{Off: e.GetByteOffset(), Len: e.GetSizeBytes(), Unreadable: e.GetUnreadable()})
	}
	o.Root, err = ToDigest("outcome.root", m.Root)
	return o, err
}

// FromCounters is the message of counters.
func FromCounters(c *job.Counters) *controlv1.Counters {
	return &controlv1.Counters{
		TotalBytes: c.Total, ScannedBytes: c.Scanned, HoleBytes: c.Holes, SameBytes: c.Same, ZeroBytes: c.Zero, DifferingBytes: c.Differing,
		SentBytes: c.Sent, WireBytes: c.Wire, DurableBytes: c.Durable, VerifiedBytes: c.Verified, ReadBackBytes: c.ReadBack, HadBytes: c.Had,
		BadGrains: c.BadGrains, RedoneGrains: c.RedoneGrains, LostGrains: c.LostGrains, Reconnects: c.Reconnects,
		SkippedBytes: c.Skipped, SampledBytes: c.Sampled,
	}
}

// ToCounters is the counters in a message.
func ToCounters(m *controlv1.Counters) job.Counters {
	return job.Counters{
		Total: m.GetTotalBytes(), Scanned: m.GetScannedBytes(), Holes: m.GetHoleBytes(), Same: m.GetSameBytes(), Zero: m.GetZeroBytes(),
		Differing: m.GetDifferingBytes(), Sent: m.GetSentBytes(), Wire: m.GetWireBytes(), Durable: m.GetDurableBytes(),
		Verified: m.GetVerifiedBytes(), ReadBack: m.GetReadBackBytes(), Had: m.GetHadBytes(), BadGrains: m.GetBadGrains(),
		RedoneGrains: m.GetRedoneGrains(), LostGrains: m.GetLostGrains(), Reconnects: m.GetReconnects(),
		Skipped: m.GetSkippedBytes(), Sampled: m.GetSampledBytes(),
	}
}

// FromFailure is the message of a failure, nil for none.
func FromFailure(f *job.Failure) *controlv1.Failure {
	if f == nil {
		return nil
	}
	return &controlv1.Failure{Reason: f.Reason, Text: Text(f.Text), Retry: FromRetry(f.Retry), ExitCode: int32(f.Exit)}
}

// ToFailure is the failure in a message, nil for none.
func ToFailure(m *controlv1.Failure) *job.Failure {
	if m == nil {
		return nil
	}
	return &job.Failure{Reason: m.Reason, Text: m.Text, Retry: toRetry(m.Retry), Exit: int(m.ExitCode)}
}

// Text makes text of what may be a path or the words of a kernel: one byte that
// is not UTF-8 would make the whole job a message that nobody can be sent.
func Text(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// FromDigest is empty for the zero digest, which nothing has.
func FromDigest(d cbt.Digest) string {
	if d == (cbt.Digest{}) {
		return ""
	}
	return hex.EncodeToString(d[:])
}

// ToDigest reads a digest; an empty text is the zero digest.
func ToDigest(field, text string) (d cbt.Digest, err error) {
	if text == "" {
		return d, nil
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(d) {
		return d, Invalid(field, "not %d hexadecimal digits", 2*len(d))
	}
	copy(d[:], b)
	return d, nil
}
