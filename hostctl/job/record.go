package job

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/haulback/haulback/cbt"
)

// The keys of a store. What is below an ID is in doc.go.
const (
	jobKey      = "job."    // state
	specKey     = "spec."   // header
	ticketKey   = "ticket." // map[string][]byte by disk
	countersKey = "counters"
	leaseName   = "engine"
)

// recordFormat is that of header and state; fields may be added.
const recordFormat = 1

// Bounds of what a transfer leaves in a state, so that 256 disks stay below the
// largest value of a store.
const (
	maxBad    = 1024 // of all disks of a job; of one at least 16
	maxText   = 512
	maxDetail = 128
)

// header is the part of a job that never changes.
type header struct {
	Format  int
	ID      string
	Owner   string
	Digest  cbt.Digest
	Created time.Time
	Spec    Spec
}

// state is the part that does. It is replaced, never written into: a reader may
// keep one.
type state struct {
	Format  int
	Epoch   uint64 // of the engine that wrote it
	Owner   string
	Removed bool // the job is being removed; the rest of it may have gone
	Phase   Phase
	Wanted  Phase
	Limits  Limits
	Created time.Time
	Started time.Time
	Ended   time.Time
	Disks   []DiskStatus
	Failure *Failure
}

// clone shares only what is never written into.
func (s state) clone() state {
	s.Disks = slices.Clone(s.Disks)
	return s
}

func decode(key string, value []byte, v any, format *int) error {
	if err := json.Unmarshal(value, v); err != nil {
		return fmt.Errorf("record %s: %w", key, err)
	}
	if *format != recordFormat {
		return fmt.Errorf("record %s: format %d, this program knows %d: use the program that wrote it", key, *format, recordFormat)
	}
	return nil
}

func decodeState(key string, value []byte) (s state, err error) {
	return s, decode(key, value, &s, &s.Format)
}

func decodeHeader(key string, value []byte) (h header, err error) {
	return h, decode(key, value, &h, &h.Format)
}

func encode(v any) ([]byte, error) { return json.Marshal(v) }

// join is the job of its two parts.
func join(h *header, s *state, revision uint64) Job {
	return Job{
		ID: h.ID, Spec: h.Spec, Digest: h.Digest, Owner: h.Owner, Revision: revision,
		Phase: s.Phase, Wanted: s.Wanted, Limits: s.Limits,
		Created: s.Created, Started: s.Started, Ended: s.Ended,
		Disks: slices.Clone(s.Disks), Failure: s.Failure,
	}
}

// bounded cuts what a transfer says to what a record takes.
func (o Outcome) bounded(disks int) Outcome {
	for _, s := range []*string{&o.State, &o.ActualTracking, &o.TrackingReason, &o.ActualTransport, &o.TransportReason, &o.Congestion, &o.Cold, &o.SourceIdentity, &o.TargetIdentity} {
		*s = cut(*s, maxDetail)
	}
	o.Bad = slices.Clone(o.Bad[:min(len(o.Bad), max(16, maxBad/disks))])
	return o
}

// cut keeps whole characters.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
