package transfer

import (
	"time"

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
	Transport      string             // "quic" or "tls"
	Rate           int64              // bytes per second on the wire; 0: no limit
	Throttle       *throttle.Throttle // instead of Rate: limits that may change; nil: none
	Retry          time.Duration      // how long to go on without progress after the peer was lost; 0: not at all
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
	case s.Tracking == "" || s.Tracking == site.TrackFull:
		return wire.TrackingOff
	case s.Strict:
		return wire.TrackingStrict
	}
	return wire.TrackingUse
}

// driver is the change tracking that the driver of a source of this machine is
// asked for.
func (s *Spec) driver() string {
	if s.want() == wire.TrackingOff || s.Tracking == site.TrackExport {
		return ""
	}
	return s.Tracking
}

// asked is Tracking for the report.
func (s *Spec) asked() string {
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
