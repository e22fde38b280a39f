// Package bolt keeps a store.Store, its store.Queue and its store.Lease in one
// bbolt file of one machine.
//
// # The file
//
// It has mode 0600 and one process at a time, by bbolt's lock. It is made under
// another name, synced, and linked to its own, so that a file of this name is
// always whole: an empty one is damage and not a new store. Every change is
// synced before the call returns.
//
//	bucket   key                     value, each sealed (store.Seal) with bucket and key
//	meta     format                  version of this table
//	         revision                the revision counter
//	         sum.BUCKET              count and XOR of the seals of that bucket
//	data     the key                 revision (8), value
//	history  revision (8)            deleted (1), length of key (2), key, value
//	queue    the ID                  priority, sequence, deliveries, dead
//	lease    the name                epoch, expiry, holder
//
// All integers are big-endian.
//
// # Damage
//
// bbolt has checksums in its two header pages only. Open reads the file once,
// whole: both headers, every value against its seal, every bucket against its
// sum (a key with a flipped bit is a value that has gone and one too many). What
// is wrong is told with the file, the bucket and the key, and the file is left as
// it is. Later reads check the seal of what they read. A fault in the memory map
// is an error of that call, and not the end of the process.
//
// # What is only in memory
//
// Who holds a delivery, and until when. The file's lock proves that a former
// holder is gone, so Open gives all of them out again, and ends all leases
// (their epochs stay, and go on growing).
package bolt
