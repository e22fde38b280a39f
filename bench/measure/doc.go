// Package measure runs the processes of one measured run in a room of their
// own, and reads what they used: wall time, CPU time and peak memory of each
// end, and the bytes between both.
//
// A [Room] is a network namespace with nothing in it but lo, and a cgroup for
// each end. The namespace belongs to one locked thread: what that thread starts
// is in it, it needs no name and no mount, and it is gone with its last process.
// Each end's processes may use the CPUs of that end only.
//
// What it reads, and where:
//
//	CPU   cpu.stat of the end's cgroup (v2), or cpuacct.usage (v1); where neither can be
//	      made, the sum over the processes' /proc/PID/stat, which misses what a process used
//	      after it was last looked at
//	wire  the receive counter of lo: every packet with its headers, both directions
//	RSS   VmHWM in /proc/PID/status, looked at every 20 ms; the sum over an end's processes
//
// Namespaces and cgroups need root. A room without them says so in
// [Room.Lacks]; it never pretends a number.
package measure
