// Package site is what one installation of haulback has on its machine: the
// state directory with the private key, the paired peers and the journals, and
// how it reaches its peers.
//
//	STATE/identity.key   the private key (0600), made when it is first needed
//	STATE/identity.key.next  the key that it is about to change to
//	STATE/identity.key.old   the one before the last change
//	STATE/peers.toml     who is paired, written by "haulback peer"
//	STATE/invitations.json  hashes of pairing codes that are open (0600)
//	STATE/audit/         the record of who was let in (package hostctl/audit)
//	STATE/journal/       the journals of target disks (package mover)
//	STATE/lock           held while one of the files above is changed
//
// A daemon and command lines may share one state directory: files are replaced
// whole, and journals are locked per disk.
package site
