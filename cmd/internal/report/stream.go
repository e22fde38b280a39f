package report

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/wire/archive"
)

// Stream is how a dump ended, or a look at a stream.
type Stream struct {
	Start
	Header *archive.Header
	Totals archive.Totals
	Bytes  int64 // of the stream
	Phases []Phase
}

// streamLine is the summary of a stream as JSON.
type streamLine struct {
	startedLine
	Kind           string            `json:"kind"`
	Total          int64             `json:"total"`
	Carried        int64             `json:"carried"`
	Zero           int64             `json:"zero"`
	Sent           int64             `json:"sent"`
	StreamBytes    int64             `json:"stream_bytes"`
	StreamDigest   string            `json:"stream_digest"`
	Root           string            `json:"root,omitempty"` // of the whole disk: full streams only
	BaseRoot       string            `json:"base_root,omitempty"`
	BaseRun        string            `json:"base_run,omitempty"`
	ActualTracking string            `json:"actual_tracking"`
	TrackingReason string            `json:"tracking_reason,omitempty"`
	SampledGrains  int64             `json:"sampled_grains,omitempty"`
	Created        string            `json:"created"`
	Identity       string            `json:"source_identity,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	Phases         []phaseLine       `json:"phases"`
}

func (s *Stream) line(h header) streamLine {
	l := streamLine{
		startedLine: startedLine{h, s.Mode, s.Run, s.Source, s.Target, "", s.Tracking},
		Kind:        s.Header.Kind.String(), Total: s.Header.Size, Carried: s.Header.Map.Len(), Zero: s.Totals.ZeroBytes, Sent: s.Totals.DataBytes,
		StreamBytes: s.Bytes, StreamDigest: s.Totals.Sum.String(), ActualTracking: "full", TrackingReason: s.Header.Reason,
		Created: s.Header.Created.UTC().Format("2006-01-02T15:04:05Z"), Identity: s.Header.Identity, Phases: []phaseLine{},
	}
	if s.Header.Kind == archive.Full {
		l.Root = hex.EncodeToString(s.Totals.Root[:])
	} else {
		l.ActualTracking, l.SampledGrains = "hint", cbt.Grains(s.Header.Sampled.Len())
	}
	if b := s.Header.Base; b.Root != (cbt.Digest{}) {
		l.BaseRoot = b.Root.String()
	}
	if b := s.Header.Base; b.Run != [16]byte{} {
		l.BaseRun = uuid.UUID(b.Run).String()
	}
	for _, p := range s.Phases {
		l.Phases = append(l.Phases, phaseLine{p.Name, p.Dur.Milliseconds()})
	}
	for i, x := range s.Header.Labels {
		if i == 0 {
			l.Labels = make(map[string]string)
		}
		l.Labels[x.Key] = x.Value
	}
	return l
}

// Streamed tells out how a dump, or a look at a stream, ended well.
func Streamed(out Output, s Stream) {
	switch o := out.(type) {
	case *jsonOutput:
		o.line(s.line(head("summary", o.now())))
	case *textOutput:
		o.mu.Lock()
		defer o.mu.Unlock()
		o.eraseLocked()
		_, _ = io.WriteString(o.out, s.text())
	}
}

func (s *Stream) text() string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	h := s.Header
	what := "Dumped"
	if s.Mode != "dump" {
		what = "The stream is whole"
	}
	fmt.Fprintf(&b, "%s: %s, %s of a disk of %s, as %s in %s.\n", what, h.Kind, size.Text(h.Map.Len()), size.Text(h.Size), size.Text(s.Bytes), took(s.Phases))
	row("run", "%s", s.Run)
	row("zeros", "%s", size.Text(s.Totals.ZeroBytes))
	if s.Tracking != "" && s.Tracking != "full" {
		used := "used"
		if h.Kind == archive.Full {
			used = "not used"
		}
		row("tracking", "%s, %s: %s", s.Tracking, used, h.Reason)
	}
	if h.Kind == archive.Changed {
		row("base", "root %v, stream %v", h.Base.Root, uuid.UUID(h.Base.Run))
		row("sampled", "%d grains that change tracking calls unchanged", cbt.Grains(h.Sampled.Len()))
	} else {
		row("root", "%v", s.Totals.Root)
	}
	return b.String()
}
