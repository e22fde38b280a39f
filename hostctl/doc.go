// Package hostctl is the control plane: what a host that owns VMs has to offer,
// and (in its sub-packages) the failback sequence, the job engine and the
// simulated host.
//
//	Host      one vCenter, ESXi or volume cluster: Compute, Storage, and what
//	          it has besides (Registry, Tracker, Guard, Checker)
//	failback  the sequence that brings a VM home, its states and its journal
//	vsphere   Host for vCenter and ESXi
//	osd       Host for workloads on OpenStorage volumes
//	simvs     a simulated vSphere with true bytes
//	hosttest  the conformance suite of Host, and a host in memory
//
// It imports cbt and nothing else of haulback: disks are moved by a function
// that is handed in.
//
// # The states of a VM, and what a failback does in them
//
//	        failover                     start
//	Ready ------------> Failover ---------------------+
//	 ^  <------------     ^   ^                       v
//	 |   undo failover    |   |         waiting, preparing, syncing
//	 |                    |   |  cancel      |            ^
//	 |                    |   +--------------+            | one more pass
//	 |                    |   |              v            | (continue, switch)
//	 |                    |   +------- ReadyToSwitch: standing
//	 |                    |   |  cancel      |
//	 |                    |   +----------switching  (replica off; final pass)
//	 |                    |                  |  every disk is Verified
//	 |                    |      undo        v
//	 |                    +------------- Failback: deciding
//	 |          commit                       |
//	 +---------------------------------------+
//
// In each place a failback can be halted at a step: it says why and what helps,
// and goes on there with continue. What a place does not show is refused, with a
// reason of its own (failback.decide; TestStateTable asks all pairs).
//
// # The steps
//
// A row is durable as Intent before its step is begun, and as Done when the end
// state was seen. A crash before, in or after a step (reply lost) ends the same:
// the next controller, with a higher fence, looks first. N is the number of the
// failback page.
//
//	N  step                  seen by                        taken back by
//	-  (start)               draft, claims, pair.Failback   the draft is dropped at the next start
//	1  claim-replica/target  mark run=RUN@CONTROLLER        unclaim-*
//	1  guard-replica/target  the row (asked, answered)      unguard-*
//	1  power-off-original    power; existing, new           stays off
//	1  power-off-target      power                          stays off: the replica serves
//	1  create-target         the row; mark made=RUN; new    destroy-target
//	1  protect-target        snapshot haulback-RUN-STEP     unprotect-target
//	1  mark-target           mark inconsistent=RUN          unmark-target, when its bytes are back
//	2  enable-tracking       VM.Tracking                    stays on
//	2  track-replica-n       snapshot; its change IDs kept  release-snapshots
//	2  replace-tracking-n    no older tracking snapshot     -
//	2  pair-disks            the row; nothing is written    -
//	3  pass-n                each disk's own outcome        restore-target, from the rollback point
//	4  power-off-replica     power                          power-on-replica
//	5  release-tracking      no tracking snapshot           -
//	5  protect-replica       snapshot; its change IDs kept  undo: restore-replica; then released
//	6  final-pass            every disk Verified by it      restore-target
//	7  state                 the pair: state, held          rebind (one change of the pair)
//	7  hold-replication      the row                        release-replication
//	8  register, networks    inventory, NICs; new, existing destroy-target; -
//	8  rebind                the pair: original, former     rebind
//	9  unmark-target         no mark; gate: Verified        mark-target
//	9  power-on              power; gates: Verified,        power-off-target
//	                         replica off
//	9  release-leftovers     no tracking snapshot           -
//
// Steps 4 to 6 are made again, as power-off-replica-2 and so on, when the replica
// was powered on from outside before step 7: what its users have written since is
// not in the pass. A target that is powered on from outside while it is
// inconsistent is powered off, and everything is compared again.
//
// The ends. Each begins with a row that is Done at once; after it there is only
// forward.
//
//	10 commit   unprotect-target, release-tracking, (delete-protective),
//	            reset-tracking, unclaim, unguard, release-replication, state Ready
//	11 undo     power-off-target, restore-replica, rebind (state Failover),
//	            release-replication, power-on-replica, release-snapshots,
//	            mark-target, restore-target, unprotect-target, unmark-target
//	            (new: destroy-target), unclaim, unguard
//	12 cancel   the same without restore-replica: the replica has the newest data;
//	            only what the journal says was begun is taken back
//
// restore-* asks the host to revert, compares every disk with the snapshot, and
// has the mover move back what differs.
package hostctl
