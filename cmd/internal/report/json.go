package report

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/haulback/haulback/wire"
)

// jsonSchema changes when a field loses its meaning: never, that is.
const jsonSchema = 1

// jsonOutput is Output as JSON lines.
type jsonOutput struct {
	mu  sync.Mutex
	out io.Writer
	now func() time.Time
}

// NewJSON writes JSON lines to out.
func NewJSON(out io.Writer) Output { return &jsonOutput{out: out, now: time.Now} }

type header struct {
	Schema int    `json:"schema"`
	Type   string `json:"message_type"`
	Time   string `json:"time"`
}

func head(kind string, now time.Time) header {
	return header{jsonSchema, kind, now.UTC().Format(time.RFC3339Nano)}
}

func (j *jsonOutput) line(v any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_ = json.NewEncoder(j.out).Encode(v) // a reader that is gone does not stop a copy
}

type startedLine struct {
	header
	Mode      string `json:"mode"`
	Run       string `json:"run"`
	Source    string `json:"source"`
	Target    string `json:"target"`
	Transport string `json:"requested_transport,omitempty"`
	Tracking  string `json:"requested_tracking,omitempty"`
}

func (j *jsonOutput) Started(s Start) {
	j.line(startedLine{head("started", j.now()), s.Mode, s.Run, s.Source, s.Target, s.Transport, s.Tracking})
}

// counters are wire.Counters: bytes, but for what says grains and the last.
type counters struct {
	Total      int64 `json:"total"`
	Compared   int64 `json:"compared"`
	Holes      int64 `json:"holes"`
	Same       int64 `json:"same"`
	Zero       int64 `json:"zero"`
	Changed    int64 `json:"changed"`
	Sent       int64 `json:"sent"`
	SentWire   int64 `json:"sent_wire"`
	Written    int64 `json:"written"`
	Verified   int64 `json:"verified"`
	ReadBack   int64 `json:"read_back"`
	Had        int64 `json:"had"`
	Bad        int64 `json:"bad_grains"`
	Redone     int64 `json:"redone_grains"`
	Lost       int64 `json:"lost_grains"`
	Reconnects int64 `json:"reconnects"`
	Skipped    int64 `json:"skipped"`
	Sampled    int64 `json:"sampled"`
	Refined    int64 `json:"refined"`
}

func countersOf(c wire.Counters) counters {
	return counters{
		c.Total, c.Scanned, c.Holes, c.Same, c.Zero, c.Differing, c.Sent, c.Wire, c.Durable,
		c.Verified, c.ReadBack, c.Had, c.Bad, c.Redone, c.Lost, c.Reconnects, c.Skipped, c.Sampled, c.Refined,
	}
}

func (j *jsonOutput) Status(c wire.Counters, limitedBy string) {
	j.line(struct {
		header
		counters
		LimitedBy string `json:"limited_by,omitempty"`
	}{head("status", j.now()), countersOf(c), limitedBy})
}

func (j *jsonOutput) Remark(kind Kind, text string) {
	j.line(struct {
		header
		Text string `json:"text"`
	}{head(string(kind), j.now()), OneLine(text)})
}

// Close implements Output; there is nothing to end.
func (j *jsonOutput) Close() {}

type summaryLine struct {
	startedLine
	State string `json:"state,omitempty"`
	Equal bool   `json:"equal"`
	Root  string `json:"root,omitempty"`
	Epoch uint64 `json:"epoch,omitempty"`
	counters
	ActualTransport string      `json:"actual_transport,omitempty"`
	TransportReason string      `json:"transport_reason,omitempty"`
	Connections     int         `json:"connections,omitempty"`
	Congestion      string      `json:"congestion_control,omitempty"`
	ActualTracking  string      `json:"actual_tracking,omitempty"` // "hint" or "full"
	TrackingReason  string      `json:"tracking_reason,omitempty"`
	SampledGrains   int64       `json:"sampled_grains,omitempty"`
	UnchangedGrains int64       `json:"unchanged_grains,omitempty"` // by change tracking's word, the sampled ones included
	Cold            string      `json:"cold_reads,omitempty"`
	Compress        string      `json:"compress,omitempty"`    // what was asked for, of a copy that this process sent
	Compression     string      `json:"compression,omitempty"` // what was done, and why
	Larger          int64       `json:"target_larger"`
	SourceIdentity  string      `json:"source_identity,omitempty"`
	TargetIdentity  string      `json:"target_identity,omitempty"`
	Phases          []phaseLine `json:"phases"`
	Bad             []badLine   `json:"bad,omitempty"`
}

type phaseLine struct {
	Name   string `json:"name"`
	Millis int64  `json:"duration_ms"`
}

type badLine struct {
	Off        int64 `json:"offset"`
	Len        int64 `json:"length"`
	Unreadable bool  `json:"unreadable,omitempty"`
}

func (j *jsonOutput) Summary(r Result) {
	s := summaryLine{
		startedLine: startedLine{head("summary", j.now()), r.Mode, r.Start.Run, r.Start.Source, r.Start.Target, r.Start.Transport, r.Start.Tracking},
		State:       r.State.String(), Equal: r.Equal, Epoch: r.Epoch, counters: countersOf(r.Counters),
		ActualTransport: r.Report.Transport, TransportReason: OneLine(r.Why), Congestion: r.Control, Cold: r.Cold, Larger: max(r.Larger, 0),
		SourceIdentity: r.Report.Source, TargetIdentity: r.Report.Target,
	}
	if !r.Verify {
		if k := &r.Compression; k.Grains > 0 {
			s.Compress, s.Compression = k.Asked.String(), k.Text()
		}
		s.ActualTracking, s.TrackingReason = "full", OneLine(r.Reason)
		if r.Hinted {
			s.ActualTracking = "hint"
			s.SampledGrains, s.UnchangedGrains = r.grains()
		}
	}
	if r.Report.Transport != "pipe" {
		s.Connections = r.Conns
	}
	if r.Equal {
		s.Root = hex.EncodeToString(r.Root[:])
	}
	if r.Verify || r.State == wire.StateClean { // not asked for, or the last word did not come
		s.State = ""
	}
	if r.unfinished() && r.Counters.Sent+r.Counters.Had > 0 {
		s.State = wire.StateInconsistent.String()
	}
	for _, p := range r.Phases {
		s.Phases = append(s.Phases, phaseLine{p.Name, p.Dur.Milliseconds()})
	}
	for _, b := range r.Report.Bad {
		s.Bad = append(s.Bad, badLine{b.Off, b.Len, b.Unreadable})
	}
	j.line(s)
}

// WriteExitError is the last line of a run that failed.
func WriteExitError(w io.Writer, err error, code int) {
	_ = json.NewEncoder(w).Encode(struct {
		header
		Code int    `json:"code"`
		Text string `json:"text"`
	}{head("exit_error", time.Now()), code, OneLine(err.Error())})
}
