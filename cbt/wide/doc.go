// Package wide hashes whole grains by BLAKE3, 32 chunks at once, with AVX-512.
//
// It stands beside github.com/zeebo/blake3, which hashes 8 chunks at once with AVX2,
// because hashing is the largest share of a core's time at both ends of a copy. One core
// of an AMD EPYC with AVX-512 (Zen 5; Go 1.26, GiB/s):
//
//	                                      library    wide
//	one grain of 64 KiB that stays cached     3.2    12.7
//	grains of 64 KiB, 32 MiB in turn          3.2     9.3
//	their pieces of 4 KiB, 32 MiB in turn     1.6     9.8
//
// The third cache there has 32 MiB: what comes from memory alone was not measured.
//
// Only a grain of exactly 64 KiB, and the 16 pieces of one, go this way. All other
// lengths (the last grain of a disk), other processors, and builds with the tag purego
// are the library's; the digests are the same. [Name] tells which of the two it is.
//
// # How
//
// A chunk of BLAKE3 is 1 KiB, and chunks do not depend on each other. A register of 512
// bits has one word of the state of 16 chunks, and all 32 registers have the states of
// 32:
//
//	grain      chunk 0 to 31          chunk 32 to 63
//	               |                      |              chunks, 16 blocks each
//	values     [8][16] [8][16]        [8][16] [8][16]
//	                \______\____________/______/            parents2
//	               [8][16]     [8][16]                    32 parents
//	                    \_______/                         parents
//	                     [8][16]                          16 parents, or 16 digests of pieces
//	                        |                             root: 8, 4, 2, 1
//	                     digest
//
// The assembler is written from the paper (BLAKE3, one function, fast everywhere; O'Connor
// and others, 2020). It reads the input at any alignment, nothing beside it, and keeps
// nothing between calls. The processor is asked for AVX-512 F, VL, DQ and BW, and the
// system whether it keeps the registers; then one grain is hashed both ways, and where
// they differ this package is not used.
//
// # What is not promised
//
// The time it takes depends on the length alone, but no secret is hashed here: there is
// no keyed mode. On processors that lower their clock for AVX-512 (Intel before 2020)
// nobody has measured it. The last four levels of a tree use few of their lanes, a
// thirteenth of the time of a grain.
package wide
