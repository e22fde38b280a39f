// Package job runs what backup servers ask for: jobs that move or compare
// disks, that survive the daemon, and that never say Completed unless every
// disk is Verified.
//
// It knows no disk and no network: a Transfer does one disk.
package job
