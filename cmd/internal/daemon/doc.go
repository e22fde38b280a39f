// Package daemon runs what a configuration names: listeners, exports, orders,
// and what a service manager expects.
//
//	start     state directory, key, journals, listeners, READY=1
//	peers     a change of peers.toml is in force within a second: who was removed
//	          is cut off, on links that were dialled here too
//	pairing   while an invitation is open, who has its code may join
//	record    who was let in, who was not, and what changed (hostctl/audit)
//	home      with [controller]: failback.db, hosts, the failback engine, its
//	          records; a host that does not answer is waited for, a store that
//	          is damaged keeps the daemon from starting
//	SIGHUP    peers, exports, hooks and groups are read again; sessions of peers that are gone
//	          end; a configuration with a mistake changes nothing
//	SIGTERM   STOPPING=1, no new links, failbacks stop where nothing is lost, every
//	          target makes a last checkpoint, peers are told to come back; at most
//	          10 s from the signal on
//	watchdog  fed by a loop that takes the locks that all work needs and waits for
//	          no disk: it stands still when the daemon has locked itself up
//	sockets   those that the service manager has opened are taken over (passed.go)
//
// Not promised: that a reload moves listeners, limits or the log. They need a
// restart, and the log says so.
package daemon
