// Package archive is the stream that haulback dump writes and haulback restore
// reads: one disk, whole or what has changed of it, in disk order, in one
// direction, without a question ever being asked back. A backup server can pipe
// it, store it and give it back years later.
//
// This page is the specification, byte by byte. The package opens no disk and
// no file; it imports package cbt, BLAKE3 and LZ4.
//
//	+-------+--------+------+---------+-----------------------------+---------+
//	| magic | header | maps | samples | data and zeros in map order | trailer | end
//	+-------+--------+------+---------+-----------------------------+---------+
//
// # Words
//
// A grain is 64 KiB, counted from the start of the disk; the last one may be
// shorter. A batch is 16 grains. Digests, roots and extents are those of package
// cbt: a digest is the BLAKE3-256 of the bytes of one grain.
//
// # Conventions
//
// Integers are big-endian. A text is a u16 length, at most 1024, and so many
// bytes of UTF-8 that are all printable. Bytes called zero are zero, and a
// reader refuses others. Every offset and every length is a multiple of a
// grain, except that an extent may end where the disk ends.
//
// # Magic
//
// 8 bytes: 89 48 42 41 0d 0a 1a 0a. They change when something treats the
// stream as text.
//
// # Frames
//
// All that follows is frames:
//
//	 0   1  type
//	 1   3  zero
//	 4   4  n, length of the head in bytes, at most 128 KiB
//	 8   4  p, length of the payload in bytes, at most 1 MiB; 0 except in Data
//	12   n  head
//	12+n 32 sum
//	44+n p  payload
//
// The sum is BLAKE3 in derive-key mode, context "haulback 2026 archive v1",
// over the sum of the frame before (32 zero bytes for the first) and bytes 0 to
// 12+n of this frame. It stands before the payload, so that nothing is allocated
// or expanded on the word of bytes that were not checked, and it chains: a frame
// that is missing, repeated, moved, or taken from another stream does not fit.
// The payload is covered by digests in the head. The sum of the trailer is
// therefore a digest of the whole stream.
//
// There is no key: the sums find damage and mistakes, and not an enemy who can
// write a whole new stream. Sign or encrypt the stream where it is stored.
//
// Types are append only. A reader refuses a type that it does not know, and a
// writer that needs a new one raises the version.
//
//	1 Header   once, first
//	2 Map      what the stream carries
//	3 Sampled  which of that change tracking calls unchanged; kind changed only
//	4 Data     bytes
//	5 Zero     bytes that are all zero
//	6 Trailer  once, last; then the stream ends
//
// # Header
//
//	 0  2  version, 1
//	 2  1  kind: 1 full, 2 changed
//	 3  1  zero
//	 4  4  grain in bytes, 65536
//	 8  8  size of the disk in bytes, 1 to 2^50
//	16  8  when the dump began, seconds since 1970 UTC
//	24 16  run: names this stream; random (a UUID)
//	40 32  base root: the root of what the disk held when the changes began, or
//	       zero when it is not known
//	72 16  base run: the stream that this one builds on, or zero
//	88  8  extents in the Map frames
//	96  8  bytes in these extents
//	104 8  extents in the Sampled frames
//	112 8  bytes in these extents
//	120    text: identity of the source disk
//	       text: how changes were tracked, as in "bitmap:since-monday", or empty
//	       text: the point of change tracking that the changes are since, or empty
//	       text: why the stream has this kind
//	       text: program and version
//	       u8 number of labels, at most 64, and for each: text key, text value
//
// Both bases of a full stream are zero; of a changed one at least one is not.
//
// # Map and Sampled
//
// The head is 1 to 4096 extents of offset u64 and length u64 each, in disk
// order, disjoint and not touching, also from frame to frame. There are as many
// as the header says, and no other frame comes between. A stream may have none:
// then it carries nothing.
//
// In a full stream, what the map leaves out reads as zeros. In a changed
// stream, what the map leaves out is as it was in the base, as far as change
// tracking knows; the samples lie within the map, are carried like all else, and
// must be equal in the base: where one is not, change tracking has lost changes,
// or the disk is not the base.
//
// # Data and Zero
//
// Together they cover the map exactly, in disk order. One lies within one extent
// of the map, and Data also within one batch.
//
// Data, whose payload has p bytes:
//
//	 0  8  offset
//	 8  4  length of the bytes, at most 1 MiB
//	12  1  encoding: 1 raw, p is the length; 2 an LZ4 block, p is smaller
//	13  3  zero
//	16 32  BLAKE3 of the payload when it is an LZ4 block, else zero
//	48 32  digest of the first grain of the bytes, and so on for each
//
// Zero:
//
//	0  8  offset
//	8  8  length
//
// # Trailer
//
//	 0  8  number of Data frames
//	 8  8  number of Zero frames
//	16  8  bytes in Data frames, expanded
//	24  8  bytes in Zero frames
//	32  8  bytes of payloads
//	40 32  root
//
// The root is cbt.Root over all grains of the disk. In a full stream what the map
// leaves out folds as zeros, and the root identifies the contents of the disk; in
// a changed one it folds as skipped grains.
//
// # Limits
//
// At most 1048576 extents of a map and as many samples, which take 16 MiB of
// memory each; a reader needs one batch and one head beside that, whatever the
// size of the disk. It reports an error before it hands out bytes that are not
// what was dumped, and no end before it has seen the trailer, the root, and that
// nothing follows.
//
// # Not promised
//
// A stream is not resumed: cut, it is written or read again from its start. A
// disk that is written to while it is dumped gives a stream of what each grain
// was at some moment.
package archive
