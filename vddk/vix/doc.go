// Package vix binds VMware's libvixDiskLib, which the customer installs: it is
// opened with dlopen, and every name in it is looked up by hand. The package is
// for one program, the worker haulback-vddk; a crash or a hang of the library
// ends that program and nothing else.
//
// It builds with cgo on linux/amd64, the one platform that the library has.
// Elsewhere [Load] returns [ErrUnsupported].
//
// # Who calls what
//
//	main thread      InitEx, PrepareForAccess, EndAccess, ConnectEx, Disconnect,
//	                 Open, Close, QueryAllocatedBlocks, Exit: the goroutine that
//	                 called Load and then runs [Library.Run]
//	I/O thread       one for each disk, made by pthread_create after InitEx:
//	                 ReadAsync, WriteAsync, Wait, Flush
//	library threads  completions and log lines
//
// Two threads never are inside the library with the same handle. A question for
// allocated blocks waits until the requests of its disk have completed.
//
// # One request's way
//
//  1. [Disk.ReadAt] and [Disk.WriteAt] cut a request into pieces of at most
//     Config.MaxRequest and take a slot for each: page-aligned memory outside of
//     Go's heap, and an integer by which the library's callback names it.
//  2. The I/O thread hands the piece to ReadAsync or WriteAsync.
//  3. The callback looks the slot up and wakes the caller, who copies the data:
//     the one copy on the way.
//
// Bytes are in multiples of 512 everywhere; what is not is refused. Nothing is
// allocated per request.
//
// # Not promised
//
// A call of the library cannot be cancelled. A context counts while a call waits
// for its turn; after that [Library.Stuck] tells which call is late, and killing
// the process is all that helps.
package vix
