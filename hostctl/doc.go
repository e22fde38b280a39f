// Package hostctl is the control plane: what a host that owns VMs has to offer,
// and (in its sub-packages) the failback sequence, the job engine and the
// simulated host.
//
//	Host      one vCenter, ESXi or volume cluster: Compute, Storage, and what
//	          it has besides (Registry, Tracker, Guard, Checker)
//	failback  the sequence that brings a VM home, its states and its journal
//	vsphere   Host for vCenter and ESXi
//	simvs     a simulated vSphere with true bytes
//	hosttest  the conformance suite of Host, and a host in memory
//
// It imports cbt and nothing else of haulback: disks are moved by a function
// that is handed in.
package hostctl
