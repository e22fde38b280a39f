package transfer

import (
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// Spec is what a caller asks for.
type Spec struct {
	Mode           wire.Mode
	Source, Target string // as Help says
	Run            wire.RunID
	Full           bool               // read everything again at the end
	Tracking       string             // full or empty, bitmap:NAME, fiemap:PATH, export
	Strict         bool               // fail where Tracking cannot be used
	Sample         int64              // compare one grain in so many of what tracking calls unchanged; 0: the engine's choice
	Create         bool               // make the target file when there is none
	Transport      string             // "auto", "quic" or "tls"
	Rate           int64              // bytes per second on the wire; 0: no limit
	Throttle       *throttle.Throttle // instead of Rate: limits that may change; nil: none
	Retry          time.Duration      // how long to go on without progress after the peer was lost; 0: not at all

	// SourcePlace and TargetPlace take the place of Source and Target for disks that
	// no text names.
	SourcePlace, TargetPlace *Place
	Pass                     uint32    // of Run; 0: 1, and Full reads again as pass 2
	Hint                     *cbt.Hint // instead of Tracking: where the source changed, wherever it is
	Base                     uint32    // the pass that Hint counts from, see mover.Job
	Fence                    uint64    // for a target of this machine, see mover.Job
	Unproved                 bool      // the source may be what a run has half written, if it is of this machine
	Compare                  int64     // a verify compares one grain in so many; 0 and 1: all
	// SourceTicket and TargetTicket are for exports that want tickets; nil shows
	// none. They are asked again at every try, which is how tickets are renewed.
	SourceTicket, TargetTicket mover.TicketFunc
	GoOn                       string // what a caller does after an interruption, for messages
}

// leastRate is a grain per second: with less no frame leaves before a peer
// takes the silence for a lost link.
const leastRate = 64 << 10

// check looks at what has no endpoint in it.
func (s *Spec) check() error {
	if s.Rate < 0 || s.Rate > 0 && s.Rate < leastRate {
		return usage("--rate: %d bytes per second are below 64KiB, one grain: the copy could not begin", s.Rate)
	}
	if err := site.CheckTransport(s.Transport); err != nil {
		return usage("--transport: %w", err)
	}
	if s.Retry < 0 {
		return usage("--retry %v: a negative time", s.Retry)
	}
	if s.Mode == wire.ModeVerify && (s.Full || s.Create || s.Tracking != "" && s.Tracking != site.TrackFull) {
		return usage("a verify reads everything and makes nothing: leave out --verify full, --create and --cbt")
	}
	return s.checkTracking()
}

func (s *Spec) checkTracking() error {
	none := s.want() == wire.TrackingOff
	switch {
	case s.Hint != nil:
		return nil
	case none && s.Strict:
		return usage("--strict: it goes with --cbt, which says what to be strict about")
	case none && s.Sample != 0:
		return usage("--sample: it goes with --cbt; without change tracking everything is compared")
	case s.Sample < 0:
		return usage("--sample %d: one grain in so many, at least 1", s.Sample)
	case none || s.Tracking == site.TrackExport:
		return nil
	}
	if err := site.CheckTrack(s.Tracking); err != nil {
		return usage("--cbt: %w; full, export", err)
	}
	return nil
}

// want is how change tracking may narrow the copy.
func (s *Spec) want() wire.Tracking {
	switch {
	case s.Hint == nil && (s.Tracking == "" || s.Tracking == site.TrackFull):
		return wire.TrackingOff
	case s.Strict:
		return wire.TrackingStrict
	}
	return wire.TrackingUse
}

// driver is the change tracking that the driver of a source of this machine is
// asked for.
func (s *Spec) driver() string {
	if s.Hint != nil || s.want() == wire.TrackingOff || s.Tracking == site.TrackExport {
		return ""
	}
	return s.Tracking
}

// asked is Tracking for the report.
func (s *Spec) asked() string {
	if s.Hint != nil {
		return s.Hint.String()
	}
	if s.Tracking == "" {
		return site.TrackFull
	}
	return s.Tracking
}

func (t *Transfer) modeText() string {
	switch s := &t.Spec; {
	case t.Different != nil:
		return "diff"
	case s.Mode == wire.ModeVerify:
		return "verify"
	case s.Full:
		return "copy, then read everything again"
	}
	return "copy"
}
