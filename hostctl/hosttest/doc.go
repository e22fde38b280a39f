// Package hosttest is the conformance suite of hostctl.Host, and a host in
// memory.
//
// TestHost says in code what the comments of package hostctl say in words. Every
// host passes it: the one in memory, the simulated vSphere behind package vsphere,
// and whatever comes. What a host does not have (a nil part, a Kit without disk
// contents) is skipped, with the reason.
package hosttest
