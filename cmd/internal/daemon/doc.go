// Package daemon runs what a configuration names: listeners, exports, orders,
// and what a service manager expects.
//
//	start     state directory, key, journals, listeners, READY=1
//	SIGHUP    peers and exports are read again; sessions of peers that are gone
//	          end; a configuration with a mistake changes nothing
//	SIGTERM   STOPPING=1, no new links, every target makes a last checkpoint,
//	          peers are told to come back; at most 10 s
//
// Not promised: that a reload moves listeners, limits or the log. They need a
// restart, and the log says so.
package daemon
