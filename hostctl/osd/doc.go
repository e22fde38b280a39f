// Package osd speaks OpenStorage (libopenstorage SDK, Portworx): volumes as disks,
// and as the storage of workloads.
//
//	Client   one endpoint, called a profile: typed calls with deadlines, errors by
//	         class, and a look before anything that changes is asked for again
//	Keeper   what this process holds of volumes: attachments, and the clones that
//	         snapshots are read through. Durable before it is made, so that what a
//	         killed process leaves is found and taken away
//	Host     hostctl.Host of workloads: ordered volumes, and what powers them
//	osdtest  a server with bytes and with every misbehaviour that was seen
//
// The rules of data safety, and where each is kept:
//
//  1. flush before a snapshot: who writes flushes at Close, Protect wants volumes
//     that are detached
//  2. close before Detach; only what this process attached is detached
//  3. a path is verified after it was opened, and never kept over a Detach
//  4. a target is claimed with O_EXCL
//  5. a snapshot is never attached: a clone of it is, and opened for reading
//  6. SnapshotCreate is not idempotent: enumerate by our labels first
//  7. Create and Clone are idempotent by name: ours are random, and looked at after
//  8. Internal means anything: see Class
//  9. a server's restore is polled, and never believed
//  10. success with an empty id or path is none
//  11. labels go on snapshots and marker volumes, never on a live volume
//
// What a Client repeats: calls that change nothing, three times; calls that change
// something only after a look has shown that they did not. Deadlines are
// Config.Timeout and Config.Long for each try.
//
// What a Keeper believes of a device: the path is one that Config allows, and so is
// the end of its links; it is a block device and no partition, of the volume's size
// to the byte, and no loop device that had a file before; the server says the same
// of the volume afterwards. What it cannot see: a server that attaches another
// volume of the same size than the one it was asked for, and users of a device in
// another PID namespace. A user who writes claims the device with O_EXCL.
//
// # Tests on a real server
//
// TestServer runs on osdtest, or on the server that these name:
//
//	HAULBACK_OSD_ENDPOINT    unix:///PATH or HOST:PORT, of this machine's node
//	HAULBACK_OSD_TOKEN_FILE  of a user that may make volumes; without it: a guest
//	HAULBACK_OSD_CA          PEM; without it a loopback HOST:PORT has no TLS
//
// It makes volumes of 16 MiB (1 GiB on a real server) whose names begin with haulback-test- and 16 hex
// digits, and deletes them. Attaching wants root.
package osd
