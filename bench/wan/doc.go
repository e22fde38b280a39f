// Package wan emulates a long link on one machine: two network namespaces, a
// TUN device in each, and a loop between them that gives packets a rate, a
// queue, a delay and losses. Kernel and daemons do not know it from a network,
// so TCP and QUIC are measured alike, and no kernel module for it is needed
// (netem is not everywhere).
//
//	side A                       one loop, virtual time                     side B
//	process -> kernel -> TUN -> queue -> line (rate) -> loss -> delay -> TUN -> kernel -> process
//	                     TUN <- delay <- loss <- line (rate) <- queue <- TUN
//
// A packet that arrives is given its time of delivery at once: the line is free
// at some moment, sending takes size / rate, the way takes the delay. One whose
// wait would be longer than the queue is dropped (tail drop); a seeded random
// number drops others behind the line. What is counted are IP packets of at
// most 1500 bytes; a link of 1 Gbit/s carries 1 Gbit of them in a second, and
// thus about 949 Mbit of TCP's payload.
//
// The kernel hands over and takes back TCP segments and UDP datagrams in bunches
// of up to 64 KiB (TSO, USO), as a network card does; that is a tenth of the
// work. Rate, queue and loss are of each packet of the bunch: one that has lost
// packets is delivered in parts. A bunch arrives when its last packet does.
//
// The loop works every 200 us at most, so that it wakes seldom: delays are late by
// up to that, and by what the scheduler adds when all cores are busy.
//
// # Rules
//
// Only root may make namespaces; New says so with ErrRoot. Namespaces and devices
// have no name and belong to the process: the kernel removes them when it ends,
// however it ends. Congestion control is a matter of the socket: the sysctl that
// sets its default is refused in a namespace of this kind.
//
// # Not promised
//
// No reordering, no duplicates, no jitter, no bursts of losses, IPv4 only. A seed
// draws the same losses for the same packets, but packets come as schedulers
// want them.
package wan
