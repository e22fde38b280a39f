// Package store is where jobs, records and leases live: three small interfaces,
// Store, Queue and Lease, that one machine implements with a file (package
// bolt) and a fleet with a replicated log.
//
// # Rules of every implementation
//
// Durable first: when a method that changes something returns nil, the change
// survives kill -9 and power loss. When it returns an error of the medium, the
// change was made or was not made, never a part of it.
//
// One revision counts all changes of a Store, of any key, and grows by at least
// one with each. It never goes back, not even over restarts. It is the "expected
// revision" of compare-and-swap and the position of a watch.
//
// A value carries a checksum of the application (Seal): the engines below keep
// none of their own, one flipped bit is silently another value. A damaged value
// is a *DamagedError that names the key; it is never delivered, never counted as
// missing, and never overwritten by a method that did not see it.
//
// A key is one or more tokens of A-Z a-z 0-9 _ - with single dots between them,
// so that it is a subject of a message system as well. A prefix is empty or ends
// with a dot.
//
// # What is not promised
//
// No transaction spans two keys. A writer that needs two orders them so that a
// crash between them leaves something that the next start can see and finish.
//
// A lease does not stop a paused holder: it may believe for a while that it
// still holds. Therefore its epoch goes into every record, and records change
// by compare-and-swap only. What acts on disks is fenced at the disk.
//
// A queue delivers at least once. Two takers may hold one item after a pause
// longer than the visibility timeout; what they do must be fenced or
// idempotent.
package store
