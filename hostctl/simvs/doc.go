// Package simvs is a simulated vSphere whose disks have bytes: govmomi's simulator
// with true flat files, snapshots, reverts, change tracking, privileges, sessions
// and locks on top. A Server is one vCenter or one bare ESXi, served over TLS on
// loopback, for any client of the vSphere API.
//
//	s, err := simvs.New(simvs.Config{Dir: dir})      // URL, CAPEM, Thumbprint, User, Password
//	ref, err := s.AddVM(&simvs.VM{Name: "web", Disks: []simvs.Disk{{Image: "web.raw"}}, On: true})
//	g, err := s.Guest("web")                         // writes as the guest does
//	s.Switch(func(sw *simvs.Switches) { sw.UnderReport = 2 })
//
// On disk a VM is a directory of its datastore:
//
//	web.vmx                 the configuration; RegisterVM reads it, and New all that it finds
//	web.vmdk                descriptor of the first disk, as ESXi writes it
//	web-flat.vmdk           its bytes
//	web-000001.vmdk, -flat  the leaf after a snapshot: all bytes of the disk, not only what changed
//	.lck-..., web.vmx.lck   while the VM is on: the lock files of ESXi on NFS
//
// A snapshot freezes the files and puts a copy of each (a reflink where the file
// system can) on top; removing it gives the files on top the names of those below,
// as a consolidation does; a revert makes a new copy and takes the old
// configuration back, marks in the extra configuration too. A file that somebody
// else has locked (the drivers of package vddk do) is not merged, reverted or
// powered on.
//
// Change tracking compares contents at 64 KiB: whoever writes to the files is
// seen, also who did not ask the simulator. Change IDs outlive their snapshots.
//
// Not simulated: relocation, clones, memory snapshots, export, delta disks. Other
// objects answer as govmomi's simulator does.
package simvs
