// Package vixtest builds the project's own libvixDiskLib for tests, from the C
// sources in vddk/vix/testdata, and drives it: which file is which disk, who may
// log in, what fails when, how slow it is. It also builds the worker that uses
// the library. Nothing of VMware's is in it.
//
// The library dies with a message when it is misused: a handle used by two
// threads at once, an open or close on another thread than InitEx, a flush with
// requests under way, and more (see the sources). Tests that run against it
// therefore also prove what is not called.
//
// Not promised: how VMware's library behaves where its documents say nothing.
package vixtest
