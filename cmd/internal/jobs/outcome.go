package jobs

import (
	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// Outcome is what rep came to, with what transfer.Run says of it: only a nil
// error is a success.
func Outcome(rep *mover.Report, err error) job.Outcome {
	out := job.Outcome{
		Verified: err == nil, Equal: err == nil && rep.Equal, Epoch: rep.Epoch, Counters: Counters(&rep.Counters),
		TrackingReason: rep.Reason, ActualTransport: rep.Transport, TransportReason: rep.Why, Connections: rep.Conns, Congestion: rep.Control, Cold: rep.Cold,
		SourceIdentity: rep.Source, TargetIdentity: rep.Target, Larger: max(rep.Larger, 0),
	}
	if out.Equal {
		out.Root = cbt.Digest(rep.Root)
	}
	switch {
	case rep.State != wire.StateClean: // Clean: the last word did not come
		out.State = rep.State.String()
	case rep.Epoch > 0 && rep.Counters.Sent+rep.Counters.Had > 0:
		out.State = wire.StateInconsistent.String()
	}
	if rep.Epoch > 0 || rep.Counters.Scanned > 0 {
		out.ActualTracking = "full"
		if rep.Hinted {
			out.ActualTracking = "hint"
		}
	}
	for _, b := range rep.Bad {
		out.Bad = append(out.Bad, job.Extent{Off: b.Off, Len: b.Len, Unreadable: b.Unreadable})
	}
	return out
}

// Counters are c in the words of jobs.
func Counters(c *wire.Counters) job.Counters {
	return job.Counters{
		Total: c.Total, Scanned: c.Scanned, Holes: c.Holes, Same: c.Same, Zero: c.Zero, Differing: c.Differing,
		Sent: c.Sent, Wire: c.Wire, Durable: c.Durable, Verified: c.Verified, ReadBack: c.ReadBack, Had: c.Had,
		BadGrains: c.Bad, RedoneGrains: c.Redone, LostGrains: c.Lost, Reconnects: c.Reconnects,
		Skipped: c.Skipped, Sampled: c.Sampled,
	}
}
