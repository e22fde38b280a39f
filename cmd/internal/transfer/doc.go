// Package transfer makes one disk equal to another, or compares the two, as the
// command line and the jobs of a daemon do it: the same names of disks, the
// same checks, the same judge, the same words.
//
//	t, err := New(spec)             what can be checked without touching a disk
//	err = t.Pin(reach)              which peers have to be at the addresses
//	rep, err := t.Run(ctx, engine, out, every)
//	                                both sizes are asked for, then the passes
//
// A nil error of Run is a success, and the only one: every grain of the target
// is Verified (of a verify: equal), or was left out by change tracking as the
// Report says.
//
// Errors keep what exitcode.Of reads in their chain.
//
// Not promised: that two endpoints are two disks. What shows without opening
// them is refused by New, the rest by the locks of the drivers.
package transfer
