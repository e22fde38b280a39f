// Package worker starts and watches haulback-vddk, the process in which VMware's
// library runs, and hands out the disks that it serves as NBD exports.
//
//	Pool ── one entry for each VM and identity, with a count of its open disks
//	 └─ process ── the running worker
//	     writer   requests of Open and Close, pings
//	     reader   answers, log lines, failures, last words
//	     stderr   kept for the reason of a death
//	     waiter   the one that waits for the child: no zombie is left
//	     pinger   kills a worker that does not answer
//
// A worker that died, whatever the reason, fails all that waits for it at once
// with a [*DiedError], which is retryable; its disks are lost, and the next Open
// starts another one, after a pause that grows while they keep dying. A worker
// whose last disk is closed is told to end and waited for.
//
// Credentials go to the worker through a pipe. They are in no argument, no
// environment, no log line and no error.
//
// All goroutines of a worker end with it. Not promised: that a worker ends in an
// orderly way. When it does not within Limits.End it is killed, and the guard on
// its VM is taken back by the next worker for that VM.
package worker
