//go:build !purego

#include "textflag.h"

// A register holds one word of 16 states, so that an instruction does 16 compression
// functions' worth. Between blocks the first 8 words of a state are its chaining value.
//
//	          state v0 to v15                        message m0 to m15
//	16 lanes  Z0 to Z15                              Z16 to Z31
//	32 lanes  Z0 to Z15 (A), Z16 to Z31 (B)          memory at R10: 1 KiB of A, then of B
//
// A compression function is one chain of operations that wait for the one before; four
// quarter rounds side by side do not fill a processor that starts four operations a
// cycle and has the result two cycles later. With 32 lanes there are eight, and the
// registers are all taken.
//
// Section and table numbers are of the BLAKE3 paper.

// The initial chaining value, table 1.
DATA iv<>+0(SB)/4, $0x6a09e667
DATA iv<>+4(SB)/4, $0xbb67ae85
DATA iv<>+8(SB)/4, $0x3c6ef372
DATA iv<>+12(SB)/4, $0xa54ff53a
DATA iv<>+16(SB)/4, $0x510e527f
DATA iv<>+20(SB)/4, $0x9b05688c
DATA iv<>+24(SB)/4, $0x1f83d9ab
DATA iv<>+28(SB)/4, $0x5be0cd19
GLOBL iv<>(SB), RODATA|NOPTR, $32

// Where the even lanes of two registers are, then the odd ones.
DATA lanes<>+0(SB)/8, $0x0000000200000000
DATA lanes<>+8(SB)/8, $0x0000000600000004
DATA lanes<>+16(SB)/8, $0x0000000a00000008
DATA lanes<>+24(SB)/8, $0x0000000e0000000c
DATA lanes<>+32(SB)/8, $0x0000001200000010
DATA lanes<>+40(SB)/8, $0x0000001600000014
DATA lanes<>+48(SB)/8, $0x0000001a00000018
DATA lanes<>+56(SB)/8, $0x0000001e0000001c
DATA lanes<>+64(SB)/8, $0x0000000300000001
DATA lanes<>+72(SB)/8, $0x0000000700000005
DATA lanes<>+80(SB)/8, $0x0000000b00000009
DATA lanes<>+88(SB)/8, $0x0000000f0000000d
DATA lanes<>+96(SB)/8, $0x0000001300000011
DATA lanes<>+104(SB)/8, $0x0000001700000015
DATA lanes<>+112(SB)/8, $0x0000001b00000019
DATA lanes<>+120(SB)/8, $0x0000001f0000001d
GLOBL lanes<>(SB), RODATA|NOPTR, $128

// The flags of table 3 that occur here.
#define CHUNK_START 1
#define CHUNK_END 2
#define PARENT 4
#define ROOT 8

#define BLOCK_LEN 64
#define CHUNK_LEN 1024

#define ADD4(x0, x1, x2, x3, y0, y1, y2, y3) \
	VPADDD x0, y0, y0 \
	VPADDD x1, y1, y1 \
	VPADDD x2, y2, y2 \
	VPADDD x3, y3, y3

#define XOR4(x0, x1, x2, x3, y0, y1, y2, y3) \
	VPXORD x0, y0, y0 \
	VPXORD x1, y1, y1 \
	VPXORD x2, y2, y2 \
	VPXORD x3, y3, y3

#define ROR4(n, y0, y1, y2, y3) \
	VPRORD $n, y0, y0 \
	VPRORD $n, y1, y1 \
	VPRORD $n, y2, y2 \
	VPRORD $n, y3, y3

// Four of the quarter rounds G of section 2.2, which do not depend on each other:
// side by side, as each by itself is one chain of operations that wait for the one
// before. x and y are the message words of their two halves.
#define G4(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, x0, x1, x2, x3, y0, y1, y2, y3) \
	ADD4(x0, x1, x2, x3, a0, a1, a2, a3) \
	ADD4(b0, b1, b2, b3, a0, a1, a2, a3) \
	XOR4(a0, a1, a2, a3, d0, d1, d2, d3) \
	ROR4(16, d0, d1, d2, d3) \
	ADD4(d0, d1, d2, d3, c0, c1, c2, c3) \
	XOR4(c0, c1, c2, c3, b0, b1, b2, b3) \
	ROR4(12, b0, b1, b2, b3) \
	ADD4(y0, y1, y2, y3, a0, a1, a2, a3) \
	ADD4(b0, b1, b2, b3, a0, a1, a2, a3) \
	XOR4(a0, a1, a2, a3, d0, d1, d2, d3) \
	ROR4(8, d0, d1, d2, d3) \
	ADD4(d0, d1, d2, d3, c0, c1, c2, c3) \
	XOR4(c0, c1, c2, c3, b0, b1, b2, b3) \
	ROR4(7, b0, b1, b2, b3)

// A round of 16 lanes: the columns, then the diagonals.
#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	G4(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, m0, m2, m4, m6, m1, m3, m5, m7) \
	G4(Z0, Z1, Z2, Z3, Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14, m8, m10, m12, m14, m9, m11, m13, m15)

// MSG4 adds words of the message in memory.
#define MSG4(at, m0, m1, m2, m3, y0, y1, y2, y3) \
	VPADDD (at+m0*64)(R10), y0, y0 \
	VPADDD (at+m1*64)(R10), y1, y1 \
	VPADDD (at+m2*64)(R10), y2, y2 \
	VPADDD (at+m3*64)(R10), y3, y3

// HALF8 is the first or second half of eight quarter rounds: r and s are the distances
// of its rotations, b to d the registers of A and B to D those of B, named as in G4; a
// is Z0 to Z3 and Z16 to Z19 in all of them.
#define HALF8(r, s, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, B0, B1, B2, B3, C0, C1, C2, C3, D0, D1, D2, D3, m0, m1, m2, m3) \
	MSG4(0, m0, m1, m2, m3, Z0, Z1, Z2, Z3) \
	MSG4(1024, m0, m1, m2, m3, Z16, Z17, Z18, Z19) \
	ADD4(b0, b1, b2, b3, Z0, Z1, Z2, Z3) \
	ADD4(B0, B1, B2, B3, Z16, Z17, Z18, Z19) \
	XOR4(Z0, Z1, Z2, Z3, d0, d1, d2, d3) \
	XOR4(Z16, Z17, Z18, Z19, D0, D1, D2, D3) \
	ROR4(r, d0, d1, d2, d3) \
	ROR4(r, D0, D1, D2, D3) \
	ADD4(d0, d1, d2, d3, c0, c1, c2, c3) \
	ADD4(D0, D1, D2, D3, C0, C1, C2, C3) \
	XOR4(c0, c1, c2, c3, b0, b1, b2, b3) \
	XOR4(C0, C1, C2, C3, B0, B1, B2, B3) \
	ROR4(s, b0, b1, b2, b3) \
	ROR4(s, B0, B1, B2, B3)

#define COLUMNS(r, s, m0, m1, m2, m3) \
	HALF8(r, s, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31, m0, m1, m2, m3)

#define DIAGONALS(r, s, m0, m1, m2, m3) \
	HALF8(r, s, Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14, Z21, Z22, Z23, Z20, Z26, Z27, Z24, Z25, Z31, Z28, Z29, Z30, m0, m1, m2, m3)

// A round of 32 lanes.
#define ROUND2(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	COLUMNS(16, 12, m0, m2, m4, m6) \
	COLUMNS(8, 7, m1, m3, m5, m7) \
	DIAGONALS(16, 12, m8, m10, m12, m14) \
	DIAGONALS(8, 7, m9, m11, m13, m15)

// LOAD_IV broadcasts the first four words of the initial value, or all eight.
#define LOAD_IV4(v0, v1, v2, v3) \
	VPBROADCASTD iv<>+0(SB), v0 \
	VPBROADCASTD iv<>+4(SB), v1 \
	VPBROADCASTD iv<>+8(SB), v2 \
	VPBROADCASTD iv<>+12(SB), v3

#define LOAD_IV8(v0, v1, v2, v3, v4, v5, v6, v7) \
	LOAD_IV4(v0, v1, v2, v3) \
	VPBROADCASTD iv<>+16(SB), v4 \
	VPBROADCASTD iv<>+20(SB), v5 \
	VPBROADCASTD iv<>+24(SB), v6 \
	VPBROADCASTD iv<>+28(SB), v7

// STORE writes 16 chaining values, word by word.
#define STORE(at, v0, v1, v2, v3, v4, v5, v6, v7) \
	VMOVDQU32 v0, (at+0)(DI) \
	VMOVDQU32 v1, (at+64)(DI) \
	VMOVDQU32 v2, (at+128)(DI) \
	VMOVDQU32 v3, (at+192)(DI) \
	VMOVDQU32 v4, (at+256)(DI) \
	VMOVDQU32 v5, (at+320)(DI) \
	VMOVDQU32 v6, (at+384)(DI) \
	VMOVDQU32 v7, (at+448)(DI)

// compress is the compression function of 16 lanes for blocks of 64 bytes: chaining values in
// Z0 to Z7, counters (their low words; the high ones are 0) in Z12, flags in R8,
// message in Z16 to Z31. The new chaining values are in Z0 to Z7. It changes Z8 to
// Z15 and R9.
TEXT compress<>(SB), NOSPLIT, $0
	LOAD_IV4(Z8, Z9, Z10, Z11)
	VPXORD       Z13, Z13, Z13
	MOVL         $BLOCK_LEN, R9
	VPBROADCASTD R9, Z14
	VPBROADCASTD R8, Z15

	// The message words as each of the 7 rounds takes them: the permutation of
	// table 2, again and again.
	ROUND(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	ROUND(Z18, Z22, Z19, Z26, Z23, Z16, Z20, Z29, Z17, Z27, Z28, Z21, Z25, Z30, Z31, Z24)
	ROUND(Z19, Z20, Z26, Z28, Z29, Z18, Z23, Z30, Z22, Z21, Z25, Z16, Z27, Z31, Z24, Z17)
	ROUND(Z26, Z23, Z28, Z25, Z30, Z19, Z29, Z31, Z20, Z16, Z27, Z18, Z21, Z24, Z17, Z22)
	ROUND(Z28, Z29, Z25, Z27, Z31, Z26, Z30, Z24, Z23, Z18, Z21, Z19, Z16, Z17, Z22, Z20)
	ROUND(Z25, Z30, Z27, Z21, Z24, Z28, Z31, Z17, Z29, Z19, Z16, Z26, Z18, Z22, Z20, Z23)
	ROUND(Z27, Z31, Z21, Z16, Z17, Z25, Z24, Z22, Z30, Z26, Z18, Z28, Z19, Z20, Z23, Z29)

	XOR4(Z8, Z9, Z10, Z11, Z0, Z1, Z2, Z3)
	XOR4(Z12, Z13, Z14, Z15, Z4, Z5, Z6, Z7)
	RET

// compress2 is the same of 32 lanes: chaining values in Z0 to Z7 and Z16 to Z23, counters
// in Z12 and Z28, flags in R8, messages at R10.
TEXT compress2<>(SB), NOSPLIT, $0
	LOAD_IV4(Z8, Z9, Z10, Z11)
	LOAD_IV4(Z24, Z25, Z26, Z27)
	VPXORD       Z13, Z13, Z13
	VPXORD       Z29, Z29, Z29
	MOVL         $BLOCK_LEN, R9
	VPBROADCASTD R9, Z14
	VPBROADCASTD R9, Z30
	VPBROADCASTD R8, Z15
	VPBROADCASTD R8, Z31

	ROUND2(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
	ROUND2(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
	ROUND2(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1)
	ROUND2(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6)
	ROUND2(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4)
	ROUND2(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7)
	ROUND2(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13)

	XOR4(Z8, Z9, Z10, Z11, Z0, Z1, Z2, Z3)
	XOR4(Z12, Z13, Z14, Z15, Z4, Z5, Z6, Z7)
	XOR4(Z24, Z25, Z26, Z27, Z16, Z17, Z18, Z19)
	XOR4(Z28, Z29, Z30, Z31, Z20, Z21, Z22, Z23)
	RET

// QUARTER sets z, whose lowest quarter is x, to 16 bytes each of chunks k, k+4, k+8 and
// k+12. K1 to K3 let through the other quarters. Such loads take no shuffle.
#define QUARTER(at, k, x, z) \
	VMOVDQU32       (at+k*CHUNK_LEN)(SI), x \
	VBROADCASTI32X4 (at+(k+4)*CHUNK_LEN)(SI), K1, z \
	VBROADCASTI32X4 (at+(k+8)*CHUNK_LEN)(SI), K2, z \
	VBROADCASTI32X4 (at+(k+12)*CHUNK_LEN)(SI), K3, z

// WORDS puts four words of the next block of 16 chunks, those at from, into the message:
// quarter q of a register has chunks 4q to 4q+3, once the 4 x 4 words in each quarter
// are transposed.
#define WORDS(from, to, x0, x1, x2, x3, z0, z1, z2, z3, t0, t1, t2, t3) \
	QUARTER(from, 0, x0, z0) \
	QUARTER(from, 1, x1, z1) \
	QUARTER(from, 2, x2, z2) \
	QUARTER(from, 3, x3, z3) \
	VPUNPCKLDQ  z1, z0, t0 \
	VPUNPCKHDQ  z1, z0, t1 \
	VPUNPCKLDQ  z3, z2, t2 \
	VPUNPCKHDQ  z3, z2, t3 \
	VPUNPCKLQDQ t2, t0, z0 \
	VPUNPCKHQDQ t2, t0, z1 \
	VPUNPCKLQDQ t3, t1, z2 \
	VPUNPCKHQDQ t3, t1, z3 \
	VMOVDQA32   z0, (to+0)(R10) \
	VMOVDQA32   z1, (to+64)(R10) \
	VMOVDQA32   z2, (to+128)(R10) \
	VMOVDQA32   z3, (to+192)(R10)

#define WORDS_LOW(from, to) \
	WORDS(from, to, X8, X9, X10, X11, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)

#define WORDS_HIGH(from, to) \
	WORDS(from, to, X24, X25, X26, X27, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)

// AHEAD asks for what 8 chunks have two blocks further on. No prefetcher of a processor
// follows 32 streams; without this, data of the third cache comes at half the rate.
// Behind the last chunk that is up to 128 bytes beyond the input: a prefetch reads
// nothing that a program can see, and never faults.
#define AHEAD(k) \
	PREFETCHT0 ((k+0)*CHUNK_LEN+2*BLOCK_LEN)(SI) \
	PREFETCHT0 ((k+1)*CHUNK_LEN+2*BLOCK_LEN)(SI) \
	PREFETCHT0 ((k+2)*CHUNK_LEN+2*BLOCK_LEN)(SI) \
	PREFETCHT0 ((k+3)*CHUNK_LEN+2*BLOCK_LEN)(SI) \
	PREFETCHT0 ((k+4)*CHUNK_LEN+2*BLOCK_LEN)(SI) \
	PREFETCHT0 ((k+5)*CHUNK_LEN+2*BLOCK_LEN)(SI) \
	PREFETCHT0 ((k+6)*CHUNK_LEN+2*BLOCK_LEN)(SI) \
	PREFETCHT0 ((k+7)*CHUNK_LEN+2*BLOCK_LEN)(SI)

// MESSAGE sets R10 to 2 KiB of the frame that begin with a line of the cache: every
// load of a message word would cross one otherwise.
#define MESSAGE \
	LEAQ 63(SP), R10 \
	ANDQ $-64, R10

// func chunks(p *byte, counters *[2][16]uint32, out *[2]values)
TEXT ·chunks(SB), 0, $2112-24
	MOVQ p+0(FP), SI
	MOVQ counters+8(FP), DX
	MOVQ out+16(FP), DI
	MESSAGE
	MOVL  $0x00f0, AX
	KMOVW AX, K1
	MOVL  $0x0f00, AX
	KMOVW AX, K2
	MOVL  $0xf000, AX
	KMOVW AX, K3
	LOAD_IV8(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	LOAD_IV8(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	MOVL $CHUNK_START, R8
	MOVL $(CHUNK_LEN/BLOCK_LEN), CX

block:
	WORDS_LOW(0, 0)
	WORDS_HIGH(16, 256)
	WORDS_LOW(32, 512)
	WORDS_HIGH(48, 768)
	WORDS_LOW(16*CHUNK_LEN+0, 1024+0)
	WORDS_HIGH(16*CHUNK_LEN+16, 1024+256)
	WORDS_LOW(16*CHUNK_LEN+32, 1024+512)
	WORDS_HIGH(16*CHUNK_LEN+48, 1024+768)
	AHEAD(0)
	AHEAD(8)
	AHEAD(16)
	AHEAD(24)
	VMOVDQU32 (DX), Z12
	VMOVDQU32 64(DX), Z28
	CALL      compress2<>(SB)
	ADDQ      $BLOCK_LEN, SI
	XORL      R8, R8
	DECL      CX
	JZ        done
	CMPL      CX, $1
	JNE       block
	MOVL      $CHUNK_END, R8
	JMP       block

done:
	STORE(0, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	STORE(512, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	VZEROUPPER
	RET

// JOIN takes word w of 32 children from memory apart: that of the left ones into l, of
// the right ones into r.
#define JOIN(at, w, l, r) \
	VMOVDQU32 (at+w*64)(SI), l \
	VMOVDQA32 l, r \
	VPERMT2D  (at+512+w*64)(SI), Z8, l \
	VPERMT2D  (at+512+w*64)(SI), Z9, r

// JOIN2 does so into the message.
#define JOIN2(at, w, l, r) \
	JOIN(at, w, l, r) \
	VMOVDQA32 l, (at+w*64)(R10) \
	VMOVDQA32 r, (at+512+w*64)(R10)

// func parents2(in *[4]values, out *[2]values)
TEXT ·parents2(SB), 0, $2112-16
	MOVQ in+0(FP), SI
	MOVQ out+8(FP), DI
	MESSAGE
	MOVL      $PARENT, R8
	VMOVDQU32 lanes<>+0(SB), Z8
	VMOVDQU32 lanes<>+64(SB), Z9
	JOIN2(0, 0, Z16, Z24)
	JOIN2(0, 1, Z17, Z25)
	JOIN2(0, 2, Z18, Z26)
	JOIN2(0, 3, Z19, Z27)
	JOIN2(0, 4, Z20, Z28)
	JOIN2(0, 5, Z21, Z29)
	JOIN2(0, 6, Z22, Z30)
	JOIN2(0, 7, Z23, Z31)
	JOIN2(1024, 0, Z16, Z24)
	JOIN2(1024, 1, Z17, Z25)
	JOIN2(1024, 2, Z18, Z26)
	JOIN2(1024, 3, Z19, Z27)
	JOIN2(1024, 4, Z20, Z28)
	JOIN2(1024, 5, Z21, Z29)
	JOIN2(1024, 6, Z22, Z30)
	JOIN2(1024, 7, Z23, Z31)
	LOAD_IV8(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	LOAD_IV8(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	VPXORD Z12, Z12, Z12
	VPXORD Z28, Z28, Z28
	CALL   compress2<>(SB)
	STORE(0, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	STORE(512, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	VZEROUPPER
	RET

// func parents(in *[2]values, flags uint32, out *values)
TEXT ·parents(SB), NOSPLIT, $0-24
	MOVQ      in+0(FP), SI
	MOVL      flags+8(FP), R8
	MOVQ      out+16(FP), DI
	VMOVDQU32 lanes<>+0(SB), Z8
	VMOVDQU32 lanes<>+64(SB), Z9
	JOIN(0, 0, Z16, Z24)
	JOIN(0, 1, Z17, Z25)
	JOIN(0, 2, Z18, Z26)
	JOIN(0, 3, Z19, Z27)
	JOIN(0, 4, Z20, Z28)
	JOIN(0, 5, Z21, Z29)
	JOIN(0, 6, Z22, Z30)
	JOIN(0, 7, Z23, Z31)
	LOAD_IV8(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	VPXORD Z12, Z12, Z12
	CALL   compress<>(SB)
	STORE(0, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	VZEROUPPER
	RET

#define SPLIT(v, l, r) \
	VPERMD v, Z8, l \
	VPERMD v, Z9, r

// func root(in *values, out *[32]byte)
TEXT ·root(SB), NOSPLIT, $0-16
	MOVQ in+0(FP), SI
	MOVQ out+8(FP), DI
	VMOVDQU32 (SI), Z0
	VMOVDQU32 64(SI), Z1
	VMOVDQU32 128(SI), Z2
	VMOVDQU32 192(SI), Z3
	VMOVDQU32 256(SI), Z4
	VMOVDQU32 320(SI), Z5
	VMOVDQU32 384(SI), Z6
	VMOVDQU32 448(SI), Z7
	MOVL $PARENT, R8
	MOVL $4, CX

level:
	// 16, 8, 4 and then 2 children are in the first lanes. What the lanes behind them
	// have goes to lanes behind those of the parents, and so never matters. The upper
	// half of the indices is of no effect: VPERMD takes their lowest 4 bits.
	VMOVDQU32 lanes<>+0(SB), Z8
	VMOVDQU32 lanes<>+64(SB), Z9
	SPLIT(Z0, Z16, Z24)
	SPLIT(Z1, Z17, Z25)
	SPLIT(Z2, Z18, Z26)
	SPLIT(Z3, Z19, Z27)
	SPLIT(Z4, Z20, Z28)
	SPLIT(Z5, Z21, Z29)
	SPLIT(Z6, Z22, Z30)
	SPLIT(Z7, Z23, Z31)
	LOAD_IV8(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	VPXORD Z12, Z12, Z12
	CALL compress<>(SB)
	DECL CX
	JZ   write
	CMPL CX, $1
	JNE  level
	MOVL $(PARENT|ROOT), R8
	JMP  level

write:
	VMOVD X0, (DI)
	VMOVD X1, 4(DI)
	VMOVD X2, 8(DI)
	VMOVD X3, 12(DI)
	VMOVD X4, 16(DI)
	VMOVD X5, 20(DI)
	VMOVD X6, 24(DI)
	VMOVD X7, 28(DI)
	VZEROUPPER
	RET
