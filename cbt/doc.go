// Package cbt says what differs: which bytes of a disk may have changed, which
// must be read, and what they hash to. It is pure data. It encodes and decodes,
// and never opens a disk or a connection; it imports the standard library and
// BLAKE3 (of its own, too: package wide) and nothing else.
//
// # Words
//
// An [Extent] is a byte range [Off, Off+Len) of one disk. A [Map] is a set of
// bytes kept as sorted, disjoint, merged extents. A grain is 64 KiB, the unit of
// hashing; only the last grain of a disk may be shorter. A batch is 16 grains,
// the unit of travelling. A [Bitmap] has one bit per grain. A [Digest] is the
// BLAKE3-256 of one grain, a [Manifest] the digests of a disk at one point, and
// a [Root] one digest over all of them. A [Plan] is what a pass will read.
//
// # The map algebra
//
// Offsets are bytes; nothing here rounds except AlignGrains and Grains, whose
// names say so.
//
//	                    0                                           size
//	a                   |    [========)        [========)              |
//	b                   |          [======)       [=)        [====)    |
//	a.Union(b)          |    [============)    [========)    [====)    |
//	a.Intersect(b)      |          [==)           [=)                  |
//	a.Subtract(b)       |    [====)            [=)   [==)              |
//	a.Complement(size)  |[==)          [======)          [============)|
//	a.Clip(b[0])        |          [==)                                |
//
// Touching extents merge, so a set of bytes has exactly one Map: Equal compares
// extents one by one, and equal maps have equal encodings.
//
// # The cut
//
// Extents meet the disk in grains counted from offset 0, never from the start
// of the extent:
//
//	grain         | 0     | 1     | 2     | 3     | 4     | 5 |
//	map                [=====) [=)                   [======)
//	AlignGrains    [==============)                [=========)
//	Grains         [======)[======)                [======)[=)
//
// The grains of a disk are numbered 0 to Grains(size)-1. All but the last are
// GrainSize long; the last, here 5, ends where the disk ends. A grain that two
// extents touch, here 1, is yielded once. Batch k is grains 16k to 16k+15.
//
// # The root
//
// Root is BLAKE3 in derive-key mode with the context
// "haulback 2026 manifest root v1" over
//
//	size u64 | grain u64 | digest of grain 0 | digest of grain 1 | ...
//
// with big-endian integers. A run of grains that a plan left out, however long,
// stands there as the 32 bytes that BLAKE3 derives from nothing in the context
// "haulback 2026 skipped grains v1", and the u64 number of the grains: such a
// root tells what was compared and where, not the contents of the disk.
//
// Without such runs it names contents and nothing else, neither disk
// nor pass, so the roots of two disks, or of one disk at two points, may be
// compared. A digest in a manifest is likewise not bound to its position or to
// a run; whoever sends one to a peer adds that binding.
//
// # Encodings
//
// Each value has one encoding and each encoding one value: a decoder refuses
// what its own AppendTo would not have written, so that encodings may be hashed
// and compared. No proper prefix of an encoding decodes, nor does one with
// bytes after it. A decoder allocates in proportion to the input or to the disk
// whose size the caller names, never to a number found in the input. Integers
// are minimal unsigned LEB128 ("uvarint") unless a width is given; a number
// that has a least value is stored less that value.
//
//	Map       count | gap | len-1 | { gap-1 | len-1 } ...
//	          gap: from the end of the extent before, at first from 0
//	Bitmap    grains | 00 | clear | { set-1 | clear-1 } ...    as runs, or
//	          grains | 01 | bytes, lowest bit first            where shorter
//	Manifest  "HBMF" | 01 | size u64 | digests | root
//
// # Rules
//
//   - Numbers from a host or a peer go through [FromAreas], a Parse function or
//     [Extent.Check] before anything else here sees them.
//   - A host's answer is a hint. [PlanHint] turns a bad one into a full plan and
//     says why in Reason; it has no way to read less because of an error.
//   - Hash a grain only after [IsZero] said no: the zero test costs an eighth to a
//     quarter of the hash, and zero grains have [ZeroDigest].
//   - Nothing here is safe for concurrent use while it is changed. Values that
//     nobody changes may be read by many.
//   - A Map copied by assignment shares its extents with the original. Add and
//     Remove need a Map of one's own, as every method that returns one gives.
//
// # What is not promised
//
// A Plan does not say that what it leaves out is equal. Grains that only a hint
// declared unchanged were never compared, and sampling finds a lie only with
// some probability: a run of wrong grains as long as two strides is always
// found, a single one with one in Sampling.Every. A pass over such a plan is
// "sampled", never simply "verified".
//
// A Root cannot be stored half-way; to resume, fold the digests again.
//
// A Manifest holds all digests in memory, 512 MiB for 1 TiB. The engine streams
// digests and folds a Root; a Manifest is for what was stored.
package cbt
