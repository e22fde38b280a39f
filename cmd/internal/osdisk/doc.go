// Package osdisk opens volumes of OpenStorage as disks: it is the driver of osd://
// URIs, on top of the profiles of a configuration and of a ledger of what this
// process holds.
//
//	osd://PROFILE/VOLUME               the volume as it is now
//	osd://PROFILE/VOLUME?snapshot=ID   a snapshot of it, never written
//
// A disk opened for reading asks the server what it is and nothing else: who
// probes a volume attaches nothing and clones nothing. Its first read attaches the
// volume, or a clone of the snapshot, as osd.Keeper does, and its Close takes that
// back. A disk opened for writing is attached at once, claimed with O_EXCL, looked
// at again at the server, and looked at once more before it is let go: what was
// attached somewhere else meanwhile is no volume that was written.
//
// Its identity is that of the volume, whatever profile, path or device led to it.
//
// Run takes away what processes that died have left. Programs that only run once
// do so before their first open.
//
// Not promised: that nobody else attaches the volume between two uses. OpenStorage
// knows no owner of that kind.
package osdisk
