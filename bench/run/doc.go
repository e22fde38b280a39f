// Package run runs a benchmark: for each case it prepares the disks and lets
// the peers do the same work in turn (A, B, C, A, B, C, ...), so that what the
// machine does beside it hits all alike. After each run the target is compared
// with the source by cmp(1), and put back.
//
// The same cases can be run with the disks in memory, where no device is the
// limit, and with a cold page cache, where it is everybody's: see [Part].
//
// A result that differs, and a peer of ours that fails, makes the whole
// benchmark fail, at its end: what was measured is kept.
package run
