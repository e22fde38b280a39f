// Package vddk opens virtual disks for reading and writing: raw files, block
// devices and VMDKs with flat extents. The package is named after VMware's kit
// because that will be its hardest tenant.
//
//	/var/lib/vm/a.img        a raw file, or the block device at that path
//	file:///var/lib/vm/a.img a raw file
//	block:///dev/vg0/a       a block device
//	vmdk:///mnt/ds/vm/a.vmdk a VMDK, by its descriptor
//
// and what nbd and vddk URIs name. A main program may [Register] the driver of one
// more scheme before it opens the first disk, as with database/sql: haulback and
// haulbackd do so for osd. What is behind a descriptor of the caller's is opened by
// [OpenAt].
//
// [Open] returns a [Disk]: a [*File], a [*Device] or a [*VMDK]. They have the
// methods that package mover asks for (Disk, WritableDisk, Zeroer, Mapper,
// ColdReader, Checker) and pass movertest.TestDisk. What holds for all:
//
//   - The path is resolved once. From then on only the descriptor counts, so a
//     symbolic link or a device name that is reused later changes nothing.
//   - A disk opened for writing is held alone: an OFD lock on the file or node,
//     and O_EXCL on a device, which the kernel also refuses while the device is
//     mounted, swapped on, or part of a volume group, RAID or device mapper
//     table. Disks opened for reading share. The kernel frees the hold when the
//     process dies and keeps it while the process is stopped.
//   - Bytes, never sectors: any offset and length within Size is served.
//   - An I/O error is returned, once and as it came (the errno is reachable by
//     errors.Is). Nothing is retried here but EINTR and short transfers.
//   - After a failed Flush every later WriteAt, Zero and Flush fails too: the
//     kernel reports a lost write once and then says OK (fsyncgate).
//   - ReadAt, WriteAt and ReadCold allocate nothing.
//
// Large aligned writes go past the page cache, which is several times faster
// for a whole disk; small ones go through it and their write-back is started
// early, so that Flush finds little to do.
//
// A VMDK is read and written through a [*File] for each of its extents. Its
// descriptor may come from a site that is not trusted: it is read strictly, and
// leads to regular files of its own directory only. Monolithic and split flat
// disks and those of VMFS are opened. Everything sparse, and every snapshot, is
// refused by the name of its type and with a way out; so is a writer when a
// host has the disk, or when a snapshot depends on it.
//
// # Not promised
//
// The locks bind one host, and only programs that ask for them: a second host
// writing to a shared LUN or file, or a program that opens the device without
// O_EXCL, is not noticed. ReadCold reads past this kernel's cache of the disk;
// a cache below it (a loop device's backing file, a hypervisor, a controller)
// may still answer. Where holes are is the word of the file system; block
// devices say "all data". ESXi and Workstation do not take this kernel's locks:
// their own lock files are looked for at open and at every Check, which finds a
// VM that was powered on meanwhile and does not prevent it. A snapshot in
// another directory than its base is not found.
package vddk
