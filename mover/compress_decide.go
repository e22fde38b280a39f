package mover

// situation is what a source knows of its link when it has to decide whether
// to compress. Rates are per second of wall time, costs in processor seconds.
type situation struct {
	on      bool
	workers float64 // goroutines that read, compress and send, each one after the other
	raw     float64 // bytes of grains sent per second
	stalled float64 // share of the workers' time that went by in writes, 0 to 1
	busy    float64 // processors that this process used
	idle    float64 // processors that it could have used and nobody did
	encode  float64 // to compress a byte
	send    float64 // of this end, to send a byte
	ratio   float64 // of a byte to what it becomes
	wire    float64 // bytes per second that the wire takes
	limit   float64 // bytes per second that it may take; 0: no limit
}

// What a byte costs (facts/performance.md 1.3, 2.1, measured on one machine;
// another one differs in all of them in about the same way), and the margins.
const (
	perGiB     = 1.0 / (1 << 30)
	encodeCost = 1.3 * perGiB // until it is measured
	usualRatio = 1.8          // until it is measured
	least      = 1.05         // ratio that is worth a thought
	margin     = 1.1          // what a change has to gain
	stall      = 0.25         // share of time in writes from which the wire counts as a limit
)

// sendCost is what the sending end takes to send a byte.
func sendCost(transport string) float64 {
	switch transport {
	case "quic":
		return 1.8 * perGiB
	case "tls":
		return 0.8 * perGiB
	}
	return 0.1 * perGiB
}

// decide says whether to compress, and why. It compares how many bytes of
// grains per second would go with and without. A worker takes for each byte what
// it takes now beside writing and compressing, and what the wire takes for what
// is sent of it; and all workers together have no more processors than there are:
// on a machine that is busy, or where the other end runs too, they do not come
// from nowhere.
func (s situation) decide() (bool, reason) {
	if s.ratio < least {
		return false, noGain
	}
	wire := s.wire
	if s.limit > 0 && (wire == 0 || s.limit < wire) {
		wire = s.limit
	}
	saved := s.send * (1 - 1/s.ratio)
	if s.raw == 0 { // nothing is measured, and the wire is kept to a rate
		return wire > 0 && wire < 1/s.encode, byRate
	}
	rest, cost := s.workers/s.raw*(1-s.stalled), s.busy/s.raw
	if s.on {
		rest, cost = rest-s.encode, cost-s.encode+saved
	}
	rest, cost = max(rest, 0), max(cost, 0.1*perGiB)
	avail := s.busy + s.idle
	without := min(s.workers/(rest+s.workers/wire), avail/cost)
	with := min(s.workers/(rest+s.encode+s.workers/(wire*s.ratio)), avail/(cost+s.encode-saved))
	on := with > without*margin || s.on && with*margin >= without
	return on, s.reason(on, wire, saved)
}

// wireBound says whether fewer bytes would make the copy faster, whatever else
// they cost: the workers wait for the wire, and not because the machine, where the
// other end may run too, has nothing left to make it faster with. Once fewer bytes
// go, as was says, the workers wait less: that is no reason to stop unless next to
// nothing is left of it.
func (s situation) wireBound(was bool) bool {
	least := stall
	if was {
		least = stall / 5
	}
	return s.stalled >= least && s.idle >= 0.1*(s.busy+s.idle)
}

// reason explains the verdict.
func (s situation) reason(on bool, wire, saved float64) reason {
	switch {
	case on && s.encode < saved:
		return cheaper
	case on && s.limit > 0 && wire == s.limit:
		return byRate
	case on:
		return byWire
	case s.idle < 0.1*(s.busy+s.idle) || s.stalled >= stall:
		return byProcessor
	}
	return notWire
}

// reason is why a source compresses, or does not.
type reason uint8

const (
	undecided reason = iota
	byOrder
	byWire
	byRate
	cheaper
	byProcessor
	notWire
	noGain
	noWire
)

var reasonTexts = [...]string{
	undecided:   "too little was sent to tell",
	byOrder:     "as asked",
	byWire:      "the wire is the limit",
	byRate:      "a rate limits the wire",
	cheaper:     "to send costs more than to compress",
	byProcessor: "the processor is the limit",
	notWire:     "the wire is not the limit",
	noGain:      "the data does not compress",
	noWire:      "both disks are here",
}

func (r reason) String() string { return reasonTexts[r] }
