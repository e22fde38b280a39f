// Package job runs what backup servers ask for: jobs that move or compare
// disks, that survive the daemon, and that never say Completed unless every
// disk is Verified.
//
// It knows no disk and no network: a Transfer does one disk.
//
//	            Submit
//	              |
//	             New ---- stored, not in the queue yet
//	              |
//	+--------> Accepted ------------------------------+
//	|             |  its turn: room for a disk        |
//	|          Prepared                               |
//	|             |  the first disk has opened        |
//	|         InProgress                              |
//	|         |   |     \                             |
//	|   Pause |   |      \ Cancel                     | Pause, Cancel
//	|  (stops)|   |    Canceling ---- calls to disks  | (nothing runs:
//	|         |   |        |          have to return  |  at once)
//	+---- Paused  |        |                          |
//	| Resume |    |        |                          |
//	|        +----|--------+--> Canceled <------------+
//	|    Cancel   |
//	|             +--> Completed   every disk is Verified
//	|             +--> Failed      at least one is not
//	|                     |
//	+---------------------+  Resume, of disks that may succeed
//
// A disk has the same phases. Those of the job follow from them (state.settle):
// it ends when all of them have; Canceled if one is Canceled, else Failed if one
// is Failed, else Completed. A disk that was Verified before the cancel reached
// it stays Completed, and a job of such disks only is Completed. A failed disk
// does not stop the others. While disks stop, Job.Wanted says for what.
//
// # What is durable when
//
// The state of a job is one value of the store, replaced by compare-and-swap.
// It is written first; after that it is seen, and after that it is acted upon.
//
//	step                written before it                    after a crash
//	Submit              spec.ID, ticket.ID, job.ID (New)     without job.ID: nothing was submitted
//	  is answered       queue item, job.ID (Accepted)        New: goes into the queue
//	a disk starts       Prepared, Starts+1                   starts again, same run
//	a disk moves        (InProgress is written by Moving)    starts again, same run
//	counters            counters, every 5 s, of what runs    the last ones are shown
//	Pause, Cancel       Wanted                               nothing runs: Paused, Canceled at once
//	  disks are told    -
//	a disk ends         outcome, phase, the job's phase      not written: starts again, same run
//	  its place is free -
//	the job has ended   - ticket.ID and queue item go        they go at the next start
//	Resume              Accepted, without the old failure    goes into the queue
//	Drain               counters; phases stay                goes on
//	Remove, prune       job.ID (removed), then deleted       goes on deleting
//
// A state that the store does not take (full disk) is tried again: what runs
// goes on, what has ended keeps its place, nothing new starts, and a verb
// answers ENGINE_UNAVAILABLE. A store that takes none until it is opened again
// (store.ErrBroken) ends Run: the next start opens it, or says what is wrong.
//
// # Who may submit what
//
// An ID names one job of one owner. The same ID with an equal spec (Digest) is
// the same job, for as long as it is kept, over restarts; another spec is an
// *ExistsError with both digests. Another owner hears that the ID is taken, and
// nothing of the job: it gets no job, no digest, no phase. The other verbs do
// not look at owners; their caller does.
//
// # Order and bounds
//
// Engine.schedule has the order: priority, age, room at the hosts. A job that
// was begun more often than the queue allows (100 times) without an end is
// Failed with the class RetryAfterReconcile. Records are bounded: the spec 256
// KiB, texts 512 bytes, bad extents 1024 of a job. Ended jobs are kept by number
// and age; the ID of one that has gone may be used again.
//
// # Two engines on one store
//
// One holds the lease. One that finds a state changed by another, or the lease
// in other hands, stops all that it runs, and Run returns FENCED. What its
// transfers still write is fenced at the disk (wire's epoch), not here.
//
// # What is not promised
//
// A transfer is started at least once, not exactly once. Counters may be some
// seconds old after a crash. Telemetry and notes may be lost; changes of state
// are told to a watch as long as the store's history holds them.
package job
