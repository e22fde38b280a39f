// Package storetest is the conformance suite of store.Store, store.Queue and
// store.Lease. Every implementation passes it.
//
// The clock is the test's: a Kit tells how to move it, so that timeouts are
// proved and not waited for. An implementation whose clock cannot be moved may
// sleep in Pass.
//
// It does not test what happens to damaged media; that differs.
package storetest
