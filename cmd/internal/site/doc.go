// Package site is what one installation of haulback has on its machine: the
// state directory with the private key, the paired peers and the journals, and
// how it reaches its peers.
//
//	STATE/identity.key   the private key (0600), made when it is first needed
//	STATE/peers.toml     who is paired, written by "haulback peer add"
//	STATE/journal/       the journals of target disks (package mover)
//	STATE/lock           held while one of the files above is changed
//
// A daemon and command lines may share one state directory: files are replaced
// whole, and journals are locked per disk.
//
// Not promised: that a change of peers.toml reaches a running daemon by itself.
// Send it SIGHUP.
package site
