// Package cmdtest runs the real programs for tests: sites in directories of
// their own, daemons on ports that the kernel chooses, and disks to copy.
//
// A test that hangs is ended by the deadline of each command; a daemon that a
// test forgets is killed when the test ends, by its process and no other.
package cmdtest
