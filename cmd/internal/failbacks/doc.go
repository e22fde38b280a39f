// Package failbacks moves and compares the disks of failbacks for a daemon: it is
// the failback.Mover of its controller, on top of cmd/internal/transfer and the
// daemon's own engine, peers, journals and key.
//
//	Host     where a host's disks are reached: by this daemon, or by a paired one,
//	         through an export of role "host" there
//	place    one disk of it, here or there
//	tickets  what opens it there: signed by this daemon, for the disk that a probe
//	         found, one pass of one run, and the epoch of the controller; renewed
//	         as long as the pass lasts
//
// A pass runs where it needs no detour: in this daemon if both disks are here, as
// a push or a pull if one is, and else by an order to the daemon of the source,
// which may be that of the target as well.
//
// A hint counts from the end of the pass before it. The target's journal decides
// whether the target is what that pass has left; if not, everything is compared
// and the outcome says why. A pass with a hint has a Root only where nothing was
// left out.
//
// Not promised: that a disk of a peer may be a source whatever its journal says
// (Move.Unproved) unless it is a snapshot's.
package failbacks
