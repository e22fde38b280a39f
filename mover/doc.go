// Package mover brings one disk from a source to a target, moving only what
// differs, and proves that both are equal.
//
// # Two halves and a link
//
// A pass has a source half, which reads, and a target half, which writes. They
// speak over a wire.Link: QUIC or TLS between daemons, a pipe when both are in
// one process. Either side may have dialled.
//
//	source half                                        target half
//	 0 plan       ---- Plan, if a hint narrows it -->  1 plan
//	                      Manifest, Holes
//	 1 manifests  <---------------------------------  3 tell
//	      |                                            2 read (past the cache), hash
//	      |               Refine, Parts             refine: read again
//	 2 work: read, hash,      Data                     1 plan
//	   compare, compress  --------------------------> 4 receive: check, write
//	      |                   Same, Diff               5 flush: disk, journal, ack
//	 3 sames              -------------------------->  6 verify: read back
//	                          Ack, Redo                     |
//	 4 control            <---------------------------------+
//	 5 finish             --- Finish(root) ---------->  compare roots, VERIFIED
//	                      <-- Verified(root, epoch) --
//
// The target streams digests of what it has, batch by batch in disk order; the
// source reads the same batch, and answers each one exactly once: "equal", or
// Data with the grains that differ. There is no round trip per batch. The
// files source_session.go and target_session.go open with their stages.
//
// Where the wire is the bottleneck the source sends of a grain that differs only
// the pieces of 4 KiB that do. It asks for short sums of them, parks the batch,
// and goes on; the answer makes work of it again (refine.go).
//
// # Settled
//
// A batch is settled when the target knows that it equals the source's: it was
// read in this session, past the cache, and its digests are the source's; or
// it was written, flushed, and then read back. Settled batches without a gap
// from the start of the disk make the low-water mark. Both halves fold the
// digests below it into a root as it rises, so that neither keeps a manifest:
// memory is bounded by the window of unsettled batches, whatever the size of
// the disk.
//
// When the link is lost, the next one begins at the mark. That is right for as
// long as the target process lives and holds the disk exclusively; a process
// that starts anew knows nothing about the disk and reads all of it again.
// What was written before is then found equal and not sent again.
//
// # Hints
//
// A copy may be narrowed by what tracks the changes of the source: the disk
// itself (Tracker), or a host (HintFunc). The answer becomes a cbt.Plan: its
// grains, a sample of the others, and both ends of the disk. Both halves leave
// out the rest, count it, and fold it into the root as skipped; the journal's
// proof has the counts. A sampled grain that differs drops the hint for the
// run. Report.Equal is true only when nothing was left out.
//
// Who asks for a copy may know more than the source's daemon, and hands it the
// hint (Remote.Hint). A hint that counts from an earlier pass of the run says so
// (Job.Base); the target's journal has to say that this pass proved this disk, and
// that nobody wrote since, or everything is compared.
//
// # Streams
//
// Dump writes a disk as a stream of package archive, Restore reads one. A restore
// is a copy: the stream is the disk of a source half that keeps what is not
// settled, so that everything said here of a target holds. The last batch is
// given to that half only when the trailer was checked and the stream has ended.
// A changed stream is a plan from a hint, and goes only onto a disk whose journal
// (or whose root, read or vouched for) says that it is the base.
//
// # Memory, cores and depth
//
// A target reads past the cache, and a device wants several calls at once: eight
// goroutines read a disk, 1 MiB each, four write, and four read back what was
// written. They cost nothing while they wait. How many hash at once is GOMAXPROCS, for all
// disks together: no queue of ours stands beside the scheduler's. What bounds the
// bytes is the pool (block.go): each session has one buffer of its own, the rest
// are lent, for one read, or for one write and the wait for a writer, out of a store
// that all share. Nobody who waits for a peer or a limit keeps such a buffer, so
// that sessions cannot wait for each other's. One whose disk hangs keeps at most what
// its readers, writers and streams have in hand.
//
// # Limits
//
// A half of a session asks a throttle.Gate before it reads a piece of 256 KiB,
// or at a target a batch,
// sends a piece of a frame, takes a frame from the link, and writes to a disk
// that backs off; nothing limited costs three atomic loads. Who waits counts as
// in a disk call, so the watchdogs of both ends know that it lives. The end that
// dialed tells the other the limits of the job, before the disk is opened and
// whenever they change, and each end keeps to the lower of its daemon's and the
// job's. Each end does so by itself: with both halves in one process, each reads
// at the job's rate, and the engine's rate is for their sum.
//
// # What is durable, and when
//
// In this order (facts: reliability section 3.3):
//
//  1. The journal says OPEN with a new epoch before the session reads, and
//     Inconsistent before the first byte of the disk is overwritten.
//  2. A checkpoint takes the set of batches whose writes have returned, flushes
//     the disk, appends the set to the journal, flushes the journal, and only
//     then acknowledges. Writes that return during the flush belong to the next.
//  3. A failed flush ends the session. Nothing since the last good one counts;
//     the disk is opened anew under a new epoch, its cache is not believed, not
//     even its map of holes, and the differences are found and sent again. The
//     second failure in a row poisons the disk.
//  4. What reads back wrong is forgotten in the journal and asked for again,
//     three times, then the disk is poisoned.
//  5. VERIFIED(root, epoch) is written after a last flush, when both roots are
//     equal and at least one grain was really compared.
//
// The journal is a hint for accounting and the record of the disk's state. The
// proof is always the reading.
//
//	Clean --mark--> Inconsistent --finish--> Copied --> Verified
//	                 ^   |                                 |
//	                 |   +--> Poisoned                     |
//	                 +---------------- mark ---------------+
//
// # Fences
//
// One session writes a disk. The driver holds it exclusively (O_EXCL, OFD
// lock), a new link of the same run waits until the writes of the old one have
// returned, another run is refused while a link is alive, and an owner whose
// epoch was passed by another is refused for ever. Every record on the wire is
// bound to disk, pass, epoch and place.
//
// # What a disk has to do
//
// Disk and WritableDisk are the interfaces that drivers implement; Zeroer,
// Mapper, ColdReader, Checker, Ender and Tracker are abilities they may have.
// movertest.TestDisk is the contract as a test. An error with a method Retryable
// that returns true may pass: reads and writes are made again for 0.4 s, a Flush
// never, and then the disk is opened anew.
//
// # Not promised
//
//   - A device that lies about Flush after Verified, and memory that changes
//     bits at the source before they are hashed, are not noticed.
//   - A source that is written to while it is read gives a target that is equal
//     to what was read of each grain at some moment of the pass, proved grain by
//     grain. Only a frozen source gives a copy of one moment; freezing it is the
//     caller's.
//   - Two hosts that open one shared device are kept apart by the storage or by
//     nobody.
//   - A ColdReader whose Coldness is "cached" or "server" proves what a cache
//     holds. The report says so.
//   - Which pieces of a grain are sent is the choice of sums that are cut. The
//     proof is not: it is the digest of the whole grain, read back.
//   - Grains that a plan leaves out are not proved. The report says how many.
package mover
