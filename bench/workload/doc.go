// Package workload makes the disks that benchmarks copy, the same ones for the
// same seed: a real ext4 with real files of this machine and incompressible
// ones, fully allocated, about 30 % zeros; and changes to it, 1 % and 10 %.
//
// An [Image] is a directory with two disks and two deltas:
//
//	source.img  the base, with the changes of the present case applied
//	target.img  the base; what a run makes of it is undone by Reset
//	1pct.old    what the base holds where the 1 % are, and
//	1pct.new    what they are; 10pct.* likewise
//	image.json  sizes, digests and ranges: written last, so that it says "complete"
//
// A delta is undone by writing its old bytes back: that takes a second, where
// copying 4 GiB takes ten. Undoing is idempotent, so a benchmark that was ended
// in the middle leaves nothing that the next one has to know about. Digests of
// the whole disks are checked when the directory is opened and when a case begins.
//
// The changes are deterministic. The files are a seeded choice of those that the
// machine has: two machines have different images, and the digest tells.
package workload
