// Package movertest is the test kit of package mover: the conformance suite of
// its disks, and disks that misbehave on purpose.
//
//	TestDisk         the contract of mover.Disk and its optional abilities as
//	                 tests; every driver runs it in about 27 lines
//	Memory           a sparse disk in memory with every ability
//	Faulty           a decorator with planned faults: "the 3rd WriteAt returns
//	                 EIO twice"
//	Power            the mains of a simulated machine; a cut hits all at once
//	Crashable        a disk that loses what was not flushed
//	CrashableState   a directory of journals that loses what was not synced
//
// Everything is deterministic: a fault is counted, not drawn, and what a power
// cut leaves is drawn from the generator that the test hands in. Nothing here
// starts a goroutine, opens a file or sleeps, so all of it runs inside a
// testing/synctest bubble.
//
// # A power cut
//
//	power := movertest.NewPower()
//	dev := movertest.NewCrashable(power, 4<<20)
//	state := movertest.NewCrashableState(power)
//	power.CutAt(17)                       // or call power.Crash at any moment
//	run(dev, state)                       // ends with ErrPowerCut
//	power.Crash(rand.New(rand.NewPCG(seed, 0)), 50)
//	run(dev, state)                       // opens both again and resumes
//
// A durable action is a write, a zeroing, a flush, and each change of the state
// directory; Power.Actions counts them, so a test can cut at the first, the
// second, the third ... until none is left. The action at which the power goes
// may still leave its traces: its bytes are among those that the cut draws.
//
// # Not promised
//
// The disks here model order and loss, not speed. A cut draws each unsynced
// 512-byte sector on its own, which is nastier than most devices; file
// metadata survives in order, as a journaling file system keeps it.
package movertest
