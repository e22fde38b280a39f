// Package jobs does the disks of jobs for a daemon: it is the job.Transfer of
// the job engine, on top of cmd/internal/transfer and the daemon's own mover
// engine, peers and journals.
//
//	Disks      which disks a job may name: every URI of the command line, the
//	           exports of this daemon as "export:NAME", less what [jobs] allow
//	           leaves out
//	Runner     one disk of a job, from the names to the verdict
//	Classify   the one table from errors to reason, retry class and exit code
//	Outcome, Counters, Shares   what failbacks need of it too
//	Links      the links that jobs and orders have dialled, by peer, so that
//	           they end when the peer is removed
//
// A job has the rights of the daemon. Who may submit one is the business of the
// control API; which disks of this machine jobs may touch is that of Disks.
//
// Not promised: that Disks holds against somebody who can write to the
// directories that it allows. Paths are looked at before they are opened, and a
// link that is made in between leads elsewhere.
package jobs
