// Package bolt keeps a store, its queue and its leases in one file of one
// machine.
package bolt
