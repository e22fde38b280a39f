// Package vsphere is hostctl.Host for a vCenter and for a bare ESXi, over
// govmomi.
//
// An action goes the same way always (action.go):
//
//	observe      the end state is there: done, whoever made it
//	look up      the task that an earlier try has stored, or one of the same kind
//	             that runs on the VM: wait for it, observe
//	start        and hand its reference to Op.Started before waiting
//	wait, observe
//
// What a task says of its end is not believed where the end can be seen. A lost
// reply, a lost session and a lost server are therefore the same case: look, and
// act only if it is not done.
//
// Sessions (session.go) are made when they are needed, so a host that is away
// keeps nobody from starting. One that has ended is renewed once and the
// observation, never the action, is repeated by itself. A host is known by its
// certificate: by its thumbprint, by an authority of a file, or by the system's.
// There is no way around that.
//
// What a host answers is not believed either: no text of it reaches an error, a
// log or a VM's fields with control characters, and the areas of its change
// tracking are put in order or refused (areas.go, trust.go).
//
// # What is not promised
//
//   - A revert takes the VM's configuration back too, marks included: set them
//     again after Restore.
//   - Change IDs carry the time and the size of their point besides the host's
//     own text. They are for Changed of this package only.
//   - A snapshot is as of a power cut: guests are not made quiet, because that
//     can stall them and, on Windows, makes a second snapshot.
//   - Hold keeps a VM where it is on a vCenter only. A bare ESXi moves nothing.
package vsphere
