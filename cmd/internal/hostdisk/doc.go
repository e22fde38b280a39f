// Package hostdisk finds the disks of a host's VMs for an export of role "host".
//
//	EXPORT/VM/SNAPSHOT/[datastore] folder/disk.vmdk
//	EXPORT/WORKLOAD/--/osd:VOLUME
//	EXPORT/WORKLOAD/SNAPSHOT/osd:VOLUME@SNAPSHOT
//
//	VM        the host's handle of the VM: 1 to 64 of A-Z a-z 0-9 _ . -
//	SNAPSHOT  that of a snapshot, likewise, or -- for the disk as it is now
//	the rest  the disk's file as the host writes it; of an OpenStorage volume its id
//	          and that of the snapshot of it, each 1 to 64 of A-Z a-z 0-9 _ . -
//
// A peer says such names. Nothing in one becomes a path by itself: the datastore
// is looked up in a table that the site has written, and the rest leads from there
// downwards, through no link, to a descriptor. With VMware's library instead the
// name completes a URI that the site has begun; a volume is one of the profile that
// the site names.
//
// A disk of a snapshot is never opened for writing.
//
// Not promised: that a datastore's directory holds against somebody who can write
// to it. What was found is looked at again after it was opened, and refused when it
// is another; who can swap it twice in between has the datastore anyway.
package hostdisk
