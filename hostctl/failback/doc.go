// Package failback brings a VM home: it powers VMs, takes snapshots and has
// disks moved, step by step, so that a crash at any place ends resumed,
// completed or taken back.
package failback
