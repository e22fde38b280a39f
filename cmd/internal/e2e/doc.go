// Package e2e holds tests of the real programs on real disks, and no code: a
// command line and a daemon copy over the loopback, to files and to loop
// devices, and are killed, stopped, filled up and kept out.
//
//	go test -v ./cmd/internal/e2e                     # 100 kills of each side
//	go test -v ./cmd/internal/e2e -run Kill -kills 1000
//	go test -v ./cmd/internal/e2e -run Stop -long     # longer than every limit
//
// After every kill the same command, or the same process, has to bring the copy
// to its end: exit code 0, Verified, and no difference for cmp, which shares no
// code with haulback. Nothing may say Verified of a target that differs at any
// time in between. What a crash costs is counted in bytes.
//
// What needs root (loop devices, small file systems) says so when it is skipped.
package e2e
