package main

import (
	"encoding/hex"
	"time"

	"github.com/haulback/haulback/hostctl/job"
)

// jobLine is a job in JSON; what it has in common with a summary has the same
// name there.
type jobLine struct {
	ID       string            `json:"id"`
	Mode     string            `json:"mode"`
	Phase    string            `json:"phase"`
	Wanted   string            `json:"wanted_phase,omitempty"`
	Owner    string            `json:"owner"`
	Revision uint64            `json:"revision"`
	Digest   string            `json:"spec_digest"`
	Labels   map[string]string `json:"labels,omitempty"`
	Created  string            `json:"created"`
	Started  string            `json:"started,omitempty"`
	Ended    string            `json:"ended,omitempty"`
	Disks    []jobDiskLine     `json:"disks"`
	Failure  *failureLine      `json:"failure,omitempty"`
}

type jobDiskLine struct {
	Name     string       `json:"name"`
	Source   string       `json:"source"`
	Target   string       `json:"target"`
	Run      string       `json:"run"`
	Phase    string       `json:"phase"`
	Starts   int          `json:"starts"`
	State    string       `json:"state,omitempty"`
	Verified bool         `json:"is_verified"`
	Equal    bool         `json:"equal"`
	Root     string       `json:"root,omitempty"`
	Total    int64        `json:"total"`
	Compared int64        `json:"compared"`
	Changed  int64        `json:"changed"`
	Sent     int64        `json:"sent"`
	SentWire int64        `json:"sent_wire"`
	Settled  int64        `json:"verified"`
	Had      int64        `json:"had"`
	Asked    string       `json:"requested_tracking,omitempty"`
	Actual   string       `json:"actual_tracking,omitempty"`
	Reason   string       `json:"tracking_reason,omitempty"`
	Failure  *failureLine `json:"failure,omitempty"`
}

type failureLine struct {
	Reason string `json:"reason"`
	Text   string `json:"text"`
	Retry  string `json:"retry"` // "never", "backoff", "after_reconcile"
	Code   int    `json:"code"`
}

func lineOfFailure(f *job.Failure) *failureLine {
	if f == nil {
		return nil
	}
	retry := map[job.RetryClass]string{job.RetryBackoff: "backoff", job.RetryAfterReconcile: "after_reconcile"}[f.Retry]
	if retry == "" {
		retry = "never"
	}
	return &failureLine{f.Reason, f.Text, retry, f.Exit}
}

func lineOfJob(j *job.Job) jobLine {
	out := jobLine{
		ID: j.ID, Mode: string(j.Spec.Mode), Phase: j.Phase.String(), Owner: j.Owner, Revision: j.Revision, Digest: j.Digest.String(), Labels: j.Spec.Labels,
		Created: stamp(j.Created), Started: stamp(j.Started), Ended: stamp(j.Ended), Failure: lineOfFailure(j.Failure),
	}
	if j.Wanted != 0 {
		out.Wanted = j.Wanted.String()
	}
	for i := range j.Disks {
		d, spec := &j.Disks[i], &j.Spec.Disks[i]
		o := &d.Outcome
		l := jobDiskLine{
			Name: d.Name, Source: spec.Source, Target: spec.Target, Run: d.Run, Phase: d.Phase.String(), Starts: d.Starts, State: o.State,
			Verified: o.Verified, Equal: o.Equal, Total: o.Counters.Total, Compared: o.Counters.Scanned, Changed: o.Counters.Differing,
			Sent: o.Counters.Sent, SentWire: o.Counters.Wire, Settled: o.Counters.Verified, Had: o.Counters.Had,
			Asked: spec.Tracking, Actual: o.ActualTracking, Reason: o.TrackingReason, Failure: lineOfFailure(d.Failure),
		}
		if o.Equal {
			l.Root = hex.EncodeToString(o.Root[:])
		}
		out.Disks = append(out.Disks, l)
	}
	return out
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
