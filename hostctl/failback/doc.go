// Package failback brings a VM home: it powers VMs, takes snapshots and has
// disks moved, step by step, so that a crash at any place ends resumed,
// completed or taken back.
//
// An Engine keeps pairs of VMs (original and replica) and failbacks. It knows
// hosts by the interfaces of package hostctl and disks by a Mover; it opens
// none. The states, the steps and what is durable when are in the documentation
// of package hostctl.
//
// # Rules
//
// A failback has an ID of the caller's; starting it again under the ID with an
// equal spec is the same failback. Of one that is ReadyToSwitch it makes another
// pass, as the state table says.
//
// Start, and every refusal, does nothing to a host. What can be known before is
// known before: a plan is made by the code that does it (prepare, script).
//
// A step is Intent before anything is done and Done when its end state was
// observed. What a host says is not believed until it is seen; what a host may
// have done is looked for before it is asked again. A host that does not answer
// is tried for half an hour; then, and for what no retry cures, the failback is
// Halted, says why and what helps, and goes on at the same step with Continue.
//
// Commit, undo and cancel begin with a row that says so. After it there is no
// other way than forward.
//
// The state Failback, the end of the mark on the target, and power-on are gated
// by the durable record: every disk Verified by the final pass of this run.
//
// Undo asks the host to revert and does not believe it: every disk is compared
// with its snapshot, and moved back where the host did not do it.
//
// A disk's outcome is its own, stored when it is known. Change tracking since the
// point that a disk's target was last proved to have is a hint to the mover;
// without such a point, everything is compared.
//
// VMs that have to be off are watched without a gap, not only while a pass runs:
// a target that was on, however shortly, is compared as a whole, and a replica
// that was on makes the try of the switch void.
//
// Failbacks in passes are bounded by MaxVMs, their disks by MaxDisks; disks of
// final passes have as many places of their own, so that nobody's downtime waits
// for somebody else's first pass. In a group a VM switches when all of a lower
// order have.
//
// # What is not promised
//
// Hooks run at least once, not exactly once. Telemetry may be lost. Before the
// switch a new controller has everything compared once more, because nobody
// watched the target meanwhile; a target that is powered on and off again from
// outside while the controller restarts in the middle of the switch is not seen,
// and its disks are found different by samples alone, or by Full. Free space is
// looked at once, before the start.
package failback
