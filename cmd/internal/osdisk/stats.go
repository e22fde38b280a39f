package osdisk

import (
	"os"
	"path/filepath"

	"github.com/haulback/haulback/hostctl"
)

// Stats are what is known of volumes without asking a server.
type Stats struct {
	Calls map[hostctl.Call]uint64 // of servers, by profile
	Rows  int                     // of the ledger: volumes and clones that processes hold, or have left
	Left  int                     // of them what the last sweep could not give back
}

// Stats tells what is known now. The ledger is not locked for it: somebody may
// hold it, and a row more or less is no matter.
func (d *Disks) Stats() Stats {
	s := Stats{Calls: d.calls.All(), Left: int(d.left.Load())}
	names, _ := os.ReadDir(d.dir) // absent: nothing was ever held
	for _, e := range names {
		if filepath.Ext(e.Name()) == ".json" {
			s.Rows++
		}
	}
	return s
}
