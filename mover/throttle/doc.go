// Package throttle bounds how fast passes read disks and fill the wire, while
// they run.
//
// # What is limited
//
//	Wire     bytes of Data frames, as they cross the network, after compression
//	Read     bytes read from disks. Each is hashed once, so this bounds the CPU
//	         too. The target's reading for its manifest and its reading back of
//	         what was written count like the source's reading.
//	Latency  how long the storage may take for 256 KiB before reading and
//	         writing back off
//
// There is a Throttle per job, which the caller keeps and may Set at any time,
// and one per daemon, which all jobs share. A job's limits hold at each end by
// itself: with Read at 50 MiB/s the source reads 50 MiB/s and the target reads
// 50 MiB/s, also where both are in one process. A daemon's limits hold for the
// sum of all that this daemon reads, sends and receives.
//
// A Gate stands before the disk and the link of one half of a session and asks
// them in turn:
//
//	read, write  --> Gate --> job --> daemon --> disk (backs off) --> I/O
//	send         --> Gate --> job --> daemon -----------------------> link
//
// # Shares
//
// Where jobs wait for one daemon, start-time fair queueing (Goyal, Vin, Cheng,
// 1996) decides: a request gets the tag max(virtual time, end of the job's
// request before), the least tag goes first, and a request of n bytes ends n /
// weight later. Weights are 1, 4 and 16. Nobody starves, no bandwidth is left
// unused while somebody waits, and a job that was idle begins at the virtual
// time of today, without credit.
//
// # Changes
//
// A change takes effect at once for who waits already: nobody sleeps past a
// Set, the minute at which a Window begins or ends, or a minute of a clock that
// was put forward. Windows go by the wall clock: a minute that a daylight saving
// jump leaves out does not come, one that comes twice counts twice.
//
// # Backing off
//
// Disk.Observe judges intervals of half a second. Is the 90th percentile above
// the target, the disk's rate falls to 0.7 of what it was or really moved, never
// below 1 MiB/s; is it below 0.8 of the target, the rate rises by 1/16 of the
// fastest seen; between the two it stays. A rate that no longer binds is
// dropped. The rate is the only thing that is turned: by Little's law the
// number of requests at the storage falls with it, and two knobs would need to
// know of each other.
//
// # Not promised
//
//   - Control frames and manifests, 0.05 % of what is compared, are not counted.
//   - A disk call that is in progress is not shortened. After a rest up to 50 ms
//     of a rate, and one request, go at once.
//   - Latency is that of this daemon's own requests. A storage that is slow only
//     for others is not seen.
package throttle
