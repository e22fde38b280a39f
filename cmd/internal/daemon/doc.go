// Package daemon runs what a configuration names: listeners, exports, orders,
// and what a service manager expects.
//
//	start     state directory, key, journals, listeners, READY=1
//	peers     a change of peers.toml is in force within a second: who was removed
//	          is cut off, on links that were dialled here too
//	pairing   while an invitation is open, who has its code may join
//	record    who was let in, who was not, and what changed (hostctl/audit)
//	SIGHUP    peers and exports are read again; sessions of peers that are gone
//	          end; a configuration with a mistake changes nothing
//	SIGTERM   STOPPING=1, no new links, every target makes a last checkpoint,
//	          peers are told to come back; at most 10 s
//
// Not promised: that a reload moves listeners, limits or the log. They need a
// restart, and the log says so.
package daemon
